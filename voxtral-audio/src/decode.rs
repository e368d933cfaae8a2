//! From a file of any known kind to mono samples, a packet at a time.
//!
//! Each packet of C channels is averaged to one: `mono[n] = Σ_c x_c[n] / C`. Integer samples of b
//! bits are divided by 2^(b−1), as libsndfile does. Encoder delay and padding are removed where
//! the container states them in a way that Symphonia reads (MP3 with a LAME header, Ogg Vorbis,
//! Opus); MP4 edit lists are not read, so AAC keeps its priming of some 20 to 50 ms.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Cursor, Read, Seek};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use symphonia::core::codecs::audio::AudioDecoder;
use symphonia::core::errors::Error as Symphonia;
use symphonia::core::formats::FormatReader;
use symphonia::core::packet::Packet;

use crate::container::{self, guard};
use crate::error::AudioError;
use crate::header;
use crate::source::{Ended, Failure, Frames, Shared, Source, View};

/// The most that is read from a pipe or device, in bytes: formats are probed and indexed by
/// seeking, so a stream that cannot seek is kept in memory.
const MAX_STREAM: u64 = 1 << 30;

/// A file that ends this much before its own header says so counts as truncated. Headers of
/// compressed formats include encoder delay and padding, which are cut off.
const LENGTH_TOLERANCE: Duration = Duration::from_millis(250);

/// A streaming decoder: an iterator of chunks of mono samples at the file's own rate.
///
/// Memory does not grow with the file. The kind of file is found from its content. The first
/// audio track is decoded; chunks have the size of the codec's packets and are never empty.
///
/// Damage is survived where something remains to be decoded: a packet that cannot be decoded is
/// left out with a warning ([`skipped`](Self::skipped) counts them), and a file that ends early
/// or becomes unreadable in the middle ends there with a warning and
/// [`truncated`](Self::truncated). Samples that are not finite, and a reader that fails, are
/// errors, after which the iterator ends.
///
/// ```
/// # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/audio/jfk.wav");
/// let mut decoder = voxtral_audio::Decoder::open(path)?;
/// assert_eq!((decoder.sample_rate(), decoder.channels()), (16_000, 1));
/// let mut samples = 0;
/// for chunk in &mut decoder {
///     samples += chunk?.len();
/// }
/// assert_eq!(samples, 176_000);
/// # Ok::<(), voxtral_audio::AudioError>(())
/// ```
pub struct Decoder {
    format: Box<dyn FormatReader>,
    codec: Box<dyn AudioDecoder>,
    track: u32,
    failure: Failure,
    stream: Option<Stream>,
    sample_rate: u32,
    channels: usize,
    duration: Option<Duration>,
    /// The chunk that was decoded to learn the rate.
    ready: VecDeque<Vec<f32>>,
    interleaved: Vec<f32>,
    position: u64,
    skipped: u64,
    truncated: bool,
    done: bool,
}

impl Decoder {
    /// Opens a file.
    ///
    /// A pipe or device is read into memory first.
    ///
    /// # Errors
    /// [`AudioError::Open`], [`AudioError::Directory`], [`AudioError::StreamTooLong`], and those
    /// of [`new`](Self::new).
    pub fn open(path: impl AsRef<Path>) -> Result<Self, AudioError> {
        let path = path.as_ref();
        let open = |source| AudioError::Open {
            path: path.into(),
            source,
        };
        let file = File::open(path).map_err(open)?;
        let kind = file.metadata().map_err(open)?.file_type();
        if kind.is_dir() {
            return Err(AudioError::Directory { path: path.into() });
        }
        if kind.is_file() {
            return Self::new(file);
        }
        let mut bytes = Vec::new();
        file.take(MAX_STREAM + 1)
            .read_to_end(&mut bytes)
            .map_err(AudioError::Read)?;
        if bytes.len() as u64 > MAX_STREAM {
            return Err(AudioError::StreamTooLong { limit: MAX_STREAM });
        }
        Self::new(Cursor::new(bytes))
    }

