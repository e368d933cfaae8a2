//! Names of the special tokens, and the table of a file's own.
//!
//! Ids differ between models (32 is `[ARGS]` in one and `[STREAMING_PAD]` in another), so
//! a token is always looked up by its name: `tokenizer.special(special::AUDIO)`.

use std::collections::HashMap;

use crate::error::TokenizerError;

/// Stands for what the vocabulary lacks; a byte-level vocabulary never needs it.
pub const UNK: &str = "<unk>";
/// Begins every prompt.
pub const BOS: &str = "<s>";
/// Ends what the model has to say.
pub const EOS: &str = "</s>";
/// Fills up batches.
pub const PAD: &str = "<pad>";

/// Begins a user turn.
pub const BEGIN_INST: &str = "[INST]";
/// Ends a user turn.
pub const END_INST: &str = "[/INST]";
/// Begins the system prompt.
pub const BEGIN_SYSTEM: &str = "[SYSTEM_PROMPT]";
/// Ends the system prompt.
pub const END_SYSTEM: &str = "[/SYSTEM_PROMPT]";

/// Begins the list of tools.
pub const BEGIN_TOOLS: &str = "[AVAILABLE_TOOLS]";
/// Ends the list of tools.
pub const END_TOOLS: &str = "[/AVAILABLE_TOOLS]";
/// Begins the result of a tool.
pub const BEGIN_TOOL_RESULTS: &str = "[TOOL_RESULTS]";
/// Ends the result of a tool.
pub const END_TOOL_RESULTS: &str = "[/TOOL_RESULTS]";
/// Parts the id of a call from its result.
pub const TOOL_CONTENT: &str = "[TOOL_CONTENT]";
/// Begins a call, or a list of calls, by the model.
pub const TOOL_CALLS: &str = "[TOOL_CALLS]";
/// Begins the arguments of a call.
pub const ARGS: &str = "[ARGS]";
/// Begins the id of a call.
pub const CALL_ID: &str = "[CALL_ID]";

/// One patch of an image.
pub const IMG: &str = "[IMG]";
/// Ends a row of patches.
pub const IMG_BREAK: &str = "[IMG_BREAK]";
/// Ends an image.
pub const IMG_END: &str = "[IMG_END]";

/// Begins what stands before the gap to fill.
pub const PREFIX: &str = "[PREFIX]";
/// Begins what fills the gap.
pub const MIDDLE: &str = "[MIDDLE]";
/// Begins what stands after the gap to fill.
pub const SUFFIX: &str = "[SUFFIX]";

/// Place of one audio embedding.
pub const AUDIO: &str = "[AUDIO]";
/// Begins an audio clip.
pub const BEGIN_AUDIO: &str = "[BEGIN_AUDIO]";
/// Asks for the transcript.
pub const TRANSCRIBE: &str = "[TRANSCRIBE]";

/// Nothing is said in this step of a streaming model.
pub const STREAMING_PAD: &str = "[STREAMING_PAD]";
/// A streaming model has heard a word to its end; its pieces follow.
pub const STREAMING_WORD: &str = "[STREAMING_WORD]";

/// The tokens of a v7 file without a list of its own, by rank.
const BUILT_IN: [&str; 20] = [
    UNK,
    BOS,
    EOS,
    BEGIN_INST,
    END_INST,
    BEGIN_TOOLS,
    END_TOOLS,
    BEGIN_TOOL_RESULTS,
    END_TOOL_RESULTS,
    TOOL_CALLS,
    IMG,
    PAD,
    IMG_BREAK,
    IMG_END,
    PREFIX,
    MIDDLE,
    SUFFIX,
    BEGIN_SYSTEM,
    END_SYSTEM,
    TOOL_CONTENT,
];

/// Around the rank in the name of a token that the file does not list.
const FILLER: (&str, &str) = ("<SPECIAL_", ">");

/// The special tokens of one file: ids `0..count`, of which the first are listed.
#[derive(Debug)]
pub(crate) struct SpecialTokens {
    listed: Vec<String>,
    ids: HashMap<String, u32>,
    count: u32,
}

impl SpecialTokens {
    /// The tokens that every file of version v7 has.
    pub(crate) fn built_in() -> Vec<(u64, String)> {
        (0..).zip(BUILT_IN.map(str::to_owned)).collect()
    }

