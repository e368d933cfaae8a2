//! The trie of the phrases' tokens, and where in it the written text is.

use std::collections::BTreeMap;

use voxtral_tokenizer::Tokenizer;

use super::{ContextBias, FIRST, variants};
use crate::{PipelineError, sample::argmax};

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
        if argmax(scores) < self.special as usize {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        SamplingOptions,
        sample::{Choice, Sampler},
    };

    const STRENGTH: f32 = 2.0;
    const FIRST_RAISE: f32 = STRENGTH * FIRST as f32;

    fn file() -> serde_json::Value {
        serde_json::from_slice(include_bytes!("../../../demo/tekken.json")).unwrap()
    }

    fn tokenizer() -> Tokenizer {
        Tokenizer::from_bytes(&serde_json::to_vec(&file()).unwrap()).unwrap()
    }

    fn biased(tokenizer: &Tokenizer, phrases: &[&str]) -> Sampler {
        let options = SamplingOptions {
            context_bias: Some(ContextBias::new(phrases, STRENGTH).unwrap()),
            ..Default::default()
        };
        Sampler::with_tokenizer(&options, tokenizer).unwrap()
    }

    /// Chooses between these tokens by their logits; all others are far less probable.
    fn choose(sampler: &mut Sampler, tokenizer: &Tokenizer, logits: &[(u32, f32)]) -> Choice {
        let mut all = vec![-30.0; tokenizer.vocab_size()];
        for (id, logit) in logits {
            all[*id as usize] = *logit;
        }
        sampler.choose(&all).unwrap()
    }

    /// Writes a text, each token of which loses to the end of a sentence by this much, the first by
    /// `first`; gives what was chosen.
    fn write(phrase: &str, text: &str, first: f32, rest: f32) -> Vec<bool> {
        let tokenizer = tokenizer();
        let mut sampler = biased(&tokenizer, &[phrase]);
        let other = tokenizer.encode("!")[0];
        let mut won = Vec::new();
        for (at, id) in tokenizer.encode(text).into_iter().enumerate() {
            let behind = if at == 0 { first } else { rest };
            let logits = [(other, 5.0), (id, 5.0 - behind)];
            let choice = choose(&mut sampler, &tokenizer, &logits);
            won.push(choice.id == id);
            if choice.id != id {
                break;
            }
            // The log-probability is the model's own.
            let total = (5.0_f32.exp() + (5.0 - behind).exp()).ln();
            assert!((choice.logprob - (5.0 - behind - total)).abs() < 1e-4);
        }
        won
    }

    #[test]
    fn a_phrase_that_narrowly_loses_wins() {
        let near = (0.9 * FIRST_RAISE, 0.9 * STRENGTH);
        for text in ["seven", " seven", "Seven", " SEVEN", " seven nine"] {
            let won = write("seven nine", text, near.0, near.1);
            assert!(
                won.len() > 1 && won.iter().all(|won| *won),
                "{text}: {won:?}"
            );
        }
        // What is not a phrase, or not narrow, loses.
        assert_eq!(write("seven nine", " eight", near.0, near.1), [false]);
        assert_eq!(write("seven", " seven", 1.1 * FIRST_RAISE, 0.0), [false]);
        assert_eq!(
            write("seven", " seven", near.0, 1.1 * STRENGTH),
            [true, false]
        );
    }

    #[test]
    fn a_phrase_may_begin_within_itself() {
        let near = (0.9 * FIRST_RAISE, 0.9 * STRENGTH);
        let won = write("one one two", " one one one two", 0.0, near.0);
        assert!(won.iter().all(|won| *won), "{won:?}");
        // Its second word is raised as the second or the third of the phrase.
        let won = write("one one two", " one one one two", near.0, near.1);
        assert_eq!(won.last(), Some(&true), "{won:?}");
    }

    #[test]
    fn the_end_and_the_pads_of_a_stream_are_never_put_off() {
        let tokenizer = tokenizer();
        let mut sampler = biased(&tokenizer, &["seven"]);
        let first = tokenizer.encode(" seven")[0];
        for special in [2, 32, 33] {
            let logits = [(special, 5.0), (first, 4.99)];
            assert_eq!(choose(&mut sampler, &tokenizer, &logits).id, special);
        }
        let logits = [(tokenizer.encode("!")[0], 5.0), (first, 4.99)];
        assert_eq!(choose(&mut sampler, &tokenizer, &logits).id, first);
    }

    #[test]
    fn a_phrase_goes_on_behind_pads_and_marks() {
        let tokenizer = tokenizer();
        let mut sampler = biased(&tokenizer, &["four nine"]);
        let ids = tokenizer.encode(" four nine");
        let other = tokenizer.encode("!")[0];
        for id in ids {
            // As far behind as only what is within the phrase may be, but for its first token.
            let begins =
                tokenizer.token_text(id) == tokenizer.token_text(tokenizer.encode(" four")[0]);
            let behind = if begins { 0.0 } else { 0.9 * STRENGTH };
            let logits = [(other, 4.999), (id, 5.0 - behind)];
            assert_eq!(choose(&mut sampler, &tokenizer, &logits).id, id);
            for special in [32, 32, 33] {
                assert_eq!(
                    choose(&mut sampler, &tokenizer, &[(special, 9.0)]).id,
                    special
                );
            }
        }
    }

    #[test]
    fn a_word_is_not_glued_to_another() {
        let tokenizer = tokenizer();
        let mut sampler = biased(&tokenizer, &["one"]);
        let first = tokenizer.encode("one")[0];
        let [letter, other] = ["a", "!"].map(|text| tokenizer.encode(text)[0]);
        let narrow = [(other, 5.0), (first, 4.99)];
        choose(&mut sampler, &tokenizer, &[(letter, 9.0)]);
        assert_eq!(choose(&mut sampler, &tokenizer, &narrow).id, other);
        assert_eq!(
            choose(&mut sampler, &tokenizer, &narrow).id,
            first,
            "behind `!`"
        );
    }

    #[test]
    fn words_without_spaces_between_them_are_found_in_a_text() {
        assert!(is_of_words('e') && is_of_words('7') && is_of_words('я') && is_of_words('한'));
        for character in ['東', 'の', 'ไ', ' ', '.', '\'', '\u{FFFD}'] {
            assert!(!is_of_words(character), "{character}");
        }
    }

    /// A tokenizer passes over what its pattern does not match.
    #[test]
    fn a_phrase_that_cannot_be_written_is_refused() {
        let mut file = file();
        file["config"]["pattern"] = r"\p{L}+|\s+".into();
        let tokenizer = Tokenizer::from_bytes(&serde_json::to_vec(&file).unwrap()).unwrap();
        let bias = |phrase| ContextBias::new([phrase], STRENGTH).unwrap();
        Context::new(&bias("Joplin"), &tokenizer).unwrap();
        let error = Context::new(&bias("Joplin 7"), &tokenizer).unwrap_err();
        assert!(
            error.to_string().contains("`Joplin 7` has no tokens"),
            "{error}"
        );
    }

    #[test]
    fn a_sampler_without_a_tokenizer_takes_no_bias() {
        let options = SamplingOptions {
            context_bias: Some(ContextBias::new(["one"], 1.0).unwrap()),
            ..Default::default()
        };
        let error = Sampler::new(&options, 1000).err().unwrap();
        assert!(
            error.to_string().starts_with("context bias is given"),
            "{error}"
        );
    }
}
