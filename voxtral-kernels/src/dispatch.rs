//! From an instruction set to the instructions.

use crate::Kernels;
use crate::isa::Isa;
use crate::portable::Portable;
use crate::simd::{Kernel, Simd};

/// What is done with the vectors of any instruction set: it hands out parts to threads, each of
/// which enters [`Simd::vectorize`].
pub(crate) trait Job {
    fn run<S: Simd>(self, simd: S);
}

impl Kernels {
    /// Runs a job with the vectors of the instruction set.
    pub(crate) fn run(self, job: impl Job) {
        match self.isa() {
            #[cfg(target_arch = "x86_64")]
            Isa::Amx | Isa::Avx512Bf16 | Isa::Avx512Vnni | Isa::Avx512 => {
                // SAFETY: the instruction set of `Kernels` is available.
                job.run(unsafe { crate::x86::Avx512::new_unchecked() });
            }
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::Avx2 => job.run(unsafe { crate::x86::Avx2::new_unchecked() }),
            _ => job.run(Portable),
        }
    }

    /// Runs a kernel on this thread.
    pub(crate) fn vectorize(self, kernel: impl Kernel) {
        struct OneKernel<K>(K);

        impl<K: Kernel> Job for OneKernel<K> {
            fn run<S: Simd>(self, simd: S) {
                simd.vectorize(self.0);
            }
        }

        self.run(OneKernel(kernel));
    }
}