    /// Finds the kind of the content and decodes up to the first sample.
    ///
    /// # Errors
    /// [`AudioError::NotAudio`], [`AudioError::NoAudioTrack`], [`AudioError::Unsupported`],
    /// [`AudioError::Malformed`] and [`AudioError::Empty`] for content that holds no sample that
    /// can be decoded; [`AudioError::NonFinite`] and [`AudioError::SampleRate`] for samples that
    /// make no sense; [`AudioError::Read`] if the reader fails.
    pub fn new<R>(reader: R) -> Result<Self, AudioError>
    where
        R: Read + Seek + Send + Sync + 'static,
    {
        let reader: Shared = Arc::new(Mutex::new(Box::new(reader)));
        let error = match Self::attempt(Arc::clone(&reader), View::File) {
            Ok(decoder) => return Ok(decoder),
            Err(error) => error,
        };
        let cut = matches!(
            error,
            AudioError::Malformed { .. } | AudioError::Unsupported { .. }
        );
        // MP4, MKV and WebM are refused if an element reaches beyond the end of the file.
        match cut.then(|| Self::attempt(reader, View::Stream)) {
            Some(Ok(mut decoder)) => {
                decoder.warn_truncated("file ends within its last element");
                Ok(decoder)
            }
            _ => Err(error),
        }
    }

    /// Decodes what cannot seek and may never end, such as a pipe, while it is written.
    ///
    /// Waits for the header and the first samples. After that, chunks of a WAV stream come as
    /// soon as their samples are there, and those of compressed ones with the next packet or two;
    /// nothing is read that is not needed for that, and memory does not grow. A WAV header that
    /// states no length (0, or one of the largest numbers, as ffmpeg, sox and arecord write to a
    /// pipe) means that the samples go on to the end of the stream; one that does states where
    /// they end, and a stream that ends before, or within a sample, is
    /// [`truncated`](Self::truncated).
    ///
    /// AIFF, FLAC, MP1 to MP3, Ogg, ADTS, MKV, WebM and MP4 that has its index in front are read as
    /// well, and found to be truncated by the duration that they state, if any. CAF and other MP4
    /// need a file.
    ///
    /// The reader should give what it has instead of waiting until the buffer is full, as pipes,
    /// sockets and standard input do.
    ///
    /// # Errors
    /// Those of [`new`](Self::new).
    pub fn from_stream<R>(reader: R) -> Result<Self, AudioError>
    where
        R: Read + Send + Sync + 'static,
    {
        let source = Source::stream(reader).map_err(AudioError::Read)?;
        Self::start(source.ok_or(AudioError::Empty)?)
    }

    fn attempt(reader: Shared, view: View) -> Result<Self, AudioError> {
        let source = Source::new(reader, view).map_err(AudioError::Read)?;
        if source.length() == Some(0) {
            return Err(AudioError::Empty);
        }
        Self::start(source)
    }

    fn start(mut source: Source) -> Result<Self, AudioError> {
        let (length, failure) = (source.length(), source.failure());
        let repair = header::repair(&mut source, length)
            .map_err(|error| AudioError::Read(failure.take().unwrap_or(error)))?;
        let mut stream = length.is_none().then(|| Stream::new(source.ended()));
        let (mut truncated, mut open) = (false, false);
        if let Some(repair) = repair {
            source.patch(repair.patches);
            (truncated, open) = (repair.truncated, repair.open);
            if let Some(stream) = &mut stream {
                stream.promised = !open;
                stream.frames = repair.frames;
                if let Some(frames) = repair.frames {
                    source.pause(frames);
                }
            }
        }
        let format = container::probe(source).map_err(|error| match failure.take() {
            Some(error) => AudioError::Read(error),
            None => error,
        })?;
        let track = container::select(&*format)?;
        let (id, duration) = (track.id, container::duration(track, format.media_info()));
        // Another part of the header does not know the length either.
        let duration = duration.filter(|_| !open);
        let codec = container::codec(track)?;
        let mut decoder = Self {
            format,
            codec,
            track: id,
            failure,
            stream,
            sample_rate: 0,
            channels: 0,
            duration,
            ready: VecDeque::new(),
            interleaved: Vec::new(),
            position: 0,
            skipped: 0,
            truncated: false,
            done: false,
        };
        decoder.decode_first()?;
        if truncated {
            decoder.warn_truncated("header promises more samples than the file has");
        }
        Ok(decoder)
    }