    /// A table of `count` tokens from the listed (rank, name).
    pub(crate) fn new(listed: Vec<(u64, String)>, count: u32) -> Result<Self, TokenizerError> {
        if listed.len() > count as usize {
            return Err(TokenizerError::Config {
                key: "default_num_special_tokens",
                found: count as usize,
                expected: format!("at least {}, the number of special tokens", listed.len()),
            });
        }
        let mut tokens = Self {
            listed: Vec::with_capacity(listed.len()),
            ids: HashMap::with_capacity(listed.len()),
            count,
        };
        // Before any name is checked, so that fillers begin after the last listed one.
        let first_filler = listed.len();
        for (index, (id, (rank, token))) in (0_u32..).zip(listed).enumerate() {
            if rank != u64::from(id) {
                return Err(TokenizerError::SpecialRank {
                    index,
                    token,
                    found: rank,
                });
            }
            let filler = filler_rank(&token).filter(|&rank| rank as usize >= first_filler);
            let first = tokens.ids.get(&token).copied();
            if let Some(first) = first.or(filler.filter(|&rank| rank < count)) {
                return Err(TokenizerError::SpecialDuplicate {
                    index,
                    token,
                    first,
                });
            }
            tokens.ids.insert(token.clone(), id);
            tokens.listed.push(token);
        }
        Ok(tokens)
    }

    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    pub(crate) fn id(&self, token: &str) -> Option<u32> {
        self.ids.get(token).copied().or_else(|| {
            filler_rank(token)
                .filter(|&rank| rank as usize >= self.listed.len() && rank < self.count)
        })
    }

    /// The name of a token, listed or not; `None` for an id that is not special.
    pub(crate) fn name(&self, id: u32) -> Option<String> {
        if id >= self.count {
            return None;
        }
        Some(match self.listed.get(id as usize) {
            Some(token) => token.clone(),
            None => format!("{}{id}{}", FILLER.0, FILLER.1),
        })
    }
}

/// The rank in the name of a filler, written as [`SpecialTokens::name`] writes it.
fn filler_rank(token: &str) -> Option<u32> {
    let digits = token.strip_prefix(FILLER.0)?.strip_suffix(FILLER.1)?;
    let rank: u32 = digits.parse().ok()?;
    (rank.to_string() == digits).then_some(rank)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(names: &[&str]) -> Vec<(u64, String)> {
        (0..)
            .zip(names.iter().map(|&name| name.to_owned()))
            .collect()
    }

    #[test]
    fn what_is_not_listed_is_named_by_its_rank() {
        let tokens = SpecialTokens::new(listed(&["<unk>", "<s>"]), 1000).unwrap();
        assert_eq!(tokens.id("<s>"), Some(1));
        assert_eq!(tokens.id("<SPECIAL_2>"), Some(2));
        assert_eq!(tokens.id("<SPECIAL_999>"), Some(999));
        assert_eq!(tokens.name(1).unwrap(), "<s>");
        assert_eq!(tokens.name(999).unwrap(), "<SPECIAL_999>");
        assert_eq!(tokens.name(1000), None);
        for absent in [
            "<SPECIAL_1>",
            "<SPECIAL_1000>",
            "<SPECIAL_+2>",
            "<SPECIAL_02>",
            "",
        ] {
            assert_eq!(tokens.id(absent), None, "{absent}");
        }
    }

    #[test]
    fn a_listed_token_may_have_a_filler_name_only_at_its_own_rank() {
        let tokens = SpecialTokens::new(listed(&["<unk>", "<SPECIAL_1>"]), 4).unwrap();
        assert_eq!(tokens.id("<SPECIAL_1>"), Some(1));
        let error = SpecialTokens::new(listed(&["<unk>", "<SPECIAL_3>"]), 4).unwrap_err();
        assert!(matches!(
            error,
            TokenizerError::SpecialDuplicate {
                index: 1,
                first: 3,
                ..
            }
        ));
    }

    #[test]
    fn the_built_in_tokens_have_their_known_ranks() {
        let tokens = SpecialTokens::new(SpecialTokens::built_in(), 1000).unwrap();
        for (token, id) in [
            (BOS, 1),
            (EOS, 2),
            (BEGIN_INST, 3),
            (END_INST, 4),
            (PAD, 11),
        ] {
            assert_eq!(tokens.id(token), Some(id));
        }
        assert_eq!(tokens.id(BEGIN_SYSTEM), Some(17));
        assert_eq!(tokens.id(TOOL_CONTENT), Some(19));
        assert_eq!(tokens.id(AUDIO), None);
    }
}
