//! Clips that are transcribed together: each pass of the decoder reads its weights once for all.

use std::collections::VecDeque;
use std::iter::Fuse;
use std::num::NonZeroUsize;

use voxtral_audio::Audio;
use voxtral_nn::Backend;

use crate::{
    PipelineError, Step, TranscribeOptions, Transcript, Voxtral, generate, transcribe::Clip,
};

/// Clips of different lengths and options that are transcribed together.
///
/// They join at any time and leave when they end, fail or are cancelled, each by itself. Decoding is
/// bound by reading the weights, which a [pass](Self::advance) does once for all clips, so it takes
/// little longer for eight than for one. In `f32` the tokens are those of each clip alone.
///
/// The batch holds the cache of every clip in it: how many there are at once is the caller's choice,
/// see [`Voxtral::transcribe_batch`].
pub struct Batch<'m, B: Backend> {
    model: &'m Voxtral<B>,
    clips: Vec<(usize, Clip<'m, B>)>,
}

/// What a pass made of a clip.
#[derive(Debug)]
pub enum BatchEvent {
    /// A step; there may be more.
    Step(Step),
    /// All there is. The clip has left.
    Finished(Box<Transcript>),
    /// An error, or that the clip was cancelled. It has left, the others go on.
    Failed(PipelineError),
}

impl<B: Backend> Voxtral<B> {
    /// An empty batch.
    pub fn batch(&self) -> Batch<'_, B> {
        Batch {
            model: self,
            clips: Vec::new(),
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
    ) -> Transcriptions<'_, B, J::IntoIter, E>
    where
        J: IntoIterator<Item = Result<(Audio, TranscribeOptions), E>>,
        E: From<PipelineError>,
    {
        Transcriptions {
            batch: self.batch(),
            jobs: jobs.into_iter().fuse(),
            taken: 0,
            size,
            ready: VecDeque::new(),
        }
    }
}

impl<B: Backend> Batch<'_, B> {
    /// Clips in it.
    pub fn len(&self) -> usize {
        self.clips.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.clips.is_empty()
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
        self.clips.push((number, clip));
        Ok(())
    }

    /// Advances every clip by one pass of the decoder: by a token, or by a piece of its prompt, which
    /// makes nothing yet. Gives what came of it, with the numbers of the clips.
    pub fn advance(&mut self) -> Vec<(usize, BatchEvent)> {
        let clips = self.clips.iter_mut();
        generate::advance(
            &self.model.decoder,
            clips.map(|(_, clip)| &mut clip.writing.sequence),
        );
        let mut events = Vec::new();
        for (number, mut clip) in std::mem::take(&mut self.clips) {
            let failed = loop {
                match clip.writing.take() {
                    Some(Ok(step)) => events.push((number, BatchEvent::Step(step))),
                    Some(Err(error)) => break Some(error),
                    None => break None,
                }
            };
            if let Some(error) = failed {
                events.push((number, BatchEvent::Failed(error)));
            } else if clip.writing.sequence.has_ended() {
                let transcript = Box::new(clip.finish());
                events.push((number, BatchEvent::Finished(transcript)));
            } else {
                self.clips.push((number, clip));
            }
        }
        events
    }
}

/// Results of [`Voxtral::transcribe_batch`], as they are finished.
pub struct Transcriptions<'m, B: Backend, J, E> {
    batch: Batch<'m, B>,
    jobs: Fuse<J>,
    /// Jobs that were taken.
    taken: usize,
    size: NonZeroUsize,
    ready: VecDeque<(usize, Result<Transcript, E>)>,
}

impl<B, J, E> Transcriptions<'_, B, J, E>
where
    B: Backend,
    J: Iterator<Item = Result<(Audio, TranscribeOptions), E>>,
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
            let begun = job.and_then(|(audio, options)| self.begin(number, &audio, &options));
            if let Err(error) = begun {
                self.ready.push_back((number, Err(error)));
            }
        }
    }

    fn begin(
        &mut self,
        number: usize,
        audio: &Audio,
        options: &TranscribeOptions,
    ) -> Result<(), E> {
        let model = self.batch.model;
        if model.is_streaming() {
            let transcript = model.transcribe(audio, options)?;
            self.ready.push_back((number, Ok(transcript)));
        } else {
            self.batch.add(number, audio, options)?;
        }
        Ok(())
    }
}

impl<B, J, E> Iterator for Transcriptions<'_, B, J, E>
where
    B: Backend,
    J: Iterator<Item = Result<(Audio, TranscribeOptions), E>>,
    E: From<PipelineError>,
{
    type Item = (usize, Result<Transcript, E>);

    fn next(&mut self) -> Option<Self::Item> {
        self.fill();
        while self.ready.is_empty() && !self.batch.is_empty() {
            for (number, event) in self.batch.advance() {
                match event {
                    BatchEvent::Step(_) => {}
                    BatchEvent::Finished(transcript) => {
                        self.ready.push_back((number, Ok(*transcript)));
                    }
                    BatchEvent::Failed(error) => self.ready.push_back((number, Err(error.into()))),
                }
            }
        }
        self.ready.pop_front()
    }
}
