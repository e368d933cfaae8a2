//! The generation loop: a pass of the decoder advances every sequence that runs, of each by a piece
//! of its prompt, by one token, or by several where guesses of them hold.
//!
//! Sequences know nothing of each other: whoever holds them says which take part in a pass, so they
//! join and leave between any two. One alone is the case of one.

mod sequence;

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use voxtral_decoder::Decoder;
use voxtral_nn::{Backend, NnError};

use crate::{PipelineError, fusion::AudioFusion};

pub(crate) use sequence::{End, Request, Sequence};

use sequence::Part;

/// Positions of prompts that run at once: enough to fill any machine, and a bound on the
/// activations of a prompt of half an hour.
const PREFILL_POSITIONS: usize = 2048;

/// The same beside sequences that are behind their prompts, which wait so long for their tokens.
const PREFILL_BESIDE: usize = 512;

/// Advances these sequences by one pass, those that can go on; tells whether there was any.
///
/// What a sequence makes of it, tokens or an error, is in its
/// [`take`](Sequence::take): one that fails or is cancelled ends alone. An error of the pass itself
/// ends all that took part.
pub(crate) fn advance<'s, B: Backend, F: AudioFusion<B> + 's>(
    decoder: &Decoder<B>,
    sequences: impl IntoIterator<Item = &'s mut Sequence<B, F>>,
) -> bool {
    let started = Instant::now();
    let sequences: Vec<_> = sequences.into_iter().collect();
    let any_decodes = sequences.iter().any(|sequence| sequence.decodes());
    let mut prefill = if any_decodes {
        PREFILL_BESIDE
    } else {
        PREFILL_POSITIONS
    };
    let mut running = Vec::new();
    for sequence in sequences {
        if let Some(part) = sequence.bring(decoder, prefill) {
            prefill -= part.prompt_positions();
            running.push((sequence, part));
        }
    }
    if running.is_empty() {
        return false;
    }
    match run(decoder, &mut running) {
        Ok(logits) => {
            let vocab = decoder.config().vocab_size;
            let taken = started.elapsed();
            let mut left = &logits[..];
            for (sequence, part) in running {
                let (scores, others) = left.split_at(part.scored() * vocab);
                left = others;
                sequence.go_on(part, scores.chunks_exact(vocab), taken);
            }
        }
        Err(error) => {
            let error = Arc::new(error);
            for (sequence, _) in running {
                sequence.fail(PipelineError::Pass(Arc::clone(&error)));
            }
        }
    }
    true
}

/// Runs what the sequences bring; gives the scores of the rows that they ask for, one behind
/// another.
fn run<B: Backend, F: AudioFusion<B>>(
    decoder: &Decoder<B>,
    running: &mut [(&mut Sequence<B, F>, Part<B>)],
) -> Result<Vec<f32>, NnError> {
    let mut end = 0;
    let scored = running.iter().map(|(_, part)| {
        end += part.positions();
        end - part.scored()..end
    });
    let scored: Vec<Range<usize>> = scored.filter(|rows| !rows.is_empty()).collect();
    let batch = running
        .iter_mut()
        .map(|(sequence, part)| (part.embeddings.clone(), sequence.cache()));
    let hidden = decoder.forward_batch(batch.collect())?;
    if scored.is_empty() {
        return Ok(Vec::new());
    }
    decoder.logits_of(hidden, &scored)
}

#[cfg(test)]
mod tests {
    use burn_flex::Flex;
    use burn_tensor::Tensor;

    use super::*;
    use crate::{Cancel, Voxtral, draft::Draft, fusion::Sum, sample::Sampler};

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
        let cache = decoder.new_cache(request.prompt.len() + limit);
        let mut sequence = Sequence::with_cache(cache, fusion, request);
        let tokens: Vec<u32> = std::iter::from_fn(|| sequence.next_token(&decoder))
            .map(|choice| choice.unwrap().id)
            .collect();
        assert_eq!(sequence.limit_reached(), tokens.len() == limit);
        (tokens, sequence.fusion.left(), sequence.passes)
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
