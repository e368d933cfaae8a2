//! Recordings of any length, for models that take clips.
//!
//! The audio is cut at quiet places into windows that the model hears well ([`windows`]), those in
//! which nothing is audible are left out, and the others are heard in order or several together.
//! What is heard is not believed unseen ([`doubts`]): an empty text for loud sound, a text that ends
//! early, repeats itself, does not end, or is far too long or short for its sound is heard again in
//! other ways ([`course`]): in two parts, in three, at a small temperature. The best is kept, and what
//! stays doubtful is told. So every second is covered by text, silent by the audio itself, or a
//! [`Gap`].
//!
//! Memory holds a few windows, and the transcript.

mod attempt;
mod course;
mod doubts;
mod journal;
mod listener;
mod stitch;
#[cfg(test)]
mod tests;
mod together;
mod windows;

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroUsize;
use std::time::Duration;

use voxtral_audio::{Audio, AudioError, Decoder};
use voxtral_nn::Backend;

use crate::{
    DetectedLanguage, Finish, Gap, PipelineError, Segment, Timings, TranscribeOptions, Transcript,
    Voxtral, Warning, model::LONGEST_TRANSCRIBED,
};
use course::Course;
pub use journal::{Journal, JournalKey};
pub(crate) use listener::Job;
use listener::{Listener, Model};
use stitch::Settled;
use together::Together;
use windows::Windows;

/// Audio before the first speech and behind the last that is heard with it, under [`Vad::On`].
const MARGIN: Duration = Duration::from_millis(300);

/// The shortest windows that make sense: less than a sentence has no context.
const SHORTEST_WINDOW: Duration = Duration::from_secs(1);

/// Which windows of a recording are heard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Vad {
    /// Those with any sound above the noise floor.
    #[default]
    Auto,
    /// Those with speech, without what is before and behind it.
    On,
    /// All.
    Off,
}

/// What the transcription of a recording is asked for.
#[derive(Debug, Clone)]
pub struct LongOptions {
    /// How each window is transcribed; limits and seeds are those of a window. Its
    /// [`on_window`](TranscribeOptions::on_window) is not called.
    pub transcribe: TranscribeOptions,
    /// Which windows are heard.
    pub vad: Vad,
    /// The longest window; by default as much as the encoder hears at once, 30 s, of which shorter
    /// ones waste the rest.
    pub window: Option<Duration>,
    /// Windows that are heard together.
    pub batch_size: NonZeroUsize,
}

impl Default for LongOptions {
    fn default() -> Self {
        Self {
            transcribe: TranscribeOptions::default(),
            vad: Vad::default(),
            window: None,
            batch_size: NonZeroUsize::MIN,
        }
    }
}

/// What happens while a recording is transcribed.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum LongEvent {
    /// What the text grew by, with the space before it. All together are the transcript's text.
    Text(String),
    /// A segment of it.
    Segment(Segment),
    /// Sound without text.
    Gap(Gap),
    /// Doubtful text.
    Warning(Warning),
    /// A window is done with.
    Progress {
        /// So far.
        done: Duration,
        /// Length of the audio, where it is known.
        total: Option<Duration>,
        /// Whether a journal told of it, so that nothing was computed.
        from_journal: bool,
    },
}

/// The transcription of a recording: an iterator of [`LongEvent`]s, then [`finish`](Self::finish).
pub struct LongTranscription<'a, B: Backend> {
    engine: Engine<Model<'a, B>>,
}

