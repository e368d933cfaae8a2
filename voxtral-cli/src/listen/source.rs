//! Where live sound comes from.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use voxtral_pipeline::{Decoder, FeedWriter};

use crate::args::{ListenArgs, RawFormat};

/// Sound on its way in.
pub(crate) struct Source {
    name: String,
    sample_rate: u32,
    kind: Kind,
}

enum Kind {
    /// A file or stdin, with a header.
    Decoder {
        decoder: Box<Decoder>,
        /// Whether it comes as fast as it was spoken.
        pace: bool,
    },
    /// Stdin, without a header.
    Raw { format: RawFormat, channels: usize },
    #[cfg(feature = "mic")]
    Microphone(super::mic::Microphone),
}

/// Whether a source came to its own end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whole {
    Yes,
    /// It broke off; that was told.
    BrokenOff,
}

/// What there is to hear, found before a model is loaded, to be opened when somebody listens.
pub(crate) struct Found<'a> {
    args: &'a ListenArgs,
    #[cfg(feature = "mic")]
    microphone: Option<super::mic::Microphone>,
}

/// Finds out whether there is anything to hear.
pub(crate) fn find(args: &ListenArgs) -> Result<Found<'_>> {
    #[cfg(feature = "mic")]
    let microphone = args.mic.then(super::mic::Microphone::open).transpose()?;
    if args.stdin && io::stdin().is_terminal() {
        bail!("stdin is a terminal, expected sound: pipe it in");
    }
    if let Some(file) = &args.file {
        let name = file.display();
        if file.as_os_str() == "-" {
            bail!("`-` is no file: `--stdin` listens to stdin");
        }
        if file.is_dir() {
            bail!("`{name}` is a directory, expected an audio file");
        }
        File::open(file).with_context(|| format!("cannot open `{name}`"))?;
    }
    Ok(Found {
        args,
        #[cfg(feature = "mic")]
        microphone,
    })
}

impl Source {
    /// Opens what was found, and waits for its header.
    pub(crate) fn open(found: Found<'_>) -> Result<Self> {
        #[cfg(feature = "mic")]
        if let Some(microphone) = found.microphone {
            return Ok(Self {
                name: microphone.name(),
                sample_rate: microphone.sample_rate(),
                kind: Kind::Microphone(microphone),
            });
        }
        let args = found.args;
        if let Some(file) = &args.file {
            return Self::file(file, args.pace);
        }
        let name = "stdin".to_owned();
        if let (Some(format), Some(sample_rate)) = (args.raw, args.rate) {
            let channels = args.channels.into();
            return Ok(Self {
                name,
                sample_rate,
                kind: Kind::Raw { format, channels },
            });
        }
        let decoder = Decoder::from_stream(io::stdin())
            .context("cannot listen to stdin (raw samples need `--raw` and `--rate`)")?;
        Ok(Self::decoder(name, decoder, false))
    }

    fn file(file: &Path, pace: bool) -> Result<Self> {
        let name = file.display();
        let decoder = Decoder::open(file).with_context(|| format!("cannot listen to `{name}`"))?;
        Ok(Self::decoder(format!("`{name}`"), decoder, pace))
    }

    fn decoder(name: String, decoder: Decoder, pace: bool) -> Self {
        Self {
            name,
            sample_rate: decoder.sample_rate(),
            kind: Kind::Decoder {
                decoder: Box::new(decoder),
                pace,
            },
        }
    }

    /// What messages call it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn sample_rate(&self) -> u32 {
        self.sample_rate
    }

    /// Whether it comes at its own speed, so that a slow machine falls behind.
    pub(crate) fn is_live(&self) -> bool {
        match &self.kind {
            Kind::Decoder { pace, .. } => *pace,
            Kind::Raw { .. } => false,
            #[cfg(feature = "mic")]
            Kind::Microphone(_) => true,
        }
    }

    /// Writes the sound until it ends, or nobody listens any more.
    ///
    /// # Errors
    /// The source fails. What came before that is written.
    pub(crate) fn record(self, writer: &FeedWriter) -> Result<Whole> {
        match self.kind {
            Kind::Decoder { decoder, pace } => {
                let pace = pace.then(|| Pace::new(self.sample_rate));
                record_decoder(*decoder, pace, writer)
            }
            Kind::Raw { format, channels } => {
                record_raw(io::stdin().lock(), format, channels, writer)
            }
            #[cfg(feature = "mic")]
            Kind::Microphone(microphone) => microphone.record(writer),
        }
    }
}

fn record_decoder(
    mut decoder: Decoder,
    mut pace: Option<Pace>,
    writer: &FeedWriter,
) -> Result<Whole> {
    for samples in &mut decoder {
        let samples = samples?;
        if let Some(pace) = &mut pace {
            pace.wait(samples.len());
        }
        if !writer.push(&samples) {
            return Ok(Whole::Yes);
        }
    }
    Ok(if decoder.truncated() {
        Whole::BrokenOff
    } else {
        Whole::Yes
    })
}

