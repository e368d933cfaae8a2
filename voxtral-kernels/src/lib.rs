//! A transformer's layers on the CPU: matrix products `x Wᵀ + b` with `x` in `f32` and the weight
//! `W`, `[outputs, inputs]`, as it is stored (`f32`, bfloat16, IEEE binary16, or quantized in 8 or 4
//! bits, see [`Quant`]), attention, norms, activations and rotary positions. No copy of a weight is
//! ever made; what is narrow is widened in registers, or a tile at a time in cache.
//!
//! | rows of `x` | weight | kernel | bound by | how |
//! |---|---|---|---|---|
//! | 1 to 8 | floats | `gemv` | memory | 8 weight rows side by side, each weight read from memory once |
//! | 1 to 8 | quantized | `few` | memory | panels side by side, each read from memory once |
//! | more | any | `gemm` | arithmetic | inputs and weights packed into words, sums in registers |
//!
//! | instruction set | what it adds | many rows × bfloat16 | many rows × quantized | few rows × quantized |
//! |---|---|---|---|---|
//! | [`Isa::Amx`] | AMX with bfloat16 | tiles of bfloat16 | tiles of bfloat16 | bytes |
//! | [`Isa::Avx512Bf16`] | AVX512-BF16 | pairs of bfloat16 | bytes | bytes |
//! | [`Isa::Avx512Vnni`] | AVX512-VNNI | `f32` | bytes | bytes |
//! | [`Isa::Avx512`] | AVX-512 F, BW, DQ, VL | `f32` | `f32` | bytes |
//! | [`Isa::Avx2`] | AVX2, FMA, F16C | `f32` | `f32` | bytes |
//! | [`Isa::Portable`] | the only one on ARM | `f32` | `f32` | bytes |
//!
//! With tiles and pairs, inputs (and quantized weights) are rounded to bfloat16, and with bytes
//! inputs are rounded to 127ths of the largest of 64; sums are of `f32` or exact. Weights in `f32`
//! and binary16, and a few rows with bfloat16, are always multiplied in `f32`.
//!
//! The fastest that the processor has is chosen at run time ([`Isa::detect`]), or what `VOXTRAL_ISA`
//! names. All run on threads of their own, as many as physical cores ([`set_threads`]).
//!
//! A result is the same, bit for bit, on any number of threads. It depends on the instruction set,
//! and on whether the rows are few or many, but not on the other rows: what a row gives alone it
//! gives among 8, and what it gives among 17 it gives among 1500. Up to 16 are few beside floats, up
//! to 8 beside quantized weights.
//!
//! Attention is computed in `f32`, but for many queries to keys and values in bfloat16: there both
//! of its products are of tiles on [`Isa::Amx`], and of pairs on [`Isa::Avx512Bf16`], with queries
//! and weights rounded to bfloat16 ([`Kernels::attend`] says what that changes at most).
//!
//! ```
//! use voxtral_kernels::{Kernels, Shape, Weight};
//!
//! let kernels = Kernels::from_env()?;
//! let shape = Shape { rows: 1, inputs: 2, outputs: 3 };
//! let weight = [0x3f80, 0x0000, 0x0000, 0x3f80, 0x4000, 0x4000]; // 1 0, 0 1, 2 2
//! let mut out = [0.0; 3];
//! kernels.project(shape, &[3.0, 4.0], Weight::Bf16(&weight), Some(&[0.5; 3]), &mut out)?;
//! assert_eq!(out, [3.5, 4.5, 14.5]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `cargo bench -p voxtral-kernels` prints the speed of the products as shares of what the machine
//! reads and multiplies at most.
//!
//! [`machine`] measures those ceilings. This is the only crate of the workspace that may use `unsafe`: a value of an implementation of
//! the private trait `Simd` proves that its instructions exist, and every block says why it is
//! sound.

