//! Transcription: the request and its steps.

use std::collections::VecDeque;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use voxtral_audio::{Audio, AudioError, Decoder};
use voxtral_nn::Backend;
use voxtral_tokenizer::{Language, prompt};

use crate::{
    Cancel, Gap, PipelineError, SamplingOptions, Session, SessionOptions, Step, Transcript,
    Voxtral,
    align::{Aligner, Spoken},
    model::{LONGEST_TRANSCRIBED, PromptSize},
    segments::segments,
    transcript::measure,
    writing::{Task, Writing},
};

/// What a transcription is asked for.
#[derive(Debug, Clone, Default)]
pub struct TranscribeOptions {
    /// The spoken language; where none is given, it is found out and reported, see
    /// [`Transcript::language_detected`]. A Realtime model takes no notice of it.
    pub language: Option<Language>,
    /// Does not find out the language of a clip, which takes two short runs of the decoder.
    pub skip_language_detection: bool,
    /// How tokens are chosen; see [`SessionOptions::sampling`] for a Realtime model.
    pub sampling: SamplingOptions,
    /// At most this many tokens; by default as many as the audio has embeddings (12.5 a second,
    /// more than anyone speaks), or as the context has room for. A Realtime model makes one for
    /// each embedding and takes no such limit.
    pub max_new_tokens: Option<usize>,
    /// How far the text follows the sound, of a Realtime model alone; see
    /// [`SessionOptions::delay`].
    pub delay: Option<Duration>,
    /// Never guesses tokens ahead; see [`SessionOptions::one_by_one`]. A model that takes clips
    /// guesses none.
    pub one_by_one: bool,
    /// Whether a model that takes clips finds out when the words were spoken, in
    /// [`Transcript::words`] and [`Transcript::segments`]: one more pass over the tokens where it is
    /// not known yet which heads of attention tell, see
    /// [`Timings::alignment`](crate::Timings::alignment). Where its attention does not tell, there
    /// are no words, the text is one segment, and a warning says so. A Realtime model tells times in
    /// any case.
    pub word_times: bool,
    /// Whether words with such times keep what these come from, in
    /// [`Word::attention`](crate::Word::attention).
    pub keeps_attention: bool,
    /// Stops the work from another thread.
    pub cancel: Cancel,
    /// Told how far the audio is: encoded, which comes before the first step of a model that takes
    /// clips, or transcribed by one that takes streams.
    pub on_window: OnWindow,
}

/// A function of the audio that is done and of all there is, in windows of a model that takes
/// clips, in seconds of one that takes streams. Where the end is not known, it is not called.
#[derive(Clone, Default)]
pub struct OnWindow(Option<Arc<dyn Fn(usize, usize) + Send + Sync>>);

impl OnWindow {
    /// Calls this function.
    pub fn new(call: impl Fn(usize, usize) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(call)))
    }

    pub(crate) fn call(&self, done: usize, all: usize) {
        if let Some(call) = &self.0 {
            call(done, all);
        }
    }
}

impl fmt::Debug for OnWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.0.is_some() { "set" } else { "none" };
        f.write_str(state)
    }
}

/// A running transcription: an iterator of [`Step`]s, then [`finish`](Self::finish).
pub struct Transcription<'m, B: Backend> {
    engine: Engine<'m, B>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    Ended,
    Failed,
}

