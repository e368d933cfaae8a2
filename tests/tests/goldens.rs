//! Reads what `tools/goldens` wrote, and compares with it.

use std::path::PathBuf;

use safetensors::{Dtype, SafeTensors};

/// Encoder, projector and logits: `f32` sums in another order differ by about 1e-6 of the largest
/// value; a wrong constant by far more than this.
pub(crate) const STAGE: f32 = 1e-4;

/// Log-probabilities: two logits and a sum of exponentials.
pub(crate) const LOGPROB: f32 = 1e-3;

/// A file or folder of test data.
pub(crate) fn data(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("data")
        .join(path)
}

/// A file of named tensors.
pub(crate) struct Golden(Vec<u8>);

impl Golden {
    /// The goldens of a model folder.
    pub(crate) fn of(model: &str) -> Self {
        let path = data("models").join(model).join("golden.safetensors");
        Self(std::fs::read(path).expect("the golden file is in the repository"))
    }

    /// Whether there is such a tensor.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.parse().tensor(name).is_ok()
    }

    pub(crate) fn shape(&self, name: &str) -> Vec<usize> {
        self.parse().tensor(name).unwrap().shape().to_vec()
    }

    /// `[1, rows, width]` of a stage whose rows were all kept.
    pub(crate) fn shape_of_rows(&self, stage: &str) -> [usize; 3] {
        let shape = self.shape(stage);
        [1, shape[0], shape[1]]
    }

    pub(crate) fn floats(&self, name: &str) -> Vec<f32> {
        let file = self.parse();
        let tensor = file.tensor(name).unwrap();
        assert_eq!(tensor.dtype(), Dtype::F32, "{name}");
        let chunks = tensor.data().as_chunks::<4>().0;
        chunks.iter().map(|raw| f32::from_le_bytes(*raw)).collect()
    }

    pub(crate) fn integers(&self, name: &str) -> Vec<i64> {
        let file = self.parse();
        let tensor = file.tensor(name).unwrap();
        assert_eq!(tensor.dtype(), Dtype::I64, "{name}");
        let chunks = tensor.data().as_chunks::<8>().0;
        chunks.iter().map(|raw| i64::from_le_bytes(*raw)).collect()
    }

    fn parse(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.0).unwrap()
    }
}

/// Asserts that two arrays agree within `tolerance` of the largest expected value, and names the
/// stage and its error if not.
#[track_caller]
pub(crate) fn assert_close(stage: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "{stage}: number of values");
    let largest = expected.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
    let mut worst = (0, 0.0_f32);
    for (i, (x, y)) in found.iter().zip(expected).enumerate() {
        let difference = (x - y).abs();
        // NaN must not pass.
        if difference.is_nan() || difference > worst.1 {
            worst = (i, difference);
        }
    }
    let (i, difference) = worst;
    assert!(
        difference <= tolerance * largest,
        "{stage}: differs by {difference:e} at {i} ({} instead of {}), largest value {largest}",
        found[i],
        expected[i],
    );
}