#[cfg(target_arch = "x86_64")]
mod amx;
mod attention;
mod buffer;
mod dispatch;
#[cfg(target_arch = "x86_64")]
mod dots;
mod elementwise;
mod exp;
mod few;
mod format;
mod gemm;
mod gemv;
mod isa;
pub mod machine;
mod micro;
mod portable;
mod product;
mod quant;
#[cfg(target_arch = "x86_64")]
mod shuffle;
mod simd;
mod source;
mod strides;
mod threads;
mod word;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use attention::{AttentionShape, Cache, KeysValues, Mask};
pub use isa::{Isa, IsaError};
pub use product::{Shape, ShapeError, Weight};
pub use quant::{PANEL, Quant, UNIT, dequantize, quantize};
pub use strides::{LayerError, Strided, Strides};
pub use threads::{ThreadsError, physical_cores, set_threads, threads};

use few::Quads;
use micro::Fma;
use portable::Portable;
use product::{Machine, Product};

/// The kernels of one instruction set, which this processor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernels {
    /// Available: this is what makes the calls below sound.
    isa: Isa,
}

impl Kernels {
    /// Those of the best instruction set that this processor has.
    #[must_use]
    pub fn detect() -> Self {
        Self { isa: Isa::detect() }
    }

    /// Those of an instruction set.
    ///
    /// # Errors
    ///
    /// [`IsaError`] if this processor does not have it.
    pub fn new(isa: Isa) -> Result<Self, IsaError> {
        match isa.is_available() {
            true => Ok(Self { isa }),
            false => Err(Isa::unavailable(isa.name())),
        }
    }

    /// Those that the environment variable `VOXTRAL_ISA` names, or the best.
    ///
    /// # Errors
    ///
    /// [`IsaError`] if the variable names nothing that this processor has.
    pub fn from_env() -> Result<Self, IsaError> {
        Self::new(Isa::from_env()?)
    }

    /// The instruction set.
    #[must_use]
    pub fn isa(self) -> Isa {
        self.isa
    }

    /// `out = x Wᵀ + b`, on the threads of rayon's current pool.
    ///
    /// # Errors
    ///
    /// [`ShapeError`] if an operand has not the number of elements that the shape asks for; `out`
    /// is then as it was.
    pub fn project(
        self,
        shape: Shape,
        x: &[f32],
        weight: Weight<'_>,
        bias: Option<&[f32]>,
        out: &mut [f32],
    ) -> Result<(), ShapeError> {
        shape.check(x, weight, bias, out)?;
        let product = Product { shape, x, bias };
        match self.isa {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `isa` is available.
            Isa::Amx => unsafe {
                let (simd, tiles) = (x86::Avx512::new_unchecked(), amx::Tiles::new_unchecked());
                let (narrow, coded, few) = (tiles, tiles, dots::Vnni::new_unchecked());
                Machine {
                    simd,
                    narrow,
                    coded,
                    few,
                }
                .compute(product, weight, out);
            },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `isa` is available.
            Isa::Avx512Bf16 => unsafe {
                let (simd, pairs) = (x86::Avx512::new_unchecked(), dots::Pairs::new_unchecked());
                let vnni = dots::Vnni::new_unchecked();
                let (narrow, coded, few) = (pairs, vnni, vnni);
                Machine {
                    simd,
                    narrow,
                    coded,
                    few,
                }
                .compute(product, weight, out);
            },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `isa` is available.
            Isa::Avx512Vnni => unsafe {
                let (simd, vnni) = (x86::Avx512::new_unchecked(), dots::Vnni::new_unchecked());
                let (narrow, coded, few) = (Fma(simd), vnni, vnni);
                Machine {
                    simd,
                    narrow,
                    coded,
                    few,
                }
                .compute(product, weight, out);
            },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `isa` is available.
            Isa::Avx512 => unsafe {
                let (simd, few) = (x86::Avx512::new_unchecked(), x86::Avx2::new_unchecked());
                widening(simd, few).compute(product, weight, out);
            },
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => {
                // SAFETY: `isa` is available.
                let simd = unsafe { x86::Avx2::new_unchecked() };
                widening(simd, simd).compute(product, weight, out);
            }
            _ => widening(Portable, Portable).compute(product, weight, out),
        }
        Ok(())
    }
}

/// Many rows in `f32`.
fn widening<S: simd::Simd, Q: Quads>(simd: S, few: Q) -> Machine<S, Fma<S>, Fma<S>, Q> {
    Machine {
        simd,
        narrow: Fma(simd),
        coded: Fma(simd),
        few,
    }
}
