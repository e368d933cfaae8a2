//! The language of the speech, as the prompt names it.

use std::fmt;
use std::str::FromStr;

use crate::error::TokenizerError;

/// The 183 two-letter codes of ISO 639-1, in alphabetical order.
#[rustfmt::skip]
const CODES: [&str; 183] = [
    "aa", "ab", "ae", "af", "ak", "am", "an", "ar", "as", "av", "ay", "az", "ba", "be", "bg", "bi",
    "bm", "bn", "bo", "br", "bs", "ca", "ce", "ch", "co", "cr", "cs", "cu", "cv", "cy", "da", "de",
    "dv", "dz", "ee", "el", "en", "eo", "es", "et", "eu", "fa", "ff", "fi", "fj", "fo", "fr", "fy",
    "ga", "gd", "gl", "gn", "gu", "gv", "ha", "he", "hi", "ho", "hr", "ht", "hu", "hy", "hz", "ia",
    "id", "ie", "ig", "ii", "ik", "io", "is", "it", "iu", "ja", "jv", "ka", "kg", "ki", "kj", "kk",
    "kl", "km", "kn", "ko", "kr", "ks", "ku", "kv", "kw", "ky", "la", "lb", "lg", "li", "ln", "lo",
    "lt", "lu", "lv", "mg", "mh", "mi", "mk", "ml", "mn", "mr", "ms", "mt", "my", "na", "nb", "nd",
    "ne", "ng", "nl", "nn", "no", "nr", "nv", "ny", "oc", "oj", "om", "or", "os", "pa", "pi", "pl",
    "ps", "pt", "qu", "rm", "rn", "ro", "ru", "rw", "sa", "sc", "sd", "se", "sg", "si", "sk", "sl",
    "sm", "sn", "so", "sq", "sr", "ss", "st", "su", "sv", "sw", "ta", "te", "tg", "th", "ti", "tk",
    "tl", "tn", "to", "tr", "ts", "tt", "tw", "ty", "ug", "uk", "ur", "uz", "ve", "vi", "vo", "wa",
    "wo", "xh", "yi", "yo", "za", "zh", "zu",
];

/// A language by its two-letter code of ISO 639-1, such as `en`.
///
/// Every code of the standard is accepted, as the reference implementation does; which of
/// them a model understands is on its model card.
///
/// ```
/// use voxtral_tokenizer::Language;
///
/// let language: Language = "fr".parse()?;
/// assert_eq!(language.to_string(), "fr");
/// assert!("french".parse::<Language>().is_err());
/// # Ok::<(), voxtral_tokenizer::TokenizerError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Language(&'static str);

impl Language {
    /// The two-letter code.
    pub fn code(self) -> &'static str {
        self.0
    }

    /// Every language there is, in alphabetical order of the codes.
    pub fn all() -> impl ExactSizeIterator<Item = Self> {
        CODES.iter().copied().map(Self)
    }
}

impl FromStr for Language {
    type Err = TokenizerError;

    fn from_str(code: &str) -> Result<Self, Self::Err> {
        match CODES.binary_search(&code) {
            Ok(index) => Ok(Self(CODES[index])),
            Err(_) => Err(TokenizerError::UnknownLanguage {
                found: code.to_owned(),
            }),
        }
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_are_in_order_for_the_binary_search() {
        assert!(CODES.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn every_code_is_parsed_and_printed() {
        for language in Language::all() {
            assert_eq!(language.code().parse::<Language>().unwrap(), language);
            assert_eq!(language.to_string(), language.code());
        }
    }

    #[test]
    fn whatever_is_no_code_is_an_error_that_shows_some() {
        for found in ["", "xx1", "xx", "english", "EN", " en", "e", "eng", "sh"] {
            let message = found.parse::<Language>().unwrap_err().to_string();
            assert!(message.contains(&format!("`{found}`")), "{message}");
            assert!(message.contains("`en`, `fr`"), "{message}");
        }
    }
}