impl<B: Backend> Voxtral<B> {
    /// Transcribes a recording step by step.
    ///
    /// ```
    /// # use burn_flex::Flex;
    /// use voxtral_pipeline::{Decoder, LongEvent, LongOptions, Voxtral};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let model = Voxtral::<Flex>::builder().demo()?; // or .open("mini")?
    /// let decoder = Decoder::open("../samples/digits-en.wav")?;
    /// let recording = model.recording(decoder, &LongOptions::default(), None)?;
    /// let mut run = model.start_long(recording);
    /// for event in run.by_ref() {
    ///     match event? {
    ///         LongEvent::Text(text) => print!("{text}"),
    ///         LongEvent::Gap(gap) => eprintln!("no text from {:?} to {:?}", gap.start, gap.end),
    ///         _ => {}
    ///     }
    /// }
    /// let transcript = run.finish()?;
    /// assert!(transcript.gaps.is_empty() && transcript.warnings.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    pub fn start_long(&self, recording: Recording) -> LongTranscription<'_, B> {
        LongTranscription {
            engine: Engine::new(Model(self), recording),
        }
    }

    /// What a decoder reads, to be transcribed by this model; with a journal, behind the windows that
    /// this one tells of.
    ///
    /// # Errors
    /// The model takes streams, an option is impossible, or the rate cannot be resampled. What is
    /// wrong with the audio is found out when it is read.
    pub fn recording(
        &self,
        decoder: Decoder,
        options: &LongOptions,
        journal: Option<Journal>,
    ) -> Result<Recording, PipelineError> {
        let longest = self.longest_window(options)?;
        let windows = Windows::of_decoder(decoder, self.sample_rate(), longest)?;
        Ok(Recording::new(windows, options, journal, self.name.clone()))
    }

    /// A clip of any length, to be transcribed in this way.
    ///
    /// # Errors
    /// As for [`recording`](Self::recording).
    pub fn recording_of(
        &self,
        audio: Audio,
        options: &LongOptions,
    ) -> Result<Recording, PipelineError> {
        let longest = self.longest_window(options)?;
        let windows = Windows::of_clip(audio, self.sample_rate(), longest)?;
        Ok(Recording::new(windows, options, None, self.name.clone()))
    }

    /// Transcribes a clip of any length in this way.
    ///
    /// # Errors
    /// As for [`recording`](Self::recording), and those of the events.
    pub fn transcribe_long(
        &self,
        audio: Audio,
        options: &LongOptions,
    ) -> Result<Transcript, PipelineError> {
        self.start_long(self.recording_of(audio, options)?).finish()
    }

    /// Transcribes several recordings, up to `size` windows of them together: an iterator that takes
    /// the next recording when there is room for it, and gives results as they are finished, with the
    /// number of the recording. One that fails does so alone.
    pub fn transcribe_long_batch<'a, J, E>(
        &'a self,
        jobs: J,
        size: NonZeroUsize,
    ) -> impl Iterator<Item = (usize, Result<Transcript, E>)> + 'a
    where
        J: IntoIterator<Item = Result<Recording, E>>,
        J::IntoIter: 'a,
        E: From<PipelineError> + 'a,
    {
        Together::new(Model(self), jobs.into_iter(), size)
    }

    /// Samples of the longest window.
    fn longest_window(&self, options: &LongOptions) -> Result<usize, PipelineError> {
        self.check_options(&options.transcribe)?;
        self.placeholder()?;
        let window = match options.window {
            None => return self.samples_of_encoder_window(),
            Some(window) => window,
        };
        if window < SHORTEST_WINDOW || window > LONGEST_TRANSCRIBED {
            return Err(PipelineError::InvalidOption {
                option: "length of a window",
                found: format!("{} s", window.as_secs_f64()),
                expected: "1 s to 30 min",
            });
        }
        Ok((window.as_secs_f64() * f64::from(self.sample_rate())) as usize)
    }
}

impl<B: Backend> LongTranscription<'_, B> {
    /// Runs the rest and gives the result.
    ///
    /// # Errors
    /// A step fails, failed before or is cancelled.
    pub fn finish(self) -> Result<Transcript, PipelineError> {
        self.engine.finish()
    }
}

impl<B: Backend> Iterator for LongTranscription<'_, B> {
    type Item = Result<LongEvent, PipelineError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.engine.next()
    }
}

/// A recording and who hears it.
struct Engine<L> {
    listener: L,
    recording: Recording,
    failed: bool,
}

impl<L: Listener> Engine<L> {
    fn new(listener: L, recording: Recording) -> Self {
        Self {
            listener,
            recording,
            failed: false,
        }
    }

    fn advance(&mut self) -> Result<Option<LongEvent>, PipelineError> {
        loop {
            if let Some(event) = self.recording.event()? {
                return Ok(Some(event));
            }
            if self.recording.closed {
                return Ok(None);
            }
            let jobs = self.recording.wanted(self.recording.room)?;
            let heard = self.listener.hear(&jobs);
            for (job, transcript) in jobs.iter().zip(heard) {
                self.recording.course.heard(job.id, transcript?)?;
            }
        }
    }

    fn finish(mut self) -> Result<Transcript, PipelineError> {
        for event in self.by_ref() {
            event?;
        }
        if self.failed {
            return Err(PipelineError::Unfinished);
        }
        Ok(self.recording.finish())
    }
}

impl<L: Listener> Iterator for Engine<L> {
    type Item = Result<LongEvent, PipelineError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let event = self.advance().transpose();
        self.failed = matches!(event, Some(Err(_)));
        event
    }
}

/// Audio of any length that is to be transcribed, and its transcript so far.
pub struct Recording {
    course: Course,
    /// Windows that are heard together.
    room: usize,
    /// Where it was opened, for messages of its decoder.
    span: tracing::Span,
    options: TranscribeOptions,
    transcript: Transcript,
    /// Whether all text has words with times.
    timed: bool,
    /// Seconds of each language that was found out, the sum of the probabilities over them, and what
    /// told it.
    languages: BTreeMap<String, (f64, f64, DetectedLanguage)>,
    events: VecDeque<LongEvent>,
    /// Whether the end was reached.
    closed: bool,
}

