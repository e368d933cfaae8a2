//! Tiles of bfloat16: AMX.
//!
//! The instructions are written by their names, since their intrinsics are not stable. They stand
//! behind [`Unit`], of which there is a second implementation in plain Rust: tests run everything
//! but the six instructions on any processor.

use std::arch::asm;
use std::arch::x86_64::__m512;

use crate::micro::{Micro, PANEL, PANEL_WORDS, ROW, STEP, Tile};
use crate::simd::Kernel;
use crate::word::Bf16Word;
use crate::x86::Avx512;

/// Rows of a tile register.
const HEIGHT: usize = 16;

/// Bytes of a row of a tile register.
const WIDTH: usize = 64;

/// Tile registers and what is done with them here. Registers 0 to 3 hold sums, 4 and 5 inputs, 6
/// and 7 weights.
pub(crate) trait Unit: Copy + Send + Sync {
    /// Shapes all registers as 16 rows of 64 bytes.
    fn configure(self);

    /// Gives the registers back.
    fn release(self);

    /// Computes the tile: two times 16 input rows, two panels.
    ///
    /// # Safety
    ///
    /// As of [`Micro::tile`], with configured registers.
    unsafe fn multiply(self, of: Tile);
}

/// AMX with bfloat16, and what [`Pairs`](crate::dots::Pairs) has. A value exists only where the
/// processor has them and the system lets this process use them.
#[derive(Clone, Copy)]
pub(crate) struct Tiles<U = Hardware>(U);

/// The instructions. Each block of them names the registers that it writes. That the next one finds
/// there what the last one left is more than the language promises, but the compiler has nothing of
/// its own to put into them, and keeps blocks that are not `pure` in order.
#[derive(Clone, Copy)]
pub(crate) struct Hardware(());

impl Tiles {
    /// # Safety
    ///
    /// The processor has AMX with bfloat16 and what [`Pairs`](crate::dots::Pairs) has, and the
    /// system lets this process use them.
    pub(crate) unsafe fn new_unchecked() -> Self {
        Self(Hardware(()))
    }
}

impl<U: Unit> Tiles<U> {
    #[target_feature(
        enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c"
    )]
    fn enter<K: Kernel>(self, kernel: K) {
        kernel.run(self.simd());
    }
}

impl<U: Unit> Micro for Tiles<U> {
    type Simd = Avx512;
    type Word = Bf16Word;

    const ROWS: usize = 2 * HEIGHT;
    const PANELS: usize = 2;

    #[inline(always)]
    fn simd(self) -> Avx512 {
        // SAFETY: `self` exists.
        unsafe { Avx512::new_unchecked() }
    }

    #[inline]
    fn vectorize<K: Kernel>(self, kernel: K) {
        self.0.configure();
        // SAFETY: `self` exists.
        unsafe { self.enter(kernel) };
        self.0.release();
    }

    #[inline(always)]
    unsafe fn tile(self, of: Tile) {
        // SAFETY: the caller's; kernels run between `configure` and `release`.
        unsafe { self.0.multiply(of) };
    }

    #[inline(always)]
    unsafe fn narrow(self, to: *mut u16, value: __m512) {
        // SAFETY: `self` exists, and the pointer is the caller's.
        unsafe { crate::dots::narrow(to, value) };
    }
}

impl Unit for Hardware {
    #[inline]
    fn configure(self) {
        /// Palette 1: the shapes of 8 registers.
        #[repr(C, align(64))]
        struct Config {
            palette: u8,
            start_row: u8,
            reserved: [u8; 14],
            row_bytes: [u16; 16],
            rows: [u8; 16],
        }
        let mut config = Config {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            row_bytes: [0; 16],
            rows: [0; 16],
        };
        config.row_bytes[..8].fill(WIDTH as u16);
        config.rows[..8].fill(HEIGHT as u8);
        // SAFETY: `self` exists, and the configuration is one of palette 1.
        unsafe {
            asm!(
                "ldtilecfg [{}]",
                in(reg) &config,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        };
    }

    #[inline]
    fn release(self) {
        // SAFETY: `self` exists.
        unsafe {
            asm!(
                "tilerelease",
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        };
    }

    #[inline(always)]
    unsafe fn multiply(self, of: Tile) {
        let inputs_row = ROW * size_of::<u32>();
        let sums_row = of.sums_row * size_of::<f32>();
        // SAFETY: `self` exists; registers are configured, and the pointers are valid for their
        // shapes, by the caller.
        unsafe {
            let sums = of.sums;
            let lower = sums.add(HEIGHT * of.sums_row);
            if of.add {
                asm!(
                    "tileloadd tmm0, [{upper} + {row}]",
                    "tileloadd tmm1, [{upper} + {row} + 64]",
                    "tileloadd tmm2, [{lower} + {row}]",
                    "tileloadd tmm3, [{lower} + {row} + 64]",
                    upper = in(reg) sums, lower = in(reg) lower, row = in(reg) sums_row,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    options(nostack, readonly),
                );
            } else {
                asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    options(nostack, nomem),
                );
            }
            for word in (0..of.words).step_by(STEP) {
                let inputs = of.inputs.add(word);
                let weights = of.weights.add(word * PANEL);
                asm!(
                    "tileloadd tmm4, [{upper} + {inputs_row}]",
                    "tileloadd tmm6, [{left} + {weights_row}]",
                    "tileloadd tmm7, [{right} + {weights_row}]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    "tileloadd tmm5, [{lower} + {inputs_row}]",
                    "tdpbf16ps tmm2, tmm5, tmm6",
                    "tdpbf16ps tmm3, tmm5, tmm7",
                    upper = in(reg) inputs,
                    lower = in(reg) inputs.add(HEIGHT * ROW),
                    left = in(reg) weights,
                    right = in(reg) weights.add(PANEL_WORDS),
                    inputs_row = in(reg) inputs_row,
                    weights_row = in(reg) WIDTH,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack, readonly),
                );
            }
            asm!(
                "tilestored [{upper} + {row}], tmm0",
                "tilestored [{upper} + {row} + 64], tmm1",
                "tilestored [{lower} + {row}], tmm2",
                "tilestored [{lower} + {row} + 64], tmm3",
                upper = in(reg) sums, lower = in(reg) lower, row = in(reg) sums_row,
                options(nostack),
            );
        }
    }
}

