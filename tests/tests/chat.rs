//! Conversations: what is remembered, what is refused, what is answered together.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use burn_flex::Flex;
use voxtral_nn::Backend;
use voxtral_pipeline::{
    Answer, Audio, Cancel, ChatOptions, Finish, Message, Part, PipelineError, SamplingOptions,
    Voxtral,
};

crate::on_every_backend!(follow_ups_cost_what_is_new);

const LANGUAGES: [&str; 4] = ["en", "fr", "de", "es"];

fn clip<B: Backend>(model: &Voxtral<B>, language: &str) -> Arc<Audio> {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../samples");
    let path = samples.join(format!("digits-{language}.wav"));
    Arc::new(model.read_audio(path).unwrap())
}

fn demo() -> Voxtral<Flex> {
    Voxtral::<Flex>::builder().demo().unwrap()
}

/// Short answers: what they say plays no part here.
fn options() -> ChatOptions {
    ChatOptions {
        sampling: SamplingOptions::default(),
        max_new_tokens: Some(12),
        ..ChatOptions::default()
    }
}

fn ids(answer: &Answer) -> Vec<u32> {
    answer.tokens.iter().map(|token| token.id).collect()
}

fn from_scratch<B: Backend>(model: &Voxtral<B>, messages: &[Message]) -> Answer {
    model.chat().answer(messages, &options()).unwrap()
}

/// Several turns, with and without new clips: the tokens are those of a conversation that is asked
/// for the first time, and only what is new is run.
fn follow_ups_cost_what_is_new<B: Backend>() {
    let model = Voxtral::<B>::builder().demo().unwrap();
    let (english, french) = (clip(&model, "en"), clip(&model, "fr"));
    let text = |text: &str| Part::Text(text.to_owned());
    let turns = [
        vec![Part::Audio(english.clone()), text("Repeat the digits.")],
        vec![text("Which language is spoken?")],
        vec![text("digits"), Part::Audio(french)],
    ];
    let mut chat = model.chat();
    let mut messages = Vec::new();
    let mut computed = 0;
    for turn in turns {
        messages.push(Message::User(turn));
        let answer = chat.answer(&messages, &options()).unwrap();
        assert_eq!(ids(&answer), ids(&from_scratch(&model, &messages)));
        let usage = answer.usage;
        let size = model.prompt_size(&messages, &[]).unwrap();
        assert_eq!(usage.prompt_tokens, size.tokens);
        assert_eq!(usage.audio_tokens, size.audio_tokens);
        assert!(usage.cached_tokens >= computed, "{usage:?} of {computed}");
        assert_eq!(usage.completion_tokens, answer.tokens.len());
        computed = size.tokens;
        messages.push(answer.message());
    }
    // The same sound in another place of memory is the same sound.
    let mut same = messages[..1].to_vec();
    if let Message::User(parts) = &mut same[0] {
        parts[0] = Part::Audio(Arc::new(Audio::clone(&english)));
    }
    let answer = chat.answer(&same, &options()).unwrap();
    assert_eq!(answer.usage.cached_tokens + 1, answer.usage.prompt_tokens);
    assert_eq!(ids(&answer), ids(&from_scratch(&model, &same)));
}

/// Whatever a conversation becomes between two questions, the answer is as from scratch.
#[test]
fn conversations_can_be_edited() {
    let model = demo();
    let clips = LANGUAGES.map(|language| clip(&model, language));
    let ask = |heard: &[usize], text: &str| {
        let audio = heard.iter().map(|&at| Part::Audio(clips[at].clone()));
        Message::User(audio.chain([Part::Text(text.to_owned())]).collect())
    };
    let mut chat = model.chat();
    let conversations = [
        vec![ask(&[0], "digits")],
        vec![ask(&[1], "digits")],
        vec![ask(&[1, 0], "first")],
        vec![ask(&[1, 2], "first")],
        vec![ask(&[1], "digits"), Message::assistant("1"), ask(&[], "x")],
        vec![ask(&[1], "digits"), Message::assistant("2"), ask(&[], "x")],
        vec![ask(&[], "text alone")],
        vec![ask(&[1, 2], "second")],
    ];
    for messages in conversations {
        let answer = chat.answer(&messages, &options()).unwrap();
        assert_eq!(ids(&answer), ids(&from_scratch(&model, &messages)));
    }
    chat.clear();
    let messages = [ask(&[0], "digits")];
    let answer = chat.answer(&messages, &options()).unwrap();
    assert_eq!(answer.usage.cached_tokens, 0);
}

/// An answer that is dropped, finished early, cancelled or failed leaves a chat that goes on.
#[test]
fn interrupted_answers_leave_a_chat_that_goes_on() {
    let model = demo();
    let clip = clip(&model, "de");
    let messages = [Message::User(vec![Part::Audio(clip)])];
    let expected = from_scratch(&model, &messages);
    assert!(expected.tokens.len() > 4, "{expected:?}");
    let mut chat = model.chat();

    let mut dropped = chat.ask(&messages, &options()).unwrap();
    dropped.nth(1).unwrap().unwrap();
    drop(dropped);
    let answer = chat.answer(&messages, &options()).unwrap();
    assert_eq!(ids(&answer), ids(&expected));
    assert_eq!(answer.usage.cached_tokens + 1, answer.usage.prompt_tokens);

    let mut early = chat.ask(&messages, &options()).unwrap();
    early.nth(2).unwrap().unwrap();
    let answer = early.finish_early().unwrap();
    assert_eq!(ids(&answer), ids(&expected)[..3]);
    assert_eq!(answer.finish, Finish::Length);

    let cancel = Cancel::new();
    let cancelled = ChatOptions {
        cancel: cancel.clone(),
        ..options()
    };
    let mut running = chat.ask(&messages, &cancelled).unwrap();
    running.next().unwrap().unwrap();
    cancel.cancel();
    let error = running.finish().unwrap_err();
    assert!(matches!(error, PipelineError::Cancelled), "{error}");
    assert!(chat.answer(&messages, &cancelled).is_err());
    let answer = chat.answer(&messages, &options()).unwrap();
    assert_eq!(ids(&answer), ids(&expected));
}

