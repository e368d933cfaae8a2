use proptest::prelude::*;
use voxtral_tokenizer::{SpecialPolicy, Tokenizer, Version, special};

use crate::support::{INSTRUCT, REALTIME, bytes, golden, instruct, small};

/// Texts with the ids that mistral-common gives them.
const KNOWN: [(&str, &[u32]); 19] = [
    ("Hello, world!", &[22177, 1044, 4304, 1033]),
    (" Hello", &[45383]),
    ("1234", &[1049, 1050, 1051, 1052]),
    ("naïve café", &[2302, 7884, 1672, 35858]),
    ("你好世界", &[124108, 29659]),
    ("नमस्ते", &[2485, 3525, 22475, 1803]),
    ("\n\n  x", &[1267, 1032, 2460]),
    ("I'm", &[1073, 4525]),
    ("ABCdef", &[37638, 3149]),
    (
        "The quick brown fox jumps over the lazy dog.",
        &[
            1784, 7586, 22980, 94137, 72993, 2136, 1278, 42757, 10575, 1046,
        ],
    ),
    ("  leading", &[1032, 8924]),
    ("trailing  ", &[31795, 10409, 1256]),
    ("a\r\nb", &[1097, 1013, 1010, 1098]),
    ("http://x.y/z", &[3809, 2345, 1120, 8712, 44147]),
    ("Don't STOP", &[11874, 2405, 8553, 14748]),
    ("٣٤", &[77729, 83626]),
    ("<s>", &[1060, 1115, 1062]),
    ("[INST]", &[1091, 3174, 3074, 1093]),
    ("", &[]),
];

#[test]
fn known_texts_have_their_known_ids() {
    for (text, ids) in KNOWN {
        assert_eq!(INSTRUCT.encode(text), ids, "{text:?}");
        assert_eq!(
            INSTRUCT.decode(ids, SpecialPolicy::Reject).unwrap(),
            text,
            "{ids:?}"
        );
    }
}

#[test]
fn ids_of_every_string_are_those_of_mistral_common() {
    let rows: Vec<(String, Vec<u32>)> = golden("encode.json.gz");
    assert!(rows.len() >= 4_000, "only {} strings", rows.len());
    for (text, ids) in rows {
        assert_eq!(INSTRUCT.encode(&text), ids, "{text:?}");
        let decoded = INSTRUCT.decode(&ids, SpecialPolicy::Reject).unwrap();
        assert_eq!(decoded, text);
    }
}

#[test]
fn ids_are_special_tokens_first_and_the_vocabulary_after_them() {
    let tokenizer = &*INSTRUCT;
    assert_eq!(tokenizer.version(), Version::V11);
    assert_eq!(tokenizer.vocab_size(), 131_072);
    assert_eq!(tokenizer.num_special_tokens(), 1_000);
    assert_eq!(tokenizer.token_bytes(999), None);
    assert_eq!(tokenizer.token_bytes(1000), Some(&b"\x00"[..]));
    assert_eq!(tokenizer.token_bytes(1255), Some(&b"\xFF"[..]));
    assert_eq!(tokenizer.token_bytes(1256), Some(&b"  "[..]));
    assert_eq!(tokenizer.token_text(131_071), "后汉书");
    assert_eq!(tokenizer.token_bytes(131_072), None);
    assert!(tokenizer.is_special(999) && !tokenizer.is_special(1000));
}

#[test]
fn special_tokens_are_found_by_name_in_each_kind_of_file() {
    let instruct = &*INSTRUCT;
    assert_eq!(instruct.bos().unwrap(), 1);
    assert_eq!(instruct.eos().unwrap(), 2);
    for (token, id) in [
        (special::AUDIO, 24),
        (special::BEGIN_AUDIO, 25),
        (special::ARGS, 32),
        (special::CALL_ID, 33),
        (special::TRANSCRIBE, 34),
        ("<SPECIAL_999>", 999),
    ] {
        assert_eq!(instruct.special(token).unwrap(), id, "{token}");
        assert_eq!(instruct.token_text(id), token);
    }
    assert_eq!(instruct.try_special(special::STREAMING_PAD), None);

    let realtime = &*REALTIME;
    assert_eq!(realtime.try_special(special::STREAMING_PAD), Some(32));
    assert_eq!(realtime.try_special(special::STREAMING_WORD), Some(33));
    assert_eq!(realtime.try_special(special::TRANSCRIBE), None);
}

#[test]
fn a_missing_special_token_is_named() {
    let error = REALTIME.special(special::TRANSCRIBE).unwrap_err();
    assert!(error.to_string().contains("`[TRANSCRIBE]`"), "{error}");
}

#[test]
fn every_version_has_the_same_ids_for_text() {
    for version in ["v7", "v13"] {
        let tokenizer = instruct(version);
        assert_eq!(tokenizer.version().to_string(), version);
        assert_eq!(tokenizer.encode(KNOWN[0].0), KNOWN[0].1);
    }
}

#[test]
fn entries_beyond_the_models_size_take_no_part_in_merging() {
    // The file has "abcd" as its last entry, which the model lacks.
    let cut = Tokenizer::from_bytes(&bytes(&small())).unwrap();
    assert_eq!(cut.vocab_size(), 262);
    assert_eq!(cut.encode("abcd"), [4 + 257, 4 + u32::from(b'd')]);
    assert_eq!(cut.token_bytes(262), None);

    let mut file = small();
    file["config"]["default_vocab_size"] = 263.into();
    let whole = Tokenizer::from_bytes(&bytes(&file)).unwrap();
    assert_eq!(whole.encode("abcd"), [4 + 258]);
}

#[test]
fn a_v7_file_without_special_tokens_has_the_built_in_ones() {
    let mut file = small();
    file["special_tokens"] = serde_json::Value::Null;
    file["config"]["default_num_special_tokens"] = 20.into();
    file["config"]["default_vocab_size"] = 278.into();
    let tokenizer = Tokenizer::from_bytes(&bytes(&file)).unwrap();
    assert_eq!(tokenizer.special(special::END_INST).unwrap(), 4);
    assert_eq!(tokenizer.special(special::TOOL_CONTENT).unwrap(), 19);
    assert_eq!(tokenizer.try_special(special::AUDIO), None);
}

#[test]
fn very_long_runs_neither_stop_nor_change_the_text() {
    for run in [" ", "\u{3000}", "\n", "a", "中"] {
        let text = format!("x{}y", run.repeat(1_200_000));
        let ids = INSTRUCT.encode(&text);
        let decoded = INSTRUCT.decode(&ids, SpecialPolicy::Reject).unwrap();
        assert!(decoded == text, "1 200 000 times {run:?}");
    }
}

#[test]
fn one_tokenizer_serves_many_threads() {
    let ids: Vec<Vec<u32>> = std::thread::scope(|scope| {
        let threads: Vec<_> = KNOWN
            .iter()
            .map(|(text, _)| scope.spawn(|| INSTRUCT.encode(text)))
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(ids, KNOWN.map(|(_, ids)| ids.to_vec()));
}

proptest! {
    #[test]
    fn decoding_gives_back_what_was_encoded(text in "\\PC*|[\\s\\p{L}\\p{M}\\p{N}]{0,60}|(?s).{0,60}") {
        let ids = INSTRUCT.encode(&text);
        prop_assert!(ids.iter().all(|&id| !INSTRUCT.is_special(id)));
        prop_assert_eq!(INSTRUCT.decode(&ids, SpecialPolicy::Reject).unwrap(), text);
    }
}