/// Four products of registers, so many times, for [`crate::machine`].
///
/// # Safety
///
/// As of [`Tiles::new_unchecked`].
pub(crate) unsafe fn in_registers(times: usize) {
    let unit = Hardware(());
    unit.configure();
    for _ in 0..times {
        // SAFETY: configured registers; their contents do not matter.
        unsafe {
            asm!(
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                options(nostack, nomem),
            );
        }
    }
    unit.release();
}

/// Asks the system for the tile registers; whether the processor and the system grant them.
pub(crate) fn is_available() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    use std::sync::LazyLock;

    const AMX_BF16: u32 = 1 << 22;
    const AMX_TILE: u32 = 1 << 24;
    static AVAILABLE: LazyLock<bool> = LazyLock::new(|| {
        if __cpuid(0).eax < 7 {
            return false;
        }
        let needed = AMX_BF16 | AMX_TILE;
        __cpuid_count(7, 0).edx & needed == needed && request()
    });
    *AVAILABLE
}

/// Linux grants the large state of the registers to a process that asks for it.
#[cfg(target_os = "linux")]
fn request() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: the call reads its two numbers and nothing else.
    let status = unsafe {
        libc::syscall(
            libc::SYS_arch_prctl,
            ARCH_REQ_XCOMP_PERM,
            XFEATURE_XTILEDATA,
        )
    };
    status == 0
}

/// Elsewhere nobody has tried.
#[cfg(not(target_os = "linux"))]
fn request() -> bool {
    false
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// What the instructions do, by their description.
    #[derive(Clone, Copy)]
    pub(crate) struct Model;

    /// Where the rest of what is needed is there.
    pub(crate) fn model() -> Option<Tiles<Model>> {
        let available = crate::Isa::Avx512Bf16.is_available();
        if !available {
            eprintln!("not run: this processor has no AVX512-BF16");
        }
        available.then_some(Tiles(Model))
    }

    impl Unit for Model {
        fn configure(self) {}

        fn release(self) {}

        unsafe fn multiply(self, of: Tile) {
            let wide = |word: u32| {
                [
                    f32::from_bits(word << 16),
                    f32::from_bits(word & 0xffff_0000),
                ]
            };
            for row in 0..2 * HEIGHT {
                for output in 0..2 * PANEL {
                    // SAFETY: the caller's.
                    unsafe {
                        let sum = of.sums.add(row * of.sums_row + output);
                        let mut total = if of.add { *sum } else { 0.0 };
                        for word in 0..of.words {
                            let [a, b] = wide(*of.inputs.add(row * ROW + word));
                            let at = output / PANEL * PANEL_WORDS + word * PANEL + output % PANEL;
                            let [x, y] = wide(*of.weights.add(at));
                            total += a * x + b * y;
                        }
                        *sum = total;
                    }
                }
            }
        }
    }

    /// The whole product around the instructions, on any processor with AVX512-BF16.
    #[test]
    fn tiles_make_the_product() {
        use crate::buffer::Shared;
        use crate::format::Bf16;
        use crate::gemm::gemm;
        use crate::product::{Product, Shape};
        use crate::source::Rows;

        let Some(tiles) = model() else { return };
        for (rows, inputs, outputs) in [(1, 1, 1), (33, 70, 40), (40, 1100, 17), (450, 64, 130)] {
            let noise = |count: usize, seed: f64| -> Vec<f32> {
                let value = |i: usize| ((i as f64 + seed).sin() * 43_758.545_3).fract() as f32;
                (0..count).map(value).collect()
            };
            let narrow = |x: f32| half::bf16::from_f32(x);
            let x = noise(rows * inputs, 0.1);
            let weight: Vec<u16> = noise(outputs * inputs, 0.7)
                .into_iter()
                .map(|x| narrow(x).to_bits())
                .collect();
            let mut out = vec![0.0; rows * outputs];
            let product = Product {
                shape: Shape {
                    rows,
                    inputs,
                    outputs,
                },
                x: &x,
                bias: None,
            };
            let source = Rows::<Bf16> {
                values: &weight,
                inputs,
            };
            gemm(tiles, product, source, Shared::new(&mut out));
            for row in 0..rows {
                for output in 0..outputs {
                    let expected: f64 = (0..inputs)
                        .map(|p| {
                            let x = narrow(x[row * inputs + p]).to_f64();
                            x * half::bf16::from_bits(weight[output * inputs + p]).to_f64()
                        })
                        .sum();
                    let found = f64::from(out[row * outputs + output]);
                    assert!(
                        (found - expected).abs() < 1e-3,
                        "{found}, expected {expected}"
                    );
                }
            }
        }
    }
}