    /// Samples per second of the chunks, as the file has them.
    pub fn sample_rate(&self) -> u32 {
        self.sample_rate
    }

    /// Channels of the file, before they are averaged.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// How long the audio is by the file's own statement, which may lie.
    pub fn duration(&self) -> Option<Duration> {
        self.duration
    }

    /// Whether the file ended before its own end, as far as was decoded.
    pub fn truncated(&self) -> bool {
        self.truncated
    }

    /// Packets that could not be decoded and were left out, as far as was decoded.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Decodes until there are samples, from which the rate and the channels are known for sure.
    fn decode_first(&mut self) -> Result<(), AudioError> {
        let mut cause = None;
        let chunk = loop {
            match self.step(&mut cause)? {
                Step::Samples(chunk) => break chunk,
                Step::Nothing => {}
                Step::End => {
                    return Err(match cause {
                        Some(source) => container::malformed("audio", source),
                        None => AudioError::Empty,
                    });
                }
            }
        };
        self.ready.push_back(chunk);
        Ok(())
    }

    /// Reads and decodes one packet. What went wrong without ending anything goes to `cause`.
    fn step(&mut self, cause: &mut Option<Symphonia>) -> Result<Step, AudioError> {
        let mut packet = match guard(|| self.format.next_packet()) {
            Ok(Some(packet)) => packet,
            Ok(None) => return self.end(),
            Err(Symphonia::ResetRequired) => return self.restart(),
            Err(Symphonia::IoError(error))
                if self.stream.is_some() && error.kind() == io::ErrorKind::UnexpectedEof =>
            {
                return self.pause();
            }
            Err(error) => {
                self.check_reader()?;
                self.warn_truncated(&error.to_string());
                *cause = Some(error);
                return Ok(Step::End);
            }
        };
        if packet.track_id != self.track {
            return Ok(Step::Nothing);
        }
        if let Some(stream) = &mut self.stream
            && stream.trim(&mut packet)
            && packet.data.is_empty()
        {
            return Ok(Step::Nothing);
        }
        match self.decode(&packet) {
            Ok((_, _)) if self.interleaved.is_empty() => Ok(Step::Nothing),
            Ok((rate, channels)) => self.accept(rate, channels),
            Err(error) => {
                if self.skipped == 0 {
                    tracing::warn!(%error, "packet cannot be decoded, left out");
                }
                self.skipped += 1;
                *cause = Some(error);
                Ok(Step::Nothing)
            }
        }
    }

    /// Decodes a packet to `interleaved`; gives its rate and channels.
    fn decode(&mut self, packet: &Packet) -> Result<(u32, usize), Symphonia> {
        let Self {
            codec, interleaved, ..
        } = self;
        guard(|| {
            let buffer = codec.decode(packet)?;
            buffer.copy_to_vec_interleaved::<f32>(interleaved);
            Ok((buffer.spec().rate(), buffer.num_planes()))
        })
    }

    /// Checks and averages what was just decoded.
    fn accept(&mut self, rate: u32, channels: usize) -> Result<Step, AudioError> {
        if self.position == 0 {
            if rate == 0 || channels == 0 {
                return Err(AudioError::SampleRate {
                    found: rate,
                    min: 1,
                    max: u32::MAX,
                });
            }
            (self.sample_rate, self.channels) = (rate, channels);
        } else if rate != self.sample_rate {
            self.warn_truncated(&format!(
                "sample rate changes from {} to {rate} Hz in the middle",
                self.sample_rate
            ));
            return Ok(Step::End);
        }
        if let Some(at) = self
            .interleaved
            .iter()
            .position(|sample| !sample.is_finite())
        {
            return Err(AudioError::NonFinite {
                value: self.interleaved[at],
                sample: self.position + (at / channels) as u64,
            });
        }
        let mono = average(&self.interleaved, channels);
        self.position += mono.len() as u64;
        Ok(Step::Samples(mono))
    }

