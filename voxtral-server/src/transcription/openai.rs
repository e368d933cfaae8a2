//! Answers and events of OpenAI.

use serde_json::{Value, json};
use voxtral_pipeline::{Document, Format, Layout, PipelineError, Token, Transcript};

use super::Reply;
use crate::{
    ServerError,
    engine::{Event, Vocabulary},
    error::{Dialect, Failure},
};

/// `response_format=json`.
pub(super) fn object(transcript: &Transcript, reply: &Reply) -> Value {
    let mut object = json!({
        "text": transcript.text,
        "language": transcript.language,
        "usage": {"type": "duration", "seconds": transcript.duration.as_secs_f64().ceil()},
    });
    if reply.asked.logprobs {
        object["logprobs"] = logprobs(&transcript.tokens, &*reply.vocabulary);
    }
    doubts(&mut object, transcript);
    object
}

/// `response_format=verbose_json`: what is not known of Whisper's figures is null.
pub(super) fn verbose(transcript: &Transcript, reply: &Reply) -> Result<Value, ServerError> {
    let layout = Layout::default();
    let text = Format::Json.render(&Document::new(transcript), &layout)?;
    let mut whisper: Value = serde_json::from_str(&text).map_err(|_| ServerError::Crashed)?;
    let mut object = json!({
        "task": "transcribe",
        "language": transcript.language,
        "duration": whisper["duration"],
        "text": transcript.text,
        "usage": {"type": "duration", "seconds": transcript.duration.as_secs_f64().ceil()},
    });
    if reply.asked.segments {
        let mut segments = whisper["segments"].take();
        for segment in segments.as_array_mut().into_iter().flatten() {
            segment["seek"] = json!(0);
            segment["tokens"] = json!([]);
            segment["temperature"] = json!(reply.asked.sampling.temperature);
            segment["no_speech_prob"] = Value::Null;
        }
        object["segments"] = segments;
    }
    if reply.asked.words {
        object["words"] = whisper["words"].take();
    }
    doubts(&mut object, transcript);
    Ok(object)
}

/// What the transcript does not vouch for; others pass over these keys.
fn doubts(object: &mut Value, transcript: &Transcript) {
    if !transcript.gaps.is_empty() {
        object["gaps"] = json!(transcript.gaps);
    }
    if !transcript.warnings.is_empty() {
        object["warnings"] = json!(transcript.warnings);
    }
}

/// Text or subtitles, with their type.
pub(super) fn plain(
    transcript: &Transcript,
    format: Format,
) -> Result<(&'static str, String), PipelineError> {
    let content_type = match format {
        Format::Srt => "application/x-subrip",
        Format::Vtt => "text/vtt; charset=utf-8",
        _ => "text/plain; charset=utf-8",
    };
    let text = format.render(&Document::new(transcript), &Layout::default())?;
    Ok((content_type, text))
}

/// Tokens with their bytes and log-probabilities.
pub(crate) fn logprobs(tokens: &[Token], vocabulary: &dyn Vocabulary) -> Value {
    let tokens = tokens.iter().filter_map(|token| {
        let bytes = vocabulary.bytes(token.id)?;
        Some(json!({"token": token.text, "bytes": bytes, "logprob": token.logprob}))
    });
    tokens.collect()
}

/// What is told of an event; at the end, that it is.
pub(super) fn events(event: Event, reply: &Reply) -> Vec<Option<Value>> {
    let delta = |text: String, tokens: &[Token]| {
        let mut delta = json!({"type": "transcript.text.delta", "delta": text});
        if reply.asked.logprobs {
            delta["logprobs"] = logprobs(tokens, &*reply.vocabulary);
        }
        vec![Some(delta)]
    };
    match event {
        Event::Step(step) if step.text.is_empty() => Vec::new(),
        Event::Step(step) => delta(step.text, &[step.token]),
        Event::Text(text) => delta(text, &[]),
        Event::Transcript(transcript) => {
            let timings = &transcript.timings;
            let (input, output) = (timings.prompt_tokens, transcript.tokens.len());
            let mut done = json!({
                "type": "transcript.text.done",
                "text": transcript.text,
                "usage": {
                    "type": "tokens",
                    "input_tokens": input,
                    "output_tokens": output,
                    "total_tokens": input + output,
                },
            });
            if reply.asked.logprobs {
                done["logprobs"] = logprobs(&transcript.tokens, &*reply.vocabulary);
            }
            doubts(&mut done, &transcript);
            vec![Some(done), None]
        }
        Event::Failed(error) => vec![Some(failure(error.into()))],
        Event::Crashed => vec![Some(failure(ServerError::Crashed))],
        _ => Vec::new(),
    }
}

/// The client raises what has a key `error`.
fn failure(error: ServerError) -> Value {
    let mut object = Failure(Dialect::OpenAi, error).body();
    object["type"] = json!("error");
    object
}
