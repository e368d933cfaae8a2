//! A sequence of the generation loop, written down as text.

use std::borrow::Borrow;

use voxtral_audio::Audio;
use voxtral_nn::{Backend, KvCache};

use crate::{
    Cancel, Choice, Finish, OnWindow, PipelineError, SamplingOptions, Step, Timings, Token,
    Voxtral,
    fusion::Splice,
    generate::{End, Request, Sequence},
    listening::{Listening, WINDOWS_PER_BATCH},
    sample::Sampler,
    transcript::Scribe,
};

/// What is to be written, behind what is in the cache.
pub(crate) struct Task<'a, B: Backend> {
    /// Ids, with places for the audio.
    pub(crate) prompt: Vec<u32>,
    /// Has room for the prompt and the answer.
    pub(crate) cache: KvCache<B>,
    /// Tokens of the answer at most.
    pub(crate) limit: usize,
    pub(crate) sampler: Sampler,
    /// Says where the text ends.
    pub(crate) sampling: &'a SamplingOptions,
    pub(crate) cancel: &'a Cancel,
}

/// An answer that grows.
pub(crate) struct Writing<'m, B: Backend> {
    pub(crate) model: &'m Voxtral<B>,
    pub(crate) sequence: Sequence<B, Splice<B>>,
    pub(crate) scribe: Scribe<'m>,
    pub(crate) timings: Timings,
}

/// An answer that was written.
pub(crate) struct Written<B: Backend> {
    pub(crate) text: String,
    pub(crate) tokens: Vec<Token>,
    pub(crate) finish: Finish,
    pub(crate) stop: Option<String>,
    pub(crate) model: String,
    pub(crate) timings: Timings,
    /// Prompt and answer, as far as they were run.
    pub(crate) cache: KvCache<B>,
}

impl<'m, B: Backend> Writing<'m, B> {
    /// Begins; the audio is still to be [heard](Self::hear), or given piece by piece to the sequence's
    /// fusion.
    pub(crate) fn start(model: &'m Voxtral<B>, task: Task<'_, B>) -> Result<Self, PipelineError> {
        let splice = Splice::new(model.placeholder()?);
        let timings = Timings {
            prompt_tokens: task.prompt.len(),
            ..Timings::default()
        };
        let request = Request {
            prompt: task.prompt,
            end: End::Stop(model.end),
            limit: task.limit,
            sampler: task.sampler,
            draft: None,
            cancel: task.cancel.clone(),
        };
        Ok(Self {
            model,
            sequence: Sequence::with_cache(task.cache, splice, request),
            scribe: Scribe::new(&model.tokenizer, true).stop_at(model.end, task.sampling),
            timings,
        })
    }

    /// Hears the clips of the prompt, all at once.
    pub(crate) fn hear<A: Borrow<Audio>>(
        &mut self,
        clips: impl IntoIterator<Item = A>,
        (cancel, on_window): (&Cancel, &OnWindow),
    ) -> Result<(), PipelineError> {
        let (model, timings) = (self.model, &mut self.timings);
        let mut listening = Listening::new(model, clips, timings)?;
        while listening.left() > 0 {
            cancel.check()?;
            let (done, all) = listening.progress();
            on_window.call(done, all);
            let mel = listening.take(model, WINDOWS_PER_BATCH, timings)?;
            let piece = timings.encoder(|| model.encode(mel))?;
            self.sequence.fusion.push(piece);
        }
        let (done, all) = listening.progress();
        on_window.call(done, all);
        self.sequence.fusion.complete();
        Ok(())
    }

    /// Makes the next step; nothing behind the last.
    pub(crate) fn step(&mut self) -> Result<Option<Step>, PipelineError> {
        let choice = self.sequence.next_token(&self.model.decoder).transpose()?;
        Ok(choice.map(|choice| self.write(choice)))
    }

    /// A step that was made, or the error that ended it.
    pub(crate) fn take(&mut self) -> Option<Result<Step, PipelineError>> {
        let choice = self.sequence.take()?;
        Some(choice.map(|choice| self.write(choice)))
    }

    fn write(&mut self, choice: Choice) -> Step {
        let step = self.scribe.write(choice, self.sequence.limit_reached());
        if self.scribe.stopped() {
            self.sequence.stop();
        }
        step
    }

    /// What was written.
    pub(crate) fn finish(self) -> Written<B> {
        let finish = if self.scribe.stopped() {
            Finish::Stop
        } else {
            Finish::Length
        };
        Written {
            text: self.scribe.text,
            tokens: self.scribe.tokens,
            finish,
            stop: self.scribe.stop,
            model: self.model.name.clone(),
            timings: Timings {
                prefill: self.sequence.prefill_time,
                decode: self.sequence.decode_time,
                passes: self.sequence.passes,
                ..self.timings
            },
            cache: self.sequence.into_cache(),
        }
    }
}
