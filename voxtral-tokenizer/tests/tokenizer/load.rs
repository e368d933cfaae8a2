use std::path::Path;

use serde_json::{Value, json};
use voxtral_tokenizer::{Tokenizer, TokenizerError};

use crate::support::{bytes, chain, small, special};

/// What is said about the small file after a change that breaks it.
fn broken(change: impl FnOnce(&mut Value)) -> String {
    let mut file = small();
    change(&mut file);
    let error = Tokenizer::from_bytes(&bytes(&file)).unwrap_err();
    chain(&error)
}

fn assert_says(message: &str, expected: &str) {
    assert!(message.contains(expected), "{message:?} lacks {expected:?}");
}

#[test]
fn the_small_file_is_usable() {
    let tokenizer = Tokenizer::from_bytes(&bytes(&small())).unwrap();
    assert!(tokenizer.audio().is_none());
    assert_eq!(tokenizer.encode("abc!"), [261, 4 + u32::from(b'!')]);
}

#[test]
fn a_missing_file_and_a_directory_are_named() {
    let folder = tempfile::tempdir().unwrap();
    for path in [folder.path().join("tekken.json"), folder.path().to_owned()] {
        let error = Tokenizer::from_file(&path).unwrap_err();
        let expected = format!("cannot read the tokenizer file `{}`", path.display());
        assert_eq!(error.to_string(), expected);
        assert!(std::error::Error::source(&error).is_some());
    }
}

#[test]
fn a_file_is_read_and_its_path_is_in_what_is_said_about_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tekken.json");
    std::fs::write(&path, bytes(&small())).unwrap();
    assert_eq!(Tokenizer::from_file(&path).unwrap().vocab_size(), 262);

    std::fs::write(&path, "").unwrap();
    let message = chain(&Tokenizer::from_file(&path).unwrap_err());
    let expected = format!("`{}` is not a usable tokenizer file: ", path.display());
    assert_says(&message, &expected);
    assert_says(&message, "the tokenizer is empty");
}

#[test]
fn text_that_is_not_whole_json_is_an_error() {
    let whole = bytes(&small());
    for (json, expected) in [
        (&b""[..], "the tokenizer is empty"),
        (b" \n", "the tokenizer is empty"),
        (b"RIFF....WAVE", "not JSON"),
        (b"{\"config\": ]", "not JSON"),
        (b"\xFF\xFE{}", "not JSON"),
        (b"[1, 2]", "not laid out as a tekken.json"),
        (b"{}", "missing field `config`"),
        (&whole[..1], "breaks off before its end"),
        (&whole[..whole.len() / 2], "breaks off before its end"),
        (&whole[..whole.len() - 1], "breaks off before its end"),
        (&[whole.as_slice(), b"x"].concat(), "not JSON"),
    ] {
        let error = Tokenizer::from_bytes(json).unwrap_err();
        assert_says(&chain(&error), expected);
    }
}

#[test]
fn a_file_cut_anywhere_is_an_error_and_never_a_panic() {
    let whole = bytes(&small());
    for end in 0..whole.len() {
        assert!(Tokenizer::from_bytes(&whole[..end]).is_err(), "{end} bytes");
    }
}

#[test]
fn missing_keys_are_named() {
    for pointer in [
        "/config",
        "/vocab",
        "/config/pattern",
        "/config/default_vocab_size",
        "/config/default_num_special_tokens",
        "/config/version",
        "/vocab/7/rank",
        "/vocab/7/token_bytes",
        "/special_tokens/1/rank",
        "/special_tokens/1/token_str",
    ] {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let message = broken(|file| {
            let object = file.pointer_mut(parent).unwrap().as_object_mut().unwrap();
            object.remove(key).unwrap();
        });
        assert_says(&message, &format!("missing field `{key}`"));
    }
}