impl Recording {
    fn new(
        windows: Windows,
        options: &LongOptions,
        journal: Option<Journal>,
        model: String,
    ) -> Self {
        let language = options.transcribe.language;
        Self {
            course: Course::new(windows, options.clone(), journal),
            room: options.batch_size.get(),
            span: tracing::Span::current(),
            options: options.transcribe.clone(),
            transcript: Transcript {
                text: String::new(),
                language: language.map(|language| language.to_string()),
                language_detected: None,
                duration: Duration::ZERO,
                model,
                finish: Finish::Stop,
                stop: None,
                truncated: false,
                words: None,
                segments: Some(Vec::new()),
                gaps: Vec::new(),
                warnings: Vec::new(),
                tokens: Vec::new(),
                timings: Timings::default(),
            },
            timed: true,
            languages: BTreeMap::new(),
            events: VecDeque::new(),
            closed: false,
        }
    }

    /// Windows that are heard together.
    pub(crate) fn room(&self) -> usize {
        self.room
    }

    /// Whether every event was told.
    pub(crate) fn has_ended(&self) -> bool {
        self.closed && self.events.is_empty()
    }

    /// Whether the next event can be told, or there will be none.
    pub(crate) fn is_settled(&self) -> bool {
        self.course.is_settled()
    }

    /// What became of a job.
    pub(crate) fn heard(&mut self, job: usize, heard: Transcript) -> Result<(), PipelineError> {
        self.course.heard(job, heard)
    }

    /// The next event; none if more must be heard first, or at the end.
    pub(crate) fn event(&mut self) -> Result<Option<LongEvent>, PipelineError> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            if let Some((settled, from_journal)) = self.course.take() {
                self.add(settled, from_journal);
            } else if self.course.has_ended() && !self.closed {
                self.close()?;
            } else {
                return Ok(None);
            }
        }
    }

    /// Up to so many stretches to hear; see [`Course::wanted`].
    pub(crate) fn wanted(&mut self, room: usize) -> Result<Vec<Job>, PipelineError> {
        self.options.cancel.check()?;
        let _about = self.span.clone().entered();
        self.course.wanted(room)
    }

    fn add(&mut self, settled: Settled, from_journal: bool) {
        let rate = self.course.windows().sample_rate();
        let transcript = &mut self.transcript;
        if !settled.text.is_empty() {
            let added = stitch::join(&mut transcript.text, &settled.text);
            self.events.push_back(LongEvent::Text(added));
            match settled.words {
                Some(words) => transcript.words.get_or_insert_default().extend(words),
                None => self.timed = false,
            }
        }
        for segment in settled.segments {
            self.events.push_back(LongEvent::Segment(segment.clone()));
            transcript.segments.get_or_insert_default().push(segment);
        }
        for warning in settled.warnings {
            self.events.push_back(LongEvent::Warning(warning.clone()));
            transcript.warnings.push(warning);
        }
        if let Some(detected) = settled.language_detected {
            let seconds = (settled.end - settled.start) as f64 / f64::from(rate);
            let probability = f64::from(detected.probability);
            let name = detected.language.clone();
            let (time, sum, _) = self.languages.entry(name).or_insert((0.0, 0.0, detected));
            *time += seconds;
            *sum += seconds * probability;
        }
        if settled.finish == Finish::Length {
            transcript.finish = Finish::Length;
        }
        transcript.stop = transcript.stop.take().or(settled.stop);
        transcript.tokens.extend(settled.tokens);
        stitch::add_timings(&mut transcript.timings, &settled.timings);
        for gap in settled.gaps {
            self.add_gap(gap);
        }
        let windows = self.course.windows();
        self.events.push_back(LongEvent::Progress {
            done: stitch::time(settled.end, rate),
            total: windows.stated(),
            from_journal,
        });
    }

    fn add_gap(&mut self, gap: Gap) {
        self.events.push_back(LongEvent::Gap(gap.clone()));
        match self.transcript.gaps.last_mut() {
            // A gap does not end where a window does.
            Some(last) if last.end == gap.start && last.reason == gap.reason => last.end = gap.end,
            _ => self.transcript.gaps.push(gap),
        }
    }

    /// Tells what the end of the audio tells.
    fn close(&mut self) -> Result<(), PipelineError> {
        self.closed = true;
        let windows = self.course.windows();
        let (read, stated) = (windows.read(), windows.stated());
        if read == 0 {
            return Err(AudioError::Empty.into());
        }
        let end = stitch::time(read, windows.sample_rate());
        let truncated = windows.truncated();
        self.transcript.duration = end;
        self.transcript.truncated = truncated;
        if truncated {
            self.add_gap(Gap::truncated(end, stated));
        }
        Ok(())
    }

    pub(crate) fn finish(mut self) -> Transcript {
        let _about = self.span.clone().entered();
        if !self.timed {
            self.transcript.words = None;
            if self.options.word_times {
                self.transcript.warn_of_missing_times();
            }
        }
        let longest = self.languages.into_values();
        let longest = longest.max_by(|(a, ..), (b, ..)| a.total_cmp(b));
        if self.transcript.language.is_none()
            && let Some((seconds, sum, detected)) = longest
        {
            self.transcript.language = Some(detected.language.clone());
            self.transcript.language_detected = Some(DetectedLanguage {
                probability: (sum / seconds) as f32,
                ..detected
            });
        }
        self.transcript
    }
}
