//! Conversations with the demo model about voices that it was not trained on: prompts as
//! mistral-common makes them, answers as `transformers` gives them, and what they mean.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn_flex::Flex;
use serde::Deserialize;
use serde_json::{Map, Value};
use voxtral_pipeline::{
    Answer, Audio, Chat, ChatOptions, Message, Part, Precision, SamplingOptions, Tool, ToolCall,
    ToolDefinition, ToolEvent, Toolbox, Voxtral,
};

use crate::demo::utterances;
use crate::goldens::data;

/// At least so much of each task is answered rightly.
const RIGHT: f64 = 0.95;

#[derive(Deserialize)]
struct Conversation {
    id: usize,
    task: String,
    #[serde(default)]
    tools: Vec<ToolDefinition>,
    messages: Vec<Said>,
    expected: Said,
    prompt: Vec<(u32, usize)>,
    transformers_ids: Vec<u32>,
}

#[derive(Deserialize)]
#[serde(tag = "role", rename_all = "lowercase")]
enum Said {
    System {
        text: String,
    },
    User {
        parts: Vec<Piece>,
    },
    Assistant {
        text: Option<String>,
        calls: Option<Vec<Call>>,
    },
    Tool {
        text: String,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Piece {
    Text(String),
    Audio(usize),
}

#[derive(Deserialize)]
struct Call {
    name: String,
    arguments: Map<String, Value>,
}

struct Evaluation {
    model: Voxtral<Flex>,
    clips: Vec<Arc<Audio>>,
    conversations: Vec<Conversation>,
}

fn evaluation() -> Evaluation {
    let model = Voxtral::builder().precision(Precision::F32);
    let model = model.demo().unwrap();
    let clips = utterances(&model)
        .into_iter()
        .map(|(_, audio)| Arc::new(audio));
    let json = std::fs::read(data("demo-eval/conversations.json")).unwrap();
    Evaluation {
        clips: clips.collect(),
        conversations: serde_json::from_slice(&json).unwrap(),
        model,
    }
}

impl Evaluation {
    /// A conversation as the pipeline takes it; every result is that of the call before it.
    fn messages(&self, conversation: &Conversation) -> Vec<Message> {
        let mut last = String::new();
        let mut made = 0;
        let message = |said: &Said| match said {
            Said::System { text } => Message::System(text.clone()),
            Said::User { parts } => {
                Message::User(parts.iter().map(|part| self.part(part)).collect())
            }
            Said::Assistant { text, calls } => {
                let calls = calls.iter().flatten().map(|call| {
                    made += 1;
                    last = format!("call{made}");
                    ToolCall {
                        id: last.clone(),
                        name: call.name.clone(),
                        arguments: call.arguments.clone(),
                    }
                });
                Message::Assistant {
                    calls: calls.collect(),
                    text: text.clone().unwrap_or_default(),
                    prefix: false,
                }
            }
            Said::Tool { text } => Message::Tool {
                call_id: last.clone(),
                content: text.clone(),
            },
        };
        conversation.messages.iter().map(message).collect()
    }

    fn part(&self, piece: &Piece) -> Part {
        match piece {
            Piece::Text(text) => Part::Text(text.clone()),
            Piece::Audio(clip) => Part::Audio(Arc::clone(&self.clips[*clip])),
        }
    }
}

fn greedy(tools: &[ToolDefinition]) -> ChatOptions {
    ChatOptions {
        tools: tools.to_vec(),
        sampling: SamplingOptions::default(),
        ..ChatOptions::default()
    }
}

fn is_right(answer: &Answer, expected: &Said) -> bool {
    let Said::Assistant { text, calls } = expected else {
        panic!("an answer is the assistant's");
    };
    let calls = calls
        .iter()
        .flatten()
        .map(|call| (&call.name, &call.arguments));
    let made = answer
        .calls
        .iter()
        .map(|call| (&call.name, &call.arguments));
    answer.text == text.as_deref().unwrap_or_default() && made.eq(calls)
}

/// Every conversation with one chat, which remembers what it can of the one before.
#[test]
fn answers_equal_those_of_transformers_and_mean_what_was_said() {
    let evaluation = evaluation();
    let model = &evaluation.model;
    let mut chat = model.chat();
    let mut tasks: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
    for conversation in &evaluation.conversations {
        let id = conversation.id;
        let messages = evaluation.messages(conversation);
        let size = model.prompt_size(&messages, &conversation.tools).unwrap();
        let stated: usize = conversation.prompt.iter().map(|(_, count)| count).sum();
        assert_eq!(size.tokens, stated, "{id}");
        let tokens = |clip: &Arc<Audio>| model_tokens(model, clip);
        let prompt = voxtral_tokenizer::prompt::chat(
            model.tokenizer(),
            &messages,
            &conversation.tools,
            tokens,
        );
        let expected = conversation
            .prompt
            .iter()
            .flat_map(|&(id, count)| std::iter::repeat_n(id, count));
        assert!(prompt.unwrap().into_iter().eq(expected), "{id}");
        let answer = chat
            .answer(&messages, &greedy(&conversation.tools))
            .unwrap();
        let ids: Vec<u32> = answer.tokens.iter().map(|token| token.id).collect();
        assert_eq!(ids, conversation.transformers_ids, "{id}");
        let (right, all) = tasks.entry(&conversation.task).or_default();
        *right += u32::from(is_right(&answer, &conversation.expected));
        *all += 1;
    }
    println!("right of all, by task: {tasks:?}");
    for (task, (right, all)) in tasks {
        assert!(
            f64::from(right) >= RIGHT * f64::from(all),
            "{task}: {right} of {all}"
        );
    }
}

fn model_tokens(model: &Voxtral<Flex>, clip: &Arc<Audio>) -> usize {
    let alone = [Message::User(vec![Part::Audio(Arc::clone(clip))])];
    model.prompt_size(&alone, &[]).unwrap().audio_tokens
}

/// `dial`, which writes down what it was called with.
fn dial(answer: impl Fn(&str) -> Result<String, String> + Send + 'static) -> Tool {
    let definition = r#"[{"type": "function", "function": {
        "name": "dial", "description": "Dial a telephone number.",
        "parameters": {"type": "object", "properties": {"number": {"type": "string"}},
            "required": ["number"]}}}]"#;
    let definition = ToolDefinition::list_from_json(definition)
        .unwrap()
        .remove(0);
    Tool::new(definition, move |arguments| {
        let number = arguments["number"].as_str().unwrap_or_default();
        Ok(answer(number)?)
    })
}