/// The two ways to hear.
enum Engine<'m, B: Backend> {
    Clip(Box<Clip<'m, B>>),
    Stream(Box<Stream<'m, B>>),
}

impl<B: Backend> Voxtral<B> {
    /// Transcribes a file. With a model that takes streams, any length in the same memory.
    ///
    /// # Errors
    /// The file cannot be read, is longer than the model takes, an option is impossible or not
    /// for this kind of model, or the work was cancelled.
    pub fn transcribe_file(
        &self,
        path: impl AsRef<Path>,
        options: &TranscribeOptions,
    ) -> Result<Transcript, PipelineError> {
        self.start_decoder(Decoder::open(path)?, options)?.finish()
    }

    /// Transcribes a clip.
    ///
    /// # Errors
    /// As for [`transcribe_file`](Self::transcribe_file).
    pub fn transcribe(
        &self,
        audio: &Audio,
        options: &TranscribeOptions,
    ) -> Result<Transcript, PipelineError> {
        self.start(audio, options)?.finish()
    }

    /// Gives a clip's transcription step by step, for callers that print as it goes.
    ///
    /// # Errors
    /// As for [`transcribe_file`](Self::transcribe_file).
    pub fn start<'a>(
        &'a self,
        audio: &'a Audio,
        options: &TranscribeOptions,
    ) -> Result<Transcription<'a, B>, PipelineError> {
        self.check_options(options)?;
        let engine = if self.is_streaming() {
            Engine::Stream(Box::new(Stream::of_clip(self, audio, options)?))
        } else {
            Engine::Clip(Box::new(Clip::start(self, audio, options)?))
        };
        Ok(Transcription::new(engine))
    }

    /// Gives the transcription of what a decoder reads, step by step. With a model that takes
    /// streams, no more is read than is transcribed.
    ///
    /// # Errors
    /// As for [`transcribe_file`](Self::transcribe_file).
    pub fn start_decoder(
        &self,
        decoder: Decoder,
        options: &TranscribeOptions,
    ) -> Result<Transcription<'_, B>, PipelineError> {
        self.check_options(options)?;
        if self.is_streaming() {
            let stream = Stream::of_decoder(self, decoder, options)?;
            return Ok(Transcription::new(Engine::Stream(Box::new(stream))));
        }
        let audio = self.read_decoder(decoder)?;
        let clip = Box::new(Clip::start(self, &audio, options)?);
        Ok(Transcription::new(Engine::Clip(clip)))
    }

    /// Refuses options of the other kind of model.
    pub(crate) fn check_options(&self, options: &TranscribeOptions) -> Result<(), PipelineError> {
        let (option, reason) = match self.is_streaming() {
            true if options.max_new_tokens.is_some() => (
                "the number of new tokens",
                "a Realtime model makes one token for every 80 ms of sound",
            ),
            false if options.delay.is_some() => (
                "a delay",
                "only a Realtime model writes while it hears: leave it out or choose `realtime`",
            ),
            false => {
                let asked = options.language;
                return asked.map_or(Ok(()), |language| self.check_language(language));
            }
            true => return Ok(()),
        };
        Err(PipelineError::OptionUnsupported {
            model: self.name.clone(),
            option,
            reason,
        })
    }
}

impl<'m, B: Backend> Transcription<'m, B> {
    fn new(engine: Engine<'m, B>) -> Self {
        Self {
            engine,
            state: State::Running,
        }
    }

    /// Runs the remaining steps and gives the result.
    ///
    /// # Errors
    /// A step fails, failed before or is cancelled.
    pub fn finish(mut self) -> Result<Transcript, PipelineError> {
        for step in self.by_ref() {
            step?;
        }
        if self.state == State::Failed {
            return Err(PipelineError::Unfinished);
        }
        match self.engine {
            Engine::Clip(clip) => {
                let transcript = clip.finish()?;
                transcript.warn_of_missing_times();
                Ok(transcript)
            }
            Engine::Stream(mut stream) => {
                let mut transcript = stream.session.finish()?;
                transcript.truncated = stream.source.truncated();
                if transcript.truncated {
                    let lost = Gap::truncated(transcript.duration, stream.total);
                    transcript.gaps.push(lost);
                }
                Ok(transcript)
            }
        }
    }
}

impl<B: Backend> Iterator for Transcription<'_, B> {
    type Item = Result<Step, PipelineError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.state != State::Running {
            return None;
        }
        let step = match &mut self.engine {
            Engine::Clip(clip) => clip.writing.step().transpose(),
            Engine::Stream(stream) => stream.step().transpose(),
        };
        match &step {
            Some(Ok(_)) => {}
            Some(Err(_)) => self.state = State::Failed,
            None => self.state = State::Ended,
        }
        step
    }
}

