//! The course of a recording through the model: which stretch is to be heard next, whether what was
//! heard is believed, and in which other ways it is heard again.
//!
//! It computes nothing itself: it gives [`Job`]s and takes what became of them, so several
//! recordings can share a model.

use std::collections::VecDeque;

use voxtral_audio::Audio;

use super::{
    LongOptions, Vad,
    attempt::{self, Attempt, OTHER_WAYS, Part, Way},
    journal::Journal,
    listener::Job,
    stitch::{self, Settled},
    windows::{Window, Windows},
};
use crate::{PipelineError, Transcript};

/// Windows that are heard before the first of them is settled, beside those that are heard together:
/// whether a language flips is known when the window behind was heard.
const AHEAD: usize = 2;

/// Windows whose rate of speech is remembered, and of which so many must be known.
const RATES: usize = 9;
const LEAST_RATES: usize = 3;

/// A window until it is settled.
struct Trial {
    window: Window,
    /// What is being heard.
    current: Option<Attempt>,
    /// What was doubtful.
    attempts: Vec<Attempt>,
    ways: VecDeque<Way>,
    /// What is believed, or the best there is.
    accepted: Option<Attempt>,
    /// Whether there is nothing to hear.
    silent: bool,
    /// Whether it was heard in the language of its neighbours.
    language_tried: bool,
}

impl Trial {
    fn begin(&mut self, way: Way, vad: Vad) {
        let ranges = attempt::parts(&self.window, &way, vad);
        let part = |range| Part {
            range,
            job: None,
            transcript: None,
        };
        self.current = Some(Attempt {
            way,
            parts: ranges.into_iter().map(part).collect(),
            doubts: Vec::new(),
        });
    }
}

/// A recording.
pub(super) struct Course {
    windows: Windows,
    options: LongOptions,
    /// Windows in their order.
    trials: VecDeque<Trial>,
    /// Where windows are written down.
    journal: Option<Journal>,
    /// Whether there are no more windows.
    exhausted: bool,
    next_job: usize,
    /// Characters per second of speech of the last windows.
    rates: VecDeque<f64>,
    /// Languages of the last two windows that have one.
    languages: VecDeque<String>,
    /// Windows that were settled, and whether the journal told of them.
    settled: VecDeque<(Settled, bool)>,
}

impl Course {
    pub(super) fn new(windows: Windows, options: LongOptions, journal: Option<Journal>) -> Self {
        Self {
            windows,
            options,
            trials: VecDeque::new(),
            journal,
            exhausted: false,
            next_job: 0,
            rates: VecDeque::new(),
            languages: VecDeque::new(),
            settled: VecDeque::new(),
        }
    }

    pub(super) fn windows(&self) -> &Windows {
        &self.windows
    }

    /// The next window that is settled, in order, and whether a journal told of it.
    pub(super) fn take(&mut self) -> Option<(Settled, bool)> {
        self.settled.pop_front()
    }

    /// Whether there is a window to [take](Self::take), or will never be one.
    pub(super) fn is_settled(&self) -> bool {
        !self.settled.is_empty() || (self.exhausted && self.trials.is_empty())
    }

    /// Whether every window was settled and taken.
    pub(super) fn has_ended(&self) -> bool {
        self.exhausted && self.trials.is_empty() && self.settled.is_empty()
    }

    /// Up to so many stretches to hear. None while windows are settled, which are to be
    /// [taken](Self::take) first, or what was given before is not heard yet.
    pub(super) fn wanted(&mut self, room: usize) -> Result<Vec<Job>, PipelineError> {
        let mut jobs = Vec::new();
        loop {
            self.give(room, &mut jobs)?;
            let held = self.trials.iter().filter(|trial| !trial.silent).count();
            if jobs.len() >= room || self.exhausted || held >= room + AHEAD {
                return Ok(jobs);
            }
            self.read()?;
            self.settle()?;
            if !self.settled.is_empty() {
                return Ok(jobs);
            }
        }
    }

    /// Takes what was heard.
    pub(super) fn heard(
        &mut self,
        job: usize,
        transcript: Transcript,
    ) -> Result<(), PipelineError> {
        let ends = transcript.stop.is_some();
        let mut of_trials = self.trials.iter_mut().enumerate();
        let found = of_trials.find_map(|(number, trial)| {
            let mut parts = trial
                .current
                .iter_mut()
                .flat_map(|attempt| &mut attempt.parts);
            let part = parts.find(|part| part.job == Some(job))?;
            part.transcript = Some(transcript.clone());
            Some(number)
        });
        let Some(number) = found else {
            return Ok(());
        };
        if ends {
            // The caller's end of the text: nothing behind it is wanted.
            self.trials.truncate(number + 1);
            self.exhausted = true;
        }
        if self.trials[number]
            .current
            .as_ref()
            .is_some_and(Attempt::is_complete)
        {
            self.judge(number);
        }
        self.settle()
    }

    /// Gives away what is not given yet.
    fn give(&mut self, room: usize, jobs: &mut Vec<Job>) -> Result<(), PipelineError> {
        let rate = self.windows.sample_rate();
        for trial in &mut self.trials {
            let Some(attempt) = &mut trial.current else {
                continue;
            };
            for part in &mut attempt.parts {
                if part.job.is_some() || jobs.len() >= room {
                    continue;
                }
                let samples = trial.window.samples[part.range.clone()].to_vec();
                jobs.push(Job {
                    id: self.next_job,
                    start: trial.window.start + part.range.start as u64,
                    audio: Audio::new(samples, rate)?,
                    options: attempt::options(&self.options.transcribe, &attempt.way)?,
                });
                part.job = Some(self.next_job);
                self.next_job += 1;
            }
        }
        Ok(())
    }