#[test]
fn steps_are_the_answer() {
    let model = demo();
    let messages = [Message::User(vec![Part::Audio(clip(&model, "es"))])];
    let mut chat = model.chat();
    let mut running = chat.ask(&messages, &options()).unwrap();
    let steps: Vec<_> = running.by_ref().map(Result::unwrap).collect();
    let answer = running.finish().unwrap();
    let text: String = steps.iter().map(|step| step.text.as_str()).collect();
    assert_eq!(text.trim_end(), answer.text);
    let tokens: Vec<_> = steps.into_iter().map(|step| step.token).collect();
    assert_eq!(tokens, answer.tokens);
}

/// Conversations of different lengths, in a batch smaller than their number: the answers are those
/// of each alone, and a conversation that cannot be asked fails alone.
#[test]
fn conversations_are_answered_together() {
    let model = demo();
    let mut jobs: Vec<Vec<Message>> = Vec::new();
    for (at, language) in LANGUAGES.into_iter().enumerate() {
        let mut parts = vec![Part::Audio(clip(&model, language))];
        parts.extend((0..at).map(|_| Part::Text("digits".to_owned())));
        jobs.push(vec![Message::User(parts)]);
    }
    jobs.insert(2, vec![Message::assistant("nobody asked")]);
    jobs.push(vec![Message::user("Hello.")]);
    let work = jobs.iter().map(|job| Ok((job.clone(), options())));
    let mut seen = vec![false; jobs.len()];
    let size = NonZeroUsize::new(3).unwrap();
    for (number, result) in model.answer_batch::<_, PipelineError>(work, size) {
        assert!(!std::mem::replace(&mut seen[number], true));
        match result {
            Ok(answer) => assert_eq!(ids(&answer), ids(&from_scratch(&model, &jobs[number]))),
            Err(error) => assert_eq!(number, 2, "{error}"),
        }
    }
    assert_eq!(seen, vec![true; 6]);
}

#[test]
fn what_does_not_fit_says_how_much_is_too_much() {
    let model = demo();
    let rate = model.sample_rate();
    let context = model.config().decoder.max_positions.unwrap();
    let minutes = |count: usize| {
        let samples = vec![0.0; count * 60 * rate as usize];
        Part::Audio(Arc::new(Audio::new(samples, rate).unwrap()))
    };
    // 12.5 tokens a second.
    let long = [Message::User(vec![minutes(5), minutes(5), minutes(1)])];
    let size = model.prompt_size(&long, &[]).unwrap();
    assert_eq!(size.audio_tokens, 11 * 60 * 25 / 2);
    let error = model.chat().answer(&long, &options()).unwrap_err();
    let excess = size.tokens + 12 - context;
    let message = error.to_string();
    assert!(
        message.contains(&format!(
            "prompt of {} tokens (8250 of them audio) and answer of up to 12 exceed the context \
             of {context} by {excess}",
            size.tokens
        )),
        "{message}"
    );
    let longer = [Message::User(vec![minutes(41)])];
    let error = model.chat().answer(&longer, &options()).unwrap_err();
    assert!(
        matches!(error, PipelineError::AudioTooLong { .. }),
        "{error}"
    );
    // What is left is the answer's.
    let short = [Message::User(vec![minutes(5)])];
    let size = model.prompt_size(&short, &[]).unwrap();
    for (asked, fits) in [
        (context - size.tokens, true),
        (context - size.tokens + 1, false),
        (0, false),
    ] {
        let options = ChatOptions {
            max_new_tokens: Some(asked),
            ..options()
        };
        assert_eq!(model.chat().ask(&short, &options).is_ok(), fits, "{asked}");
    }
}

#[test]
fn conversations_that_no_model_was_trained_for_are_refused() {
    let model = demo();
    let audio = || Part::Audio(clip(&model, "en"));
    let empty = Part::Audio(Arc::new(Audio::new(Vec::new(), 16_000).unwrap()));
    let conversations: [(Vec<Message>, &str); 6] = [
        (vec![], "empty"),
        (vec![Message::User(vec![])], "neither text nor audio"),
        (vec![Message::User(vec![audio(), empty])], "no samples"),
        (
            vec![Message::user("a"), Message::assistant("b")],
            "assistant",
        ),
        (
            vec![Message::assistant("b"), Message::user("a")],
            "assistant",
        ),
        (
            vec![
                Message::user("a"),
                Message::Tool {
                    call_id: "abcdefghi".to_owned(),
                    content: "1".to_owned(),
                },
            ],
            "tool",
        ),
    ];
    for (messages, expected) in conversations {
        let error = model.chat().answer(&messages, &options()).unwrap_err();
        let message = error.to_string();
        assert!(message.contains(expected), "{message} without {expected}");
    }
    let streaming = Voxtral::<Flex>::builder().demo_realtime().unwrap();
    let error = streaming.chat().answer(&[Message::user("a")], &options());
    let message = error.unwrap_err().to_string();
    assert!(message.contains("streams"), "{message}");
}
