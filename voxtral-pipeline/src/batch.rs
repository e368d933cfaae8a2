//! Clips, recordings and conversations that are computed together: each pass of the decoder reads
//! its weights once for all.

mod encoding;
mod recordings;
mod together;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use voxtral_audio::Audio;
use voxtral_nn::Backend;

use crate::{
    Answer, ChatOptions, LongEvent, Message, OnWindow, PipelineError, Recording, Step,
    TranscribeOptions, Transcript, Voxtral, chat,
    chat::Memory,
    generate::{self, Pace},
    listening::Listening,
    transcribe::Clip,
    writing::Writing,
};
use encoding::Encodings;
use recordings::Course;

/// Clips and recordings to transcribe and conversations to answer, of any lengths and options, that
/// are computed together.
///
/// They join at any time and leave when they end, fail or are cancelled, each by itself. Decoding is
/// bound by reading the weights, which a [pass](Self::advance) does once for all, so it takes
/// little longer for eight than for one. Windows of several are encoded together, of those first
/// that had the fewest, so that a short clip does not wait for a long one. In `f32` the tokens are
/// those of each alone.
///
/// The batch holds the cache of everything in it: how many there are at once is the caller's choice,
/// see [`Voxtral::transcribe_batch`].
pub struct Batch<'m, B: Backend> {
    model: &'m Voxtral<B>,
    members: Vec<Entry<'m, B>>,
    recordings: Vec<Course>,
    encodings: Encodings<B>,
    pace: Pace,
    /// Of the next member.
    next_id: u64,
}

/// A member, and whose it is.
struct Entry<'m, B: Backend> {
    id: u64,
    /// The caller's.
    number: usize,
    /// Its job, where it is a stretch of a recording.
    job: Option<usize>,
    /// Windows that the caller's member had before this one.
    before: usize,
    /// Clips that are not encoded.
    listening: Listening<Arc<Audio>>,
    on_window: OnWindow,
    member: Member<'m, B>,
}

enum Member<'m, B: Backend> {
    Clip(Box<Clip<'m, B>>),
    Conversation(Box<chat::Run<'m, B>>),
}

/// What a pass made of a member of a batch.
#[derive(Debug)]
pub enum BatchEvent {
    /// A step of a clip or an answer; there may be more.
    Step(Step),
    /// What happened in a recording; there may be more.
    Recording(LongEvent),
    /// All there is of a clip or a recording. It has left.
    Transcript(Box<Transcript>),
    /// All there is of an answer. Its conversation has left.
    Answer(Box<Answer>),
    /// An error, or that the member was cancelled. It has left, the others go on.
    Failed(PipelineError),
}

impl<'m, B: Backend> Member<'m, B> {
    fn writing(&mut self) -> &mut Writing<'m, B> {
        match self {
            Self::Clip(clip) => &mut clip.writing,
            Self::Conversation(run) => &mut run.writing,
        }
    }

    fn take(&mut self) -> Option<Result<Step, PipelineError>> {
        match self {
            Self::Clip(clip) => clip.writing.take(),
            Self::Conversation(run) => run.take(),
        }
    }

    fn finish(self) -> BatchEvent {
        match self {
            Self::Clip(clip) => match clip.finish() {
                Ok(transcript) => BatchEvent::Transcript(Box::new(transcript)),
                Err(error) => BatchEvent::Failed(error),
            },
            Self::Conversation(run) => match run.finish(None) {
                Ok(answer) => BatchEvent::Answer(Box::new(answer)),
                Err(error) => BatchEvent::Failed(error),
            },
        }
    }
}

impl<B: Backend> Voxtral<B> {
    /// An empty batch.
    pub fn batch(&self) -> Batch<'_, B> {
        Batch {
            model: self,
            members: Vec::new(),
            recordings: Vec::new(),
            encodings: Encodings::default(),
            pace: Pace::default(),
            next_id: 0,
        }
    }
}

impl<'m, B: Backend> Batch<'m, B> {
    /// Its members; a recording counts for each of its windows that is being heard, and for one
    /// where none is.
    pub fn len(&self) -> usize {
        let idle = self.recordings.iter().filter(|course| course.open == 0);
        self.members.len() + idle.count()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.recordings.is_empty()
    }

