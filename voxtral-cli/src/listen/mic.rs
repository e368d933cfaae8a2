//! The microphone, through cpal: the system's default input device, as the system has set it up.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use cpal::traits::{DeviceTrait, HostTrait, StreamTrait};
use cpal::{
    Device, ErrorKind, FromSample, I24, Sample, SampleFormat, SizedSample, Stream, StreamConfig,
    U24,
};
use voxtral_pipeline::FeedWriter;

use super::source::Whole;

/// How often to look whether somebody still listens.
const POLL: Duration = Duration::from_millis(100);

/// A microphone that is there and can be asked for sound.
pub(crate) struct Microphone {
    device: Device,
    name: String,
    config: StreamConfig,
    build: Build,
}

/// Builds a stream for one format of samples.
type Build =
    fn(&Device, StreamConfig, FeedWriter, mpsc::Sender<cpal::Error>) -> Result<Stream, cpal::Error>;

impl Microphone {
    /// Finds the default microphone and how it records.
    ///
    /// # Errors
    /// There is none, it may not be used, or it records what is no sound to us.
    pub(crate) fn open() -> Result<Self> {
        // Not `cpal::default_host`, which panics on a machine without a sound system.
        let mut hosts = cpal::ALL_HOSTS.iter();
        let device = hosts
            .find_map(|&id| cpal::host_from_id(id).ok()?.default_input_device())
            .ok_or_else(missing)?;
        let name = match device.description() {
            Ok(description) => format!("the microphone `{}`", description.name()),
            Err(_) => "the microphone".to_owned(),
        };
        let config = device
            .default_input_config()
            .map_err(|error| refusal(&name, error))?;
        let (format, config) = (config.sample_format(), config.config());
        let StreamConfig {
            channels,
            sample_rate,
            ..
        } = config;
        tracing::info!("{name}: channels={channels}, {sample_rate} Hz, {format}");
        let build = build_for(format).with_context(|| {
            format!(
                "{name} records `{format}`, expected integers or floats: choose another as the \
                 system's default"
            )
        })?;
        Ok(Self {
            device,
            name,
            config,
            build,
        })
    }

    /// What messages call it.
    pub(crate) fn name(&self) -> String {
        self.name.clone()
    }

    pub(crate) fn sample_rate(&self) -> u32 {
        self.config.sample_rate
    }

    /// Records until nobody listens any more.
    ///
    /// # Errors
    /// It cannot be opened, is unplugged or fails. What came before that is written.
    pub(crate) fn record(self, writer: &FeedWriter) -> Result<Whole> {
        let refusal = |error| refusal(&self.name, error);
        let (sender, errors) = mpsc::channel();
        let stream = (self.build)(&self.device, self.config, writer.clone(), sender);
        let stream = stream.map_err(refusal)?;
        stream.play().map_err(refusal)?;
        wait(errors, writer)
    }
}

/// The stream of a format; none for DSD, which has one bit and no amplitude.
fn build_for(format: SampleFormat) -> Option<Build> {
    Some(match format {
        SampleFormat::I8 => build::<i8>,
        SampleFormat::I16 => build::<i16>,
        SampleFormat::I24 => build::<I24>,
        SampleFormat::I32 => build::<i32>,
        SampleFormat::I64 => build::<i64>,
        SampleFormat::U8 => build::<u8>,
        SampleFormat::U16 => build::<u16>,
        SampleFormat::U24 => build::<U24>,
        SampleFormat::U32 => build::<u32>,
        SampleFormat::U64 => build::<u64>,
        SampleFormat::F32 => build::<f32>,
        SampleFormat::F64 => build::<f64>,
        _ => return None,
    })
}

fn build<T: SizedSample>(
    device: &Device,
    config: StreamConfig,
    writer: FeedWriter,
    errors: mpsc::Sender<cpal::Error>,
) -> Result<Stream, cpal::Error>
where
    f32: FromSample<T>,
{
    let channels = config.channels.into();
    let mut mono = Vec::new();
    device.build_input_stream(
        config,
        move |samples: &[T], _: &_| {
            average(samples, channels, &mut mono);
            writer.offer(&mono);
        },
        move |error| {
            // When nobody waits any more, nobody wants to know.
            let _ = errors.send(error);
        },
        None,
    )
}

