//! The generation loop: prefill, then one token per step, or several where guesses of them hold.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use burn_tensor::Tensor;
use voxtral_decoder::Decoder;
use voxtral_nn::{Backend, KvCache};

use crate::{
    Cancel, PipelineError,
    draft::Draft,
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
    draft: Option<Draft>,
    /// Tokens that the last pass made and nobody has taken, and the error that it ended in.
    made: VecDeque<Result<Choice, PipelineError>>,
    cancel: Cancel,
    pub(crate) prefill_time: Duration,
    pub(crate) decode_time: Duration,
    /// Runs of the decoder behind the prompt.
    pub(crate) passes: usize,
}

#[derive(Debug)]
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
    /// Guesses tokens, for greedy sampling alone: a guess says nothing of what is drawn.
    pub(crate) draft: Option<Draft>,
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

    /// Whether the permitted number of tokens was made.
    pub(crate) fn limit_reached(&self) -> bool {
        self.left == 0 && self.made.is_empty()
    }

    fn advance(&mut self) -> Result<Option<Choice>, PipelineError> {
        if self.made.is_empty() && self.left > 0 {
            match self.next {
                Next::Nothing => {}
                Next::Prompt(_) => self.begin()?,
                Next::Token(id) => self.pass(id)?,
            }
        }
        self.made.pop_front().transpose()
    }

    /// Runs the prompt, if there is the audio for it, and makes the first token.
    fn begin(&mut self) -> Result<(), PipelineError> {
        let started = Instant::now();
        let Next::Prompt(ids) = &self.next else {
            return Ok(());
        };
        let Some(prompt) = self.fusion.prompt(&self.decoder, ids)? else {
            return Ok(());
        };
        let hidden = prefill(&self.decoder, prompt, &mut self.cache, &self.cancel)?;
        let logits = self.decoder.logits(hidden, 1)?;
        self.prefill_time += started.elapsed();
        self.choose(&logits, &[]);
        Ok(())
    }

    /// Runs this token and guesses of those behind it, as far as there is audio, and makes the
    /// tokens that follow those that are right.
    fn pass(&mut self, id: u32) -> Result<(), PipelineError> {
        self.cancel.check()?;
        let started = Instant::now();
        let ids = self.with_guesses(id);
        let Some(embeddings) = self.fusion.steps(&self.decoder, &ids)? else {
            return Ok(());
        };
        let [_, positions, _] = embeddings.dims();
        let hidden = self.decoder.forward(embeddings, &mut self.cache)?;
        let logits = self.decoder.logits(hidden, positions)?;
        self.decode_time += started.elapsed();
        self.passes += 1;
        let guesses = &ids[1..positions];
        let right = self.choose(&logits, guesses);
        self.cache.take_back(guesses.len() - right)?;
        self.fusion.advance(1 + right);
        if let Some(draft) = &mut self.draft {
            draft.learn(id, guesses.len(), right);
        }
        Ok(())
    }

    /// This token and what may follow it; no more than the cache has room for and is asked for.
    fn with_guesses(&self, id: u32) -> Vec<u32> {
        let guesses = self.draft.iter().flat_map(|draft| draft.guess(id));
        let most = self.left.min(self.cache.room()).max(1);
        std::iter::once(id).chain(guesses).take(most).collect()
    }

    /// Makes a token of each row of scores, as far as the guesses behind the rows are right; tells
    /// how many are.
    fn choose(&mut self, logits: &[f32], guesses: &[u32]) -> usize {
        let mut right = 0;
        for scores in logits.chunks_exact(self.decoder.config().vocab_size) {
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

#[cfg(test)]
mod tests {
    use burn_flex::Flex;

    use super::*;
    use crate::{Voxtral, fusion::Sum};

    /// Tokens of a generation on sound that is none, which the demo's decoder makes with a prompt
    /// of three; and how much of the sound is left.
    fn generate(end: End, limit: usize, draft: Option<Draft>) -> (Vec<u32>, usize, usize) {
        let model = Voxtral::<Flex>::builder().demo_realtime().unwrap();
        let decoder = model.decoder.with_delay(6);
        let mut fusion = Sum::new();
        let shape = [1, 20, decoder.config().hidden_size];
        for _ in 0..2 {
            fusion.push(Tensor::zeros(shape, &model.device));
        }
        let request = Request {
            prompt: vec![1, 32, 32],
            end,
            limit,
            sampler: Sampler::greedy(),
            draft,
            cancel: Cancel::new(),
        };
        let mut generator = Generator::new(decoder, fusion, request);
        let tokens: Vec<u32> = generator
            .by_ref()
            .map(|choice| choice.unwrap().id)
            .collect();
        assert_eq!(generator.limit_reached(), tokens.len() == limit);
        (tokens, generator.fusion.left(), generator.passes)
    }

    /// A limit, an end token and the end of the sound, everywhere in a pass.
    #[test]
    fn guesses_respect_every_end() {
        let never = End::Ignore {
            token: u32::MAX,
            pad: 32,
        };
        let (plain, left, passes) = generate(never, 100, None);
        // The last position of the prompt makes a token too.
        assert_eq!((plain.len(), left, passes), (38, 0, 37));
        // Whatever the model writes here, most of it can be guessed.
        let count = |id: &u32| plain.iter().filter(|other| *other == id).count();
        let usual = *plain.iter().max_by_key(|id| count(id)).unwrap();
        let draft = || Some(Draft::new(usual, u32::MAX));
        let (guessed, left, passes) = generate(never, 100, draft());
        assert_eq!((&guessed, left), (&plain, 0));
        assert!(passes < 30, "{passes} passes: guesses were made and held");
        for limit in 1..=plain.len() {
            let (guessed, left, _) = generate(never, limit, draft());
            assert_eq!(guessed, plain[..limit]);
            assert_eq!(left, 40 - 3 - (limit - 1), "the last token is not run");
        }
        for (at, &token) in plain.iter().enumerate() {
            let first = plain.iter().position(|&id| id == token);
            let expected = generate(End::Stop(token), 100, None);
            let found = generate(End::Stop(token), 100, draft());
            assert_eq!(
                (&found.0, found.1),
                (&expected.0, expected.1),
                "end at {at}"
            );
            assert_eq!(Some(found.0.len() - 1), first);
        }
    }
}
