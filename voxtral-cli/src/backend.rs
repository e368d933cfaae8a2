//! The only place that names concrete backends: from `--device` to a type.

use anyhow::{Result, bail};
use clap::ValueEnum;
use voxtral_pipeline::Backend;

use crate::args::Device;

/// Work that runs on whichever backend was chosen.
pub(crate) trait Task {
    /// What it gives.
    type Output;
    /// Does it.
    fn run<B: Backend>(self, device: B::Device) -> Result<Self::Output>;
}

/// Runs a task on the chosen device; `auto` takes the first that works. `announce` is told which.
pub(crate) fn on_device<T: Task>(
    choice: Device,
    announce: impl FnOnce(&str),
    task: T,
) -> Result<T::Output> {
    match choice {
        Device::Auto => {
            const PREFERENCE: [Device; 6] = [
                Device::Cuda,
                Device::Metal,
                Device::Vulkan,
                Device::Wgpu,
                Device::Cpu,
                Device::Ndarray,
            ];
            let found = PREFERENCE.into_iter().find(|device| works(*device));
            match found {
                Some(device) => run_on(device, announce, task),
                None => bail!("this build has no backend: build it with the feature `flex`"),
            }
        }
        device if !is_compiled(device) => bail!(
            "this build has no backend for `--device {}`: build it with `--features {}`, or choose \
             among `auto`{}",
            name(device),
            feature(device),
            compiled(),
        ),
        device if !works(device) => bail!(
            "`--device {}` was not found: install its driver, or choose among `auto`{}",
            name(device),
            compiled(),
        ),
        device => run_on(device, announce, task),
    }
}

fn name(device: Device) -> String {
    let value = device.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

/// The devices to choose among, as the end of a list.
fn compiled() -> String {
    let devices = Device::value_variants().iter();
    devices
        .filter(|device| **device != Device::Auto && is_compiled(**device))
        .map(|device| format!(", `{}`", name(*device)))
        .collect()
}

fn feature(device: Device) -> String {
    match device {
        Device::Cpu => "flex".to_owned(),
        other => name(other),
    }
}

fn is_compiled(device: Device) -> bool {
    match device {
        Device::Auto => true,
        Device::Cpu => cfg!(feature = "flex"),
        Device::Ndarray => cfg!(feature = "ndarray"),
        Device::Wgpu => cfg!(feature = "wgpu"),
        Device::Vulkan => cfg!(feature = "vulkan"),
        Device::Metal => cfg!(feature = "metal"),
        Device::Cuda => cfg!(feature = "cuda"),
    }
}

/// Whether the device can be opened.
fn works(device: Device) -> bool {
    struct Probe;
    impl Task for Probe {
        type Output = ();
        fn run<B: Backend>(self, device: B::Device) -> Result<()> {
            B::prepare();
            // Devices are opened lazily, by the first operation.
            B::sync(&device)?;
            Ok(())
        }
    }
    if !is_compiled(device) {
        return false;
    }
    match device {
        Device::Cpu | Device::Ndarray => true,
        gpu => quietly(|| run_on(gpu, |_| (), Probe).is_ok()).unwrap_or(false),
    }
}

/// Runs what may panic, as GPU backends do where a driver is missing, without the message.
fn quietly<T>(work: impl FnOnce() -> T + std::panic::UnwindSafe) -> Option<T> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let outcome = std::panic::catch_unwind(work).ok();
    std::panic::set_hook(hook);
    outcome
}

/// Dispatches to the type of a device that is compiled in.
fn run_on<T: Task>(device: Device, announce: impl FnOnce(&str), task: T) -> Result<T::Output> {
    announce(&name(device));
    match device {
        #[cfg(feature = "flex")]
        Device::Cpu => task.run::<burn_flex::Flex>(Default::default()),
        #[cfg(feature = "ndarray")]
        Device::Ndarray => task.run::<burn_ndarray::NdArray>(Default::default()),
        #[cfg(feature = "wgpu")]
        Device::Wgpu => on_wgpu::<burn_wgpu::graphics::AutoGraphicsApi, T>(task),
        #[cfg(feature = "vulkan")]
        Device::Vulkan => on_wgpu::<burn_wgpu::graphics::Vulkan, T>(task),
        #[cfg(feature = "metal")]
        Device::Metal => on_wgpu::<burn_wgpu::graphics::Metal, T>(task),
        #[cfg(feature = "cuda")]
        Device::Cuda => task.run::<burn_cuda::Cuda>(Default::default()),
        #[allow(
            unreachable_patterns,
            reason = "none is left where all are compiled in"
        )]
        _ => bail!("this build has no backend for `--device {}`", name(device)),
    }
}

/// One graphics interface of wgpu; it can be opened once in a process.
#[cfg(feature = "wgpu")]
fn on_wgpu<G: burn_wgpu::graphics::GraphicsApi, T: Task>(task: T) -> Result<T::Output> {
    use std::sync::Once;
    static OPEN: Once = Once::new();
    let device = burn_wgpu::WgpuDevice::default();
    <burn_wgpu::Wgpu as Backend>::prepare();
    // A graphics interface that failed to open leaves room for the next.
    OPEN.call_once_force(|_| {
        burn_wgpu::init_setup::<G>(&device, burn_wgpu::RuntimeOptions::default());
    });
    task.run::<burn_wgpu::Wgpu>(device)
}