    /// Adds a clip. The number is the caller's and stands beside what becomes of it.
    ///
    /// # Errors
    /// As for [`Voxtral::start`]: nothing was added. The model takes streams, not clips.
    pub fn add(
        &mut self,
        number: usize,
        audio: impl Into<Arc<Audio>>,
        options: &TranscribeOptions,
    ) -> Result<(), PipelineError> {
        self.add_clip((number, None, 0), audio.into(), options)
    }

    /// Adds a conversation. The number is the caller's.
    ///
    /// # Errors
    /// As for [`Chat::ask`](crate::Chat::ask): nothing was added.
    pub fn ask(
        &mut self,
        number: usize,
        messages: &[Message],
        options: &ChatOptions,
    ) -> Result<(), PipelineError> {
        let (run, clips) = self.model.run(messages, options, &mut Memory::default())?;
        let member = Member::Conversation(Box::new(run));
        self.push((number, None, 0), member, clips, &options.on_window)
    }

    /// Adds a recording, whose windows are heard beside all others, as many together as its options
    /// say. The number is the caller's.
    pub fn transcribe(&mut self, number: usize, recording: Recording) {
        self.recordings.push(Course::new(number, recording));
    }

    /// Takes out whatever has this number.
    pub fn remove(&mut self, number: usize) {
        self.members.retain(|entry| entry.number != number);
        self.recordings.retain(|course| course.number != number);
    }

    fn add_clip(
        &mut self,
        owner: (usize, Option<usize>, usize),
        audio: Arc<Audio>,
        options: &TranscribeOptions,
    ) -> Result<(), PipelineError> {
        self.model.check_options(options)?;
        let clip = alone(|| Clip::prepare(self.model, &audio, options))?;
        let member = Member::Clip(Box::new(clip));
        self.push(owner, member, vec![audio], &options.on_window)
    }

    fn push(
        &mut self,
        (number, job, before): (usize, Option<usize>, usize),
        mut member: Member<'m, B>,
        clips: Vec<Arc<Audio>>,
        on_window: &OnWindow,
    ) -> Result<(), PipelineError> {
        let writing = member.writing();
        let listening = Listening::new(self.model, clips, &mut writing.timings)?;
        if listening.left() == 0 {
            writing.sequence.fusion.complete();
        }
        self.members.push(Entry {
            id: self.next_id,
            number,
            job,
            before,
            listening,
            on_window: on_window.clone(),
            member,
        });
        self.next_id += 1;
        Ok(())
    }

    /// Advances every member: those that are behind their prompts by a token, others by a piece of
    /// their prompt or of their audio's way through the encoder, which make nothing yet and take
    /// little enough time that nobody waits long for a token. Gives what came of it, with the
    /// numbers of the members.
    pub fn advance(&mut self) -> Vec<(usize, BatchEvent)> {
        let mut events = Vec::new();
        self.hear_recordings(&mut events);
        self.encodings.advance(self.model, &mut self.members);
        let sequences = self.members.iter_mut();
        let sequences = sequences.map(|entry| &mut entry.member.writing().sequence);
        generate::advance(&self.model.decoder, sequences, &mut self.pace);
        for mut entry in std::mem::take(&mut self.members) {
            let failed = loop {
                match alone(|| entry.member.take().transpose()).transpose() {
                    Some(Ok(_)) if entry.job.is_some() => {}
                    Some(Ok(step)) => events.push((entry.number, BatchEvent::Step(step))),
                    Some(Err(error)) => break Some(error),
                    None => break None,
                }
            };
            let event = if let Some(error) = failed {
                BatchEvent::Failed(error)
            } else if entry.member.writing().sequence.has_ended() {
                let finished = alone(|| Ok(entry.member.finish()));
                finished.unwrap_or_else(BatchEvent::Failed)
            } else {
                self.members.push(entry);
                continue;
            };
            match entry.job {
                Some(job) => self.heard(entry.number, job, event),
                None => events.push((entry.number, event)),
            }
        }
        self.tell_recordings(&mut events);
        events
    }
}

/// Does work of one member; where it panics, it fails alone.
fn alone<T>(work: impl FnOnce() -> Result<T, PipelineError>) -> Result<T, PipelineError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(PipelineError::Panicked))
}