/// Reads samples without a header, as they come.
fn record_raw(
    mut input: impl Read,
    format: RawFormat,
    channels: usize,
    writer: &FeedWriter,
) -> Result<Whole> {
    let width = channels * format.bytes();
    let mut bytes = vec![0; (1 << 16_usize).max(width)];
    let mut held = 0;
    let mut samples = Vec::new();
    loop {
        let read = match input.read(&mut bytes[held..]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read.context("cannot read stdin")?,
        };
        if read == 0 {
            break;
        }
        held += read;
        let whole = held - held % width;
        samples.clear();
        samples.extend(bytes[..whole].chunks_exact(width).map(|frame| {
            let values = frame
                .chunks_exact(format.bytes())
                .map(|raw| format.value(raw));
            values.sum::<f32>() / channels as f32
        }));
        if !writer.push(&samples) {
            return Ok(Whole::Yes);
        }
        bytes.copy_within(whole..held, 0);
        held -= whole;
    }
    if held == 0 {
        return Ok(Whole::Yes);
    }
    tracing::warn!(
        "stdin ended within a sample: {held} bytes are left of {width}, check `--raw` and \
         `--channels`"
    );
    Ok(Whole::BrokenOff)
}

impl RawFormat {
    /// Bytes of a sample.
    fn bytes(self) -> usize {
        match self {
            Self::S16le => 2,
            Self::F32le => 4,
        }
    }

    /// A sample, nominally in [-1, 1].
    fn value(self, raw: &[u8]) -> f32 {
        match (self, raw) {
            (Self::S16le, &[a, b]) => f32::from(i16::from_le_bytes([a, b])) / 32_768.0,
            (Self::F32le, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
            _ => unreachable!("samples are cut to their width"),
        }
    }
}

/// Holds sound back to the speed at which it was spoken.
struct Pace {
    started: Instant,
    sample_rate: u32,
    samples: u64,
}

impl Pace {
    fn new(sample_rate: u32) -> Self {
        Self {
            started: Instant::now(),
            sample_rate,
            samples: 0,
        }
    }

    /// Waits until this many more samples were spoken.
    fn wait(&mut self, samples: usize) {
        self.samples += samples as u64;
        let spoken = self.samples as f64 / f64::from(self.sample_rate);
        let due = self.started + Duration::from_secs_f64(spoken);
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use voxtral_pipeline::feed;

    use super::*;

    /// Gives a few bytes at a time, then fails or ends.
    struct Drops<'a>(&'a [u8], Option<io::Error>);

    impl Read for Drops<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty()
                && let Some(error) = self.1.take()
            {
                return Err(error);
            }
            let count = self.0.len().min(buffer.len()).min(3);
            let (now, later) = self.0.split_at(count);
            buffer[..count].copy_from_slice(now);
            self.0 = later;
            Ok(count)
        }
    }

    fn record(
        bytes: &[u8],
        error: Option<io::Error>,
        format: RawFormat,
        channels: usize,
    ) -> (Vec<f32>, Result<Whole>) {
        let (writer, mut reader) = feed(16_000, Duration::from_secs(1));
        let outcome = record_raw(Drops(bytes, error), format, channels, &writer);
        drop(writer);
        let mut samples = Vec::new();
        reader.read(&mut samples);
        (samples, outcome)
    }

    #[test]
    fn raw_samples_are_read_in_any_pieces() {
        let (samples, whole) = record(&[0, 0x40, 0, 0x80, 0xff, 0x7f], None, RawFormat::S16le, 1);
        assert_eq!(samples, [0.5, -1.0, 32_767.0 / 32_768.0]);
        assert_eq!(whole.unwrap(), Whole::Yes);
        let floats: Vec<u8> = [0.25_f32, -3.0]
            .iter()
            .flat_map(|x| x.to_le_bytes())
            .collect();
        assert_eq!(record(&floats, None, RawFormat::F32le, 1).0, [0.25, -3.0]);
        assert_eq!(record(&floats, None, RawFormat::F32le, 2).0, [-1.375]);
    }

    #[test]
    fn a_part_of_a_sample_at_the_end_is_told() {
        let (samples, whole) = record(&[0, 0x40, 7], None, RawFormat::S16le, 1);
        assert_eq!((samples.len(), whole.unwrap()), (1, Whole::BrokenOff));
        let (samples, whole) = record(&[0; 6], None, RawFormat::S16le, 2);
        assert_eq!((samples.len(), whole.unwrap()), (1, Whole::BrokenOff));
    }

    #[test]
    fn a_source_that_fails_gives_what_came_before() {
        let error = io::Error::other("unplugged");
        let (samples, outcome) = record(&[0, 0x40], Some(error), RawFormat::S16le, 1);
        assert_eq!(samples, [0.5]);
        let error = format!("{:#}", outcome.unwrap_err());
        assert_eq!(error, "cannot read stdin: unplugged");
    }
}