/// A clip in a prompt.
pub(crate) struct Clip<'m, B: Backend> {
    pub(crate) writing: Writing<'m, B>,
    model: &'m Voxtral<B>,
    language: Option<Language>,
    /// Positions up to the end of the instruction, where the language is to be found out.
    unknown_language: Option<usize>,
    duration: Duration,
    truncated: bool,
    aligner: Option<Aligner>,
}

impl<'m, B: Backend> Clip<'m, B> {
    /// Encodes a clip.
    fn start(
        model: &'m Voxtral<B>,
        audio: &Audio,
        options: &TranscribeOptions,
    ) -> Result<Self, PipelineError> {
        let mut clip = Self::prepare(model, audio, options)?;
        clip.writing
            .hear([audio], (&options.cancel, &options.on_window))?;
        Ok(clip)
    }

    /// A clip that is still to be encoded.
    pub(crate) fn prepare(
        model: &'m Voxtral<B>,
        audio: &Audio,
        options: &TranscribeOptions,
    ) -> Result<Self, PipelineError> {
        let audio_tokens = model.audio_tokens(audio, LONGEST_TRANSCRIBED)?;
        let finds_language = options.language.is_none() && !options.skip_language_detection;
        let prompt = prompt::transcription(&model.tokenizer, audio_tokens, options.language)?;
        let size = PromptSize {
            tokens: prompt.len(),
            audio_tokens,
        };
        let limit = model.answer_limit(size, options.max_new_tokens, audio_tokens)?;
        let sampler = model.sampler(&options.sampling)?.with_prompt(&prompt);
        // All but what asks for the transcript.
        let unknown_language = finds_language.then(|| prompt.len() - 1);
        let wanted = options.word_times.then_some(&prompt);
        let aligner =
            wanted.and_then(|prompt| Aligner::new(model, audio, prompt, options.keeps_attention));
        let mut cache = model.decoder.new_cache(prompt.len() + limit);
        if let (Some(_), Some(heads)) = (&aligner, model.known_heads.get()) {
            model.decoder.watch(&mut cache, &heads)?;
        }
        let task = Task {
            cache,
            prompt,
            limit,
            sampler,
            sampling: &options.sampling,
            cancel: &options.cancel,
        };
        Ok(Self {
            writing: Writing::start(model, task)?,
            model,
            unknown_language,
            language: options.language,
            duration: audio.duration(),
            truncated: audio.is_truncated(),
            aligner,
        })
    }

    pub(crate) fn finish(self) -> Result<Transcript, PipelineError> {
        let model = self.model;
        let mut written = self.writing.finish();
        let words = match &self.aligner {
            Some(aligner) => {
                let spoken = Spoken {
                    text: &written.text,
                    tokens: &written.tokens,
                    cache: &mut written.cache,
                };
                let align = || aligner.words(model, spoken);
                measure(&mut written.timings.alignment, align)?
            }
            None => None,
        };
        let detected = match self.unknown_language {
            Some(heard) => {
                let heard = (&mut written.cache, heard);
                model.detect_language(&written.text, heard, &mut written.timings)?
            }
            None => None,
        };
        let asked = self.language.map(|language| language.to_string());
        let mut transcript = Transcript {
            text: written.text.trim_end().to_owned(),
            language: asked.or_else(|| Some(detected.as_ref()?.language.clone())),
            language_detected: detected,
            duration: self.duration,
            model: written.model,
            finish: written.finish,
            stop: written.stop,
            truncated: self.truncated,
            segments: words.as_deref().map(segments),
            words,
            gaps: Vec::new(),
            warnings: Vec::new(),
            tokens: written.tokens,
            timings: written.timings,
        };
        if let (None, Some(aligner)) = (&transcript.words, self.aligner) {
            let text = transcript.text.trim();
            transcript.segments = Some(aligner.whole(text, transcript.confidence()));
        }
        Ok(transcript)
    }
}

