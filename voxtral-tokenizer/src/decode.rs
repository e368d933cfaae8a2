//! Ids back to text, all at once or one by one.

use crate::error::TokenizerError;
use crate::tokenizer::Tokenizer;

/// What decoding does with special tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SpecialPolicy {
    /// Leaves them out. Bytes on both sides of one may form a character together.
    #[default]
    Ignore,
    /// Writes their names. A character does not reach across one.
    Keep,
    /// Refuses them.
    Reject,
}

impl Tokenizer {
    /// The text of so many ids; bytes that form no character become U+FFFD.
    ///
    /// An id that no token has is an error.
    pub fn decode(&self, ids: &[u32], specials: SpecialPolicy) -> Result<String, TokenizerError> {
        let mut text = String::new();
        let mut characters = Characters::default();
        for &id in ids {
            if let Some(bytes) = self.token_bytes(id) {
                characters.push(bytes, &mut text);
            } else if !self.is_special(id) {
                let vocab_size = self.vocab_size();
                return Err(TokenizerError::UnknownId { id, vocab_size });
            } else if specials == SpecialPolicy::Keep {
                characters.finish(&mut text);
                text.push_str(&self.token_text(id));
            } else if specials == SpecialPolicy::Reject {
                let token = self.token_text(id);
                return Err(TokenizerError::SpecialTokenRejected { id, token });
            }
        }
        characters.finish(&mut text);
        Ok(text)
    }
}

/// Decodes ids as they come, without ever showing half a character.
///
/// What [`push`](Self::push) and [`finish`](Self::finish) return adds up to what
/// [`Tokenizer::decode`] returns for all ids with [`SpecialPolicy::Ignore`].
#[derive(Debug, Clone)]
pub struct TextDecoder<'t> {
    tokenizer: &'t Tokenizer,
    characters: Characters,
}

impl<'t> TextDecoder<'t> {
    /// A decoder that has seen nothing.
    pub fn new(tokenizer: &'t Tokenizer) -> Self {
        Self {
            tokenizer,
            characters: Characters::default(),
        }
    }

    /// Takes one id and returns the text that it completes, often none.
    ///
    /// Special tokens are left out. An id that no token has shows as U+FFFD: generation must
    /// not stop there, and the text must not hide it.
    pub fn push(&mut self, id: u32) -> String {
        let mut text = String::new();
        if let Some(bytes) = self.tokenizer.token_bytes(id) {
            self.characters.push(bytes, &mut text);
        } else if !self.tokenizer.is_special(id) {
            self.characters.finish(&mut text);
            text.push(char::REPLACEMENT_CHARACTER);
        }
        text
    }

    /// Returns what was held back, as U+FFFD, and begins anew.
    pub fn finish(&mut self) -> String {
        let mut text = String::new();
        self.characters.finish(&mut text);
        text
    }
}

/// Puts characters together from bytes that come in pieces.
#[derive(Debug, Clone, Default)]
struct Characters {
    /// The beginning of a character, at most three bytes.
    held: Vec<u8>,
}

impl Characters {
    fn push(&mut self, bytes: &[u8], text: &mut String) {
        self.held.extend_from_slice(bytes);
        let mut done = 0;
        // As many replacements as `String::from_utf8_lossy` makes, but for a tail that may
        // still become a character.
        for chunk in self.held.utf8_chunks() {
            text.push_str(chunk.valid());
            done += chunk.valid().len();
            let invalid = chunk.invalid();
            if done + invalid.len() == self.held.len() && is_unfinished(invalid) {
                break;
            }
            if !invalid.is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
                done += invalid.len();
            }
        }
        self.held.drain(..done);
    }

    fn finish(&mut self, text: &mut String) {
        text.push_str(&String::from_utf8_lossy(&self.held));
        self.held.clear();
    }
}

/// Whether more bytes could make a character of these.
fn is_unfinished(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_pieces(pieces: &[&[u8]]) -> Vec<String> {
        let mut characters = Characters::default();
        let mut texts: Vec<String> = pieces
            .iter()
            .map(|piece| {
                let mut text = String::new();
                characters.push(piece, &mut text);
                text
            })
            .collect();
        let mut rest = String::new();
        characters.finish(&mut rest);
        texts.push(rest);
        texts
    }

    #[test]
    fn half_a_character_is_held_back() {
        assert_eq!(in_pieces(&[b"a\xC3", b"\xA9b"]), ["a", "éb", ""]);
        assert_eq!(
            in_pieces(&[b"\xF0", b"\x9F", b"\x98", b"\x80"]),
            ["", "", "", "😀", ""]
        );
    }

    #[test]
    fn what_never_becomes_a_character_is_replaced_as_soon_as_that_is_known() {
        assert_eq!(in_pieces(&[b"\xFFa"]), ["\u{FFFD}a", ""]);
        assert_eq!(in_pieces(&[b"\xE2\x82", b"x"]), ["", "\u{FFFD}x", ""]);
        assert_eq!(in_pieces(&[b"a\xE2\x82"]), ["a", "\u{FFFD}"]);
        // Two characters begun, neither ended: the second may still be.
        assert_eq!(
            in_pieces(&[b"\xE2\xE2", b"\x82\xAC"]),
            ["\u{FFFD}", "€", ""]
        );
    }
}
