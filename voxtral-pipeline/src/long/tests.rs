//! Models that fail on purpose: no failure passes in silence.

use std::collections::BTreeSet;

use voxtral_audio::Audio;

use super::*;
use crate::{Doubt, LanguageSource, Token, Word};
use listener::Job;

const RATE: u32 = 16_000;

/// Samples of the speech, and of the pause behind it.
const SPEECH: usize = 176_000;
const PAUSE: usize = 16_000;

/// A speech of 11 s so many times, with a second of silence behind each.
fn speeches(count: usize) -> Vec<f32> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/audio/jfk.wav");
    let mut one = Audio::from_file(path, RATE).unwrap().into_samples();
    assert_eq!(one.len(), SPEECH);
    one.extend([0.0; PAUSE]);
    one.repeat(count)
}

/// Windows that have one of the speeches each.
fn options() -> LongOptions {
    LongOptions {
        window: Some(Duration::from_millis(12_500)),
        ..Default::default()
    }
}

fn recording(samples: Vec<f32>, options: &LongOptions, journal: Option<Journal>) -> Recording {
    let audio = Audio::new(samples, RATE).unwrap();
    let longest = options.window.unwrap().as_secs_f64() * f64::from(RATE);
    let windows = Windows::of_clip(audio, RATE, longest as usize).unwrap();
    Recording::new(windows, options, journal, "script".to_owned())
}

fn transcript(text: &str) -> Transcript {
    let token = |logprob| Token {
        id: 5,
        text: String::new(),
        logprob,
        top: Vec::new(),
    };
    Transcript {
        text: text.to_owned(),
        language: None,
        language_detected: None,
        duration: Duration::ZERO,
        model: String::new(),
        finish: Finish::Stop,
        stop: None,
        truncated: false,
        words: None,
        segments: None,
        gaps: Vec::new(),
        warnings: Vec::new(),
        tokens: vec![token(-0.5), token(-0.1), token(-9.0)],
        timings: Timings::default(),
    }
}

/// What a good model writes: a word of its own for every half second.
fn good(job: &Job) -> Transcript {
    let first = job.start as usize / 8_000;
    let words = job.audio.samples().len() / 8_000;
    let words: Vec<String> = (first..first + words.max(1))
        .map(|n| format!("word{n}"))
        .collect();
    transcript(&words.join(" "))
}

/// A model that does what a function says.
struct Script<F> {
    answer: F,
    /// First sample, samples, temperature and language of what was heard.
    heard: Vec<(u64, usize, f32, Option<String>)>,
}

impl<F: FnMut(&Job) -> Result<Transcript, PipelineError>> Listener for Script<F> {
    fn hear(&mut self, jobs: &[Job]) -> Vec<Result<Transcript, PipelineError>> {
        let answer = |job: &Job| {
            self.heard.push((
                job.start,
                job.audio.samples().len(),
                job.options.sampling.temperature,
                job.options.language.map(|language| language.to_string()),
            ));
            (self.answer)(job)
        };
        jobs.iter().map(answer).collect()
    }
}

type Heard = Vec<(u64, usize, f32, Option<String>)>;

/// Runs a recording to its end.
fn run(
    mut recording: Recording,
    answer: impl FnMut(&Job) -> Result<Transcript, PipelineError>,
) -> (Result<Transcript, PipelineError>, Heard) {
    let mut script = Script {
        answer,
        heard: Vec::new(),
    };
    let outcome = (|| {
        loop {
            while recording.event()?.is_some() {}
            if recording.closed {
                return Ok(());
            }
            let jobs = recording.wanted(recording.room)?;
            for (job, heard) in jobs.iter().zip(script.hear(&jobs)) {
                recording.course.heard(job.id, heard?)?;
            }
        }
    })();
    (outcome.map(|()| recording.finish()), script.heard)
}

/// The transcript of so many speeches, and what was heard of them.
fn hear(count: usize, mut answer: impl FnMut(&Job) -> Transcript) -> (Transcript, Heard) {
    let recording = recording(speeches(count), &options(), None);
    let (transcript, heard) = run(recording, |job| Ok(answer(job)));
    (transcript.unwrap(), heard)
}

