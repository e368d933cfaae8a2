//! What a grammar of JSON leaves open and a reader does not bear: a number of any length overflows,
//! and so do brackets of any depth; a name that is written with escapes is not recognised.

/// Digits of a number, without those of the exponent; so many are exact in `u64`.
const MOST_DIGITS: u32 = 19;
/// Digits of an exponent.
const MOST_EXPONENT_DIGITS: u32 = 2;
/// Brackets within each other; `serde_json` reads 128, of which a list of calls takes two.
const MOST_BRACKETS: u32 = 100;

/// Where in a JSON text the last byte stands.
#[derive(Debug, Clone, Default)]
pub(super) struct Limits {
    brackets: u32,
    place: Place,
}

#[derive(Debug, Clone, Copy, Default)]
enum Place {
    #[default]
    Between,
    String {
        escaped: bool,
    },
    /// Behind `\u`, and so many of its four digits.
    Escape(u32),
    Digits(u32),
    Exponent(u32),
}

/// Whether bytes in a string hold any that do not stand for themselves.
pub(super) fn ends_text(bytes: &[u8]) -> bool {
    bytes.contains(&b'"') || bytes.contains(&b'\\')
}

impl Limits {
    /// Whether the next byte stands in a string, and for itself.
    pub(super) fn in_text(&self) -> bool {
        matches!(self.place, Place::String { escaped: false })
    }

    /// Goes on by some bytes; false as soon as they leave the limits.
    pub(super) fn take(&mut self, bytes: &[u8]) -> bool {
        bytes.iter().all(|&byte| self.step(byte))
    }

    fn step(&mut self, byte: u8) -> bool {
        self.place = match (self.place, byte) {
            (Place::String { escaped: true }, b'u') => Place::Escape(0),
            // Control characters alone: the others stand for themselves.
            (Place::Escape(count @ 0..=1), b'0') => Place::Escape(count + 1),
            (Place::Escape(2), b'0' | b'1') => Place::Escape(3),
            (Place::Escape(3), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                Place::String { escaped: false }
            }
            (Place::Escape(_), _) => return false,
            (Place::String { escaped: true }, _) => Place::String { escaped: false },
            (Place::String { .. }, b'\\') => Place::String { escaped: true },
            (Place::String { .. }, b'"') => Place::Between,
            (Place::String { .. }, _) => return true,
            (Place::Digits(count), b'0'..=b'9') => Place::Digits(count + 1),
            // The digit that must follow the point has its place.
            (Place::Digits(count), b'.') => Place::Digits(count.min(MOST_DIGITS - 1)),
            (Place::Digits(_), b'e' | b'E') => Place::Exponent(0),
            (Place::Exponent(0), b'+' | b'-') => Place::Exponent(0),
            (Place::Exponent(count), b'0'..=b'9') => Place::Exponent(count + 1),
            (_, b'0'..=b'9') => Place::Digits(1),
            (_, b'"') => Place::String { escaped: false },
            (_, b'{' | b'[') => {
                self.brackets += 1;
                Place::Between
            }
            (_, b'}' | b']') => {
                self.brackets = self.brackets.saturating_sub(1);
                Place::Between
            }
            _ => Place::Between,
        };
        match self.place {
            Place::Digits(count) => count <= MOST_DIGITS,
            Place::Exponent(count) => count <= MOST_EXPONENT_DIGITS,
            _ => self.brackets <= MOST_BRACKETS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_within(json: &str) -> bool {
        let whole = Limits::default().take(json.as_bytes());
        let mut limits = Limits::default();
        let in_pieces = json.as_bytes().chunks(2).all(|piece| limits.take(piece));
        assert_eq!(whole, in_pieces, "{json}");
        whole
    }

    #[test]
    fn what_is_within_the_limits_can_be_read() {
        let digits = "9".repeat(19);
        let brackets = ["[".repeat(100), "]".repeat(100)].concat();
        for json in [
            digits.clone(),
            format!("-{digits}e99"),
            format!("{digits}.9"),
            "0.1e-07".to_owned(),
            brackets.clone(),
            format!("[{{\"a\\\"\": \"{digits}{digits}e999 [[\"}}, 1, {digits}]"),
            format!("\"{}\"", "[".repeat(200)),
            r#"["\\", "\"e999", 1]"#.to_owned(),
            format!("[{}]", ["[[]]"; 100].join(", ")),
            r#"["\u0007\u001F", 1]"#.to_owned(),
        ] {
            serde_json::from_str::<serde_json::Value>(&json).unwrap();
            assert!(is_within(&json), "{json}");
        }
        for json in [
            format!("{digits}9"),
            format!("[\"\\\\\", {digits}9]"),
            format!("0.{digits}9"),
            "1e999".to_owned(),
            "1E-100".to_owned(),
            format!("[{brackets}]"),
            r#"{"\u0063ity": 1}"#.to_owned(),
        ] {
            assert!(!is_within(&json), "{json}");
        }
    }
}
