use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::LazyLock;

use flate2::read::GzDecoder;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use voxtral_tokenizer::{Tokenizer, Version};

/// The tokenizer of a 2507 model, version v11.
pub(crate) static INSTRUCT: LazyLock<Tokenizer> =
    LazyLock::new(|| Tokenizer::from_bytes(&unpacked("tekken_240911.json.gz")).unwrap());

/// The tokenizer of a Realtime model.
pub(crate) static REALTIME: LazyLock<Tokenizer> = LazyLock::new(|| {
    let mut file = genuine();
    let sections: Value = serde_json::from_slice(&plain("realtime.json")).unwrap();
    for (key, section) in sections.as_object().unwrap() {
        file[key] = section.clone();
    }
    Tokenizer::from_bytes(&bytes(&file)).unwrap()
});

/// The tokenizer of a 2507 model in each version.
static INSTRUCT_BY_VERSION: LazyLock<BTreeMap<&str, Tokenizer>> = LazyLock::new(|| {
    let load = |version: Version| {
        let mut file = genuine();
        file["config"]["version"] = json!(version.as_str());
        let tokenizer = Tokenizer::from_bytes(&bytes(&file)).unwrap();
        (version.as_str(), tokenizer)
    };
    Version::ALL.map(load).into()
});

/// The tokenizer of a 2507 model in another version.
pub(crate) fn instruct(version: &str) -> &'static Tokenizer {
    &INSTRUCT_BY_VERSION[version]
}

/// The file with the genuine vocabulary.
pub(crate) fn genuine() -> Value {
    golden("tekken_240911.json.gz")
}

/// A compressed JSON fixture.
pub(crate) fn golden<T: DeserializeOwned>(name: &str) -> T {
    serde_json::from_slice(&unpacked(name)).unwrap()
}

/// The content of a compressed fixture.
pub(crate) fn unpacked(name: &str) -> Vec<u8> {
    let mut content = Vec::new();
    let packed = plain(name);
    GzDecoder::new(packed.as_slice())
        .read_to_end(&mut content)
        .unwrap_or_else(|error| panic!("cannot decompress {name}: {error}"));
    content
}

/// The content of a fixture.
pub(crate) fn plain(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("testdata")
        .join(name);
    let mut content = Vec::new();
    File::open(&path)
        .and_then(|mut file| file.read_to_end(&mut content))
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    content
}

/// A small usable file: 4 special tokens of which 3 are listed, the bytes, "ab", "abc", and
/// one entry more than the model has.
pub(crate) fn small() -> Value {
    let mut vocab: Vec<Value> = (0..=255_u8).map(|byte| entry(&[byte])).collect();
    vocab.extend(["ab", "abc", "abcd"].map(|text| entry(text.as_bytes())));
    for (rank, entry) in vocab.iter_mut().enumerate() {
        entry["rank"] = json!(rank);
    }
    json!({
        "config": {
            "pattern": "[a-z]+|[^a-z]",
            "num_vocab_tokens": 259,
            "default_vocab_size": 262,
            "default_num_special_tokens": 4,
            "version": "v7",
        },
        "vocab": vocab,
        "special_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
        "version": 1,
        "type": "Tekken",
    })
}

pub(crate) fn special(rank: u32, name: &str) -> Value {
    json!({ "rank": rank, "token_str": name, "is_control": true })
}

fn entry(bytes: &[u8]) -> Value {
    use base64::Engine as _;
    let encoded = base64::engine::general_purpose::STANDARD.encode(bytes);
    json!({ "rank": 0, "token_bytes": encoded, "token_str": std::str::from_utf8(bytes).ok() })
}

pub(crate) fn bytes(file: &Value) -> Vec<u8> {
    serde_json::to_vec(file).unwrap()
}

/// The message of an error and of everything behind it, as a program shows it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}
