//! The trie of the phrases' tokens, and where in it the written text is.

use std::collections::BTreeMap;

use voxtral_tokenizer::Tokenizer;

use super::{ContextBias, FIRST, variants};
use crate::PipelineError;

/// Begins what may stand anywhere, as a space does.
const ANYWHERE: usize = 0;

/// Begins with a letter or digit, which stands only where no word would be continued by it.
const AT_WORD: usize = 1;

/// The phrases, and the nodes that the written tokens lead to.
#[derive(Debug)]
pub(in crate::sample) struct Context {
    /// The tokens that follow each node, with the nodes that they lead to.
    nodes: Vec<BTreeMap<u32, usize>>,
    strength: f64,
    /// Ids below are special tokens.
    special: u32,
    /// Whether a word may go on behind each token, by id.
    ends_in_word: Vec<bool>,
    /// Nodes that are reached, but for the roots.
    reached: Vec<usize>,
    /// Whether the text ends in a word.
    in_word: bool,
}

impl Context {
    /// The phrases in tokens.
    ///
    /// # Errors
    /// The tokenizer cannot write a phrase.
    pub(in crate::sample) fn new(
        bias: &ContextBias,
        tokenizer: &Tokenizer,
    ) -> Result<Self, PipelineError> {
        let special = tokenizer.num_special_tokens() as u32;
        let ids = 0..tokenizer.vocab_size() as u32;
        let mut context = Self {
            nodes: vec![BTreeMap::new(); 2],
            strength: bias.strength().into(),
            special,
            ends_in_word: ids.map(|id| ends_in_word(tokenizer, id)).collect(),
            reached: Vec::new(),
            in_word: false,
        };
        for phrase in bias.phrases() {
            for written in variants(phrase) {
                let ids = tokenizer.encode(&written);
                let bytes = ids.iter().filter_map(|id| tokenizer.token_bytes(*id));
                if bytes.collect::<Vec<_>>().concat() != written.as_bytes() {
                    return Err(PipelineError::PhraseUnwritable {
                        phrase: phrase.clone(),
                    });
                }
                let begins_word = written.chars().next().is_some_and(is_of_words);
                context.add(if begins_word { AT_WORD } else { ANYWHERE }, &ids);
            }
        }
        Ok(context)
    }

    fn add(&mut self, root: usize, ids: &[u32]) {
        let mut node = root;
        for id in ids {
            let new = self.nodes.len();
            node = *self.nodes[node].entry(*id).or_insert(new);
            if node == new {
                self.nodes.push(BTreeMap::new());
            }
        }
    }

    /// Raises the scores of the tokens that begin a phrase or go on in one, unless the most
    /// probable token is a special one: a bias says what is written, not whether anything is.
    pub(in crate::sample) fn raise(&self, scores: &mut [f64]) {
        if super::super::argmax(scores) < self.special as usize {
            return;
        }
        let begun = self.roots().map(|root| (root, FIRST * self.strength));
        let inside = self.reached.iter().map(|node| (*node, self.strength));
        let mut raised = BTreeMap::new();
        // What both begins a phrase and goes on in one is raised for the latter.
        for (node, by) in begun.chain(inside) {
            raised.extend(self.nodes[node].keys().map(|id| (*id, by)));
        }
        for (id, by) in raised {
            if let Some(score) = scores.get_mut(id as usize) {
                *score += by;
            }
        }
    }

    /// Follows a token that was written. Special ones, as a stream has between words, are no text.
    pub(in crate::sample) fn accept(&mut self, id: u32) {
        if id < self.special {
            return;
        }
        let left = self.roots().chain(self.reached.iter().copied());
        self.reached = left
            .filter_map(|node| self.nodes[node].get(&id).copied())
            .collect();
        let known = self.ends_in_word.get(id as usize);
        self.in_word = known.copied().unwrap_or(false);
    }

    /// Where phrases may begin now.
    fn roots(&self) -> impl Iterator<Item = usize> + use<> {
        let at_word = (!self.in_word).then_some(AT_WORD);
        std::iter::once(ANYWHERE).chain(at_word)
    }
}

fn ends_in_word(tokenizer: &Tokenizer, id: u32) -> bool {
    let bytes = tokenizer.token_bytes(id).unwrap_or_default();
    let last = String::from_utf8_lossy(bytes).chars().next_back();
    last.is_some_and(is_of_words)
}

/// Whether a character is part of words that have spaces between them.
fn is_of_words(character: char) -> bool {
    /// Thai and Lao; Burmese; Khmer; Chinese and Japanese, with what was added to them later.
    const UNSPACED: [std::ops::RangeInclusive<char>; 6] = [
        '\u{0E00}'..='\u{0EFF}',
        '\u{1000}'..='\u{109F}',
        '\u{1780}'..='\u{17FF}',
        '\u{2E80}'..='\u{9FFF}',
        '\u{F900}'..='\u{FAFF}',
        '\u{20000}'..='\u{3FFFF}',
    ];
    let unspaced = UNSPACED.iter().any(|range| range.contains(&character));
    character.is_alphanumeric() && !unspaced
}