    /// Reads a window.
    fn read(&mut self) -> Result<(), PipelineError> {
        let Some(window) = self.windows.next().transpose()? else {
            self.exhausted = true;
            return Ok(());
        };
        if let Some(journal) = &mut self.journal
            && let Some(settled) = journal.take(window.start..window.end())?
        {
            self.exhausted = settled.stop.is_some();
            self.remember_language(settled.language());
            self.settled.push_back((settled, true));
            return Ok(());
        }
        let silent = match self.options.vad {
            Vad::Off => false,
            Vad::Auto => window.activity.sound().is_empty(),
            Vad::On => window.activity.speech().is_empty(),
        };
        let mut trial = Trial {
            window,
            current: None,
            attempts: Vec::new(),
            ways: OTHER_WAYS.into(),
            accepted: None,
            silent,
            language_tried: false,
        };
        if !silent {
            trial.begin(Way::Whole, self.options.vad);
        }
        self.trials.push_back(trial);
        Ok(())
    }

    /// Believes an attempt, or tries in another way.
    fn judge(&mut self, number: usize) {
        let usual = self.usual();
        let limited = self.options.transcribe.max_new_tokens.is_some();
        let rate = self.windows.sample_rate();
        let trial = &mut self.trials[number];
        let Some(mut attempt) = trial.current.take() else {
            return;
        };
        attempt.doubts = attempt::doubts(&trial.window, &attempt, rate, usual, limited);
        if let Way::Language(_) = attempt.way {
            trial.accepted = trial
                .accepted
                .take()
                .map(|found| attempt::unflipped(found, attempt));
            return;
        }
        if attempt.doubts.is_empty() {
            trial.accepted = Some(attempt);
        } else {
            trial.attempts.push(attempt);
            let vad = self.options.vad;
            let whole = attempt::parts(&trial.window, &Way::Whole, vad);
            let other = std::iter::from_fn(|| trial.ways.pop_front())
                .find(|way| *way == Way::Warm || attempt::parts(&trial.window, way, vad) != whole);
            match other {
                Some(way) => trial.begin(way, vad),
                None => trial.accepted = attempt::best(std::mem::take(&mut trial.attempts)),
            }
        }
        if let Some(accepted) = &trial.accepted
            && let Some(characters) = attempt::rate_of(&trial.window, accepted, rate)
        {
            self.rates.push_back(characters);
            self.rates.drain(..self.rates.len().saturating_sub(RATES));
        }
    }

    /// The median of the characters per second of speech, once enough is known.
    fn usual(&self) -> Option<f64> {
        let mut rates: Vec<f64> = self.rates.iter().copied().collect();
        rates.sort_by(f64::total_cmp);
        (rates.len() >= LEAST_RATES).then(|| rates[rates.len() / 2])
    }

    /// Settles windows in their order, as far as they are decided.
    fn settle(&mut self) -> Result<(), PipelineError> {
        loop {
            match self.first() {
                First::Waits => return Ok(()),
                First::IsIn(language) => {
                    let vad = self.options.vad;
                    if let Some(trial) = self.trials.front_mut() {
                        trial.language_tried = true;
                        trial.begin(Way::Language(language), vad);
                    }
                    return Ok(());
                }
                First::IsSettled => {}
            }
            let Some(trial) = self.trials.pop_front() else {
                return Ok(());
            };
            let rate = self.windows.sample_rate();
            let settled = match &trial.accepted {
                None => Settled::silent(&trial.window),
                Some(Attempt { parts, doubts, .. }) => {
                    let heard = parts.iter().filter_map(|part| {
                        let transcript = part.transcript.as_ref()?;
                        Some((part.range.clone(), transcript))
                    });
                    stitch::settle(&trial.window, heard, doubts, rate)
                }
            };
            if let Some(journal) = &mut self.journal {
                journal.push(&settled)?;
            }
            self.remember_language(settled.language());
            self.settled.push_back((settled, false));
        }
    }

    fn remember_language(&mut self, language: Option<String>) {
        self.languages.extend(language);
        self.languages
            .drain(..self.languages.len().saturating_sub(2));
    }

    /// What the first window waits for.
    fn first(&self) -> First {
        let Some(first) = self.trials.front() else {
            return First::Waits;
        };
        if first.silent {
            return First::IsSettled;
        }
        let Some(accepted) = first.accepted.as_ref().filter(|_| first.current.is_none()) else {
            return First::Waits;
        };
        let (language, before) = (accepted.language(), self.languages.back());
        let Some(before) = before.filter(|before| language.is_some_and(|l| l != *before)) else {
            return First::IsSettled;
        };
        if first.language_tried {
            return First::IsSettled;
        }
        let mut behind = self.trials.iter().skip(1).filter(|trial| !trial.silent);
        let flips = match behind.next() {
            Some(trial) => match &trial.accepted {
                None => return First::Waits,
                Some(accepted) => accepted.language() == Some(before),
            },
            None if self.exhausted => self.languages.len() == 2 && self.languages[0] == *before,
            None => return First::Waits,
        };
        if flips {
            First::IsIn(before.clone())
        } else {
            First::IsSettled
        }
    }
}

/// The state of the first window.
enum First {
    /// It is not decided, or what is behind it is not known.
    Waits,
    IsSettled,
    /// Before and behind it, this language is spoken.
    IsIn(String),
}
