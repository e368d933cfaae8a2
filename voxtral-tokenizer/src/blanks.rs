//! Cuts text where a run of white space is longer than the pattern's engine can take.
//!
//! `\s+(?!\S)` takes a run of white space character by character, each with a way back, and
//! the engine has room for a million of them before it gives up. Nobody writes such text,
//! but a server may be sent it.

/// Longest run of white space that is left in one segment, in characters.
const LONGEST: usize = 250_000;

/// Consecutive segments that make up the text: itself, unless it has an absurd run of
/// white space. Such a run is cut, which tells in the ids but not in what they decode to.
pub(crate) fn segments(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest.take()?;
        match cut(text) {
            None => Some(text),
            Some(end) => {
                let (segment, after) = text.split_at(end);
                rest = Some(after);
                Some(segment)
            }
        }
    })
}

/// Where the first run that is too long has to be cut.
fn cut(text: &str) -> Option<usize> {
    if text.len() <= LONGEST {
        return None;
    }
    let mut run = 0;
    for (start, character) in text.char_indices() {
        if !character.is_whitespace() {
            run = 0;
        } else if run == LONGEST {
            return Some(start);
        } else {
            run += 1;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_text_is_one_segment() {
        for text in ["", "a", "  a\n\n b  "] {
            assert_eq!(segments(text).collect::<Vec<_>>(), [text]);
        }
        let long = "word ".repeat(LONGEST);
        assert_eq!(segments(&long).collect::<Vec<_>>(), [long.as_str()]);
    }

    #[test]
    fn runs_are_cut_between_characters_and_nothing_is_lost() {
        let text = format!("a{}b", "\u{3000}".repeat(2 * LONGEST + 1));
        let segments: Vec<_> = segments(&text).collect();
        let lengths: Vec<_> = segments.iter().map(|s| s.chars().count()).collect();
        assert_eq!(lengths, [LONGEST + 1, LONGEST, 2]);
        assert_eq!(segments.concat(), text);
    }
}
