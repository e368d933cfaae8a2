//! The end of an answer at a text.

/// Passes text on up to the first stop string, which may come in pieces.
///
/// The first is the one that is complete first, and the longest where several end in one place, so
/// that it makes no difference how the text is cut. What may still become a stop string is held
/// back.
#[derive(Debug, Clone, Default)]
pub(crate) struct StopStrings {
    strings: Vec<String>,
    held: String,
}

impl StopStrings {
    pub(crate) fn new(strings: &[String]) -> Self {
        Self {
            strings: strings.to_vec(),
            held: String::new(),
        }
    }

    /// Takes text; gives what is now known to stand before any stop string, and the stop string if
    /// it is complete, behind which nothing is to be pushed.
    pub(crate) fn push(&mut self, text: &str) -> (String, Option<String>) {
        self.held.push_str(text);
        let found = self.strings.iter().filter_map(|stop| {
            let start = self.held.find(stop.as_str())?;
            Some((start + stop.len(), start, stop))
        });
        if let Some((_, start, stop)) = found.min() {
            let stop = stop.clone();
            self.held.truncate(start);
            return (self.finish(), Some(stop));
        }
        let mut starts = self.held.char_indices().map(|(start, _)| start);
        let open = starts.find(|start| self.may_become_stop(&self.held[*start..]));
        let rest = self.held.split_off(open.unwrap_or(self.held.len()));
        (std::mem::replace(&mut self.held, rest), None)
    }

    /// Gives what was held back.
    pub(crate) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    fn may_become_stop(&self, text: &str) -> bool {
        self.strings.iter().any(|stop| stop.starts_with(text))
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::{
        ChaCha8Rng,
        rand_core::{Rng, SeedableRng},
    };

    use super::*;

    /// The text before the first stop string, and that: character by character, as defined.
    fn truncated<'a>(text: &'a str, stops: &'a [String]) -> (&'a str, Option<&'a str>) {
        let ends = text.char_indices().map(|(at, c)| at + c.len_utf8());
        for end in ends {
            let complete = stops.iter().filter(|stop| text[..end].ends_with(*stop));
            if let Some(stop) = complete.max_by_key(|stop| stop.len()) {
                return (&text[..end - stop.len()], Some(stop));
            }
        }
        (text, None)
    }

    /// A text of few letters, so that stop strings begin, fail and overlap all the time.
    fn random_text(random: &mut ChaCha8Rng, longest: u32) -> String {
        let count = random.next_u32() % (longest + 1);
        let letter =
            |random: &mut ChaCha8Rng| ['a', 'b', 'é', '\n'][random.next_u32() as usize % 4];
        (0..count).map(|_| letter(random)).collect()
    }

    #[test]
    fn a_text_in_any_pieces_is_cut_at_its_first_stop() {
        let mut random = ChaCha8Rng::seed_from_u64(5);
        let (mut stopped, mut ran_out) = (0, 0);
        for _ in 0..20_000 {
            let mut strings: Vec<String> = (0..3).map(|_| random_text(&mut random, 6)).collect();
            strings.retain(|stop| !stop.is_empty());
            let pieces: Vec<String> = (0..8).map(|_| random_text(&mut random, 3)).collect();
            let text = pieces.concat();
            let (expected, expected_stop) = truncated(&text, &strings);
            let mut stops = StopStrings::new(&strings);
            let (mut shown, mut taken, mut found) = (String::new(), String::new(), None);
            for piece in &pieces {
                let (more, stop) = stops.push(piece);
                taken.push_str(piece);
                shown.push_str(&more);
                assert!(
                    expected.starts_with(&shown),
                    "{text:?} {strings:?}: {shown:?}"
                );
                found = stop;
                if found.is_some() {
                    break;
                }
                let held = taken.strip_prefix(&shown).unwrap();
                let open = strings.iter().any(|stop| stop.starts_with(held));
                assert!(held.is_empty() || open, "{held:?} is held for nothing");
            }
            shown.push_str(&stops.finish());
            assert_eq!(shown, expected, "{pieces:?} {strings:?}");
            assert_eq!(found.as_deref(), expected_stop, "{pieces:?} {strings:?}");
            *(if found.is_some() {
                &mut stopped
            } else {
                &mut ran_out
            }) += 1;
        }
        assert!(stopped > 1_000 && ran_out > 1_000, "{stopped}, {ran_out}");
    }

    #[test]
    fn the_one_that_is_complete_first_counts() {
        let mut stops = StopStrings::new(&["abcd".to_owned(), "bc".to_owned()]);
        assert_eq!(stops.push("xa"), ("x".to_owned(), None));
        assert_eq!(stops.push("bcd"), ("a".to_owned(), Some("bc".to_owned())));
        assert_eq!(stops.finish(), "");
    }
}
