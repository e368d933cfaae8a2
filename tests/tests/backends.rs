//! The backends under test: the one place that names them.

use voxtral_nn::Backend;

/// The leading part of a list of cases that this backend runs: all, but for
///
/// * wgpu: two. Where there is no GPU it runs on lavapipe, which spends minutes on starting the
///   small kernels of a model that Flex runs in a second. CUDA runs every case.
pub(crate) fn cases<B: Backend, T>(all: &[T]) -> &[T] {
    let name = B::name(&B::Device::default());
    if name.contains("wgpu") {
        &all[..2]
    } else {
        all
    }
}

/// Repeats a suite for every backend. A suite is a list of generic functions of this crate; each
/// becomes a test `backend::function`.
#[macro_export]
macro_rules! on_every_backend {
    ($($test:ident),+ $(,)?) => {
        mod flex {
            $(#[test] fn $test() { super::$test::<burn_flex::Flex>(); })+
        }
        mod ndarray {
            $(#[test] fn $test() { super::$test::<burn_ndarray::NdArray>(); })+
        }
        #[cfg(feature = "wgpu")]
        mod wgpu {
            $(#[test] fn $test() { super::$test::<burn_wgpu::Wgpu>(); })+
        }
        #[cfg(feature = "cuda")]
        mod cuda {
            $(#[test] fn $test() { super::$test::<burn_cuda::Cuda>(); })+
        }
    };
}