    /// A chained stream (Ogg) has begun anew: decodes on with its first audio track.
    fn restart(&mut self) -> Result<Step, AudioError> {
        let track = container::select(&*self.format)?;
        self.codec = container::codec(track)?;
        self.track = track.id;
        // The stated duration was that of the first link only.
        self.duration = None;
        Ok(Step::Nothing)
    }

    /// A stream has nothing more to give, for now or for good.
    fn pause(&mut self) -> Result<Step, AudioError> {
        self.check_reader()?;
        if let Some(stream) = &self.stream {
            if !stream.ended.get() {
                return Ok(Step::Nothing);
            }
            if stream.promised {
                self.warn_truncated("header promises more samples than the stream has");
            }
        }
        self.end()
    }

    /// The container ended in good order; did it have all that it promised?
    fn end(&mut self) -> Result<Step, AudioError> {
        self.check_reader()?;
        if self.skipped > 1 {
            tracing::warn!(packets = self.skipped, "packets were left out");
        }
        if self.stream.as_ref().is_some_and(|stream| stream.torn) {
            self.warn_truncated("stream ends within a sample");
        }
        let decoded = seconds(self.position, self.sample_rate);
        if self.position > 0
            && self.skipped == 0
            && self
                .duration
                .is_some_and(|stated| decoded + LENGTH_TOLERANCE < stated)
        {
            self.warn_truncated("header promises more samples than the file has");
        }
        Ok(Step::End)
    }

    /// An end that the reader's own failure caused is an error.
    fn check_reader(&mut self) -> Result<(), AudioError> {
        self.failure
            .take()
            .map_or(Ok(()), |error| Err(AudioError::Read(error)))
    }

    fn warn_truncated(&mut self, reason: &str) {
        if self.position > 0 && !self.truncated {
            self.truncated = true;
            tracing::warn!(
                decoded = ?seconds(self.position, self.sample_rate),
                stated = ?self.duration,
                "audio is truncated ({reason}): copy the file again"
            );
        }
    }
}

impl Iterator for Decoder {
    type Item = Result<Vec<f32>, AudioError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(chunk) = self.ready.pop_front() {
            return Some(Ok(chunk));
        }
        while !self.done {
            match self.step(&mut None) {
                Ok(Step::Samples(chunk)) => return Some(Ok(chunk)),
                Ok(Step::Nothing) => {}
                Ok(Step::End) => self.done = true,
                Err(error) => {
                    self.done = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder")
            .field("format", &self.format.format_info().short_name)
            .field("codec", &self.codec.codec_info().short_name)
            .field("sample_rate", &self.sample_rate)
            .field("channels", &self.channels)
            .field("duration", &self.duration)
            .finish_non_exhaustive()
    }
}

/// What is known of a stream, to tell its end from the moment, where the demuxer cannot.
struct Stream {
    ended: Ended,
    /// In a WAV stream.
    frames: Option<Frames>,
    /// A WAV or AIFF header states where the samples end.
    promised: bool,
    /// The stream ended within a frame.
    torn: bool,
}

impl Stream {
    fn new(ended: Ended) -> Self {
        Self {
            ended,
            frames: None,
            promised: false,
            torn: false,
        }
    }

    /// Takes off a part of a frame, which only the end of the stream leaves; says whether it did.
    fn trim(&mut self, packet: &mut Packet) -> bool {
        let block = self.frames.map_or(1, |frames| frames.block.get() as usize);
        let extra = packet.data.len() % block;
        if extra > 0 {
            self.torn = true;
            packet.data = packet.data[..packet.data.len() - extra].into();
        }
        extra > 0
    }
}

/// What one packet gave.
enum Step {
    Samples(Vec<f32>),
    Nothing,
    End,
}

/// The mean of the channels. `interleaved` is `[frames, channels]`.
fn average(interleaved: &[f32], channels: usize) -> Vec<f32> {
    if channels == 1 {
        return interleaved.to_vec();
    }
    interleaved
        .chunks_exact(channels)
        .map(|frame| frame.iter().sum::<f32>() / channels as f32)
        .collect()
}

fn seconds(samples: u64, sample_rate: u32) -> Duration {
    Duration::from_secs_f64(samples as f64 / f64::from(sample_rate.max(1)))
}
