use proptest::prelude::*;
use voxtral_tokenizer::{SpecialPolicy, TextDecoder, TokenizerError};

use crate::support::{INSTRUCT, REALTIME, golden};

fn in_steps(ids: &[u32]) -> Vec<String> {
    let mut decoder = TextDecoder::new(&INSTRUCT);
    let mut texts: Vec<String> = ids.iter().map(|&id| decoder.push(id)).collect();
    texts.push(decoder.finish());
    texts
}

#[test]
fn texts_are_those_of_mistral_common() {
    let rows: Vec<(Vec<u32>, String, Option<String>)> = golden("decode.json.gz");
    assert!(rows.len() >= 400, "only {} rows", rows.len());
    let mut compared = 0;
    for (ids, keep, ignore) in rows {
        let decode = |policy| INSTRUCT.decode(&ids, policy).unwrap();
        assert_eq!(decode(SpecialPolicy::Keep), keep, "{ids:?}");
        if let Some(ignore) = ignore {
            assert_eq!(decode(SpecialPolicy::Ignore), ignore, "{ids:?}");
            compared += 1;
        }
    }
    assert!(
        compared >= 300,
        "only {compared} rows without special tokens"
    );
}

#[test]
fn special_tokens_are_left_out_kept_or_refused() {
    let ids = [1, 22177, 2];
    let decode = |policy| INSTRUCT.decode(&ids, policy);
    assert_eq!(decode(SpecialPolicy::Ignore).unwrap(), "Hello");
    assert_eq!(decode(SpecialPolicy::Keep).unwrap(), "<s>Hello</s>");
    let error = decode(SpecialPolicy::Reject).unwrap_err();
    assert!(
        matches!(&error, TokenizerError::SpecialTokenRejected { id: 1, token } if token == "<s>"),
        "{error}"
    );
}

#[test]
fn an_id_that_no_token_has_is_an_error() {
    for id in [131_072, u32::MAX] {
        let error = INSTRUCT
            .decode(&[22177, id], SpecialPolicy::Ignore)
            .unwrap_err();
        let expected = format!("token {id} is not in the vocabulary, expected an id below 131072");
        assert_eq!(error.to_string(), expected);
        assert_eq!(INSTRUCT.token_text(id), "\u{FFFD}");
        assert_eq!(in_steps(&[1240, id]).concat(), "\u{FFFD}\u{FFFD}");
    }
}

#[test]
fn steps_of_a_streaming_model_are_dropped_from_the_text() {
    let text = REALTIME
        .decode(&[32, 32, 33, 1362, 19135, 2], SpecialPolicy::Ignore)
        .unwrap();
    assert_eq!(text, " I spoke");
}

#[test]
fn a_character_of_four_tokens_appears_with_the_last() {
    assert_eq!(in_steps(&[1240, 1159, 1152, 1128]), ["", "", "", "😀", ""]);
    // Also across a special token, as a streaming model may write it.
    let split = [1240, 1159, 32, 1152, 1128];
    assert_eq!(in_steps(&split), ["", "", "", "", "😀", ""]);
    assert_eq!(
        INSTRUCT.decode(&split, SpecialPolicy::Ignore).unwrap(),
        "😀"
    );
}

#[test]
fn a_character_that_never_ends_is_replaced_at_the_end() {
    assert_eq!(in_steps(&[1240, 1159]), ["", "", "\u{FFFD}"]);
    assert_eq!(in_steps(&[1240, 22177]), ["", "\u{FFFD}Hello", ""]);
}

proptest! {
    #[test]
    fn steps_add_up_to_the_whole_text(text in "\\PC{0,40}|(?s).{0,40}") {
        let ids = INSTRUCT.encode(&text);
        let texts = in_steps(&ids);
        prop_assert_eq!(texts.last().map(String::as_str), Some(""));
        prop_assert_eq!(texts.concat(), text);
    }

    #[test]
    fn steps_add_up_to_the_whole_text_for_any_ids(
        ids in prop::collection::vec(prop_oneof![1000_u32..1256, 0_u32..40, 1000_u32..131_072], 0..40)
    ) {
        let whole = INSTRUCT.decode(&ids, SpecialPolicy::Ignore).unwrap();
        prop_assert_eq!(in_steps(&ids).concat(), whole);
    }
}
