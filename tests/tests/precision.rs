//! What quantization changes at the sizes of published models.

use burn_flex::Flex;
use burn_tensor::{Tensor, TensorData};
use serde_json::Value;
use voxtral_checkpoint::{Checkpoint, Form, Quant, RandomModel, RandomOptions, random_checkpoint};
use voxtral_decoder::Decoder;
use voxtral_encoder::Encoder;
use voxtral_nn::{Loader, Precision};

use crate::random::Random;

/// Positions of the prompt.
const POSITIONS: usize = 20;

/// A layer of the encoder and one of the decoder as wide as those of Mini 3B, random weights.
fn one_layer_of_each() -> (tempfile::TempDir, Checkpoint) {
    let params = include_str!("../../voxtral-checkpoint/src/presets/mini.json");
    let mut params: Value = serde_json::from_str(params).unwrap();
    params["n_layers"] = 1.into();
    params["vocab_size"] = 2048.into();
    params["multimodal"]["whisper_model_args"]["encoder_args"]["n_layers"] = 1.into();
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("params.json");
    std::fs::write(&model, params.to_string()).unwrap();
    let options = RandomOptions {
        form: Form::Native,
        ..RandomOptions::new(RandomModel::File(model))
    };
    let out = folder.path().join("model");
    random_checkpoint(&options, &out, &mut |_| std::ops::ControlFlow::Continue(())).unwrap();
    let checkpoint = Checkpoint::open(out).unwrap();
    (folder, checkpoint)
}

fn noise(shape: [usize; 3], seed: u64) -> Tensor<Flex, 3> {
    let mut random = Random::new(seed);
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| random.unit()).collect();
    Tensor::from_data(TensorData::new(values, shape), &Default::default())
}

/// Outputs of the encoder, of the decoder and of the head.
fn outputs(checkpoint: &Checkpoint, precision: Precision) -> [Vec<f32>; 3] {
    let loader = Loader::<Flex>::new(checkpoint, Default::default(), precision);
    let config = checkpoint.config();
    let encoder = Encoder::load(&loader, &config.encoder).unwrap();
    let frames = encoder.window_frames().unwrap();
    let encoded = encoder.forward(noise([1, config.encoder.num_mel_bins, frames], 1));
    let decoder = Decoder::load(&loader, &config.decoder).unwrap();
    let prompt = noise([1, POSITIONS, config.decoder.hidden_size], 2);
    let mut cache = decoder.new_cache(POSITIONS + 1);
    let hidden = decoder.forward(prompt, &mut cache).unwrap();
    // A step of its own too: a few rows are multiplied in another way.
    let next = noise([1, 1, config.decoder.hidden_size], 3);
    let next = decoder.forward(next, &mut cache).unwrap();
    let hidden = Tensor::cat(vec![hidden, next], 1);
    let logits = decoder.logits(hidden.clone(), POSITIONS + 1).unwrap();
    let values = |x: Tensor<Flex, 3>| x.into_data().into_vec().unwrap();
    [values(encoded.unwrap()), values(hidden), logits]
}

/// The cosine of the angle between two vectors.
fn cosine(x: &[f32], y: &[f32]) -> f64 {
    let dot = |x: &[f32], y: &[f32]| -> f64 {
        let products = x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y));
        products.sum()
    };
    dot(x, y) / (dot(x, x) * dot(y, y)).sqrt()
}

/// Of layers of full width, every position's output is near that in `f32`.
#[test]
fn quantized_layers_of_full_width_are_near_those_in_f32() {
    let (_folder, checkpoint) = one_layer_of_each();
    let exact = outputs(&checkpoint, Precision::F32);
    let config = checkpoint.config();
    let widths = [
        config.encoder.hidden_size,
        config.decoder.hidden_size,
        config.decoder.vocab_size,
    ];
    for (precision, least) in [
        (Precision::Auto, 0.9999),
        (Precision::Quantized(Quant::Q8), 0.9995),
        // A product is off by 7 % of its root mean square. Three in a row, of which two are
        // multiplied with each other, are off by 12 to 18 %: 0.98 for a whole decoder layer.
        (Precision::Quantized(Quant::Q4), 0.98),
    ] {
        let found = outputs(&checkpoint, precision);
        let names = ["encoder", "decoder", "logits"];
        for (((name, found), exact), width) in names.iter().zip(&found).zip(&exact).zip(widths) {
            let pairs = found.chunks(width).zip(exact.chunks(width));
            let worst = pairs.map(|(x, y)| cosine(x, y)).fold(1.0, f64::min);
            println!("{precision:?} {name}: cosine {worst:.6} at least");
            assert!(
                worst >= least,
                "{precision:?} {name}: {worst}, expected {least}"
            );
        }
    }
}
