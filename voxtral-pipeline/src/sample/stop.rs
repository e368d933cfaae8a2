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
