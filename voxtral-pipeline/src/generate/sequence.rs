//! A sequence: what is generated, how far it is, and what it brings to the next pass.

use std::collections::VecDeque;
use std::time::Duration;

use burn_tensor::Tensor;
use voxtral_decoder::Decoder;
use voxtral_nn::{Backend, KvCache};

use super::{Pace, advance};
use crate::{
    Cancel, PipelineError,
    draft::Draft,
    fusion::AudioFusion,
    sample::{Choice, Sampler},
};

/// A sequence that is generated, with a cache of its own.
pub(crate) struct Sequence<B: Backend, F> {
    pub(crate) fusion: F,
    cache: KvCache<B>,
    sampler: Sampler,
    end: End,
    left: usize,
    next: Next,
    draft: Option<Draft>,
    /// Tokens that were made and nobody has taken, and the error that it ended in.
    made: VecDeque<Result<Choice, PipelineError>>,
    pub(crate) cancel: Cancel,
    /// Wall-clock time of its passes, also of those that it shared with others.
    pub(crate) prefill_time: Duration,
    pub(crate) decode_time: Duration,
    /// Runs of the decoder behind the prompt.
    pub(crate) passes: usize,
}

/// What is to be run.
enum Next {
    /// A prompt that waits for its audio.
    Prompt(Vec<u32>),
    /// A prompt of which so many positions were run.
    Rest(Vec<u32>, usize),
    /// A token.
    Token(u32),
    Nothing,
}

/// The end token, and what it does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    /// Generation ends behind this token.
    Stop(u32),
    /// Nothing ends: a stream goes on while there is audio. The decoder is fed `pad` instead of
    /// `token`, which it never saw in front of more audio.
    Ignore {
        /// The end token.
        token: u32,
        /// What the decoder is fed.
        pad: u32,
    },
}

/// What a generation is asked for.
pub(crate) struct Request {
    pub(crate) prompt: Vec<u32>,
    pub(crate) end: End,
    pub(crate) limit: usize,
    pub(crate) sampler: Sampler,
    /// Guesses tokens, for greedy sampling alone: a guess says nothing of what is drawn.
    pub(crate) draft: Option<Draft>,
    pub(crate) cancel: Cancel,
}

/// What a sequence brings to a pass.
pub(super) struct Part<B: Backend> {
    /// `[1, positions, width]`.
    pub(super) embeddings: Tensor<B, 3>,
    run: Run,
}

#[derive(Debug)]
enum Run {
    /// A piece of the prompt.
    Prompt {
        /// Whether it is the last.
        last: bool,
    },
    /// A token and guesses of those behind it.
    Tokens(Vec<u32>),
}

impl<B: Backend> Part<B> {
    /// Positions that are run.
    pub(super) fn positions(&self) -> usize {
        self.embeddings.dims()[1]
    }

    /// Those of a prompt.
    pub(super) fn prompt_positions(&self) -> usize {
        match self.run {
            Run::Prompt { .. } => self.positions(),
            Run::Tokens(_) => 0,
        }
    }

    /// How many of the last positions are asked for what follows them.
    pub(super) fn scored(&self) -> usize {
        match self.run {
            Run::Prompt { last } => usize::from(last),
            Run::Tokens(_) => self.positions(),
        }
    }
}

impl<B: Backend, F: AudioFusion<B>> Sequence<B, F> {
    /// A sequence whose prompt follows what is in this cache.
    pub(crate) fn with_cache(cache: KvCache<B>, fusion: F, request: Request) -> Self {
        Self {
            fusion,
            cache,
            sampler: request.sampler,
            end: request.end,
            left: request.limit,
            next: Next::Prompt(request.prompt),
            draft: request.draft,
            made: VecDeque::new(),
            cancel: request.cancel,
            prefill_time: Duration::ZERO,
            decode_time: Duration::ZERO,
            passes: 0,
        }
    }

    /// Begins again, in the same memory; the fusion is the caller's to clear.
    pub(crate) fn restart(&mut self, request: Request) {
        self.cache.clear();
        self.sampler = request.sampler;
        self.end = request.end;
        self.left = request.limit;
        self.next = Next::Prompt(request.prompt);
        self.draft = request.draft;
        self.made.clear();
        self.cancel = request.cancel;
        self.prefill_time = Duration::ZERO;
        self.decode_time = Duration::ZERO;
        self.passes = 0;
    }

    /// The next token, the end token included, or the error that ended the sequence.
    ///
    /// There is none behind the end or when as many were made as are permitted. Where the audio
    /// comes as a stream, there is also none while there is no audio for it.
    pub(crate) fn next_token(
        &mut self,
        decoder: &Decoder<B>,
    ) -> Option<Result<Choice, PipelineError>> {
        // Pieces of a prompt make none.
        while self.made.is_empty() && advance(decoder, [&mut *self], &mut Pace::default()) {}
        self.take()
    }

    /// The next token that was made, or the error that ended the sequence.
    pub(crate) fn take(&mut self) -> Option<Result<Choice, PipelineError>> {
        self.made.pop_front()
    }

    /// Whether the permitted number of tokens was made and taken.
    pub(crate) fn limit_reached(&self) -> bool {
        self.left == 0 && self.made.is_empty()
    }

    /// Whether nothing more is made: what was made may not be taken yet.
    pub(crate) fn has_ended(&self) -> bool {
        self.left == 0 || matches!(self.next, Next::Nothing)
    }

