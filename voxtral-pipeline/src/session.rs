//! Live sessions: sound in, words out, without an end.

mod together;

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::time::Duration;

use burn_tensor::{DType, Tensor, TensorData};
use voxtral_audio::{Audio, AudioError, LogMelStream, Resampler};
use voxtral_decoder::Decoder;
use voxtral_encoder::EncoderStream;
use voxtral_nn::Backend;
use voxtral_tokenizer::{StreamLayout, prompt};

use crate::{
    Cancel, Finish, PipelineError, SamplingOptions, Step, Timings, Transcript, Voxtral, Word,
    draft::Draft,
    fusion::Sum,
    generate::{End, Request, Sequence},
    language::of_text,
    model::Hearing,
    sample::Choice,
    segments::segments,
    timeline::Timeline,
    transcript::Scribe,
    words::{Onsets, Sign, Timed, WordClock},
};

/// Tokens of audio that are encoded at once where as many are there: enough rows for a matrix
/// product to pay, and little memory beside the window's.
const TOKENS_PER_STEP: usize = 16;

/// Tokens that the pieces of one group of words take at most, for the memory of the loudness.
const LONGEST_GROUP: usize = 64;

/// What a session is asked for.
#[derive(Debug, Clone, Default)]
pub struct SessionOptions {
    /// How far the text follows the sound: more is more accurate. The released model takes
    /// multiples of 80 ms up to 1200 ms, and 2400 ms; by default the checkpoint's own, 480 ms.
    pub delay: Option<Duration>,
    /// Samples per second of what is pushed; by default the model's own rate.
    pub sample_rate: Option<u32>,
    /// How tokens are chosen. A stream neither ends before its sound nor repeats itself but in
    /// pads, so it takes no stop strings or ids and no penalties.
    pub sampling: SamplingOptions,
    /// Keeps no transcript, so that memory does not grow with the stream: text and words are in
    /// the steps alone.
    pub discard: bool,
    /// Never guesses tokens ahead. Usually, where the sound of several tokens waits and nothing is
    /// drawn, those that are likely are run together, and the ones that were wrong are run again:
    /// the same tokens in less time.
    pub one_by_one: bool,
    /// Stops the work from another thread.
    pub cancel: Cancel,
}

/// A stream of sound that becomes text while it comes in.
///
/// Sound is pushed in pieces of any size, and each push gives the [`Step`]s that it made possible,
/// one for every 80 ms: a token, the text that the transcript grew by, and the words that are now
/// complete, with their times. Nothing is ever revised. How the sound is cut makes no difference.
///
/// A push returns when everything in it is computed, so whoever pushes faster than the machine
/// can follow waits; nothing piles up in the session, whose memory is that of the model's windows
/// (besides the transcript, see [`SessionOptions::discard`]). A [`feed`](crate::feed) stands
/// between a source that cannot wait and the session, and tells how far behind the session is.
///
/// An end token ends nothing; a stream goes on while there is sound.
///
/// ```
/// use burn_flex::Flex;
/// use voxtral_pipeline::{SessionOptions, Voxtral};
///
/// # fn main() -> Result<(), voxtral_pipeline::PipelineError> {
/// let model = Voxtral::<Flex>::builder().demo_realtime()?; // or .open("realtime")?
/// let speech = model.read_audio("../samples/digits-stream-en.wav")?;
/// let mut session = model.session(&SessionOptions::default())?;
/// for piece in speech.samples().chunks(1600) {
///     for word in session.push(piece)?.iter().flat_map(|step| &step.words) {
///         println!("{:.2?} {}", word.start, word.word);
///     }
/// }
/// let transcript = session.finish()?;
/// assert_eq!(transcript.words.unwrap().len(), transcript.text.split(' ').count());
/// # Ok(())
/// # }
/// ```
pub struct Session<'m, B: Backend> {
    model: &'m Voxtral<B>,
    options: SessionOptions,
    layout: StreamLayout,
    signs: Signs,
    resampler: Resampler,
    resampled: Vec<f32>,
    mel: LogMelStream<'m>,
    /// Frames that no token is complete of, `[frames, bins]`.
    frames: Vec<f32>,
    encoder: EncoderStream<B>,
    decoder: Decoder<B>,
    sequence: Sequence<B, Sum<B>>,
    onsets: Onsets,
    clock: WordClock,
    timeline: Timeline,
    scribe: Scribe<'m>,
    words: Vec<Word>,
    /// Steps that were made before an error.
    ready: VecDeque<Step>,
    /// Samples pushed, at the rate of the source.
    received: u64,
    timings: Timings,
    state: State,
}

