//! The file `tekken.json`: what is read of it, and what is checked.
//!
//! ```text
//! config          pattern, default_vocab_size, default_num_special_tokens, version
//! vocab[i]        { rank: i, token_bytes: base64 }       0..=255 are the single bytes
//! special_tokens  [{ rank: i, token_str }]               may be shorter than the count
//! audio           see the `audio` module                 absent from text models
//! ```
//!
//! Ids `0..n` are the special tokens, n = `default_num_special_tokens`; id `n + rank` is the
//! vocabulary's entry of that rank. The file has more entries than the model: all beyond
//! `default_vocab_size - n` are cut off *before* the merges are built, for a longer entry
//! would otherwise swallow shorter ones that the model knows.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustc_hash::FxHashMap;
use serde::Deserialize;
use serde_json::error::Category;

use crate::audio::RawAudioSection;
use crate::error::TokenizerError;

/// Number of single bytes, which the vocabulary begins with.
const SINGLE_BYTES: usize = 256;

/// Largest number of ids: all of them fit an `i32` too, as tensor libraries like them.
const MAX_IDS: usize = i32::MAX as usize;

/// Version of a tokenizer file, which decides how prompts are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Version {
    /// `v7`
    V7,
    /// `v11`
    V11,
    /// `v13`
    V13,
}

impl Version {
    /// The versions that this crate knows, oldest first.
    ///
    /// Versions before v7 have no audio; the bundled v3 files of mistral-common hold
    /// the same vocabulary without any audio token.
    pub const ALL: [Self; 3] = [Self::V7, Self::V11, Self::V13];

    /// The version as files spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V7 => "v7",
            Self::V11 => "v11",
            Self::V13 => "v13",
        }
    }

    /// [`Self::ALL`] for an error message.
    pub(crate) fn supported() -> String {
        Self::ALL.map(|version| format!("\"{version}\"")).join(", ")
    }

    fn parse(found: &str) -> Result<Self, TokenizerError> {
        Self::ALL
            .into_iter()
            .find(|version| version.as_str() == found)
            .ok_or_else(|| TokenizerError::UnsupportedVersion {
                found: found.to_owned(),
            })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The file. Keys that are not named here, `token_str` above all, are skipped unread.
#[derive(Deserialize)]
pub(crate) struct TekkenFile<'a> {
    config: Config,
    #[serde(borrow)]
    vocab: Vec<VocabEntry<'a>>,
    special_tokens: Option<Vec<SpecialEntry>>,
    pub(crate) audio: Option<RawAudioSection>,
}

#[derive(Deserialize)]
struct Config {
    pattern: String,
    default_vocab_size: usize,
    default_num_special_tokens: usize,
    version: String,
}

#[derive(Deserialize)]
struct VocabEntry<'a> {
    rank: u64,
    #[serde(borrow)]
    token_bytes: Cow<'a, str>,
}

#[derive(Deserialize)]
struct SpecialEntry {
    rank: u64,
    token_str: String,
}

/// The bytes of every ordinary token, by rank.
#[derive(Debug)]
pub(crate) struct Vocabulary {
    bytes: Vec<u8>,
    /// Where the bytes of each token end; they begin where those before end.
    ends: Vec<usize>,
}

impl<'a> TekkenFile<'a> {
    /// Reads the JSON, without judging its values.
    pub(crate) fn parse(json: &'a [u8]) -> Result<Self, TokenizerError> {
        if json.trim_ascii().is_empty() {
            return Err(TokenizerError::Empty);
        }
        serde_json::from_slice(json).map_err(|source| match source.classify() {
            Category::Eof => TokenizerError::Truncated { source },
            Category::Data => TokenizerError::Layout { source },
            Category::Syntax | Category::Io => TokenizerError::NotJson { source },
        })
    }

    pub(crate) fn version(&self) -> Result<Version, TokenizerError> {
        Version::parse(&self.config.version)
    }

    pub(crate) fn pattern(&self) -> Result<&str, TokenizerError> {
        if self.config.pattern.is_empty() {
            return Err(TokenizerError::Pattern {
                source: "it is empty, so it would match no text".into(),
            });
        }
        Ok(&self.config.pattern)
    }

