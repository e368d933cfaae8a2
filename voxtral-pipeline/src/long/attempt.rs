//! A window heard in one way, of several: what speaks against it, and which way was best.

use std::ops::Range;
use std::time::Duration;

use super::{
    MARGIN, Vad,
    doubts::{Found, Heard, LEAST_CHARACTERS, LEAST_SPEECH, characters},
    stitch,
    windows::Window,
};
use crate::{Doubt, Finish, PipelineError, TranscribeOptions, Transcript};

/// The shortest window that is cut for another try.
const SHORTEST_CUT: Duration = Duration::from_secs(2);

/// The temperature of the last try.
const WARM: f32 = 0.2;

/// A try with more text than another by this factor contradicts it.
const MORE_TEXT: f64 = 1.3;

/// A try is only preferred to an earlier one if its doubts weigh less by this factor: gaps in parts of
/// a window are shorter than those of the whole by the pauses between.
const MUCH_BETTER: f64 = 0.7;

/// A way to hear a window.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Way {
    Whole,
    /// In two parts.
    Halves,
    /// In three parts, so cut elsewhere.
    Thirds,
    /// Whole, with tokens drawn at a small temperature.
    Warm,
    /// Whole, in the language of the windows around.
    Language(String),
}

/// The ways of a window that is doubtful, in their order.
pub(super) const OTHER_WAYS: [Way; 3] = [Way::Halves, Way::Thirds, Way::Warm];

/// A part of a window.
pub(super) struct Part {
    pub(super) range: Range<usize>,
    /// The job that hears it, once it was given away.
    pub(super) job: Option<usize>,
    pub(super) transcript: Option<Transcript>,
}

/// A window heard in one way.
pub(super) struct Attempt {
    pub(super) way: Way,
    pub(super) parts: Vec<Part>,
    pub(super) doubts: Vec<Found>,
}

impl Attempt {
    pub(super) fn is_complete(&self) -> bool {
        self.parts.iter().all(|part| part.transcript.is_some())
    }

    fn transcripts(&self) -> impl Iterator<Item = &Transcript> {
        self.parts
            .iter()
            .filter_map(|part| part.transcript.as_ref())
    }

    fn characters(&self) -> usize {
        self.transcripts().map(|t| characters(&t.text)).sum()
    }

    pub(super) fn language(&self) -> Option<&str> {
        let mut detected = self
            .transcripts()
            .filter_map(|t| t.language_detected.as_ref());
        detected.next().map(|detected| &*detected.language)
    }

    /// The mean log-probability of its tokens.
    fn logprob(&self) -> f64 {
        let tokens = self.transcripts().flat_map(|t| &t.tokens);
        let (sum, count) = tokens.fold((0.0, 0_u32), |(sum, count), token| {
            (sum + f64::from(token.logprob), count + 1)
        });
        sum / f64::from(count.max(1))
    }

    /// How bad its doubts are: samples, times a weight.
    fn badness(&self) -> f64 {
        let weight = |found: &Found| match found.reason {
            Doubt::Empty | Doubt::Repeats | Doubt::Runaway => 3.0,
            _ if found.relative => 1.0,
            _ => 2.0,
        };
        let doubts = self.doubts.iter();
        doubts
            .map(|found| weight(found) * found.range.len() as f64)
            .sum()
    }
}

/// The parts of a window that are heard in this way.
pub(super) fn parts(window: &Window, way: &Way, vad: Vad) -> Vec<Range<usize>> {
    let (activity, len) = (&window.activity, window.samples.len());
    let active = match vad {
        Vad::Off => None,
        Vad::Auto => Some(activity.sound()),
        Vad::On => Some(activity.speech()),
    };
    // Of what is not speech, only what is around it.
    let span = match (
        vad,
        active.and_then(<[_]>::first),
        active.and_then(<[_]>::last),
    ) {
        (Vad::On, Some(first), Some(last)) => {
            let margin = window.samples_of(MARGIN);
            first.start.saturating_sub(margin)..(last.end + margin).min(len)
        }
        _ => 0..len,
    };
    let fraction = |of: usize| span.start + span.len() * of / 24;
    let cut = |from, to| activity.cut(fraction(from)..fraction(to));
    let short = span.len() < window.samples_of(SHORTEST_CUT);
    let cuts = match way {
        Way::Halves if !short => vec![cut(9, 15)],
        Way::Thirds if !short => vec![cut(6, 10), cut(14, 18)],
        _ => Vec::new(),
    };
    let starts = [span.start].into_iter().chain(cuts.iter().copied());
    let ends = cuts.iter().copied().chain([span.end]);
    let parts = starts.zip(ends).map(|(start, end)| start..end);
    let audible =
        |part: &Range<usize>| active.is_none_or(|active| !stitch::within(active, part).is_empty());
    parts
        .filter(|part| !part.is_empty() && audible(part))
        .collect()
}

