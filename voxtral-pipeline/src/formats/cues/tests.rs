//! What holds of cues, whatever the words.

use std::num::NonZeroUsize;
use std::time::Duration;

use proptest::prelude::*;
use unicode_width::UnicodeWidthStr;

use super::*;
use crate::{Word, segments::segments};

fn word(text: &str, start: u64, end: u64) -> Word {
    Word {
        word: text.trim().to_owned(),
        start: Duration::from_millis(start),
        end: Duration::from_millis(end),
        confidence: None,
        attention: None,
        spaced: text.starts_with(' '),
    }
}

fn layout(width: usize, count: usize) -> Layout {
    Layout {
        max_line_width: NonZeroUsize::new(width),
        max_line_count: NonZeroUsize::new(count),
        ..Layout::default()
    }
}

fn cues(segments: &[Segment], layout: Layout, end: u64) -> Vec<Cue> {
    let mut maker = Cues::new(layout);
    let mut cues: Vec<Cue> = segments.iter().flat_map(|it| maker.push(it)).collect();
    cues.extend(maker.finish(end));
    cues
}

fn shown(cue: &Cue) -> String {
    cue.text(str::to_owned, None)
}

/// Times and texts.
fn summary(words: &[Word], layout: Layout, end: u64) -> Vec<(u64, u64, String)> {
    let cues = cues(&segments(words), layout, end);
    cues.iter().map(|c| (c.start, c.end, shown(c))).collect()
}

#[test]
fn a_short_cue_stays_into_the_silence_and_no_further() {
    let alone = [word(" Yes.", 1000, 1200)];
    assert_eq!(
        summary(&alone, Layout::default(), 60_000),
        [(1000, 1834, "Yes.".into())]
    );
    assert_eq!(
        summary(&alone, Layout::default(), 1500),
        [(1000, 1500, "Yes.".into())],
        "the sound ends"
    );
    // 30 columns take 1.5 s; the next begins before.
    let fast = [
        word(" aaaaaaaaaaaaaaaaaaaaaaaaaaaaa.", 0, 1000),
        word(" Next", 1400, 3000),
    ];
    assert_eq!(summary(&fast, Layout::default(), 9000)[0].1, 1400);
}

#[test]
fn what_would_flash_up_joins_a_neighbour() {
    let words = [
        word(" Yes.", 0, 200),
        word(" No.", 300, 500),
        word(" I think so.", 600, 2500),
    ];
    assert_eq!(
        summary(&words, Layout::default(), 9000),
        [(0, 2500, "Yes. No. I think so.".into())]
    );
    // The next is too long for it, the one before is not.
    let long = " ".to_owned() + &"long".repeat(21);
    let words = [
        word(" I think.", 0, 900),
        word(" No.", 1000, 1100),
        word(&long, 1200, 6000),
    ];
    let summary = summary(&words, Layout::default(), 9000);
    assert_eq!(summary[0], (0, 1200, "I think. No.".into()));
    assert_eq!((summary.len(), summary[1].0), (2, 1200));
}

#[test]
fn lines_are_balanced_and_few() {
    let words: Vec<Word> = "the quick brown fox jumps over the lazy dog and sleeps"
        .split(' ')
        .zip(0..)
        .map(|(text, i)| word(&format!(" {text}"), i * 500, i * 500 + 400))
        .collect();
    let texts = |width, count| {
        let cues = summary(&words, layout(width, count), 60_000);
        cues.into_iter().map(|c| c.2).collect::<Vec<_>>()
    };
    assert_eq!(
        texts(42, 2),
        ["the quick brown fox jumps\nover the lazy dog and sleeps"]
    );
    assert_eq!(
        texts(20, 2),
        ["the quick brown fox\njumps over the lazy", "dog and sleeps"]
    );
    assert_eq!(texts(20, 1).len(), 3);
    assert_eq!(
        texts(3, 0)[0].lines().collect::<Vec<_>>()[..3],
        ["the", "quick", "brown"],
        "wider words stand alone"
    );
}

#[test]
fn wide_characters_take_two_columns_and_break_anywhere() {
    let segment = |text: &str| Segment {
        start: Duration::ZERO,
        end: Duration::from_secs(8),
        text: text.into(),
        confidence: None,
        words: Vec::new(),
    };
    let one = [segment("今天天气很好我们去公园散步吧")];
    let cues = cues(&one, layout(14, 1), 8000);
    let all: Vec<_> = cues.iter().map(|c| (c.start, c.end, shown(c))).collect();
    assert_eq!(
        all,
        [
            (0, 4000, "今天天气很好我".into()),
            (4000, 8000, "们去公园散步吧".into()),
        ],
        "without words' times, the segment's are shared by width"
    );
}