/// Asks to dial what is heard in a sample, `three one four one five nine`.
fn ask_to_dial(
    chat: &mut Chat<'_, Flex>,
    clip: &Arc<Audio>,
    toolbox: &mut Toolbox,
) -> (Vec<Message>, Vec<String>, Result<Answer, String>) {
    let mut messages = vec![Message::User(vec![Part::Audio(Arc::clone(clip))])];
    let mut results = Vec::new();
    let options = greedy(&[]);
    let answer = chat.answer_with_tools(&mut messages, toolbox, &options, |event| {
        if let ToolEvent::Result { content, .. } = event {
            results.push(content.to_owned());
        }
    });
    (messages, results, answer.map_err(|error| error.to_string()))
}

/// What a tool gives, whatever goes wrong with it, is told to the model, which answers.
#[test]
fn tools_are_called_and_their_results_understood() {
    let model = Voxtral::<Flex>::builder().demo().unwrap();
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/../samples/digits-en.wav");
    let clip = Arc::new(model.read_audio(sample).unwrap());
    let mut chat = model.chat();

    let mut toolbox = Toolbox::new(vec![dial(|number| match number {
        "314159" => Ok("ok".to_owned()),
        other => Err(format!("{other} is not in service")),
    })]);
    let (messages, results, answer) = ask_to_dial(&mut chat, &clip, &mut toolbox);
    assert_eq!(
        (answer.unwrap().text.as_str(), results),
        ("dialed", vec!["ok".to_owned()])
    );
    assert_eq!(
        messages.len(),
        4,
        "question, call, result, answer: {messages:?}"
    );

    let mut toolbox = Toolbox::new(vec![dial(|_| Err("busy".to_owned()))]);
    let (_, results, answer) = ask_to_dial(&mut chat, &clip, &mut toolbox);
    assert_eq!(
        (answer.unwrap().text.as_str(), results),
        ("failed", vec!["error: busy".to_owned()])
    );

    let mut toolbox = Toolbox::new(vec![dial(|_| Ok("x".repeat(1 << 20)))]);
    let (_, results, answer) = ask_to_dial(&mut chat, &clip, &mut toolbox);
    assert!(
        results[0].starts_with("error: the result has 1048576 bytes"),
        "{results:?}"
    );
    assert_eq!(answer.unwrap().text, "failed");

    // No round is permitted: the call is not run.
    let mut toolbox = Toolbox {
        max_rounds: 0,
        ..Toolbox::new(vec![dial(|_| unreachable!("no call is permitted"))])
    };
    let (messages, _, answer) = ask_to_dial(&mut chat, &clip, &mut toolbox);
    assert!(answer.unwrap_err().contains("more than 0 answers"));
    assert_eq!(messages.len(), 2);
}
