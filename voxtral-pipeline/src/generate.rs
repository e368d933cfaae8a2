//! The generation loop: a pass of the decoder advances every sequence that runs, of each by a piece
//! of its prompt, by one token, or by several where guesses of them hold.
//!
//! Sequences know nothing of each other: whoever holds them says which take part in a pass, so they
//! join and leave between any two. One alone is the case of one.

mod sequence;

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use voxtral_decoder::Decoder;
use voxtral_nn::{Backend, NnError};

use crate::{PipelineError, fusion::AudioFusion};

pub(crate) use sequence::{End, Request, Sequence};

use sequence::Part;

/// Positions of prompts that run at once: enough to fill any machine, and a bound on the
/// activations of a prompt of half an hour.
const PREFILL_POSITIONS: usize = 1024;

/// How long sequences that are behind their prompts wait for the prompts of others, in a pass.
const PREFILL_BESIDE: Duration = Duration::from_millis(250);

/// Positions of prompts that a pass takes at least: fewer would read the weights for too little.
const LEAST_PREFILL: usize = 32;

/// How many positions of prompts fit beside sequences that wait for tokens: as many as this machine
/// was seen to run in [`PREFILL_BESIDE`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    beside: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self { beside: 512 }
    }
}

impl Pace {
    /// Learns from a pass over so many positions of prompts.
    fn learn(&mut self, positions: usize, taken: Duration) {
        if positions >= LEAST_PREFILL {
            let fit =
                positions as f64 * PREFILL_BESIDE.as_secs_f64() / taken.as_secs_f64().max(1e-6);
            self.beside = (fit as usize).clamp(LEAST_PREFILL, PREFILL_POSITIONS);
        }
    }
}

/// Advances these sequences by one pass, those that can go on; tells whether there was any.
///
/// What a sequence makes of it, tokens or an error, is in its
/// [`take`](Sequence::take): one that fails or is cancelled ends alone. An error of the pass itself
/// ends all that took part.
pub(crate) fn advance<'s, B: Backend, F: AudioFusion<B> + 's>(
    decoder: &Decoder<B>,
    sequences: impl IntoIterator<Item = &'s mut Sequence<B, F>>,
    pace: &mut Pace,
) -> bool {
    let started = Instant::now();
    let sequences: Vec<_> = sequences.into_iter().collect();
    let any_decodes = sequences.iter().any(|sequence| sequence.decodes());
    let mut prefill = if any_decodes {
        pace.beside
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
            let prompts = running.iter().map(|(_, part)| part.prompt_positions());
            pace.learn(prompts.sum(), taken);
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
mod tests;
