//! Answers and events of Mistral.

use serde_json::{Value, json};
use voxtral_pipeline::{Segment, Transcript, Word};

use super::Reply;
use crate::{
    ServerError,
    engine::Event,
    error::{Dialect, Failure},
};

/// The answer. Segments are there as far as times were asked for: words, if words were.
pub(super) fn object(transcript: &Transcript, reply: &Reply) -> Value {
    let timings = &transcript.timings;
    let (prompt, completion) = (timings.prompt_tokens, transcript.tokens.len());
    let mut object = json!({
        "model": reply.model,
        "text": transcript.text,
        "language": transcript.language,
        "segments": segments(transcript, reply),
        "usage": {
            "prompt_audio_seconds": transcript.duration.as_secs_f64().ceil() as u64,
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        },
    });
    if !transcript.gaps.is_empty() {
        object["gaps"] = json!(transcript.gaps);
    }
    if !transcript.warnings.is_empty() {
        object["warnings"] = json!(transcript.warnings);
    }
    object
}

fn segments(transcript: &Transcript, reply: &Reply) -> Vec<Value> {
    if reply.asked.words {
        return transcript.words.iter().flatten().map(word).collect();
    }
    let wanted = transcript.segments.iter().filter(|_| reply.asked.segments);
    wanted.flatten().map(segment).collect()
}

/// A segment.
pub(crate) fn segment(segment: &Segment) -> Value {
    json!({
        "type": "transcription_segment",
        "text": segment.text,
        "start": segment.start.as_secs_f64(),
        "end": segment.end.as_secs_f64(),
        "score": segment.confidence,
        "speaker_id": null,
    })
}

fn word(word: &Word) -> Value {
    json!({
        "type": "transcription_segment",
        "text": word.word,
        "start": word.start.as_secs_f64(),
        "end": word.end.as_secs_f64(),
        "score": word.confidence,
        "speaker_id": null,
    })
}

/// What is told of an event.
pub(super) fn events(event: Event, reply: &Reply) -> Vec<Option<Value>> {
    let delta = |text: String| {
        vec![Some(
            json!({"type": "transcription.text.delta", "text": text}),
        )]
    };
    match event {
        Event::Step(step) if step.text.is_empty() => Vec::new(),
        Event::Step(step) => delta(step.text),
        Event::Text(text) => delta(text),
        Event::Segment(found) if reply.asked.segments => {
            let mut event = segment(&found);
            event["type"] = json!("transcription.segment");
            vec![Some(event)]
        }
        Event::Transcript(transcript) => {
            let mut events = Vec::new();
            if let Some(language) = &transcript.language {
                events.push(Some(json!({
                    "type": "transcription.language",
                    "audio_language": language,
                })));
            }
            let mut done = object(&transcript, reply);
            done["type"] = json!("transcription.done");
            events.push(Some(done));
            events
        }
        Event::Failed(error) => vec![Some(failure(error.into()))],
        Event::Crashed => vec![Some(failure(ServerError::Crashed))],
        _ => Vec::new(),
    }
}

fn failure(error: ServerError) -> Value {
    let mut object = Failure(Dialect::Mistral, error).body();
    object["type"] = json!("error");
    object
}