/// The number of the speech that a stretch is of.
fn speech_of(job: &Job) -> u64 {
    (job.start + 8_000) / (SPEECH + PAUSE) as u64
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}

#[test]
fn windows_are_cut_in_pauses_and_cover_everything() {
    for (count, longest) in [(1, 200_000), (5, 200_000), (7, 480_000), (3, 100_000)] {
        let samples = speeches(count);
        let audio = Audio::new(samples.clone(), RATE).unwrap();
        let windows = Windows::of_clip(audio, RATE, longest).unwrap();
        let windows: Vec<_> = windows.map(Result::unwrap).collect();
        let joined: Vec<f32> = windows.iter().flat_map(|w| w.samples.clone()).collect();
        assert_eq!(joined, samples);
        let mut end = 0;
        for window in &windows {
            assert_eq!(window.start, end);
            assert!(window.samples.len() <= longest);
            end = window.end();
            let around = end.saturating_sub(400) as usize..(end as usize + 400).min(samples.len());
            let energy: f32 = samples[around.clone()].iter().map(|s| s * s).sum();
            let rms = (energy / around.len() as f32).sqrt();
            assert!(rms < 0.02, "cut at {end} where it is loud: {rms}");
        }
        // What fits into one window is not cut.
        assert_eq!(windows.len() == 1, samples.len() <= longest);
    }
}

#[test]
fn a_good_model_is_heard_once_and_believed() {
    for size in [1, 2, 3, 8] {
        let options = LongOptions {
            batch_size: NonZeroUsize::new(size).unwrap(),
            ..options()
        };
        let recording = recording(speeches(5), &options, None);
        let (transcript, heard) = run(recording, |job| Ok(good(job)));
        let transcript = transcript.unwrap();
        assert_eq!(heard.len(), 5, "{heard:?}");
        assert!(transcript.gaps.is_empty() && transcript.warnings.is_empty());
        assert_eq!(transcript.duration, Duration::from_secs(60));
        // In order, and with one space between.
        let numbers: Vec<usize> = transcript
            .text
            .split(' ')
            .map(|word| word.strip_prefix("word").unwrap().parse().unwrap())
            .collect();
        assert!(
            numbers.is_sorted() && numbers.len() > 100,
            "{}",
            transcript.text
        );
        let segments = transcript.segments.unwrap();
        assert_eq!(segments.len(), 5);
        for (at, segment) in segments.iter().enumerate() {
            let start = 12.0 * at as f64;
            assert!(
                (start..start + 1.5).contains(&seconds(segment.start)),
                "{segment:?}"
            );
            assert!(
                (start + 9.0..start + 11.2).contains(&seconds(segment.end)),
                "{segment:?}"
            );
            // Of the tokens but the end.
            assert!((segment.confidence.unwrap() - (-0.3_f32).exp()).abs() < 1e-6);
        }
        assert_eq!(transcript.tokens.len(), 15);
    }
}

#[test]
fn silence_is_not_heard_unless_all_is() {
    let mut samples = vec![0.0; 40 * RATE as usize];
    samples.extend(speeches(1));
    samples.extend(vec![0.0; 40 * RATE as usize]);
    let hear = |vad| {
        let options = LongOptions { vad, ..options() };
        let (transcript, heard) = run(recording(samples.clone(), &options, None), |job| {
            let silent = job.audio.samples().iter().all(|s| *s == 0.0);
            Ok(if silent { transcript("") } else { good(job) })
        });
        (transcript.unwrap(), heard)
    };
    let (auto, heard) = hear(Vad::Auto);
    assert!((1..=2).contains(&heard.len()), "{heard:?}");
    assert!(auto.gaps.is_empty() && auto.warnings.is_empty(), "{auto:?}");
    let (all, heard_of_all) = hear(Vad::Off);
    assert!(heard_of_all.len() >= 8 && all.gaps.is_empty(), "{all:?}");
    let (speech, heard_of_speech) = hear(Vad::On);
    let samples_of = |heard: &Heard| heard.iter().map(|(_, samples, ..)| samples).sum::<usize>();
    assert!(samples_of(&heard_of_speech) < samples_of(&heard));
    assert!(speech.gaps.is_empty(), "{speech:?}");
    // Nothing but silence: nothing to hear, and no error.
    let silence = recording(vec![0.0; 60 * RATE as usize], &options(), None);
    let (transcript, heard) = run(silence, |job| Ok(good(job)));
    assert_eq!((&*transcript.unwrap().text, heard.len()), ("", 0));
}