/// The tokens with a meaning to the clock.
#[derive(Debug, Clone, Copy)]
struct Signs {
    pad: u32,
    word: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Ended,
    Failed,
}

impl<B: Backend> Voxtral<B> {
    /// Opens a session.
    ///
    /// # Errors
    /// The model takes clips, not streams, or an option is impossible.
    pub fn session(&self, options: &SessionOptions) -> Result<Session<'_, B>, PipelineError> {
        let Hearing::Stream {
            pad,
            word,
            log_mel_max,
        } = self.hearing
        else {
            return Err(self.takes_clips());
        };
        let layout = self.stream_layout(options.delay)?;
        let rate = self.sample_rate();
        let step = TOKENS_PER_STEP * self.config.projector.downsample.get();
        let step = NonZeroUsize::new(step).unwrap_or(NonZeroUsize::MIN);
        let encoder = EncoderStream::new(&self.encoder, step, EncoderStream::<B>::MAX_POSITIONS)?;
        let decoder = self.decoder.with_delay(layout.delay_tokens);
        let at_once = NonZeroUsize::new(Draft::POSITIONS).unwrap_or(NonZeroUsize::MIN);
        let cache = decoder.new_ring(at_once)?;
        let signs = Signs { pad, word };
        let request = self.stream_request(&layout, signs, options)?;
        let left = (layout.left_pad_tokens * layout.samples_per_token) as u64;
        let late =
            (layout.delay_tokens + TOKENS_PER_STEP + LONGEST_GROUP) * layout.samples_per_token;
        Ok(Session {
            model: self,
            options: options.clone(),
            signs,
            resampler: Resampler::new(options.sample_rate.unwrap_or(rate), rate)?,
            resampled: Vec::new(),
            mel: self.mel.stream(log_mel_max),
            frames: Vec::new(),
            encoder,
            decoder,
            sequence: Sequence::with_cache(cache, Sum::new(), request),
            onsets: Onsets::new(rate, self.config.features.hop_length, left, late),
            clock: WordClock::new(layout.samples_per_token),
            timeline: Timeline::default(),
            scribe: Scribe::new(&self.tokenizer, !options.discard),
            words: Vec::new(),
            ready: VecDeque::new(),
            received: 0,
            timings: Timings::default(),
            state: State::Open,
            layout,
        })
    }

    /// Whether a [`session`](Self::session) can have these options, without opening one.
    ///
    /// # Errors
    /// Those of [`session`](Self::session).
    pub fn check_session(&self, options: &SessionOptions) -> Result<(), PipelineError> {
        let Hearing::Stream { pad, word, .. } = self.hearing else {
            return Err(self.takes_clips());
        };
        let layout = self.stream_layout(options.delay)?;
        let rate = self.sample_rate();
        Resampler::new(options.sample_rate.unwrap_or(rate), rate)?;
        self.stream_request(&layout, Signs { pad, word }, options)?;
        Ok(())
    }

    fn takes_clips(&self) -> PipelineError {
        self.unsupported(
            "it takes whole clips, not streams: choose a Realtime model, as `realtime`",
        )
    }

    /// How a stream is padded for this delay.
    pub(crate) fn stream_layout(
        &self,
        delay: Option<Duration>,
    ) -> Result<StreamLayout, PipelineError> {
        match self.tokenizer.audio() {
            Some(audio) => Ok(audio.stream(delay)?),
            None => Err(self.unsupported("its tokenizer says nothing of the stream's layout")),
        }
    }

    fn stream_request(
        &self,
        layout: &StreamLayout,
        Signs { pad, word }: Signs,
        options: &SessionOptions,
    ) -> Result<Request, PipelineError> {
        if let Some(option) = options.sampling.of_answers() {
            return Err(PipelineError::OptionUnsupported {
                model: self.name.clone(),
                option,
                reason: "a stream goes on while there is sound, and most of its tokens are pads: leave it out",
            });
        }
        let sampler = self.sampler(&options.sampling)?;
        let guesses = sampler.is_greedy() && !options.one_by_one;
        Ok(Request {
            prompt: prompt::stream(&self.tokenizer, layout)?,
            end: End::Ignore {
                token: self.end,
                pad,
            },
            limit: usize::MAX,
            sampler,
            draft: guesses.then(|| Draft::new(pad, word)),
            cancel: options.cancel.clone(),
        })
    }
}

