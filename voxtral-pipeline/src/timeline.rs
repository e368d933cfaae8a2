//! The user's clock beside that of a stream into which silence was put.

use std::collections::VecDeque;

/// Silences that are remembered: a word is placed soon after it was heard, so only the last few
/// are ever asked for.
const REMEMBERED: usize = 16;

/// The silences within a stream that the user did not send, in samples.
#[derive(Debug, Default)]
pub(crate) struct Timeline {
    /// Length of the stream, behind the silence on its left.
    len: u64,
    /// Length of all silences.
    silent: u64,
    silences: VecDeque<Silence>,
    ends_in_sound: bool,
}

/// A silence, and the user's clock at it.
#[derive(Debug)]
struct Silence {
    start: u64,
    end: u64,
    user: u64,
}

impl Timeline {
    /// Length of the stream, behind the silence on its left.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing came yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the user's sound came last.
    pub(crate) fn ends_in_sound(&self) -> bool {
        self.ends_in_sound
    }

    pub(crate) fn sound(&mut self, samples: u64) {
        self.len += samples;
        self.ends_in_sound = true;
    }

    pub(crate) fn silence(&mut self, samples: u64) {
        if self.silences.len() == REMEMBERED {
            self.silences.pop_front();
        }
        self.silences.push_back(Silence {
            start: self.len,
            end: self.len + samples,
            user: self.len - self.silent,
        });
        self.len += samples;
        self.silent += samples;
        self.ends_in_sound = false;
    }

    /// Whether a sample of the stream is the user's.
    pub(crate) fn is_sound(&self, sample: u64) -> bool {
        !self
            .silences
            .iter()
            .any(|silence| (silence.start..silence.end).contains(&sample))
    }

    /// The user's sample that was heard at this one of the stream; within a silence, where it was
    /// put.
    pub(crate) fn user(&self, sample: u64) -> u64 {
        let sample = sample.min(self.len);
        match self.silences.iter().rev().find(|s| s.start <= sample) {
            Some(silence) => silence.user + sample.saturating_sub(silence.end),
            // Before all silences that are remembered: as many were forgotten as are missing.
            None => match self.silences.front() {
                Some(first) => first.user - (first.start - sample).min(first.user),
                None => sample,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silences_take_no_time() {
        let mut timeline = Timeline::default();
        assert_eq!(timeline.user(0), 0);
        timeline.sound(100);
        timeline.silence(50);
        timeline.sound(10);
        timeline.silence(5);
        assert!(!timeline.ends_in_sound());
        let asked = [0, 99, 100, 149, 150, 155, 160, 165, 1000];
        let found = asked.map(|sample| timeline.user(sample));
        assert_eq!(found, [0, 99, 100, 100, 100, 105, 110, 110, 110]);
        let sound = asked.map(|sample| timeline.is_sound(sample));
        let expected = [true, true, false, false, true, true, false, true, true];
        assert_eq!(sound, expected);
    }

    #[test]
    fn times_never_run_back_after_many_silences() {
        let mut timeline = Timeline::default();
        for _ in 0..100 {
            timeline.sound(10);
            timeline.silence(7);
        }
        let times: Vec<u64> = (0..=1700).map(|sample| timeline.user(sample)).collect();
        assert!(times.is_sorted());
        assert_eq!(times[1700], 1000);
        assert_eq!(times[1700 - 8 * 17], 1000 - 80);
    }
}