/// Answers that are doubtful by themselves.
fn failures() -> Vec<(Doubt, Transcript)> {
    let word = |text: &str, start, end| Word {
        word: text.to_owned(),
        start: Duration::from_millis(start),
        end: Duration::from_millis(end),
        confidence: None,
        attention: None,
        spaced: true,
    };
    vec![
        (Doubt::Empty, transcript("")),
        (Doubt::Repeats, transcript(&"I do not know. ".repeat(9))),
        (Doubt::Repeats, transcript(&"不知道。".repeat(12))),
        (
            Doubt::Runaway,
            Transcript {
                finish: Finish::Length,
                ..transcript("and so my fellow americans ask not what your country")
            },
        ),
        (
            Doubt::Dense,
            transcript(&(0..400).map(|n| format!("number{n}")).collect::<String>()),
        ),
        (Doubt::Sparse, transcript("no")),
        (
            Doubt::EndsEarly,
            Transcript {
                words: Some(vec![word("and", 0, 500), word("so", 500, 1000)]),
                ..transcript("and so my fellow americans ask not")
            },
        ),
        (
            Doubt::Sparse,
            Transcript {
                words: Some(vec![word("and", 0, 500), word("do", 9_500, 11_000)]),
                ..transcript("and so my fellow americans ask not")
            },
        ),
    ]
}

#[test]
fn a_failure_that_stays_is_told_and_one_that_passes_is_cured() {
    for (doubt, failure) in failures() {
        // The third of five speeches, in every way that it is heard.
        let (transcript, heard) = hear(5, |job| match speech_of(job) {
            2 => failure.clone(),
            _ => good(job),
        });
        let gaps = transcript
            .gaps
            .iter()
            .map(|gap| (gap.reason, gap.start, gap.end));
        let told: Vec<_> = gaps
            .chain(
                transcript
                    .warnings
                    .iter()
                    .map(|w| (w.reason, w.start, w.end)),
            )
            .collect();
        assert!(
            told.iter().any(|(reason, ..)| *reason == doubt),
            "{doubt:?}: {told:?}"
        );
        for (_, start, end) in told {
            assert!(start >= Duration::from_secs(23) && end <= Duration::from_secs(37));
            assert!(end - start > Duration::from_secs(1), "{doubt:?}");
        }
        // The others are heard once; this one whole, in halves, in thirds, and warm.
        let tries: Vec<_> = heard
            .iter()
            .filter(|h| (370_000..560_000).contains(&h.0))
            .collect();
        assert_eq!(heard.len() - tries.len(), 4, "{doubt:?}: {heard:?}");
        let lengths: BTreeSet<usize> = tries.iter().map(|(_, samples, ..)| *samples).collect();
        assert!(
            tries.len() == 7 && lengths.len() >= 5,
            "{doubt:?}: {tries:?}"
        );
        assert_eq!(tries.iter().filter(|(.., warm, _)| *warm > 0.0).count(), 1);
        for number in [0, 12, 40, 100] {
            assert!(transcript.text.contains(&format!("word{number}")));
        }

        // Only the first time: another way cures it.
        let mut failed = false;
        let (transcript, heard) = hear(5, |job| {
            if speech_of(job) == 2 && !failed {
                failed = true;
                return failure.clone();
            }
            good(job)
        });
        assert!(
            transcript.gaps.is_empty(),
            "{doubt:?}: {:?}",
            transcript.gaps
        );
        assert!(
            transcript.warnings.is_empty(),
            "{doubt:?}: {:?}",
            transcript.warnings
        );
        assert_eq!(heard.len(), 7, "{doubt:?}: {heard:?}");
        assert!(transcript.text.contains("word50"), "{}", transcript.text);
    }
}

