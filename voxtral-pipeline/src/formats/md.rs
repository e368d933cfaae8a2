//! A document for people, in Markdown (CommonMark): what it is of, paragraphs with the time at which
//! each begins, and what is doubtful.

use std::time::Duration;

use super::{Document, Task, clock::short, wrap::plain};
use crate::{Doubt, Segment, Transcript};

/// A pause that begins a paragraph.
const PAUSE: Duration = Duration::from_secs(2);

/// Characters after which the next sentence begins a paragraph.
const LONG: usize = 600;

pub(super) fn render(document: &Document<'_>) -> String {
    let transcript = document.transcript;
    let mut text = format!("# {}\n\n", escape(document.name.unwrap_or("Transcript")));
    text.push_str(&format!("{}\n", about(document)));
    match &transcript.segments {
        Some(segments) => paragraphs(segments).for_each(|(start, words)| {
            text.push_str(&format!("\n**[{}]** {}\n", short(start), escape(&words)));
        }),
        None if transcript.text.is_empty() => {}
        None => text.push_str(&format!("\n{}\n", escape(&transcript.text))),
    }
    text.push_str(&doubts(transcript));
    text
}

fn about(document: &Document<'_>) -> String {
    let transcript = document.transcript;
    let mut parts = vec![short(transcript.duration), escape(&transcript.model)];
    parts.extend(
        transcript
            .language
            .as_ref()
            .map(|l| format!("language {}", escape(l))),
    );
    if let Task::Translate(language) = document.task {
        parts.push(format!("translated to {language}"));
    }
    if transcript.truncated {
        parts.push("the file breaks off".to_owned());
    }
    format!("*{}*", parts.join(" · "))
}

/// Segments put together, with the time of the first.
fn paragraphs(segments: &[Segment]) -> impl Iterator<Item = (Duration, String)> {
    let mut length = 0;
    let together = move |one: &Segment, next: &Segment| {
        length += one.text.chars().count();
        let goes_on = next.start.saturating_sub(one.end) < PAUSE && length < LONG;
        if !goes_on {
            length = 0;
        }
        goes_on
    };
    segments.chunk_by(together).map(|paragraph| {
        let mut text = String::new();
        for segment in paragraph {
            let spaced = segment.words.first().is_none_or(|word| word.spaced);
            if !text.is_empty() && spaced {
                text.push(' ');
            }
            text.push_str(&segment.text);
        }
        (
            paragraph
                .first()
                .map_or(Duration::ZERO, |first| first.start),
            text,
        )
    })
}

/// Lists what the transcript does not vouch for.
fn doubts(transcript: &Transcript) -> String {
    let gap = |what: &str, start, end, reason: Doubt| {
        format!(
            "- {} to {}: {what} ({})\n",
            short(start),
            short(end),
            name(reason)
        )
    };
    let gaps = transcript.gaps.iter();
    let gaps = gaps.map(|it| gap("no text", it.start, it.end, it.reason));
    let warnings = transcript.warnings.iter();
    let warnings = warnings.map(|it| gap("doubtful", it.start, it.end, it.reason));
    let list: String = gaps.chain(warnings).collect();
    match list.is_empty() {
        true => list,
        false => format!("\n## Doubtful\n\n{list}"),
    }
}

/// A reason as JSON has it, with spaces.
fn name(reason: Doubt) -> String {
    let name = serde_json::to_value(reason).unwrap_or_default();
    name.as_str().unwrap_or_default().replace('_', " ")
}

/// Text that says what it says, without marks.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for c in plain(text).chars() {
        if r"\`*_{}[]<>#|~&".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    // What would begin a list.
    let mark = escaped.find(|c: char| !c.is_ascii_digit());
    match mark.and_then(|at| Some((at, escaped[at..].chars().next()?))) {
        Some((0, '-' | '+')) => escaped.insert(0, '\\'),
        Some((at, '.' | ')')) if at > 0 => escaped.insert(at, '\\'),
        _ => {}
    }
    escaped
}
