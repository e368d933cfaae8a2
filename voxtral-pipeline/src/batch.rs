//! Clips and conversations that are answered together: each pass of the decoder reads its weights
//! once for all.

use std::collections::VecDeque;
use std::iter::Fuse;
use std::num::NonZeroUsize;

use voxtral_audio::Audio;
use voxtral_nn::Backend;

use crate::{
    Answer, ChatOptions, Message, PipelineError, Step, TranscribeOptions, Transcript, Voxtral,
    chat, chat::Memory, generate, transcribe::Clip, writing::Writing,
};

/// Clips to transcribe and conversations to answer, of any lengths and options, that are decoded
/// together.
///
/// They join at any time and leave when they end, fail or are cancelled, each by itself. Decoding is
/// bound by reading the weights, which a [pass](Self::advance) does once for all clips, so it takes
/// little longer for eight than for one. In `f32` the tokens are those of each clip alone.
///
/// The batch holds the cache of every clip in it: how many there are at once is the caller's choice,
/// see [`Voxtral::transcribe_batch`].
pub struct Batch<'m, B: Backend> {
    model: &'m Voxtral<B>,
    members: Vec<(usize, Member<'m, B>)>,
}

enum Member<'m, B: Backend> {
    Clip(Box<Clip<'m, B>>),
    Conversation(Box<chat::Run<'m, B>>),
}

/// What a pass made of a member of a batch.
#[derive(Debug)]
pub enum BatchEvent {
    /// A step; there may be more.
    Step(Step),
    /// All there is of a clip. It has left.
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
        }
    }

    /// Transcribes clips, up to `size` of them together: an iterator that takes the next clip when
    /// there is room for it, and gives results as they are finished, with the number of the clip. A
    /// clip that could not be had, as a job that is an error, fails like one that cannot be
    /// transcribed: alone.
    ///
    /// A Realtime model transcribes them one by one.
    ///
    /// ```
    /// # use std::num::NonZeroUsize;
    /// # use burn_flex::Flex;
    /// use voxtral_pipeline::{PipelineError, TranscribeOptions, Voxtral};
    ///
    /// # fn main() -> Result<(), PipelineError> {
    /// let model = Voxtral::<Flex>::builder().demo()?; // or .open("mini")?
    /// let files = ["../samples/digits-en.wav", "absent.wav", "../samples/digits-fr.wav"];
    /// let jobs = files.map(|file| Ok((model.read_audio(file)?, TranscribeOptions::default())));
    /// let mut failed = 0;
    /// for (index, result) in model.transcribe_batch(jobs, NonZeroUsize::MIN.saturating_add(7)) {
    ///     match result {
    ///         Ok(transcript) => println!("{}: {}", files[index], transcript.text),
    ///         Err(error) => {
    ///             let error: PipelineError = error;
    ///             eprintln!("{}: {error}", files[index]);
    ///             failed += 1;
    ///         }
    ///     }
    /// }
    /// assert_eq!(failed, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn transcribe_batch<J, E>(
        &self,
        jobs: J,
        size: NonZeroUsize,
    ) -> impl Iterator<Item = (usize, Result<Transcript, E>)>
    where
        J: IntoIterator<Item = Result<(Audio, TranscribeOptions), E>>,
        E: From<PipelineError>,
    {
        Together {
            batch: self.batch(),
            jobs: jobs.into_iter().fuse(),
            begin: |batch, number, (audio, options)| {
                if batch.model.is_streaming() {
                    return batch.model.transcribe(&audio, &options).map(Some);
                }
                batch.add(number, &audio, &options).map(|()| None)
            },
            output: |event| match event {
                BatchEvent::Transcript(transcript) => {
                    transcript.warn_of_missing_times();
                    Some(Ok(*transcript))
                }
                BatchEvent::Failed(error) => Some(Err(error)),
                _ => None,
            },
            taken: 0,
            size,
            ready: VecDeque::new(),
        }
    }

    /// Answers conversations, up to `size` of them together, in the way of
    /// [`transcribe_batch`](Self::transcribe_batch).
    pub fn answer_batch<J, E>(
        &self,
        jobs: J,
        size: NonZeroUsize,
    ) -> impl Iterator<Item = (usize, Result<Answer, E>)>
    where
        J: IntoIterator<Item = Result<(Vec<Message>, ChatOptions), E>>,
        E: From<PipelineError>,
    {
        Together {
            batch: self.batch(),
            jobs: jobs.into_iter().fuse(),
            begin: |batch, number, (messages, options): (Vec<Message>, ChatOptions)| {
                batch.ask(number, &messages, &options).map(|()| None)
            },
            output: |event| match event {
                BatchEvent::Answer(answer) => Some(Ok(*answer)),
                BatchEvent::Failed(error) => Some(Err(error)),
                _ => None,
            },
            taken: 0,
            size,
            ready: VecDeque::new(),
        }
    }
}