#[test]
fn a_gap_is_all_the_sound_that_has_no_text() {
    let (transcript, _) = hear(4, |job| match speech_of(job) {
        1 | 2 => self::transcript(" "),
        _ => good(job),
    });
    let [first, second] = &transcript.gaps[..] else {
        panic!("{:?}", transcript.gaps);
    };
    assert_eq!((first.reason, second.reason), (Doubt::Empty, Doubt::Empty));
    for (gap, start) in [(first, 12.0), (second, 24.0)] {
        assert!(
            (start..start + 1.5).contains(&seconds(gap.start)),
            "{gap:?}"
        );
        assert!(
            (start + 9.0..start + 11.2).contains(&seconds(gap.end)),
            "{gap:?}"
        );
    }
}

#[test]
fn the_best_of_doubtful_attempts_is_kept() {
    // Whole and warm it repeats itself; in parts, one of them is empty.
    let (transcript, _) = hear(1, |job| match (job.audio.samples().len(), job.start) {
        (180_000.., _) => self::transcript(&"I do not know. ".repeat(9)),
        (_, 0) => self::transcript(""),
        _ => good(job),
    });
    assert!(transcript.text.contains("word"), "{}", transcript.text);
    assert!(!transcript.text.contains("know"), "{}", transcript.text);
    assert_eq!(transcript.gaps.len(), 1, "{:?}", transcript.gaps);
    assert_eq!(transcript.gaps[0].reason, Doubt::Empty);
    // The gap is that part alone, of the thirds, which is the smaller.
    assert!(
        seconds(transcript.gaps[0].end) < 6.0,
        "{:?}",
        transcript.gaps
    );
}

#[test]
fn less_text_than_usual_is_doubted_unless_every_way_agrees() {
    // A fifth of the words of the others.
    let short = |job: &Job| {
        let text = good(job).text;
        let words = text.split(' ').count();
        transcript(
            &text
                .split(' ')
                .take(words / 5 + 1)
                .collect::<Vec<_>>()
                .join(" "),
        )
    };
    // It ends early where it is heard whole: halves have all.
    let (cured, heard) = hear(6, |job| match (speech_of(job), job.audio.samples().len()) {
        (5, 150_000..) => short(job),
        _ => good(job),
    });
    assert!(cured.text.contains("word140"), "{}", cured.text);
    assert!(cured.warnings.is_empty(), "{:?}", cured.warnings);
    assert_eq!(heard.len(), 8);
    // Somebody speaks slowly.
    let (slow, _) = hear(6, |job| match speech_of(job) {
        5 => short(job),
        _ => good(job),
    });
    assert!(slow.warnings.is_empty(), "{:?}", slow.warnings);
    // One half has more, but it is short all the same.
    let (doubtful, _) = hear(6, |job| match (speech_of(job), job.audio.samples().len()) {
        (5, 150_000..) => short(job),
        (5, _) => transcript(&"I do not know. ".repeat(9)),
        _ => good(job),
    });
    let reasons: Vec<_> = doubtful
        .warnings
        .iter()
        .map(|warning| warning.reason)
        .collect();
    assert_eq!(reasons, [Doubt::EndsEarly]);
}

/// The same in a language that is found out.
fn in_language(language: &str, transcript: Transcript) -> Transcript {
    Transcript {
        language_detected: Some(DetectedLanguage {
            language: language.to_owned(),
            probability: 0.9,
            source: LanguageSource::Model,
        }),
        ..transcript
    }
}

/// Hears speeches in these languages; where one is asked for, with this log-probability.
fn languages(spoken: &[&str], forced: f32) -> (Transcript, Heard) {
    hear(spoken.len(), |job| match job.options.language {
        None => in_language(spoken[speech_of(job) as usize], good(job)),
        Some(_) => {
            let mut transcript = good(job);
            transcript
                .tokens
                .iter_mut()
                .for_each(|token| token.logprob = forced);
            transcript
        }
    })
}

