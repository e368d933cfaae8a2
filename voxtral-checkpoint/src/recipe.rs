//! Which tensors are quantized, and how finely: the one table.
//!
//! The matrices of linear layers take nearly all the memory and are read for every token, so they
//! are quantized as asked. The embedding and the head take one look-up and the choice of the token;
//! an error there is seen at once, so they keep 8 bits. Norms, biases, convolutions and the table
//! of positions are small and stay as they are, and so do the small matrices that condition norms
//! on the delay, whose output is a gain.

use voxtral_kernels::Quant;

use crate::names::{Module, Part, TensorSpec};

/// What a module's weight is to quantization.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Quantized as asked.
    Linear,
    /// Quantized in 8 bits at least.
    Vocabulary,
    /// Never quantized.
    Float,
}

const fn kind(module: Module) -> Kind {
    match module {
        Module::EncoderQuery
        | Module::EncoderKey
        | Module::EncoderValue
        | Module::EncoderOutput
        | Module::EncoderGate
        | Module::EncoderUp
        | Module::EncoderDown
        | Module::Projector1
        | Module::Projector2
        | Module::Query
        | Module::Key
        | Module::Value
        | Module::Output
        | Module::Gate
        | Module::Up
        | Module::Down => Kind::Linear,
        Module::Embedding | Module::Head => Kind::Vocabulary,
        Module::EncoderConv1
        | Module::EncoderConv2
        | Module::EncoderPositions
        | Module::EncoderAttentionNorm
        | Module::EncoderMlpNorm
        | Module::EncoderNorm
        | Module::AttentionNorm
        | Module::MlpNorm
        | Module::AdaDown
        | Module::AdaUp
        | Module::Norm => Kind::Float,
    }
}

/// Bytes of a weight that is not quantized, as models are published.
const FLOAT: usize = 2;

impl TensorSpec {
    /// The format of this tensor in a checkpoint that is quantized as `asked`; `None` for those
    /// that stay floats.
    ///
    /// Panels hold whole units of 16 rows and 64 inputs. A matrix that is so small that they would
    /// take no less than 16 bits for each of its weights stays what it is; no matrix of a published
    /// model is.
    pub fn quantized_as(&self, asked: Quant) -> Option<Quant> {
        let (Part::Weight, &[rows, inputs]) = (self.part, self.shape()) else {
            return None;
        };
        let quant = match kind(self.module) {
            Kind::Linear => asked,
            Kind::Vocabulary => Quant::Q8,
            Kind::Float => return None,
        };
        let floats = rows.checked_mul(inputs)?.checked_mul(FLOAT)?;
        (quant.bytes(rows, inputs)? < floats).then_some(quant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Preset, tensors};

    /// Of the published models every matrix but those of the delay is quantized, and nothing else.
    #[test]
    fn what_is_quantized() {
        for preset in [Preset::Mini, Preset::Small, Preset::Realtime] {
            for spec in tensors(&preset.config().unwrap()) {
                let name = spec.name();
                let matrix = spec.shape().len() == 2
                    && name != "encoder.positions"
                    && !name.contains("ada_norm");
                for asked in Quant::ALL {
                    let expected = match &*name {
                        "decoder.embedding.weight" | "decoder.head.weight" => Some(Quant::Q8),
                        _ => matrix.then_some(asked),
                    };
                    assert_eq!(spec.quantized_as(asked), expected, "{preset:?} {name}");
                }
            }
        }
    }
}