/// Puts the mean over the channels in place of `mono`, nominally in [-1, 1].
fn average<T: Sample>(samples: &[T], channels: usize, mono: &mut Vec<f32>)
where
    f32: FromSample<T>,
{
    mono.clear();
    mono.extend(samples.chunks_exact(channels).map(|frame| {
        let values = frame.iter().map(|&sample| f32::from_sample(sample));
        values.sum::<f32>() / channels as f32
    }));
}

/// Waits until nobody listens any more, or an error ends the recording.
fn wait(errors: mpsc::Receiver<cpal::Error>, writer: &FeedWriter) -> Result<Whole> {
    let mut overruns: u64 = 0;
    while !writer.is_closed() {
        let error = match errors.recv_timeout(POLL) {
            Ok(error) => error,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => bail!("the microphone stopped by itself"),
        };
        match error.kind() {
            ErrorKind::Xrun => {
                overruns += 1;
                // A machine that is too slow has many of them.
                if overruns.is_power_of_two() {
                    tracing::warn!(
                        "the machine cannot follow the microphone: sound was lost, overruns so \
                         far: {overruns}"
                    );
                }
            }
            ErrorKind::DeviceChanged => {
                tracing::warn!("the system's default changed: another microphone is recorded now");
            }
            ErrorKind::RealtimeDenied => tracing::warn!("{error}"),
            ErrorKind::DeviceNotAvailable => bail!("the microphone was unplugged"),
            ErrorKind::StreamInvalidated => {
                bail!("the microphone's settings were changed while it recorded: start again")
            }
            _ => return Err(error).context("the microphone failed"),
        }
    }
    Ok(Whole::Yes)
}

/// Why a microphone cannot be used.
fn refusal(name: &str, error: cpal::Error) -> anyhow::Error {
    match error.kind() {
        // ALSA always has a default device; what it lacks shows when it is asked for sound.
        ErrorKind::DeviceNotAvailable | ErrorKind::UnsupportedOperation => missing(),
        ErrorKind::DeviceBusy => {
            anyhow!("{name} is busy: close the other program that records from it")
        }
        ErrorKind::PermissionDenied => anyhow!(
            "{name} may not be used: allow it in the system's privacy settings (on Linux, join \
             the group `audio`)"
        ),
        _ => anyhow::Error::new(error).context(format!(
            "cannot open {name} (choose another as the system's default, or pipe sound in with \
             `--stdin`)"
        )),
    }
}

fn missing() -> anyhow::Error {
    anyhow!("no microphone was found: plug one in, or pipe sound in with `--stdin`")
}

#[cfg(test)]
mod tests {
    use voxtral_pipeline::feed;

    use super::*;

    fn mono<T: Sample>(samples: &[T], channels: usize) -> Vec<f32>
    where
        f32: FromSample<T>,
    {
        let mut mono = vec![7.0; 3];
        average(samples, channels, &mut mono);
        mono
    }

    #[test]
    fn channels_are_averaged() {
        assert_eq!(mono(&[0.5, -0.25, 1.0_f32], 1), [0.5, -0.25, 1.0]);
        assert_eq!(mono(&[0.5, -0.25, 1.0, 0.0_f32], 2), [0.125, 0.5]);
        assert_eq!(mono(&[0.75, 0.0, 0.75_f32], 3), [0.5]);
        assert_eq!(mono::<f32>(&[], 2), [0.0; 0]);
        // The sum of two loud channels does not overflow.
        assert_eq!(mono(&[i16::MIN, i16::MIN], 2), [-1.0]);
    }

