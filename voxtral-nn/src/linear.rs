//! Matrix products and lookups with weights in any precision.

use burn_tensor::{DType, Int, Tensor, TensorData};

use crate::{Backend, Loader, NnError, Weight};

/// `y = x Wᵀ + b`, with `W` of shape `[out, in]` as stored.
#[derive(Debug, Clone)]
pub struct Linear<B: Backend> {
    weight: Weight<B>,
    bias: Option<Tensor<B, 1>>,
}

impl<B: Backend> Linear<B> {
    /// Loads `{name}.weight` of shape `[output, input]`, and `{name}.bias` of shape `[output]`
    /// if `bias` is set.
    pub fn load(
        loader: &Loader<'_, B>,
        name: &str,
        [output, input]: [usize; 2],
        bias: bool,
    ) -> Result<Self, NnError> {
        let weight = loader.matrix(&format!("{name}.weight"), [output, input])?;
        let bias = if bias {
            Some(loader.float(&format!("{name}.bias"), [output])?)
        } else {
            None
        };
        Ok(Self { weight, bias })
    }

    /// How the matrix is stored, see [`Weight::dtype`].
    pub fn dtype(&self) -> DType {
        self.weight.dtype()
    }

    /// `[batch, time, in]` → `[batch, time, out]`.
    pub fn forward(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        let [batch, time, input] = x.dims();
        let y = B::project(
            x.reshape([batch * time, input]),
            &self.weight,
            self.bias.as_ref(),
        );
        let output = y.dims()[1];
        y.reshape([batch, time, output])
    }
}

/// A table of one row per token, which can also serve as the head (tied weights).
#[derive(Debug, Clone)]
pub struct Embedding<B: Backend> {
    weight: Weight<B>,
}

impl<B: Backend> Embedding<B> {
    /// Loads `{name}.weight` of shape `[vocab, width]`.
    pub fn load(loader: &Loader<'_, B>, name: &str, shape: [usize; 2]) -> Result<Self, NnError> {
        Ok(Self {
            weight: loader.matrix(&format!("{name}.weight"), shape)?,
        })
    }

    /// The rows of these ids, `[1, ids, width]` in `f32`.
    ///
    /// # Errors
    /// An id beyond the table.
    pub fn forward(&self, ids: &[u32]) -> Result<Tensor<B, 3>, NnError> {
        let vocab_size = self.weight.dims()[0];
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= vocab_size) {
            return Err(NnError::TokenOutOfRange { id, vocab_size });
        }
        let rows = match &self.weight {
            Weight::Float(table) => {
                let indices: Vec<i64> = ids.iter().map(|&id| i64::from(id)).collect();
                let data = TensorData::new(indices, [ids.len()]);
                let indices = Tensor::<B, 1, Int>::from_data(data, &table.device());
                table.clone().select(0, indices).cast(DType::F32)
            }
            Weight::Quantized(table) => B::look_up(table, ids),
        };
        Ok(rows.unsqueeze())
    }

    /// The table as a linear layer without bias: logits of tied weights.
    pub fn as_linear(&self) -> Linear<B> {
        Linear {
            weight: self.weight.clone(),
            bias: None,
        }
    }
}
