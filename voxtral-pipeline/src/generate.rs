//! The generation loop: prefill, then one token per step.

use std::time::{Duration, Instant};

use burn_tensor::Tensor;
use voxtral_decoder::Decoder;
use voxtral_nn::{Backend, KvCache};

use crate::{
    Cancel, PipelineError,
    fusion::AudioFusion,
    sample::{Choice, Sampler},
};

/// Positions of a prompt that run at once: enough to fill any machine, and a bound on the
/// activations of a prompt of half an hour.
const PREFILL_POSITIONS: usize = 2048;

/// An iterator over generated tokens, the end token included; it ends behind that, or when
/// `limit` tokens were made.
pub(crate) struct Generator<'m, B: Backend, F> {
    decoder: &'m Decoder<B>,
    fusion: F,
    cache: KvCache<B>,
    sampler: Sampler,
    end: u32,
    left: usize,
    next: Next,
    cancel: Cancel,
    pub(crate) prefill_time: Duration,
    pub(crate) decode_time: Duration,
}

enum Next {
    Prompt(Vec<u32>),
    Token(u32),
    Nothing,
}

/// What a generation is asked for.
pub(crate) struct Request {
    pub(crate) prompt: Vec<u32>,
    pub(crate) end: u32,
    pub(crate) limit: usize,
    pub(crate) sampler: Sampler,
    pub(crate) cancel: Cancel,
}

impl<'m, B: Backend, F: AudioFusion<B>> Generator<'m, B, F> {
    pub(crate) fn new(decoder: &'m Decoder<B>, fusion: F, request: Request) -> Self {
        Self {
            decoder,
            fusion,
            // The last token is not run.
            cache: decoder.new_cache(request.prompt.len() + request.limit.saturating_sub(1)),
            sampler: request.sampler,
            end: request.end,
            left: request.limit,
            next: Next::Prompt(request.prompt),
            cancel: request.cancel,
            prefill_time: Duration::ZERO,
            decode_time: Duration::ZERO,
        }
    }

    /// Whether the permitted number of tokens was made.
    pub(crate) fn limit_reached(&self) -> bool {
        self.left == 0
    }

    fn advance(&mut self) -> Result<Option<Choice>, PipelineError> {
        let next = std::mem::replace(&mut self.next, Next::Nothing);
        if self.left == 0 {
            return Ok(None);
        }
        let started = Instant::now();
        let logits = match &next {
            Next::Prompt(ids) => self.prefill(ids)?,
            Next::Token(id) => {
                self.cancel.check()?;
                let position = self.cache.len();
                let Some(embedding) = self.fusion.step(self.decoder, *id, position)? else {
                    return Ok(None);
                };
                let hidden = self.decoder.forward(embedding, &mut self.cache)?;
                self.decoder.logits(hidden)?
            }
            Next::Nothing => return Ok(None),
        };
        match next {
            Next::Prompt(_) => self.prefill_time += started.elapsed(),
            _ => self.decode_time += started.elapsed(),
        }
        let choice = self
            .sampler
            .choose(&logits)
            .ok_or(PipelineError::NotFinite)?;
        self.left -= 1;
        if choice.id != self.end {
            self.next = Next::Token(choice.id);
        }
        Ok(Some(choice))
    }

    fn prefill(&mut self, ids: &[u32]) -> Result<Vec<f32>, PipelineError> {
        let prompt = self.fusion.prompt(self.decoder, ids)?;
        let mut hidden: Option<Tensor<B, 3>> = None;
        for start in (0..ids.len()).step_by(PREFILL_POSITIONS) {
            self.cancel.check()?;
            let end = (start + PREFILL_POSITIONS).min(ids.len());
            let piece = prompt.clone().slice_dim(1, start..end);
            hidden = Some(self.decoder.forward(piece, &mut self.cache)?);
        }
        let hidden = hidden.ok_or(PipelineError::InvalidOption {
            option: "prompt",
            found: "empty".into(),
            expected: "at least one token",
        })?;
        Ok(self.decoder.logits(hidden)?)
    }
}

impl<B: Backend, F: AudioFusion<B>> Iterator for Generator<'_, B, F> {
    type Item = Result<Choice, PipelineError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance().transpose()
    }
}