#[test]
fn steps_of_a_highlight_are_the_cue() {
    let words = [word(" one", 0, 400), word(" two", 600, 900)];
    let cues = cues(&segments(&words), Layout::default(), 5000);
    assert_eq!(
        cues[0].steps(),
        [(0, 400, Some(0)), (400, 600, None), (600, 900, Some(1)),]
    );
    assert_eq!(cues[0].text(str::to_owned, Some(1)), "one <u>two</u>");
}

#[test]
fn words_at_one_time_or_backwards_still_make_cues() {
    let words = [
        word(" One.", 5000, 5000),
        word(" Two.", 5000, 5000),
        word(" Three.", 100, 50),
    ];
    assert_eq!(
        summary(&words, Layout::default(), 5000),
        [(5000, 5001, "One. Two. Three.".into())]
    );
}

/// Words of several scripts, with pauses, overlaps and steps backwards.
fn any_words() -> impl Strategy<Value = Vec<Word>> {
    let text = prop_oneof![
        4 => "[a-z]{1,12}",
        2 => "[a-z]{1,6}[.?!]",
        1 => "[一-龟]{1,9}",
        1 => "[a-z]{1,4}-[a-z]{1,40}",
        1 => "[ -~]{0,5}",
    ];
    let gap = prop_oneof![
        6 => 0..400_i64,
        2 => 400..5000_i64,
        1 => -700..0_i64,
    ];
    let word_of = (text, gap, 0..900_u64, proptest::bool::weighted(0.9));
    proptest::collection::vec(word_of, 0..60).prop_map(|words| {
        let mut now = 0_i64;
        let place = |(text, gap, length, spaced): (String, i64, u64, bool)| {
            now = (now + gap).max(0);
            let start = now as u64;
            now += length as i64;
            let space = if spaced { " " } else { "" };
            word(&format!("{space}{text}"), start, start + length)
        };
        words.into_iter().map(place).collect()
    })
}

fn any_layout() -> impl Strategy<Value = Layout> {
    (0..50_usize, 0..4_usize).prop_map(|(width, count)| layout(width, count))
}

/// All characters that are seen.
fn letters(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn invariants(words in any_words(), layout in any_layout(), timed: bool, rest in 0..3000_u64) {
        let mut segments = segments(&words);
        if !timed {
            segments.iter_mut().for_each(|segment| segment.words.clear());
        }
        let last = words.iter().map(|word| word.end.as_millis() as u64).max();
        let end = last.unwrap_or(0) + rest;
        let cues = cues(&segments, layout, end);

        // Nothing is lost, doubled or moved.
        let said: String = segments.iter().map(|segment| letters(&segment.text)).collect();
        let read: String = cues.iter().map(|cue| letters(&shown(cue))).collect();
        prop_assert_eq!(said, read);

        for pair in cues.windows(2) {
            prop_assert!(pair[0].end <= pair[1].start, "overlap: {:?}", pair);
        }
        for (index, cue) in cues.iter().enumerate() {
            prop_assert!(cue.start < cue.end, "no time: {:?}", cue);
            let columns = wrap::width(&cue.pieces);
            let next = cues.get(index + 1).map_or(end, |next| next.start);
            let shown_for = cue.end - cue.start;
            prop_assert!(
                shown_for >= reading_time(columns) || cue.end >= next,
                "shown too short before silence: {:?}, next at {}", cue, next
            );
            if let (true, Some(follower)) = (shown_for < SHORTEST, cues.get(index + 1)) {
                let spoken = follower.pieces.iter().map(|piece| piece.end).max();
                let follower = Cue {
                    end: follower.end.max(spoken.unwrap_or(0)),
                    ..follower.clone()
                };
                let maker = Cues::new(layout);
                prop_assert!(maker.join(cue, &follower).is_none(), "could join {:?}", follower);
            }
            let lines: Vec<usize> = shown(cue).lines().map(UnicodeWidthStr::width).collect();
            match (layout.max_line_width, layout.max_line_count) {
                (None, _) => prop_assert_eq!(lines.len(), 1),
                (Some(width), count) => {
                    for (line, range) in lines.iter().zip(&cue.lines) {
                        prop_assert!(*line <= width.get() || range.len() == 1, "{:?}", cue);
                    }
                    if let Some(count) = count {
                        prop_assert!(lines.len() <= count.get(), "{:?}", cue);
                    }
                }
            }
            let steps = cue.steps();
            prop_assert_eq!(steps.first().map(|step| step.0), Some(cue.start));
            prop_assert_eq!(steps.last().map(|step| step.1), Some(cue.end));
            prop_assert!(steps.windows(2).all(|two| two[0].1 == two[1].0));
            prop_assert!(steps.iter().all(|step| step.0 < step.1));
        }
    }
}