    /// Number of ids for special tokens, listed or not.
    pub(crate) fn num_special_tokens(&self) -> Result<u32, TokenizerError> {
        let size = self.config.default_vocab_size;
        if size > MAX_IDS {
            return Err(TokenizerError::Config {
                key: "default_vocab_size",
                found: size,
                expected: format!("at most {MAX_IDS}, the number of ids there can be"),
            });
        }
        let found = self.config.default_num_special_tokens;
        u32::try_from(found)
            .ok()
            .filter(|_| found < size)
            .ok_or_else(|| TokenizerError::Config {
                key: "default_num_special_tokens",
                found,
                expected: format!("less than {size}, which is `config.default_vocab_size`"),
            })
    }

    /// Rank and name of the special tokens listed, or of those a v7 file has without a list.
    pub(crate) fn take_special_tokens(
        &mut self,
        version: Version,
        built_in: impl FnOnce() -> Vec<(u64, String)>,
    ) -> Result<Vec<(u64, String)>, TokenizerError> {
        match self.special_tokens.take() {
            Some(listed) => Ok(listed.into_iter().map(|t| (t.rank, t.token_str)).collect()),
            None if version == Version::V7 => Ok(built_in()),
            None => Err(TokenizerError::SpecialTokensAbsent { version }),
        }
    }

    /// The vocabulary, cut to the model's size.
    pub(crate) fn vocabulary(&self) -> Result<Vocabulary, TokenizerError> {
        let special = self.config.default_num_special_tokens;
        let size = self.config.default_vocab_size.saturating_sub(special);
        let entries = match self.vocab.get(..size) {
            Some(entries) if size >= SINGLE_BYTES => entries,
            _ => {
                return Err(TokenizerError::Config {
                    key: "default_vocab_size",
                    found: self.config.default_vocab_size,
                    expected: format!(
                        "{special} special tokens and {SINGLE_BYTES} to {} entries of the \
                         vocabulary, as many as the file has",
                        self.vocab.len()
                    ),
                });
            }
        };
        let mut vocabulary = Vocabulary {
            bytes: Vec::with_capacity(entries.iter().map(|e| e.token_bytes.len()).sum()),
            ends: Vec::with_capacity(size),
        };
        for (index, entry) in entries.iter().enumerate() {
            vocabulary.push(index, entry)?;
        }
        Ok(vocabulary)
    }
}

impl Vocabulary {
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn get(&self, rank: usize) -> Option<&[u8]> {
        let end = *self.ends.get(rank)?;
        let start = rank.checked_sub(1).map_or(0, |before| self.ends[before]);
        Some(&self.bytes[start..end])
    }

    /// The ids by their bytes, the first being `offset`.
    pub(crate) fn encoder(&self, offset: u32) -> Result<FxHashMap<Vec<u8>, u32>, TokenizerError> {
        let mut encoder = FxHashMap::with_capacity_and_hasher(self.len(), Default::default());
        let tokens = (0..self.len()).filter_map(|rank| self.get(rank));
        for (index, (id, bytes)) in (offset..).zip(tokens).enumerate() {
            if let Some(first) = encoder.insert(bytes.to_vec(), id) {
                let first = (first - offset) as usize;
                return Err(TokenizerError::VocabDuplicate { index, first });
            }
        }
        Ok(encoder)
    }

    fn push(&mut self, index: usize, entry: &VocabEntry<'_>) -> Result<(), TokenizerError> {
        if entry.rank != index as u64 {
            let found = entry.rank;
            return Err(TokenizerError::VocabRank { index, found });
        }
        let start = self.bytes.len();
        BASE64
            .decode_vec(entry.token_bytes.as_ref(), &mut self.bytes)
            .map_err(|source| TokenizerError::VocabBase64 {
                index,
                found: entry.token_bytes.clone().into_owned(),
                source,
            })?;
        let bytes = &self.bytes[start..];
        let invalid = |expected| TokenizerError::VocabBytes {
            index,
            found: bytes.to_vec(),
            expected,
        };
        match u8::try_from(index) {
            Ok(byte) if bytes != [byte] => return Err(invalid(format!("the byte {byte:02x}"))),
            Err(_) if bytes.is_empty() => return Err(invalid("at least one byte".to_owned())),
            _ => {}
        }
        self.ends.push(self.bytes.len());
        Ok(())
    }
}