/// The caller's options, for this way.
pub(super) fn options(
    options: &TranscribeOptions,
    way: &Way,
) -> Result<TranscribeOptions, PipelineError> {
    let mut options = options.clone();
    match way {
        Way::Whole | Way::Halves | Way::Thirds => {}
        Way::Warm => {
            options.sampling.temperature = options.sampling.temperature.max(WARM);
            // Other draws, and not those of the next seed either.
            options.sampling.seed = !options.sampling.seed;
        }
        Way::Language(language) => options.language = Some(language.parse()?),
    }
    Ok(options)
}

/// All doubts of an attempt, in samples of the window.
pub(super) fn doubts(
    window: &Window,
    attempt: &Attempt,
    sample_rate: u32,
    usual: Option<f64>,
    limited: bool,
) -> Vec<Found> {
    let mut doubts = Vec::new();
    let parts = attempt.parts.iter();
    let mut heard: Vec<_> = parts
        .filter_map(|part| Some((part.range.clone(), part.transcript.as_ref()?)))
        .collect();
    // Sound that is too short to need a text in each part may be long enough in all.
    if attempt.characters() == 0
        && let (Some((first, transcript)), Some((last, _))) = (heard.first(), heard.last())
    {
        heard = vec![(first.start..last.end, *transcript)];
    }
    for (range, transcript) in heard {
        let heard = Heard {
            transcript,
            samples: range.len(),
            sample_rate,
            sound: &stitch::within(window.activity.sound(), &range),
            speech: &stitch::within(window.activity.speech(), &range),
            usual,
            limited,
        };
        doubts.extend(heard.doubts().into_iter().map(|found| Found {
            range: found.range.start + range.start..found.range.end + range.start,
            ..found
        }));
    }
    if doubts.is_empty() {
        doubts.extend(sparse(window, attempt, sample_rate));
    }
    doubts
}

/// Parts that are too short to be sparse by themselves may be so together.
fn sparse(window: &Window, attempt: &Attempt, sample_rate: u32) -> Option<Found> {
    let cut_off = |part: &Part| {
        let transcript = part.transcript.as_ref();
        transcript.is_some_and(|it| it.stop.is_some() || it.finish == Finish::Length)
    };
    let seconds = speech_seconds(window, sample_rate);
    let rate = attempt.characters() as f64 / seconds;
    let sparse = attempt.characters() > 0
        && seconds >= LEAST_SPEECH
        && rate < LEAST_CHARACTERS
        && !attempt.parts.iter().any(cut_off);
    let (first, last) = (attempt.parts.first()?, attempt.parts.last()?);
    sparse.then_some(Found {
        range: first.range.start..last.range.end,
        reason: Doubt::Sparse,
        gap: false,
        relative: false,
    })
}

fn speech_seconds(window: &Window, sample_rate: u32) -> f64 {
    let speech: usize = window.activity.speech().iter().map(Range::len).sum();
    speech as f64 / f64::from(sample_rate)
}

/// Characters per second of speech of an attempt without doubts.
pub(super) fn rate_of(window: &Window, attempt: &Attempt, sample_rate: u32) -> Option<f64> {
    let seconds = speech_seconds(window, sample_rate);
    (attempt.doubts.is_empty() && seconds >= LEAST_SPEECH)
        .then(|| attempt.characters() as f64 / seconds)
}

/// The best of attempts that are all doubtful.
pub(super) fn best(attempts: Vec<Attempt>) -> Option<Attempt> {
    let most = attempts.iter().map(Attempt::characters).max().unwrap_or(0);
    let mut attempts = attempts.into_iter();
    let first = attempts.next()?;
    let mut best = attempts.fold(first, |best, attempt| {
        if attempt.badness() < MUCH_BETTER * best.badness() {
            attempt
        } else {
            best
        }
    });
    // Less text than usual, however it is heard: it is how they speak there.
    let agreed = most as f64 <= MORE_TEXT * best.characters() as f64;
    if agreed {
        best.doubts.retain(|found| !found.relative);
    }
    Some(best)
}

/// What to believe of a window whose language is not that of its neighbours, found out by itself or
/// in their language: the other, if it is as good in every respect.
pub(super) fn unflipped(found: Attempt, other: Attempt) -> Attempt {
    if other.badness() <= found.badness() && other.logprob() >= found.logprob() {
        return other;
    }
    let mut found = found;
    let range = match (found.parts.first(), found.parts.last()) {
        (Some(first), Some(last)) => first.range.start..last.range.end,
        _ => 0..0,
    };
    found.doubts.push(Found {
        range,
        reason: Doubt::LanguageFlips,
        gap: false,
        relative: false,
    });
    found
}
