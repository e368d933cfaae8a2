//! The language by the model's scores of its name behind the audio.
//!
//! ```text
//! P(xx) ∝ P("lang:xx" | <s> [INST] [BEGIN_AUDIO] [AUDIO]×N [/INST])
//! ```
//!
//! Of the name, only what the languages do not share is scored: whether a model would begin it at
//! all says nothing of the language.

use std::collections::BTreeMap;

use voxtral_nn::{Backend, KvCache};
use voxtral_tokenizer::{Language, prompt};

use super::{DetectedLanguage, LanguageSource};
use crate::{PipelineError, Voxtral, sample::log_sum_exp};

/// The least part of the probability behind `lang:` that the model's languages have together. A
/// model that never learned what follows `lang:` spreads it over its vocabulary, of which the
/// languages' names are far less than this part.
const LEAST_TOGETHER: f64 = 0.1;

/// The most probable language, if the scores tell. The cache holds the prompt up to `[/INST]` in its
/// first `heard` positions.
pub(super) fn of_scores<B: Backend>(
    model: &Voxtral<B>,
    cache: &mut KvCache<B>,
    heard: usize,
) -> Result<Option<DetectedLanguage>, PipelineError> {
    let name = |language| prompt::language(&model.tokenizer, language);
    let names: Vec<(Language, Vec<u32>)> = model
        .languages
        .iter()
        .map(|language| (*language, name(*language)))
        .collect();
    let Some((_, first)) = names.first() else {
        return Ok(None);
    };
    let same = |ids: &[u32]| first.iter().zip(ids).take_while(|(a, b)| a == b).count();
    let shared = names.iter().map(|(_, ids)| same(ids)).min().unwrap_or(0);
    if shared == 0 || names.iter().any(|(_, ids)| ids.len() == shared) {
        return Ok(None);
    }
    let mut behind = Behind::new(model, cache, heard);
    let mut scores = Vec::new();
    for (language, ids) in &names {
        let mut score = 0.0;
        for end in shared..ids.len() {
            score += behind.logprob(&ids[..end], ids[end])?;
        }
        scores.push((*language, score.exp()));
    }
    let possible = behind.beginning(&first[..shared])?;
    let together: f64 = scores.iter().map(|(_, p)| p).sum();
    let best = scores.into_iter().max_by(|(_, a), (_, b)| a.total_cmp(b));
    tracing::debug!(
        "languages have {:.3} of what follows `lang:`",
        together / possible
    );
    Ok(best
        .filter(|_| together >= LEAST_TOGETHER * possible)
        .map(|(language, p)| DetectedLanguage {
            language: language.to_string(),
            probability: (p / together) as f32,
            source: LanguageSource::Model,
        }))
}

/// What may stand behind the audio, and its scores.
struct Behind<'c, B: Backend> {
    model: &'c Voxtral<B>,
    cache: &'c mut KvCache<B>,
    heard: usize,
    /// Ids in the cache behind what was heard.
    run: Vec<u32>,
    /// The logarithms of the probabilities of what follows these ids.
    known: BTreeMap<Vec<u32>, Vec<f64>>,
}

impl<'c, B: Backend> Behind<'c, B> {
    fn new(model: &'c Voxtral<B>, cache: &'c mut KvCache<B>, heard: usize) -> Self {
        Self {
            model,
            cache,
            heard,
            run: Vec::new(),
            known: BTreeMap::new(),
        }
    }

    /// `ln p(id)` behind these ids, of which there is at least one.
    fn logprob(&mut self, ids: &[u32], id: u32) -> Result<f64, PipelineError> {
        let logprobs = self.logprobs(ids)?;
        Ok(logprobs
            .get(id as usize)
            .copied()
            .unwrap_or(f64::NEG_INFINITY))
    }

    /// The probability of a token that may begin what is left of `lang:` behind these ids; 1 if
    /// nothing is. A name may have a token in common with it: that of `nl` begins with `:n`.
    fn beginning(&mut self, ids: &[u32]) -> Result<f64, PipelineError> {
        let tokenizer = &self.model.tokenizer;
        let written = ids.iter().filter_map(|id| tokenizer.token_bytes(*id));
        let written: usize = written.map(<[u8]>::len).sum();
        let left = prompt::LANGUAGE
            .as_bytes()
            .get(written..)
            .unwrap_or_default();
        let begins = |id: u32| {
            let bytes = tokenizer.token_bytes(id).unwrap_or_default();
            !bytes.is_empty() && (bytes.starts_with(left) || left.starts_with(bytes))
        };
        if left.is_empty() {
            return Ok(1.0);
        }
        let logprobs = (0..).zip(self.logprobs(ids)?);
        Ok(logprobs
            .filter(|(id, _)| begins(*id))
            .map(|(_, p)| p.exp())
            .sum())
    }

    fn logprobs(&mut self, ids: &[u32]) -> Result<&[f64], PipelineError> {
        if !self.known.contains_key(ids) {
            self.run(ids)?;
        }
        Ok(self.known.get(ids).map_or(&[], Vec::as_slice))
    }

    /// Runs what is not in the cache of these ids.
    fn run(&mut self, ids: &[u32]) -> Result<(), PipelineError> {
        let same = self.run.iter().zip(ids).take_while(|(a, b)| a == b).count();
        let decoder = &self.model.decoder;
        self.cache.truncate(self.heard + same)?;
        self.cache.extend_capacity(self.heard + ids.len());
        let hidden = decoder.forward(decoder.embed(&ids[same..])?, self.cache)?;
        let logits = decoder.logits(hidden, ids.len() - same)?;
        let rows = logits.chunks_exact(decoder.config().vocab_size);
        for (end, row) in (same + 1..).zip(rows) {
            if !row.iter().all(|logit| logit.is_finite()) {
                return Err(PipelineError::NotFinite);
            }
            let total = log_sum_exp(row);
            let logprobs = row.iter().map(|&logit| f64::from(logit) - total);
            self.known.insert(ids[..end].to_vec(), logprobs.collect());
        }
        self.run = ids.to_vec();
        Ok(())
    }
}
