//! Guesses of the tokens that come next.
//!
//! A decoder that makes one token at a time reads all its weights for each. Where the sound of
//! several tokens waits, it can run several positions in one pass, if what stands at them is
//! guessed: the scores at a position tell whether the guess behind it is right, and from the first
//! that is not, all are taken back (Leviathan et al., 2023, arXiv:2211.17192, with nothing drawn).
//! The tokens are those that come one by one.

use std::collections::HashMap;
use std::iter::successors;

/// Guesses what followed a piece of a word when it was last written, and pads otherwise; more of
/// them where more turned out right.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    /// Most tokens of a Realtime model are pads, in long runs.
    pad: u32,
    /// Stands before each word. The word's first piece follows, which is anyone's guess.
    mark: u32,
    /// What followed each piece; no more of them than there are entries in the vocabulary.
    followed_by: HashMap<u32, u32>,
    behind_pad: usize,
    behind_piece: usize,
}

impl Draft {
    /// Positions that run at once, of which the first is known: the products of a CPU read each
    /// weight once for up to eight rows, and give each row the bits that it has alone; more would
    /// be computed in another order (`FEW_CODED_ROWS` of `voxtral-kernels`).
    pub(crate) const POSITIONS: usize = 8;

    /// Guesses at most.
    const MOST: usize = Self::POSITIONS - 1;

    /// A draft for a model that pads with `pad` and writes `mark` before each word.
    pub(crate) fn new(pad: u32, mark: u32) -> Self {
        Self {
            pad,
            mark,
            followed_by: HashMap::new(),
            // A wrong guess costs less than a pass, so it begins with many.
            behind_pad: Self::MOST,
            behind_piece: 2,
        }
    }

    /// What may follow this token.
    pub(crate) fn guess(&self, last: u32) -> impl Iterator<Item = u32> {
        let count = match last {
            last if last == self.mark => 0,
            last if last == self.pad => self.behind_pad,
            _ => self.behind_piece,
        };
        let next = |token: &u32| {
            let known = self.followed_by.get(token);
            (*token != self.mark).then(|| known.copied().unwrap_or(self.pad))
        };
        successors(next(&last), next).take(count)
    }

    /// Learns that one token follows another.
    pub(crate) fn follows(&mut self, token: u32, next: u32) {
        if token != self.pad && token != self.mark {
            self.followed_by.insert(token, next);
        }
    }

    /// Learns that `right` of so many guesses behind this token were: if all were, twice as many
    /// may be; otherwise, the next are halfway to those that were.
    pub(crate) fn learn(&mut self, last: u32, guesses: usize, right: usize) {
        let count = if last == self.pad {
            &mut self.behind_pad
        } else {
            &mut self.behind_piece
        };
        if right < guesses {
            *count = (*count + right).div_ceil(2);
        } else if guesses == *count {
            // Where there was sound for fewer than were meant, more are no better founded.
            *count = (2 * *count).min(Self::MOST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAD: u32 = 1;
    const MARK: u32 = 2;
    const PIECES: [u32; 2] = [3, 4];

    fn guess(draft: &Draft, last: u32) -> Vec<u32> {
        draft.guess(last).collect()
    }

    #[test]
    fn pads_follow_each_other_and_pieces_what_followed_them() {
        let mut draft = Draft::new(PAD, MARK);
        draft.learn(MARK, 0, 0);
        assert!(guess(&draft, MARK).is_empty());
        assert_eq!(guess(&draft, PAD), [PAD; Draft::MOST]);
        assert_eq!(guess(&draft, PIECES[0]), [PAD, PAD]);
        for pair in [PAD, MARK, PIECES[0], PIECES[1], PAD, PAD, MARK].windows(2) {
            draft.follows(pair[0], pair[1]);
        }
        assert_eq!(guess(&draft, PIECES[0]), [PIECES[1], PAD]);
        assert_eq!(guess(&draft, PIECES[1]), [PAD, PAD]);
        draft.follows(PIECES[0], MARK);
        assert_eq!(guess(&draft, PIECES[0]), [MARK], "nothing behind a mark");
        assert_eq!(guess(&draft, PAD), [PAD; Draft::MOST]);
    }

    #[test]
    fn guesses_grow_while_they_are_right_and_shrink_when_not() {
        let mut draft = Draft::new(PAD, MARK);
        let mut counts = Vec::new();
        for right in [0, 0, 0, 0, 1, 2, 4, 7, 3] {
            draft.learn(PAD, guess(&draft, PAD).len(), right);
            counts.push(guess(&draft, PAD).len());
        }
        assert_eq!(counts, [4, 2, 1, 1, 2, 4, 7, 7, 5]);
        assert_eq!(guess(&draft, PIECES[0]).len(), 2, "learned on its own");
        draft.learn(PAD, 1, 1);
        assert_eq!(guess(&draft, PAD).len(), 5, "there was no sound for more");
    }
}