impl<B: Backend> Session<'_, B> {
    /// Samples per second of what is pushed.
    pub fn sample_rate(&self) -> u32 {
        self.options
            .sample_rate
            .unwrap_or_else(|| self.model.sample_rate())
    }

    /// How far the text follows the sound.
    pub fn delay(&self) -> Duration {
        let samples = (self.layout.delay_tokens * self.layout.samples_per_token) as u64;
        clip_time(samples, self.model.sample_rate())
    }

    /// Samples that are encoded at once where they are pushed together, at the rate of the source:
    /// whoever has all the sound is served fastest in pieces of this size. Live sound is pushed as
    /// it comes; a token needs 2.5 ms (half a window of the features) beyond its own 80 ms.
    pub fn samples_per_pass(&self) -> usize {
        let samples = (TOKENS_PER_STEP * self.layout.samples_per_token) as u64;
        let (from, to) = (self.sample_rate(), self.model.sample_rate());
        (samples * u64::from(from)).div_ceil(u64::from(to)) as usize
    }

    /// The sound that was pushed.
    pub fn received(&self) -> Duration {
        clip_time(self.received, self.sample_rate())
    }

    /// Takes sound, any number of samples, and gives the steps that it made possible.
    ///
    /// # Errors
    /// A sample that is no number: nothing of the piece is taken, and the session goes on. A step
    /// that fails or is cancelled: the session is over but for [`finish`](Self::finish) and
    /// [`reset`](Self::reset); steps before it are kept for [`take_steps`](Self::take_steps).
    pub fn push(&mut self, samples: &[f32]) -> Result<Vec<Step>, PipelineError> {
        self.take_in(samples, Self::decode)
    }

    /// Takes sound, encodes it, decodes so far as more of it waits than is encoded at once, and
    /// does then what is left to do.
    fn take_in(
        &mut self,
        samples: &[f32],
        then: impl FnOnce(&mut Self) -> Result<(), PipelineError>,
    ) -> Result<Vec<Step>, PipelineError> {
        self.check_open()?;
        if let Some(at) = samples.iter().position(|sample| !sample.is_finite()) {
            return Err(PipelineError::Audio(AudioError::NonFinite {
                value: samples[at],
                sample: self.received + at as u64,
            }));
        }
        self.received += samples.len() as u64;
        self.run(|session| {
            let mut resampled = std::mem::take(&mut session.resampled);
            resampled.clear();
            session.resampler.push(samples, &mut resampled)?;
            let heard = session.hear(&resampled);
            session.resampled = resampled;
            heard?;
            then(session)
        })
    }

    /// Takes a clip; see [`push`](Self::push).
    ///
    /// # Errors
    /// Those of [`push`](Self::push), and a clip at another rate than the session's, of which
    /// nothing is taken.
    pub fn push_audio(&mut self, audio: &Audio) -> Result<Vec<Step>, PipelineError> {
        if audio.sample_rate() != self.sample_rate() {
            return Err(PipelineError::SampleRateChanged {
                found: audio.sample_rate(),
                expected: self.sample_rate(),
            });
        }
        self.push(audio.samples())
    }

    /// Brings out the words behind the delay, at a pause, by as much silence as the end of a
    /// stream has. The stream goes on, and times take no notice of that silence.
    ///
    /// # Errors
    /// As for [`push`](Self::push).
    pub fn flush(&mut self) -> Result<Vec<Step>, PipelineError> {
        self.check_open()?;
        self.run(|session| {
            session.hear_silence()?;
            session.decode()
        })
    }

    /// Ends the stream, brings out the words behind the delay, and gives the transcript.
    ///
    /// # Errors
    /// As for [`push`](Self::push). A session that failed gives what is known all the same.
    pub fn finish(&mut self) -> Result<Transcript, PipelineError> {
        if self.state == State::Open {
            let steps = self.end()?;
            self.ready.extend(steps);
        }
        let words = std::mem::take(&mut self.words);
        self.timings.prefill = self.sequence.prefill_time;
        self.timings.decode = self.sequence.decode_time;
        self.timings.passes = self.sequence.passes;
        self.timings.prompt_tokens = prompt::stream(&self.model.tokenizer, &self.layout)?.len();
        let text = std::mem::take(&mut self.scribe.text).trim_end().to_owned();
        let language_detected = of_text(&text, &self.model.languages);
        Ok(Transcript {
            text,
            language: language_detected
                .as_ref()
                .map(|found| found.language.clone()),
            language_detected,
            duration: self.received(),
            model: self.model.name.clone(),
            finish: Finish::Stop,
            stop: None,
            truncated: self.state == State::Failed,
            segments: Some(segments(&words)),
            words: Some(words),
            gaps: Vec::new(),
            warnings: Vec::new(),
            tokens: std::mem::take(&mut self.scribe.tokens),
            timings: self.timings,
        })
    }

    /// Ends the stream and gives the last steps.
    pub(crate) fn end(&mut self) -> Result<Vec<Step>, PipelineError> {
        self.check_open()?;
        let steps = self.run(|session| {
            session.hear_silence()?;
            session.decode()?;
            if session.timeline.is_empty() {
                return Ok(());
            }
            let mut frames = std::mem::take(&mut session.frames);
            let ended = session.mel.finish(&mut frames);
            session.frames = frames;
            ended?;
            session.encode_frames()?;
            session.decode()?;
            let words = session.clock.close(&session.onsets);
            let words = session.place(words);
            if let Some(last) = session.ready.back_mut() {
                last.words.extend(words);
            }
            Ok(())
        })?;
        self.state = State::Ended;
        Ok(steps)
    }

    /// Steps that were made in a call that failed afterwards.
    pub fn take_steps(&mut self) -> Vec<Step> {
        self.ready.drain(..).collect()
    }

    /// Begins a new stream with the same options, in the same memory.
    ///
    /// # Errors
    /// None that the session did not have when it was opened.
    pub fn reset(&mut self) -> Result<(), PipelineError> {
        let rate = self.model.sample_rate();
        self.resampler = Resampler::new(self.sample_rate(), rate)?;
        self.mel.reset();
        self.frames.clear();
        self.encoder.reset(&self.model.encoder);
        self.sequence.fusion.clear();
        let request = self
            .model
            .stream_request(&self.layout, self.signs, &self.options)?;
        self.sequence.restart(request);
        self.onsets.reset();
        self.clock.reset();
        self.timeline = Timeline::default();
        self.scribe = Scribe::new(&self.model.tokenizer, !self.options.discard);
        self.words.clear();
        self.ready.clear();
        self.received = 0;
        self.timings = Timings::default();
        self.state = State::Open;
        Ok(())
    }

    fn check_open(&self) -> Result<(), PipelineError> {
        match self.state {
            State::Open => Ok(()),
            State::Ended => Err(PipelineError::SessionEnded),
            State::Failed => Err(PipelineError::Unfinished),
        }
    }

    /// Does work that makes steps, and gives them.
    fn run(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<(), PipelineError>,
    ) -> Result<Vec<Step>, PipelineError> {
        if let Err(error) = work(self) {
            self.state = State::Failed;
            return Err(error);
        }
        Ok(self.take_steps())
    }

    /// Takes the user's sound at the model's rate.
    fn hear(&mut self, samples: &[f32]) -> Result<(), PipelineError> {
        if samples.is_empty() {
            return Ok(());
        }
        if self.timeline.is_empty() {
            let left = self.layout.left_pad_tokens * self.layout.samples_per_token;
            self.take(&vec![0.0; left])?;
        }
        self.timeline.sound(samples.len() as u64);
        self.take(samples)
    }

    /// Takes what the resampler holds, silence up to a whole token, and the silence of an end.
    fn hear_silence(&mut self) -> Result<(), PipelineError> {
        let mut rest = Vec::new();
        self.resampler.finish(&mut rest)?;
        self.hear(&rest)?;
        self.decode()?;
        if !self.timeline.ends_in_sound() {
            return Ok(());
        }
        let token = self.layout.samples_per_token;
        let partial = (self.timeline.len() % token as u64) as usize;
        let silence = (token - partial) % token + self.layout.right_pad_tokens * token;
        self.timeline.silence(silence as u64);
        self.take(&vec![0.0; silence])
    }

    /// Takes samples of the padded stream, in pieces that bound the memory of their features.
    fn take(&mut self, samples: &[f32]) -> Result<(), PipelineError> {
        for piece in samples.chunks(TOKENS_PER_STEP * self.layout.samples_per_token) {
            let (mel, frames) = (&mut self.mel, &mut self.frames);
            self.timings.features(|| mel.push(piece, frames));
            self.encode_frames()?;
        }
        Ok(())
    }

    /// Encodes the frames of whole tokens. Those before are decoded first, so that the decoder is no
    /// further behind than what is encoded at once.
    fn encode_frames(&mut self) -> Result<(), PipelineError> {
        let bins = self.model.config.features.num_mel_bins;
        let per_token = self.layout.frames_per_token * bins;
        loop {
            let tokens = (self.frames.len() / per_token).min(TOKENS_PER_STEP);
            if tokens == 0 {
                return Ok(());
            }
            self.decode()?;
            let frames: Vec<f32> = self.frames.drain(..tokens * per_token).collect();
            let timeline = &self.timeline;
            self.onsets
                .push(&frames, bins, |sample| timeline.is_sound(sample));
            let embeddings = self.encode(frames, bins)?;
            self.sequence.fusion.push(embeddings);
        }
    }

    /// Decodes as far as what is encoded reaches.
    fn decode(&mut self) -> Result<(), PipelineError> {
        while let Some(choice) = self.sequence.next_token(&self.decoder) {
            self.write(choice?);
        }
        Ok(())
    }

    /// `[frames, bins]` → `[1, tokens, width]`.
    fn encode(&mut self, frames: Vec<f32>, bins: usize) -> Result<Tensor<B, 3>, PipelineError> {
        let (model, stream) = (self.model, &mut self.encoder);
        self.timings.encoder(|| {
            let shape = [1, frames.len() / bins, bins];
            let options = (&model.device, DType::F32);
            let mel = Tensor::<B, 3>::from_data(TensorData::new(frames, shape), options);
            let hidden = model.encoder.forward_stream(mel.swap_dims(1, 2), stream)?;
            Ok(model.projector.forward(hidden)?)
        })
    }

    /// Writes a token down.
    fn write(&mut self, choice: Choice) {
        let mut step = self.scribe.write(choice, false);
        let sign = match step.token.id {
            id if id == self.signs.word => Sign::Mark,
            id => match self.model.tokenizer.token_bytes(id) {
                Some(bytes) => Sign::Piece(bytes, step.token.logprob),
                // Pads, the end token, and whatever else has no text.
                None => Sign::Pad,
            },
        };
        let words = self.clock.token(sign, &self.onsets);
        step.words = self.place(words);
        self.ready.push_back(step);
    }

    /// From the clock of the stream to that of the user.
    fn place(&mut self, words: Vec<Timed>) -> Vec<Word> {
        let rate = self.model.sample_rate();
        let time = |sample| clip_time(self.timeline.user(sample), rate);
        let words: Vec<Word> = words
            .into_iter()
            .map(|word| Word {
                word: word.text,
                start: time(word.start),
                end: time(word.end),
                confidence: Some(word.confidence),
                attention: None,
                spaced: word.spaced,
            })
            .collect();
        if !self.options.discard {
            self.words.extend(words.iter().cloned());
        }
        words
    }
}

/// The time of a sample.
pub(crate) fn clip_time(samples: u64, rate: u32) -> Duration {
    let rate = u64::from(rate);
    let nanos = (samples % rate) * 1_000_000_000 / rate;
    Duration::from_secs(samples / rate) + Duration::from_nanos(nanos)
}
