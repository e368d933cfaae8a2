//! The feed-forward block.

use burn_tensor::Tensor;
use voxtral_checkpoint::config;

use crate::{Backend, Linear, Loader, NnError};

/// Two shapes of feed-forward block.
#[derive(Debug, Clone)]
pub enum Mlp<B: Backend> {
    /// `gelu(x Wᵤᵀ + bᵤ) W_dᵀ + b_d`.
    Gelu {
        /// To the inner width.
        up: Linear<B>,
        /// Back to the model's width.
        down: Linear<B>,
    },
    /// `(silu(x W_gᵀ) ⊙ (x Wᵤᵀ)) W_dᵀ + b_d` (Shazeer, 2020, arXiv:2002.05202).
    SwiGlu {
        /// The gate, to the inner width.
        gate: Linear<B>,
        /// To the inner width.
        up: Linear<B>,
        /// Back to the model's width.
        down: Linear<B>,
    },
}

impl<B: Backend> Mlp<B> {
    /// Loads the block's matrices from `{name}.up`, `.down` and, for SwiGLU, `.gate`.
    ///
    /// `bias` says whether the projections have biases: of a GELU block both, of a SwiGLU block
    /// the last alone.
    pub fn load(
        loader: &Loader<'_, B>,
        name: &str,
        kind: config::Mlp,
        [width, inner]: [usize; 2],
        bias: bool,
    ) -> Result<Self, NnError> {
        let down = Linear::load(loader, &format!("{name}.down"), [width, inner], bias)?;
        let into = |part: &str, bias| {
            Linear::load(loader, &format!("{name}.{part}"), [inner, width], bias)
        };
        Ok(match kind {
            config::Mlp::Gelu => Self::Gelu {
                up: into("up", bias)?,
                down,
            },
            config::Mlp::SwiGlu => Self::SwiGlu {
                gate: into("gate", false)?,
                up: into("up", false)?,
                down,
            },
        })
    }

    /// `[batch, time, width]` → the same shape.
    pub fn forward(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        match self {
            Self::Gelu { up, down } => down.forward(B::gelu_erf(up.forward(x))),
            Self::SwiGlu { gate, up, down } => {
                down.forward(B::swiglu(gate.forward(x.clone()), up.forward(x)))
            }
        }
    }
}
