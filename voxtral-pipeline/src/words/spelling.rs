//! Words from the pieces that spell them.

/// A token of a word.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) bytes: Vec<u8>,
    /// When it was written, on the clock of whoever spells.
    pub(crate) at: u64,
    /// `ln p` of it.
    pub(crate) logprob: f32,
}

/// A word as its pieces spell it.
#[derive(Debug)]
pub(crate) struct Spelled {
    pub(crate) text: String,
    pub(crate) spaced: bool,
    pub(super) tokens: u64,
    /// When its first piece was written.
    pub(crate) at: u64,
    /// The geometric mean of the probabilities of its pieces.
    pub(crate) confidence: f32,
}

/// Whether a piece begins with white space.
pub(super) fn is_spaced(piece: &Piece) -> bool {
    piece.bytes.first().is_some_and(u8::is_ascii_whitespace)
}

/// Whether a piece begins a word where nothing but the text tells: with white space, or with a
/// character of a script that is written without.
pub(crate) fn begins_word(before: &Piece, piece: &Piece) -> bool {
    // A character may be divided among pieces.
    let complete = std::str::from_utf8(&before.bytes).is_ok();
    let first = piece.bytes.utf8_chunks().next();
    let first = first.and_then(|chunk| chunk.valid().chars().next());
    is_spaced(piece) || (complete && first.is_some_and(is_unspaced))
}

/// Whether the character is of a script that puts no spaces between words: Thai, Lao, Burmese,
/// Khmer, Japanese, Chinese (blocks of Unicode).
fn is_unspaced(character: char) -> bool {
    matches!(character,
        '\u{0e00}'..='\u{0eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}'
        | '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}'
        | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{323af}')
}

/// Divides pieces into words: `begins` says which piece, by the one before, begins one.
pub(crate) fn spell(pieces: &[Piece], begins: impl Fn(&Piece, &Piece) -> bool) -> Vec<Spelled> {
    let words = pieces.chunk_by(|before, next| !begins(before, next));
    words
        .map(|word| {
            let bytes: Vec<u8> = word.iter().flat_map(|piece| piece.bytes.clone()).collect();
            let logprobs = word.iter().map(|piece| piece.logprob);
            Spelled {
                text: String::from_utf8_lossy(&bytes).trim().to_owned(),
                spaced: is_spaced(&word[0]),
                tokens: word.len() as u64,
                at: word[0].at,
                confidence: geometric_mean(logprobs),
            }
        })
        .filter(|word| !word.text.is_empty())
        .collect()
}

/// The geometric mean of probabilities, from their logarithms; 1 where there are none.
pub(crate) fn geometric_mean(logprobs: impl Iterator<Item = f32>) -> f32 {
    let (sum, count) = logprobs.fold((0.0_f32, 0_u32), |(sum, count), x| (sum + x, count + 1));
    (sum / count.max(1) as f32).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_alone_tells_words_by_spaces_and_by_script() {
        let words = |pieces: &[&[u8]]| {
            let piece = |(at, bytes): (u64, &&[u8])| Piece {
                bytes: bytes.to_vec(),
                at,
                logprob: -(at as f32),
            };
            let pieces: Vec<Piece> = (0..).zip(pieces).map(piece).collect();
            let words = spell(&pieces, begins_word).into_iter();
            words.map(|word| (word.text, word.at)).collect::<Vec<_>>()
        };
        let word = |text: &str, at| (text.to_owned(), at);
        let spaced: [&[u8]; 5] = [b"f", b"our", b" n", b"ine", b"."];
        assert_eq!(words(&spaced), [word("four", 0), word("nine.", 2)]);
        let unspaced = ["你", "好", "。"].map(str::as_bytes);
        assert_eq!(words(&unspaced), [word("你", 0), word("好。", 1)]);
        // A character in two pieces.
        let divided: [&[u8]; 3] = [
            "你".as_bytes(),
            &"好".as_bytes()[..1],
            &"好".as_bytes()[1..],
        ];
        assert_eq!(words(&divided).last().unwrap().0, "你好");
    }
}