#[test]
fn a_language_that_flips_for_one_window_is_heard_again_in_that_of_the_others() {
    let flips = |transcript: &Transcript| -> Vec<u64> {
        let flips = transcript.warnings.iter();
        let flips = flips.filter(|warning| warning.reason == Doubt::LanguageFlips);
        flips
            .map(|warning| (warning.start.as_secs() + 1) / 12)
            .collect()
    };
    for (spoken, told) in [
        (&["en", "en", "de", "en", "en"][..], &[2][..]),
        (&["en", "en", "de"], &[2]),
        (&["en", "de", "en"], &[1]),
        // Somebody goes on in another language.
        (&["en", "en", "de", "de", "de"], &[]),
        (&["en", "de"], &[]),
    ] {
        let (kept, heard) = languages(spoken, -20.0);
        assert_eq!(flips(&kept), told, "{spoken:?}");
        assert_eq!(heard.len(), spoken.len() + told.len(), "{spoken:?}");
        let forced = heard
            .iter()
            .filter_map(|(.., language)| language.as_deref());
        assert!(forced.eq(told.iter().map(|_| "en")));
        // It is as good in the language of the others: so it is that.
        let (cured, _) = languages(spoken, 0.0);
        assert_eq!(flips(&cured), [0_u64; 0], "{spoken:?}");
    }
    let (transcript, _) = languages(&["en", "en", "de", "en"], -20.0);
    assert_eq!(transcript.language.as_deref(), Some("en"));
    assert_eq!(transcript.language_detected.unwrap().probability, 0.9);
}

#[test]
fn words_have_times_in_the_recording() {
    let timed = |job: &Job| {
        let text = good(job).text;
        let span = Duration::from_millis(500);
        let words = text.split(' ').zip(0..).map(|(word, n)| Word {
            word: word.to_owned(),
            start: span * n,
            end: span * (n + 1),
            confidence: Some(0.5),
            attention: None,
            spaced: true,
        });
        Transcript {
            words: Some(words.collect()),
            ..transcript(&text)
        }
    };
    let (transcript, _) = hear(3, timed);
    let words = transcript.words.unwrap();
    assert!(words.is_sorted_by_key(|word| word.start));
    let last = words.last().unwrap();
    assert!((34.0..36.1).contains(&seconds(last.end)), "{last:?}");
    // One window that has none, and there are none.
    let (transcript, _) = hear(3, |job| match speech_of(job) {
        1 => good(job),
        _ => timed(job),
    });
    assert_eq!(transcript.words, None);
    assert_eq!(transcript.segments.unwrap().len(), 3);
}

#[test]
fn the_callers_own_ends_are_no_doubts() {
    let limited = LongOptions {
        transcribe: TranscribeOptions {
            max_new_tokens: Some(4),
            ..Default::default()
        },
        ..options()
    };
    let answer = |_: &Job| {
        Ok(Transcript {
            finish: Finish::Length,
            ..transcript("and so my fellow americans")
        })
    };
    let (transcript, heard) = run(recording(speeches(2), &limited, None), answer);
    let transcript = transcript.unwrap();
    assert_eq!((heard.len(), transcript.finish), (2, Finish::Length));
    assert!(transcript.warnings.is_empty());
    // A stop string ends it all.
    let (transcript, heard) = hear(4, |job| Transcript {
        stop: (speech_of(job) == 1).then(|| "fellow".to_owned()),
        ..good(job)
    });
    assert_eq!(
        (heard.len(), transcript.stop.as_deref()),
        (2, Some("fellow"))
    );
    assert!(transcript.gaps.is_empty() && transcript.text.contains("word30"));
}

#[test]
fn an_error_ends_the_recording() {
    let (outcome, heard) = run(
        recording(speeches(3), &options(), None),
        |job| match speech_of(job) {
            1 => Err(PipelineError::NotFinite),
            _ => Ok(good(job)),
        },
    );
    assert!(matches!(outcome, Err(PipelineError::NotFinite)));
    assert_eq!(heard.len(), 2);
    let script = Script {
        answer: |_: &Job| Err(PipelineError::NotFinite),
        heard: Vec::new(),
    };
    let mut engine = Engine::new(script, recording(speeches(1), &options(), None));
    assert!(matches!(engine.next(), Some(Err(PipelineError::NotFinite))));
    assert!(engine.next().is_none());
    assert!(matches!(engine.finish(), Err(PipelineError::Unfinished)));
}

