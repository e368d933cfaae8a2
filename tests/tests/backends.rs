//! The backends that every suite runs on.

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