    /// Whether it is behind its prompt.
    pub(super) fn decodes(&self) -> bool {
        self.left > 0 && matches!(self.next, Next::Token(_))
    }

    /// The cache, with all positions that were run: all but that of the last token.
    pub(crate) fn into_cache(self) -> KvCache<B> {
        self.cache
    }

    pub(super) fn cache(&mut self) -> &mut KvCache<B> {
        &mut self.cache
    }

    /// Ends the sequence: what it made and nobody took is dropped.
    pub(crate) fn stop(&mut self) {
        self.made.clear();
        self.next = Next::Nothing;
    }

    /// Ends the sequence with an error.
    pub(crate) fn fail(&mut self, error: PipelineError) {
        self.made.push_back(Err(error));
        self.next = Next::Nothing;
    }

    /// What is run next, with so many positions of a prompt at most; nothing at the end, or while
    /// there is no audio for it. A sequence that cannot go on fails.
    pub(super) fn bring(&mut self, decoder: &Decoder<B>, prompt: usize) -> Option<Part<B>> {
        if self.has_ended() || (prompt == 0 && !self.decodes()) {
            return None;
        }
        let brought = self
            .cancel
            .check()
            .and_then(|()| self.try_bring(decoder, prompt));
        brought.unwrap_or_else(|error| {
            self.fail(error);
            None
        })
    }

    fn try_bring(
        &mut self,
        decoder: &Decoder<B>,
        prompt: usize,
    ) -> Result<Option<Part<B>>, PipelineError> {
        if let Next::Prompt(ids) = &mut self.next {
            if !self.fusion.is_ready(ids)? {
                return Ok(None);
            }
            self.next = Next::Rest(std::mem::take(ids), 0);
        }
        let part = match &self.next {
            Next::Rest(ids, done) => {
                // A ring may have no room for all of it.
                let most = prompt.min(self.cache.room().max(1));
                let end = ids.len().min(done + most);
                let run = Run::Prompt {
                    last: end == ids.len(),
                };
                let embeddings = self.fusion.piece(decoder, ids, *done..end)?;
                Some(Part { embeddings, run })
            }
            Next::Token(id) => self.tokens(decoder, *id)?,
            Next::Prompt(_) | Next::Nothing => None,
        };
        // A pass that others share must not fail for this one.
        if let Some(part) = &part {
            self.cache.check_room(part.positions())?;
        }
        Ok(part)
    }

    /// This token and guesses of those behind it, as far as there is audio.
    fn tokens(&self, decoder: &Decoder<B>, id: u32) -> Result<Option<Part<B>>, PipelineError> {
        let mut ids = self.with_guesses(id);
        let Some(embeddings) = self.fusion.steps(decoder, &ids)? else {
            return Ok(None);
        };
        ids.truncate(embeddings.dims()[1]);
        Ok(Some(Part {
            embeddings,
            run: Run::Tokens(ids),
        }))
    }

    /// This token and what may follow it; no more than the cache has room for and is asked for.
    fn with_guesses(&self, id: u32) -> Vec<u32> {
        let guesses = self.draft.iter().flat_map(|draft| draft.guess(id));
        let most = self.left.min(self.cache.room()).max(1);
        std::iter::once(id).chain(guesses).take(most).collect()
    }

    /// Goes on behind a pass that took so long, with the scores that were asked for.
    pub(super) fn go_on<'l>(
        &mut self,
        part: Part<B>,
        scores: impl Iterator<Item = &'l [f32]>,
        taken: Duration,
    ) {
        let positions = part.positions();
        match part.run {
            Run::Prompt { last } => {
                self.prefill_time += taken;
                if let Next::Rest(_, done) = &mut self.next {
                    *done += positions;
                }
                if last {
                    self.choose(scores, &[]);
                }
            }
            Run::Tokens(ids) => {
                self.decode_time += taken;
                self.passes += 1;
                self.follow(&ids, scores);
            }
        }
    }

    /// Makes the tokens that follow the first of these, which is known, and those of the others
    /// that are right.
    fn follow<'l>(&mut self, ids: &[u32], scores: impl Iterator<Item = &'l [f32]>) {
        let guesses = &ids[1..];
        let right = self.choose(scores, guesses);
        if let Err(error) = self.cache.take_back(guesses.len() - right) {
            self.fail(error.into());
            return;
        }
        self.fusion.advance(1 + right);
        if let Some(draft) = &mut self.draft {
            draft.learn(ids[0], guesses.len(), right);
        }
    }

    /// Makes a token of each row of scores, as far as the guesses behind the rows are right; tells
    /// how many are.
    fn choose<'l>(&mut self, rows: impl Iterator<Item = &'l [f32]>, guesses: &[u32]) -> usize {
        let mut right = 0;
        for scores in rows {
            let choice = self.sampler.choose(scores);
            let next = choice.as_ref().ok().and_then(|choice| self.fed(choice.id));
            self.made.push_back(choice);
            self.left -= 1;
            if let (Next::Token(token), Some(next), Some(draft)) =
                (&self.next, next, &mut self.draft)
            {
                draft.follows(*token, next);
            }
            self.next = next.map_or(Next::Nothing, Next::Token);
            if next.is_none() || next.as_ref() != guesses.get(right) {
                break;
            }
            right += 1;
        }
        right
    }

    /// What the decoder is fed for this token, if anything follows it.
    fn fed(&self, id: u32) -> Option<u32> {
        match self.end {
            End::Stop(token) if id == token => None,
            End::Ignore { token, pad } if id == token => Some(pad),
            _ => Some(id),
        }
    }
}