#[test]
fn recordings_together_are_as_each_alone() {
    let counts = [3, 1, 5, 2];
    let alone = counts.map(|count| hear(count, good).0);
    for size in [1, 2, 4, 16] {
        let jobs = counts.map(|count| Ok(recording(speeches(count), &options(), None)));
        let absent: Result<_, PipelineError> = Err(PipelineError::Cancelled);
        let script = Script {
            answer: |job: &Job| Ok(good(job)),
            heard: Vec::new(),
        };
        let jobs = jobs.into_iter().chain([absent]);
        let together = Together::new(script, jobs, NonZeroUsize::new(size).unwrap());
        let mut results: Vec<_> = together.collect();
        results.sort_by_key(|(number, _)| *number);
        assert_eq!(results.len(), 5);
        for ((_, found), expected) in results.iter().zip(&alone) {
            assert_eq!(found.as_ref().unwrap(), expected, "{size} at a time");
        }
        assert!(matches!(results[4].1, Err(PipelineError::Cancelled)));
    }
}

#[test]
fn a_journal_spares_what_was_done() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("talk.journal");
    let key: JournalKey = [("file".to_owned(), "talk.wav".to_owned())].into();
    let open = |key| Journal::open(&path, key);
    let start = |journal| recording(speeches(5), &options(), Some(journal));
    let failing = |job: &Job| match speech_of(job) {
        1 => Ok(transcript("")),
        3 => Err(PipelineError::Cancelled),
        _ => Ok(in_language("en", good(job))),
    };
    let working = |job: &Job| match speech_of(job) {
        1 => Ok(transcript("")),
        _ => Ok(in_language("en", good(job))),
    };
    let (whole, _) = run(recording(speeches(5), &options(), None), working);

    let (outcome, _) = run(start(open(&key).unwrap()), failing);
    assert!(matches!(outcome, Err(PipelineError::Cancelled)));
    // A line that was being written when the machine went down.
    let written = std::fs::read(&path).unwrap();
    let torn = [&written[..], br#"{"start":12,"#].concat();
    std::fs::write(&path, torn).unwrap();

    let journal = open(&key).unwrap();
    assert_eq!(journal.len(), 3);
    let (resumed, heard) = run(start(journal), working);
    assert_eq!(resumed.unwrap(), whole.unwrap());
    let starts: Vec<u64> = heard.iter().map(|h| (h.0 + 8_000) / 192_000).collect();
    assert_eq!(starts, [3, 4], "no window twice");
    // All is done now.
    let (_, heard) = run(start(open(&key).unwrap()), working);
    assert_eq!(heard.len(), 0);

    // Of another file, or no journal at all: nothing is touched.
    let before = std::fs::read(&path).unwrap();
    let other = [("file".to_owned(), "film.wav".to_owned())].into();
    let error = open(&other).unwrap_err().to_string();
    for word in ["talk.journal", "file", "talk.wav", "film.wav", "delete"] {
        assert!(error.contains(word), "{error}");
    }
    assert_eq!(std::fs::read(&path).unwrap(), before);
    let (outcome, _) = run(
        recording(
            speeches(5)[8_000..].to_vec(),
            &options(),
            Some(open(&key).unwrap()),
        ),
        working,
    );
    let error = outcome.unwrap_err();
    assert!(
        matches!(error, PipelineError::JournalOfOther { .. }),
        "{error}"
    );
    for text in [
        "my notes\nof today\n",
        "my notes",
        "{\"voxtral_journal\":99,\"key\":{}}\n",
    ] {
        std::fs::write(&path, text).unwrap();
        let error = open(&key).unwrap_err();
        assert!(
            matches!(error, PipelineError::JournalOfOther { .. }),
            "{text}: {error}"
        );
        assert_eq!(std::fs::read(&path).unwrap(), text.as_bytes());
    }
}

#[test]
fn phrases_behind_themselves_are_found_and_ordinary_speech_is_none() {
    for (text, found) in [
        ("no no no no no", false),
        (
            "one one two two three three four four one one two two",
            false,
        ),
        (
            "She sells sea shells by the sea shore, sea shells she sells.",
            false,
        ),
        ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", true),
        (
            "Thank you. Thank you. Thank you. Thank you. Thank you.",
            true,
        ),
        (
            "ご視聴ありがとうございました。ご視聴ありがとうございました。ご視聴ありがとうございました。ご視聴ありがとうございました。",
            true,
        ),
        ("", false),
    ] {
        assert_eq!(doubts::repeats(text), found, "{text}");
    }
}
