//! From a checkpoint's bytes to tensors on a device.

use burn_std::{AllocationProperty, Bytes};
use burn_tensor::{DType, Tensor, TensorData};
use voxtral_checkpoint::{Checkpoint, Dtype, Quant, TensorView};

use crate::{Backend, NnError, Quantized, Weight};

/// The precision in which matrices are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// As stored, where the backend can hold that; otherwise `f32`.
    #[default]
    Auto,
    /// 32 bit floats.
    F32,
    /// bfloat16.
    BF16,
    /// 16 bit floats.
    F16,
    /// Quantized when loaded, as a quantized checkpoint would be; what is quantized already stays
    /// as it is stored.
    Quantized(Quant),
}

/// Gives the layers their tensors, by canonical name.
///
/// Matrices come in the chosen [`Precision`]; vectors, convolutions and tables are small and
/// always `f32`. A matrix in its stored precision is handed to the backend where it lies in the
/// memory map: on the CPU nothing is copied, whether it is quantized or not.
pub struct Loader<'a, B: Backend> {
    checkpoint: &'a Checkpoint,
    device: B::Device,
    precision: Precision,
    progress: Option<&'a dyn Fn(u64)>,
}

impl<'a, B: Backend> Loader<'a, B> {
    /// A loader of this checkpoint onto this device.
    pub fn new(checkpoint: &'a Checkpoint, device: B::Device, precision: Precision) -> Self {
        B::prepare();
        Self {
            checkpoint,
            device,
            precision,
            progress: None,
        }
    }

    /// Calls `progress` after every tensor, with its number of stored bytes.
    #[must_use]
    pub fn with_progress(mut self, progress: &'a dyn Fn(u64)) -> Self {
        self.progress = Some(progress);
        self
    }

    /// The device on which tensors are placed.
    pub fn device(&self) -> &B::Device {
        &self.device
    }

    /// A matrix `[out, in]` in the chosen precision.
    ///
    /// # Errors
    /// It is missing or misshapen, it cannot be quantized, or the backend cannot hold the precision.
    pub fn matrix(&self, name: &str, shape: [usize; 2]) -> Result<Weight<B>, NnError> {
        let view = match self.precision {
            Precision::Quantized(_) if !B::MULTIPLIES_QUANTIZED => {
                return Err(self.unsupported("quantized"));
            }
            Precision::Quantized(quant) => self.checkpoint.quantized_tensor(name, &shape, quant)?,
            _ => self.checkpoint.tensor(name, &shape)?,
        };
        let stays = matches!(self.precision, Precision::Auto | Precision::Quantized(_));
        if let Some(quant) = view.quant
            && stays
            && B::MULTIPLIES_QUANTIZED
        {
            self.report(&view);
            let options = (&self.device, DType::U8);
            let len = view.data.len();
            let bytes = Bytes::from_shared(view.data, AllocationProperty::File);
            let data = TensorData::from_bytes(bytes, [len], DType::U8);
            return Ok(Weight::Quantized(Quantized {
                data: Tensor::from_data(data, options),
                quant,
                shape,
            }));
        }
        let dtype = self.storage(&view)?;
        Ok(Weight::Float(self.place(view, dtype, shape)))
    }

    /// A tensor in `f32`.
    ///
    /// # Errors
    /// It is missing or misshapen.
    pub fn float<const D: usize>(
        &self,
        name: &str,
        shape: [usize; D],
    ) -> Result<Tensor<B, D>, NnError> {
        let view = self.checkpoint.tensor(name, &shape)?;
        Ok(self.place(view, Dtype::F32, shape))
    }

    fn storage(&self, view: &TensorView) -> Result<Dtype, NnError> {
        let holds = |dtype| B::supports_dtype(&self.device, burn_dtype(dtype));
        // What was quantized is as good in bfloat16, where that is what products run in.
        let narrow = B::matmul_dtype(DType::BF16) == DType::BF16;
        let stored = match view.quant {
            Some(_) if narrow => Dtype::BF16,
            Some(_) => Dtype::F32,
            None => view.dtype,
        };
        let asked = match self.precision {
            Precision::Auto | Precision::Quantized(_) if holds(stored) => return Ok(stored),
            Precision::Auto | Precision::Quantized(_) => return Ok(Dtype::F32),
            Precision::F32 => Dtype::F32,
            Precision::BF16 => Dtype::BF16,
            Precision::F16 => Dtype::F16,
        };
        if holds(asked) {
            Ok(asked)
        } else {
            Err(self.unsupported(asked.name()))
        }
    }

    fn unsupported(&self, format: &'static str) -> NnError {
        NnError::UnsupportedPrecision {
            backend: B::name(&self.device),
            format,
        }
    }

    fn report(&self, view: &TensorView) {
        if let Some(progress) = self.progress {
            progress(view.data.len() as u64);
        }
    }

    fn place<const D: usize>(
        &self,
        view: TensorView,
        dtype: Dtype,
        shape: [usize; D],
    ) -> Tensor<B, D> {
        self.report(&view);
        let data = view.into_dtype(dtype).data;
        let bytes = Bytes::from_shared(data, AllocationProperty::File);
        let dtype = burn_dtype(dtype);
        Tensor::from_data(
            TensorData::from_bytes(bytes, shape, dtype),
            (&self.device, dtype),
        )
    }
}

fn burn_dtype(dtype: Dtype) -> DType {
    match dtype {
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
    }
}
