//! Jobs of a list that are done together, as many at once as there is room for.

use std::collections::VecDeque;
use std::iter::Fuse;
use std::num::NonZeroUsize;

use voxtral_audio::Audio;
use voxtral_nn::Backend;

use super::{Batch, BatchEvent};
use crate::{Answer, ChatOptions, Message, PipelineError, TranscribeOptions, Transcript, Voxtral};

impl<B: Backend> Voxtral<B> {
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
                batch.add(number, audio, &options).map(|()| None)
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
