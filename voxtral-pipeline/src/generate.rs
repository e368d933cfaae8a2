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

/// An iterator over generated tokens, the end token included.
///
/// It ends behind that, or when `limit` tokens were made. Where the audio comes as a stream, it
/// also pauses, with `None`, while there is no audio for the next token, and goes on when there is.
pub(crate) struct Generator<B: Backend, F> {
    decoder: Decoder<B>,
    pub(crate) fusion: F,
    cache: KvCache<B>,
    sampler: Sampler,
    end: End,
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
    pub(crate) cancel: Cancel,
}

impl<B: Backend, F: AudioFusion<B>> Generator<B, F> {
    /// A generation of a known length, with a cache that holds all of it.
    pub(crate) fn new(decoder: Decoder<B>, fusion: F, request: Request) -> Self {
        // The last token is not run.
        let positions = request.prompt.len() + request.limit.saturating_sub(1);
        let cache = decoder.new_cache(positions);
        Self::with_cache(decoder, fusion, cache, request)
    }

    /// A generation with this cache, which must be empty.
    pub(crate) fn with_cache(
        decoder: Decoder<B>,
        fusion: F,
        cache: KvCache<B>,
        request: Request,
    ) -> Self {
        Self {
            decoder,
            fusion,
            cache,
            sampler: request.sampler,
            end: request.end,
            left: request.limit,
            next: Next::Prompt(request.prompt),
            cancel: request.cancel,
            prefill_time: Duration::ZERO,
            decode_time: Duration::ZERO,
        }
    }

    /// Begins again, in the same memory; the fusion is the caller's to clear.
    pub(crate) fn restart(&mut self, request: Request) {
        self.cache.clear();
        self.sampler = request.sampler;
        self.end = request.end;
        self.left = request.limit;
        self.next = Next::Prompt(request.prompt);
        self.cancel = request.cancel;
        self.prefill_time = Duration::ZERO;
        self.decode_time = Duration::ZERO;
    }

    /// Whether the permitted number of tokens was made.
    pub(crate) fn limit_reached(&self) -> bool {
        self.left == 0
    }

    fn advance(&mut self) -> Result<Option<Choice>, PipelineError> {
        if self.left == 0 {
            return Ok(None);
        }
        let started = Instant::now();
        let (logits, time) = match &self.next {
            Next::Nothing => return Ok(None),
            Next::Prompt(ids) => {
                let Some(prompt) = self.fusion.prompt(&self.decoder, ids)? else {
                    return Ok(None);
                };
                let hidden = prefill(&self.decoder, prompt, &mut self.cache, &self.cancel)?;
                (self.decoder.logits(hidden)?, &mut self.prefill_time)
            }
            Next::Token(id) => {
                self.cancel.check()?;
                let Some(embedding) = self.fusion.step(&self.decoder, *id)? else {
                    return Ok(None);
                };
                let hidden = self.decoder.forward(embedding, &mut self.cache)?;
                (self.decoder.logits(hidden)?, &mut self.decode_time)
            }
        };
        *time += started.elapsed();
        let choice = self
            .sampler
            .choose(&logits)
            .ok_or(PipelineError::NotFinite)?;
        self.left -= 1;
        self.next = match self.end {
            End::Stop(token) if choice.id == token => Next::Nothing,
            End::Ignore { token, pad } if choice.id == token => Next::Token(pad),
            _ => Next::Token(choice.id),
        };
        Ok(Some(choice))
    }
}

/// Runs a prompt, `[1, positions, width]`, in pieces; gives the residual stream of the last.
fn prefill<B: Backend>(
    decoder: &Decoder<B>,
    prompt: Tensor<B, 3>,
    cache: &mut KvCache<B>,
    cancel: &Cancel,
) -> Result<Tensor<B, 3>, PipelineError> {
    let [_, positions, _] = prompt.dims();
    let mut start = 0;
    loop {
        cancel.check()?;
        let end = positions.min(start + PREFILL_POSITIONS.min(cache.room().max(1)));
        let hidden = decoder.forward(prompt.clone().slice_dim(1, start..end), cache)?;
        if end == positions {
            return Ok(hidden);
        }
        start = end;
    }
}

impl<B: Backend, F: AudioFusion<B>> Iterator for Generator<B, F> {
    type Item = Result<Choice, PipelineError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance().transpose()
    }
}
