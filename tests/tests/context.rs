//! Context bias on the demo models.

use burn_flex::Flex;
use voxtral_pipeline::{SamplingOptions, TranscribeOptions, Voxtral};

use crate::demo::utterances;

const WORDS: [(&str, &str); 4] = [
    ("en", "zero one two three four five six seven eight nine"),
    ("fr", "zéro un deux trois quatre cinq six sept huit neuf"),
    ("de", "null eins zwei drei vier fünf sechs sieben acht neun"),
    ("es", "cero uno dos tres cuatro cinco seis siete ocho nueve"),
];

#[test]
#[ignore = "measures"]
fn dump() {
    let builder = Voxtral::<Flex>::builder();
    let model = match std::env::var("MODEL") { Ok(path) => builder.open_folder(path).unwrap(), Err(_) => builder.demo().unwrap() };
    let all = utterances(&model);
    let t = std::time::Instant::now();
    let words: Vec<_> = WORDS.iter().flat_map(|(l, w)| w.split(' ').map(move |w| (l, w))).map(|(l, w)| serde_json::json!([l, w, model.tokenizer().encode(w), model.tokenizer().encode(&format!(" {w}"))])).collect();
    let mut out = Vec::new();
    for (u, a) in &all {
        let options = TranscribeOptions {
            language: u.prompt_language.as_deref().map(|c| c.parse().unwrap()),
            sampling: SamplingOptions { top_logprobs: 20, ..Default::default() },
            ..Default::default()
        };
        let t = model.transcribe(a, &options).unwrap();
        out.push(serde_json::json!({"reference": u.reference, "language": u.language, "text": t.text, "tokens": t.tokens}));
    }
    println!("base {:?}", t.elapsed());
    std::fs::write(std::env::var("DUMP").unwrap(), serde_json::to_string(&serde_json::json!({"words": words, "out": out})).unwrap()).unwrap();
}
