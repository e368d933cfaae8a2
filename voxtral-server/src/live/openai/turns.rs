//! Turns of speech, found by what is written: a turn begins with a word and ends with a pause.
//!
//! Each step stands for as much sound as a token has, so steps are a clock. Words are written behind
//! their sound, so a row of steps without text may be a pause, or a long word: the sound itself has to
//! be quiet too. When a turn is found to end, later sound has been heard already, of which the next
//! turn may have begun: the cut is in the pause, and what is behind it is heard again.

use std::time::Duration;

use voxtral_pipeline::{Step, Token};

/// Sound before a pause by which it is told what is quiet.
const CONTEXT: Duration = Duration::from_secs(5);

/// What is asked of the detection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TurnOptions {
    /// A pause that ends a turn.
    pub(super) silence: Duration,
    /// How far before its first word a turn begins.
    pub(super) padding: Duration,
}

impl Default for TurnOptions {
    fn default() -> Self {
        Self {
            silence: Duration::from_millis(500),
            padding: Duration::from_millis(300),
        }
    }
}

/// The clock of an utterance, and what is written of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Turns {
    pub(super) text: String,
    pub(super) tokens: Vec<Token>,
    clock: Duration,
    /// When something was written last, in a turn.
    written: Option<Duration>,
}

/// What a step says of turns, in the time of the utterance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    Started(Duration),
    /// Nothing was written for as long as a pause takes.
    Paused {
        written: Duration,
        now: Duration,
    },
}

impl Turns {
    /// Goes on by a step, which has the sound of a token.
    pub(super) fn step(
        &mut self,
        step: &Step,
        token: Duration,
        options: TurnOptions,
    ) -> Option<Turn> {
        let before = self.clock;
        self.clock += token;
        self.text.push_str(&step.text);
        self.tokens.push(step.token.clone());
        if !step.text.trim().is_empty() {
            let is_first = self.written.replace(self.clock).is_none();
            return is_first.then(|| Turn::Started(before.saturating_sub(options.padding)));
        }
        let written = self.written?;
        let pause = self.clock - written;
        let now = self.clock;
        (pause >= options.silence).then_some(Turn::Paused { written, now })
    }

    /// Sound before this time tells nothing of turns to come.
    pub(super) fn over(&self, options: TurnOptions) -> Duration {
        let written = self.written.unwrap_or(self.clock);
        written.saturating_sub(CONTEXT + options.silence)
    }
}

#[cfg(test)]
mod tests {
    use voxtral_pipeline::Token;

    use super::*;

    const TOKEN: Duration = Duration::from_millis(80);

    fn turns(texts: &[&str], options: TurnOptions) -> Vec<(usize, Turn)> {
        let mut turns = Turns::default();
        let step = |text: &&str| Step {
            token: Token {
                id: 0,
                text: String::new(),
                logprob: 0.0,
                top: Vec::new(),
            },
            text: (*text).to_owned(),
            words: Vec::new(),
        };
        let found = texts.iter().enumerate().filter_map(|(at, text)| {
            let turn = turns.step(&step(text), TOKEN, options);
            turn.map(|turn| (at, turn))
        });
        found.collect()
    }

    #[test]
    fn words_begin_turns_and_pauses_may_end_them() {
        let options = TurnOptions {
            silence: Duration::from_millis(240),
            padding: Duration::from_millis(100),
        };
        let ms = Duration::from_millis;
        let spoken = ["", "", "", " on", "e", "", "", " two", "", " ", "", ""];
        let paused = |now| Turn::Paused {
            written: ms(640),
            now: ms(now),
        };
        assert_eq!(
            turns(&spoken, options),
            [
                (3, Turn::Started(ms(140))),
                (10, paused(880)),
                (11, paused(960)),
            ]
        );
        assert!(turns(&["", " ", ""], options).is_empty());
        assert_eq!(turns(&["a"], options), [(0, Turn::Started(ms(0)))]);
    }
}