#[test]
fn entries_of_the_vocabulary_are_checked_one_by_one() {
    let message = broken(|file| file["vocab"][7]["token_bytes"] = json!("B*=="));
    assert_says(
        &message,
        "`vocab[7].token_bytes` is \"B*==\", expected base64: ",
    );
    let message = broken(|file| file["vocab"][7]["token_bytes"] = json!("Bw"));
    assert_says(
        &message,
        "`vocab[7].token_bytes` is \"Bw\", expected base64: ",
    );
    let message = broken(|file| file["vocab"].as_array_mut().unwrap().swap(40, 41));
    assert_says(&message, "`vocab[40]` has rank 41, expected 40");
    let message = broken(|file| file["vocab"][200]["token_bytes"] = json!("YWI="));
    assert_says(
        &message,
        "`vocab[200]` has the bytes [61, 62], expected the byte c8",
    );
    let message = broken(|file| file["vocab"][256]["token_bytes"] = json!(""));
    assert_says(
        &message,
        "`vocab[256]` has the bytes [], expected at least one byte",
    );
    let message = broken(|file| file["vocab"][257]["token_bytes"] = json!("YWI="));
    assert_says(&message, "`vocab[257]` has the bytes of `vocab[256]`");
    let message = broken(|file| file["vocab"][257]["token_bytes"] = json!("YQ=="));
    assert_says(&message, "`vocab[257]` has the bytes of `vocab[97]`");
}

#[test]
fn special_tokens_are_checked_one_by_one() {
    let message = broken(|file| file["special_tokens"][1] = special(2, "<s>"));
    assert_says(
        &message,
        "`special_tokens[1]`, \"<s>\", has rank 2, expected 1",
    );
    let message = broken(|file| file["special_tokens"][2] = special(2, "<s>"));
    assert_says(
        &message,
        "`special_tokens[2]` is \"<s>\", which is also the name of special token 1",
    );
    let message = broken(|file| file["special_tokens"][2] = special(2, "<SPECIAL_3>"));
    assert_says(&message, "also the name of special token 3");
    let message = broken(|file| {
        let names = ["a", "b", "c", "d", "e"];
        file["special_tokens"] = (0..).zip(names).map(|(r, n)| special(r, n)).collect();
    });
    assert_says(
        &message,
        "`config.default_num_special_tokens` is 4, expected at least 5",
    );
    let message = broken(|file| {
        file["config"]["version"] = json!("v11");
        file["special_tokens"] = Value::Null;
    });
    assert_says(
        &message,
        "`special_tokens` is absent, expected a list in a tokenizer of version v11",
    );
}

#[test]
fn sizes_that_contradict_each_other_are_named() {
    let message = broken(|file| file["config"]["default_vocab_size"] = json!(264));
    assert_says(
        &message,
        "`config.default_vocab_size` is 264, expected 4 special tokens and 256 to 259 entries",
    );
    let message = broken(|file| file["config"]["default_vocab_size"] = json!(259));
    assert_says(&message, "`config.default_vocab_size` is 259, expected");
    let message = broken(|file| file["config"]["default_num_special_tokens"] = json!(262));
    assert_says(
        &message,
        "`config.default_num_special_tokens` is 262, expected less than 262",
    );
    for huge in [1 << 31, 1 << 32, u64::MAX] {
        let message = broken(|file| {
            file["config"]["default_vocab_size"] = json!(huge);
            file["config"]["default_num_special_tokens"] = json!(huge - 258);
        });
        assert_says(&message, "`config.default_");
    }
}

#[test]
fn other_versions_are_refused_with_those_that_are_supported() {
    for version in ["v3", "v15", "7", ""] {
        let message = broken(|file| file["config"]["version"] = json!(version));
        let expected =
            format!("`config.version` is \"{version}\", expected one of \"v7\", \"v11\", \"v13\"");
        assert_eq!(message, expected);
    }
}

#[test]
fn a_pattern_that_is_none_is_an_error() {
    for pattern in ["", "(", "[a-"] {
        let message = broken(|file| file["config"]["pattern"] = json!(pattern));
        assert_says(
            &message,
            "`config.pattern` is not a usable regular expression: ",
        );
    }
}

#[test]
fn errors_can_be_sent_and_told_apart() {
    fn is_error<T: std::error::Error + Send + Sync + 'static>() {}
    fn is_shared<T: Send + Sync>() {}
    is_error::<TokenizerError>();
    is_shared::<Tokenizer>();
    let error = Tokenizer::from_file(Path::new("/nowhere/tekken.json")).unwrap_err();
    assert!(matches!(error, TokenizerError::Read { .. }));
}