/// A session, and where its sound comes from.
struct Stream<'m, B: Backend> {
    session: Session<'m, B>,
    source: Source<'m>,
    /// Samples that are not pushed yet: as many go together as are encoded at once, no more, so
    /// that every pass is a full one.
    gathered: Vec<f32>,
    steps: VecDeque<Step>,
    /// Length of the audio, where it is known.
    total: Option<Duration>,
    on_window: OnWindow,
    ended: bool,
}

enum Source<'a> {
    Clip {
        chunks: std::slice::Chunks<'a, f32>,
        truncated: bool,
    },
    Decoder(Box<Decoder>),
}

impl Source<'_> {
    fn next(&mut self) -> Option<Result<std::borrow::Cow<'_, [f32]>, AudioError>> {
        match self {
            Self::Clip { chunks, .. } => chunks.next().map(|chunk| Ok(chunk.into())),
            Self::Decoder(decoder) => decoder.next().map(|chunk| chunk.map(Into::into)),
        }
    }

    fn truncated(&self) -> bool {
        match self {
            Self::Clip { truncated, .. } => *truncated,
            Self::Decoder(decoder) => decoder.truncated(),
        }
    }
}

impl<'m, B: Backend> Stream<'m, B> {
    fn of_clip(
        model: &'m Voxtral<B>,
        audio: &'m Audio,
        options: &TranscribeOptions,
    ) -> Result<Self, PipelineError> {
        if audio.samples().is_empty() {
            return Err(AudioError::Empty.into());
        }
        let source = Source::Clip {
            chunks: audio.samples().chunks(1 << 14),
            truncated: audio.is_truncated(),
        };
        let rate = audio.sample_rate();
        Self::new(model, source, rate, Some(audio.duration()), options)
    }

    fn of_decoder(
        model: &'m Voxtral<B>,
        decoder: Decoder,
        options: &TranscribeOptions,
    ) -> Result<Self, PipelineError> {
        let (rate, total) = (decoder.sample_rate(), decoder.duration());
        let source = Source::Decoder(Box::new(decoder));
        Self::new(model, source, rate, total, options)
    }

    fn new(
        model: &'m Voxtral<B>,
        source: Source<'m>,
        sample_rate: u32,
        total: Option<Duration>,
        options: &TranscribeOptions,
    ) -> Result<Self, PipelineError> {
        if let Some(language) = options.language {
            tracing::warn!(
                "the language `{language}` is ignored: a Realtime model finds it out by itself"
            );
        }
        let session = model.session(&SessionOptions {
            delay: options.delay,
            sample_rate: Some(sample_rate),
            sampling: options.sampling.clone(),
            discard: false,
            one_by_one: options.one_by_one,
            cancel: options.cancel.clone(),
        })?;
        Ok(Self {
            session,
            source,
            gathered: Vec::new(),
            steps: VecDeque::new(),
            total,
            on_window: options.on_window.clone(),
            ended: false,
        })
    }

    /// Reads as much as is encoded at once, or what is left; gives its number of samples.
    fn gather(&mut self) -> Result<usize, PipelineError> {
        let enough = self.session.samples_per_pass();
        while self.gathered.len() < enough {
            match self.source.next().transpose()? {
                Some(samples) => self.gathered.extend_from_slice(&samples),
                None => break,
            }
        }
        Ok(enough.min(self.gathered.len()))
    }

    fn step(&mut self) -> Result<Option<Step>, PipelineError> {
        loop {
            if let Some(step) = self.steps.pop_front() {
                return Ok(Some(step));
            }
            if self.ended {
                return Ok(None);
            }
            let piece = self.gather()?;
            let steps = if piece > 0 {
                let steps = self.session.push(&self.gathered[..piece]);
                self.gathered.drain(..piece);
                steps
            } else {
                self.ended = true;
                self.session.end()
            };
            // Those before an error are told before it.
            self.steps.extend(self.session.take_steps());
            self.steps.extend(steps?);
            if let Some(total) = self.total {
                let done = self.session.received().min(total);
                let done = if self.ended { total } else { done };
                self.on_window
                    .call(done.as_secs() as usize, total.as_secs() as usize);
            }
        }
    }
}
