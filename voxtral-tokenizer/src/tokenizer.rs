//! The tokenizer: text to ids, ids to bytes and names.

use std::fmt;
use std::path::Path;

use tiktoken_rs::CoreBPE;

use crate::audio::{AudioSection, RawAudioSection};
use crate::blanks;
use crate::error::TokenizerError;
use crate::special::{self, SpecialTokens};
use crate::tekken::{TekkenFile, Version, Vocabulary};

/// A tekken tokenizer, as one `tekken.json` describes it.
///
/// Text is cut by the file's pattern; each piece that is not an entry of the vocabulary
/// begins as single bytes, of which the adjacent pair that forms the entry of lowest rank is
/// merged until there is none (leftmost first among equals).
///
/// It is immutable and can be shared between threads.
pub struct Tokenizer {
    version: Version,
    special: SpecialTokens,
    vocabulary: Vocabulary,
    bpe: CoreBPE,
    audio: Option<AudioSection>,
}

impl Tokenizer {
    /// Reads a `tekken.json`.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, TokenizerError> {
        let path = path.as_ref();
        let json = std::fs::read(path).map_err(|source| TokenizerError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::from_bytes(&json).map_err(|source| TokenizerError::File {
            path: path.to_owned(),
            source: Box::new(source),
        })
    }

    /// Reads the content of a `tekken.json`.
    pub fn from_bytes(json: &[u8]) -> Result<Self, TokenizerError> {
        let mut file = TekkenFile::parse(json)?;
        let version = file.version()?;
        let count = file.num_special_tokens()?;
        let listed = file.take_special_tokens(version, SpecialTokens::built_in)?;
        let special = SpecialTokens::new(listed, count)?;
        let vocabulary = file.vocabulary()?;
        // Ids in place of ranks: their order, which is all that merging asks for, is the same.
        // Special tokens are left out, since they are never recognised in text.
        let encoder = vocabulary.encoder(count)?;
        let bpe = CoreBPE::new(encoder, Default::default(), file.pattern()?).map_err(|error| {
            TokenizerError::Pattern {
                source: error.into(),
            }
        })?;
        let audio = file.audio.map(RawAudioSection::check).transpose()?;
        Ok(Self {
            version,
            special,
            vocabulary,
            bpe,
            audio,
        })
    }

    /// The version of the file.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Number of ids, special and ordinary.
    pub fn vocab_size(&self) -> usize {
        self.num_special_tokens() + self.vocabulary.len()
    }

    /// Number of ids for special tokens, which come first.
    pub fn num_special_tokens(&self) -> usize {
        self.special.count() as usize
    }

    /// Settings of the audio front-end; `None` for a model that hears nothing.
    pub fn audio(&self) -> Option<&AudioSection> {
        self.audio.as_ref()
    }

    /// Id of a special token by its name, one of those in [`special`].
    pub fn special(&self, token: &str) -> Result<u32, TokenizerError> {
        self.try_special(token)
            .ok_or_else(|| TokenizerError::SpecialTokenMissing {
                token: token.to_owned(),
            })
    }

    /// Id of a special token by its name, where the tokenizer has it.
    pub fn try_special(&self, token: &str) -> Option<u32> {
        self.special.id(token)
    }

    /// Whether an id is that of a special token.
    pub fn is_special(&self, id: u32) -> bool {
        id < self.special.count()
    }

    /// Id of the token that begins every prompt.
    pub fn bos(&self) -> Result<u32, TokenizerError> {
        self.special(special::BOS)
    }

    /// Id of the token that ends what the model has to say.
    pub fn eos(&self) -> Result<u32, TokenizerError> {
        self.special(special::EOS)
    }

    /// The ids of a text.
    ///
    /// Names of special tokens are text like any other, so that nobody can smuggle one in.
    /// No token is added in front or behind.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        blanks::segments(text)
            .flat_map(|segment| self.bpe.encode_ordinary(segment))
            .collect()
    }

    /// The bytes of an ordinary token, which need not be whole characters; `None` for a
    /// special token and for an id that no token has.
    pub fn token_bytes(&self, id: u32) -> Option<&[u8]> {
        let rank = id.checked_sub(self.special.count())?;
        self.vocabulary.get(rank as usize)
    }

    /// A token as people read it: the name of a special one, otherwise its text, with U+FFFD
    /// for parts of characters. An id that no token has shows as U+FFFD too.
    pub fn token_text(&self, id: u32) -> String {
        match (self.special.name(id), self.token_bytes(id)) {
            (Some(name), _) => name,
            (None, Some(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
            (None, None) => char::REPLACEMENT_CHARACTER.to_string(),
        }
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("version", &self.version)
            .field("vocab_size", &self.vocab_size())
            .field("num_special_tokens", &self.num_special_tokens())
            .field("audio", &self.audio)
            .finish_non_exhaustive()
    }
}
