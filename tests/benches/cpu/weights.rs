//! The checkpoint's matrices by themselves, to be multiplied with one by one.

use anyhow::Context;
use burn_tensor::{DType, Tensor, TensorData};
use voxtral_checkpoint::{Checkpoint, TensorSpec, tensors};
use voxtral_nn::{Loader, Weight};

use crate::common::{B, model::Source, sound::noise};

/// Where they come from, and how they are held.
pub(crate) struct Weights<'c> {
    checkpoint: &'c Checkpoint,
    source: &'c Source,
    specs: Vec<TensorSpec>,
}

/// A matrix with its bias.
pub(crate) struct Matrix {
    /// The canonical name without the layer.
    pub(crate) name: String,
    pub(crate) weight: Weight<B>,
    pub(crate) bias: Option<Tensor<B, 1>>,
}

impl<'c> Weights<'c> {
    pub(crate) fn new(source: &'c Source, checkpoint: &'c Checkpoint) -> Self {
        Self {
            checkpoint,
            source,
            specs: tensors(checkpoint.config()),
        }
    }

    pub(crate) fn loader(&self) -> Loader<'c, B> {
        Loader::new(self.checkpoint, Default::default(), self.source.precision())
    }

    /// The matrices whose canonical names have this beginning and this part, as the layers hold
    /// them, but for those of the delay's norms.
    pub(crate) fn matrices(&self, prefix: &str, part: &str) -> anyhow::Result<Vec<Matrix>> {
        let loader = self.loader();
        let mut found = Vec::new();
        for spec in &self.specs {
            let name = spec.name();
            let &[outputs, inputs] = spec.shape() else {
                continue;
            };
            let there = name.starts_with(prefix) && name.contains(part);
            let Some(module) = name.strip_suffix(".weight") else {
                continue;
            };
            if !there || name.contains(".ada_norm.") {
                continue;
            }
            let bias = format!("{module}.bias");
            let bias = match self.specs.iter().any(|spec| spec.name() == bias) {
                true => Some(loader.float(&bias, [outputs])?),
                false => None,
            };
            found.push(Matrix {
                name: module.to_owned(),
                weight: loader.matrix(&name, [outputs, inputs])?,
                bias,
            });
        }
        Ok(found)
    }

    /// The head, which may be the table of the embedding.
    pub(crate) fn head(&self) -> anyhow::Result<Matrix> {
        let tied = self.checkpoint.config().decoder.tied_head;
        let name = if tied {
            "decoder.embedding"
        } else {
            "decoder.head"
        };
        let found = self.matrices(name, "")?.pop();
        let mut head = found.context("the checkpoint has no head")?;
        head.name = "decoder.head".to_owned();
        Ok(head)
    }
}

impl Matrix {
    /// Rows of noise to multiply with.
    pub(crate) fn input(&self, rows: usize) -> Tensor<B, 2> {
        let [_, inputs] = self.weight.dims();
        random([rows, inputs], 11)
    }
}

/// A tensor of noise that nothing else owns.
pub(crate) fn random<const D: usize>(shape: [usize; D], seed: u64) -> Tensor<B, D> {
    let data = TensorData::new(noise(shape.iter().product(), seed), shape);
    Tensor::from_data(data, (&Default::default(), DType::F32))
}

/// The same values in memory that nothing else owns: what works in place must not copy.
pub(crate) fn alone<const D: usize>(values: &TensorData) -> Tensor<B, D> {
    Tensor::from_data(values.clone(), (&Default::default(), DType::F32))
}

/// Values for [`alone`].
pub(crate) fn values<const D: usize>(shape: [usize; D]) -> TensorData {
    TensorData::new(noise(shape.iter().product(), 12), shape)
}