    #[test]
    fn every_format_has_its_zero_and_its_extent() {
        const EXPECTED: [f32; 3] = [-1.0, 0.0, 0.5];
        assert_eq!(mono(&[i8::MIN, 0, 1 << 6], 1), EXPECTED);
        assert_eq!(mono(&[i16::MIN, 0, 1 << 14], 1), EXPECTED);
        let i24 = [-(1 << 23), 0, 1 << 22].map(|x| I24::new(x).unwrap());
        assert_eq!(mono(&i24, 1), EXPECTED);
        assert_eq!(mono(&[i32::MIN, 0, 1 << 30], 1), EXPECTED);
        assert_eq!(mono(&[i64::MIN, 0, 1 << 62], 1), EXPECTED);
        assert_eq!(mono(&[0_u8, 1 << 7, 3 << 6], 1), EXPECTED);
        assert_eq!(mono(&[0_u16, 1 << 15, 3 << 14], 1), EXPECTED);
        let u24 = [0, 1 << 23, 3 << 22].map(|x| U24::new(x).unwrap());
        assert_eq!(mono(&u24, 1), EXPECTED);
        assert_eq!(mono(&[0_u32, 1 << 31, 3 << 30], 1), EXPECTED);
        assert_eq!(mono(&[0_u64, 1 << 63, 3 << 62], 1), EXPECTED);
        assert_eq!(mono(&EXPECTED, 1), EXPECTED);
        assert_eq!(mono(&EXPECTED.map(f64::from), 1), EXPECTED);
    }

    #[test]
    fn one_bit_sound_is_refused() {
        assert!(build_for(SampleFormat::I24).is_some());
        assert!(build_for(SampleFormat::DsdU8).is_none());
    }

    /// How recording ends when these errors are reported while somebody listens.
    fn ending(kinds: &[ErrorKind]) -> String {
        let (writer, _reader) = feed(16_000, Duration::from_secs(1));
        let (sender, errors) = mpsc::channel();
        for &kind in kinds {
            sender.send(kind.into()).unwrap();
        }
        drop(sender);
        format!("{:#}", wait(errors, &writer).unwrap_err())
    }

    #[test]
    fn an_unplugged_or_failing_microphone_ends_the_recording() {
        let unplugged = ending(&[ErrorKind::DeviceNotAvailable]);
        assert_eq!(unplugged, "the microphone was unplugged");
        let changed = ending(&[ErrorKind::StreamInvalidated]);
        assert!(changed.ends_with("start again"), "{changed}");
        let failed = ending(&[ErrorKind::BackendError]);
        assert!(failed.starts_with("the microphone failed: "), "{failed}");
        assert_eq!(ending(&[]), "the microphone stopped by itself");
    }

    #[test]
    fn recording_goes_on_after_what_passes() {
        let passing = [
            ErrorKind::Xrun,
            ErrorKind::Xrun,
            ErrorKind::DeviceChanged,
            ErrorKind::RealtimeDenied,
        ];
        let last = [&passing[..], &[ErrorKind::DeviceNotAvailable]].concat();
        assert_eq!(ending(&last), "the microphone was unplugged");
    }

    #[test]
    fn recording_ends_when_nobody_listens() {
        let (writer, reader) = feed(16_000, Duration::from_secs(1));
        let (sender, errors) = mpsc::channel();
        sender.send(ErrorKind::Xrun.into()).unwrap();
        let recorder = std::thread::spawn(move || wait(errors, &writer));
        std::thread::sleep(2 * POLL);
        assert!(!recorder.is_finished(), "somebody listens");
        reader.stopper().stop();
        assert_eq!(recorder.join().unwrap().unwrap(), Whole::Yes);
    }

    #[test]
    fn a_refusal_tells_how_to_mend_it() {
        let said = |kind: ErrorKind| format!("{:#}", refusal("the microphone `A`", kind.into()));
        let missing = said(ErrorKind::DeviceNotAvailable);
        assert!(missing.starts_with("no microphone was found"), "{missing}");
        let busy = said(ErrorKind::DeviceBusy);
        assert!(busy.starts_with("the microphone `A` is busy"), "{busy}");
        let denied = said(ErrorKind::PermissionDenied);
        assert!(denied.contains("privacy settings"), "{denied}");
        let other = said(ErrorKind::BackendError);
        assert!(
            other.starts_with("cannot open the microphone `A`"),
            "{other}"
        );
        assert!(other.contains("--stdin"), "{other}");
    }
}