impl<B: Backend> Batch<'_, B> {
    /// Its members.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Encodes a clip and adds it. The number is the caller's and stands beside what becomes of it.
    ///
    /// # Errors
    /// As for [`Voxtral::start`]: nothing was added. The model takes streams, not clips.
    pub fn add(
        &mut self,
        number: usize,
        audio: &Audio,
        options: &TranscribeOptions,
    ) -> Result<(), PipelineError> {
        self.model.check_options(options)?;
        let clip = Clip::start(self.model, audio, options)?;
        self.members.push((number, Member::Clip(Box::new(clip))));
        Ok(())
    }

    /// Encodes the clips of a conversation and adds it. The number is the caller's.
    ///
    /// # Errors
    /// As for [`Chat::ask`](crate::Chat::ask): nothing was added.
    pub fn ask(
        &mut self,
        number: usize,
        messages: &[Message],
        options: &ChatOptions,
    ) -> Result<(), PipelineError> {
        let run = self.model.run(messages, options, &mut Memory::default())?;
        self.members
            .push((number, Member::Conversation(Box::new(run))));
        Ok(())
    }

    /// Advances every member by one pass of the decoder: by a token, or by a piece of its prompt,
    /// which makes nothing yet. Gives what came of it, with the numbers of the members.
    pub fn advance(&mut self) -> Vec<(usize, BatchEvent)> {
        let sequences = self.members.iter_mut();
        let sequences = sequences.map(|(_, member)| &mut member.writing().sequence);
        generate::advance(&self.model.decoder, sequences);
        let mut events = Vec::new();
        for (number, mut member) in std::mem::take(&mut self.members) {
            let failed = loop {
                match member.take() {
                    Some(Ok(step)) => events.push((number, BatchEvent::Step(step))),
                    Some(Err(error)) => break Some(error),
                    None => break None,
                }
            };
            if let Some(error) = failed {
                events.push((number, BatchEvent::Failed(error)));
            } else if member.writing().sequence.has_ended() {
                events.push((number, member.finish()));
            } else {
                self.members.push((number, member));
            }
        }
        events
    }
}

type Begin<'m, B, W, O> = fn(&mut Batch<'m, B>, usize, W) -> Result<Option<O>, PipelineError>;

/// Jobs that are done together, and their results as they are finished.
struct Together<'m, B: Backend, J, W, O, E> {
    batch: Batch<'m, B>,
    jobs: Fuse<J>,
    /// Adds a job to the batch, or does it at once.
    begin: Begin<'m, B, W, O>,
    /// The result in an event.
    output: fn(BatchEvent) -> Option<Result<O, PipelineError>>,
    /// Jobs that were taken.
    taken: usize,
    size: NonZeroUsize,
    ready: VecDeque<(usize, Result<O, E>)>,
}

impl<B, J, W, O, E> Together<'_, B, J, W, O, E>
where
    B: Backend,
    J: Iterator<Item = Result<W, E>>,
    E: From<PipelineError>,
{
    /// Takes jobs while there is room for them and no result.
    fn fill(&mut self) {
        while self.ready.is_empty() && self.batch.len() < self.size.get() {
            let Some(job) = self.jobs.next() else {
                return;
            };
            let number = self.taken;
            self.taken += 1;
            let begun = job.and_then(|work| Ok((self.begin)(&mut self.batch, number, work)?));
            if let Some(result) = begun.transpose() {
                self.ready.push_back((number, result));
            }
        }
    }
}

impl<B, J, W, O, E> Iterator for Together<'_, B, J, W, O, E>
where
    B: Backend,
    J: Iterator<Item = Result<W, E>>,
    E: From<PipelineError>,
{
    type Item = (usize, Result<O, E>);

    fn next(&mut self) -> Option<Self::Item> {
        self.fill();
        while self.ready.is_empty() && !self.batch.is_empty() {
            for (number, event) in self.batch.advance() {
                if let Some(result) = (self.output)(event) {
                    self.ready.push_back((number, result.map_err(E::from)));
                }
            }
        }
        self.ready.pop_front()
    }
}
