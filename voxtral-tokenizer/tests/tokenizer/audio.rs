use serde::Deserialize;
use serde_json::{Value, json};
use voxtral_tokenizer::{Tokenizer, TranscriptionFormat, Windows};

use crate::support::{INSTRUCT, REALTIME, bytes, golden, small};

#[derive(Deserialize)]
struct Golden {
    audio_tokens: Vec<AudioTokens>,
}

#[derive(Deserialize)]
struct AudioTokens {
    audio: Value,
    /// Samples, tokens, samples padded to windows, tokens of those.
    rows: Vec<[usize; 4]>,
}

fn with_audio(audio: Value) -> Result<Tokenizer, String> {
    let mut file = small();
    file["audio"] = audio;
    Tokenizer::from_bytes(&bytes(&file)).map_err(|error| crate::support::chain(&error))
}

/// The section of the released models, without windows.
fn section() -> Value {
    json!({
        "sampling_rate": 16000,
        "frame_rate": 12.5,
        "audio_encoding_config": { "num_mel_bins": 128, "hop_length": 160, "window_size": 400 },
    })
}

fn streaming() -> Value {
    let mut section = section();
    section["transcription_format"] = json!("streaming");
    section["transcription_delay_ms"] = json!(480);
    section["streaming_look_ahead_ms"] = json!(2.5);
    section["streaming_look_back_ms"] = json!(52.5);
    section["streaming_n_left_pad_tokens"] = json!(32);
    section
}

#[test]
fn the_settings_of_a_2507_model_are_read() {
    let audio = INSTRUCT.audio().unwrap();
    assert_eq!((audio.sampling_rate, audio.frame_rate), (16_000, 12.5));
    let encoding = audio.encoding;
    assert_eq!(
        (
            encoding.num_mel_bins,
            encoding.hop_length,
            encoding.window_size
        ),
        (128, 160, 400)
    );
    assert_eq!(audio.chunk_length_s, Some(30.0));
    assert_eq!(audio.transcription_format, TranscriptionFormat::Instruct);
    assert_eq!(audio.samples_per_token(), 1_280);
    assert_eq!(audio.frames_per_token(), 8);
    assert_eq!(audio.window_samples(), Some(480_000));
}

#[test]
fn the_settings_of_a_realtime_model_are_read() {
    let audio = REALTIME.audio().unwrap();
    assert_eq!(audio.chunk_length_s, None);
    assert_eq!(audio.windows(16_000), None);
    let TranscriptionFormat::Streaming(settings) = audio.transcription_format else {
        panic!("not streaming: {audio:?}");
    };
    assert_eq!(settings.transcription_delay_ms, 480.0);
    assert_eq!((settings.look_ahead_ms, settings.look_back_ms), (2.5, 52.5));
    assert_eq!(settings.left_pad_tokens, 32);
}

#[test]
fn lengths_around_a_frame_and_a_token_have_their_known_tokens() {
    let audio = INSTRUCT.audio().unwrap();
    for (samples, tokens) in [
        (0, 0),
        (1, 0),
        (159, 0),
        (160, 1),
        (1_279, 1),
        (1_280, 1),
        (1_281, 1),
        (1_440, 2),
        (2_560, 2),
        (480_000, 375),
    ] {
        assert_eq!(audio.num_tokens(samples), tokens, "{samples} samples");
    }
}

#[test]
fn audio_is_padded_to_whole_windows() {
    let audio = INSTRUCT.audio().unwrap();
    for (samples, windows) in [
        (0, 0),
        (1, 1),
        (480_000, 1),
        (480_001, 2),
        (960_000, 2),
        (28_800_000, 60),
    ] {
        let expected = Windows {
            windows,
            padded_samples: windows * 480_000,
            tokens: windows * 375,
        };
        assert_eq!(audio.windows(samples), Some(expected), "{samples} samples");
    }
}

#[test]
fn numbers_of_tokens_are_those_of_mistral_common_for_any_settings() {
    let golden: Golden = golden("prompts.json.gz");
    assert_eq!(golden.audio_tokens.len(), 4);
    for AudioTokens { audio, rows } in golden.audio_tokens {
        let tokenizer = with_audio(audio.clone()).unwrap();
        let section = tokenizer.audio().unwrap();
        for [samples, tokens, padded, padded_tokens] in rows {
            assert_eq!(section.num_tokens(samples), tokens, "{samples} of {audio}");
            let windows = section.windows(samples).unwrap();
            assert_eq!(windows.padded_samples, padded, "{samples} of {audio}");
            assert_eq!(windows.tokens, padded_tokens, "{samples} of {audio}");
        }
    }
}

#[test]
fn a_section_that_makes_no_sense_is_an_error_that_names_the_setting() {
    let cases: [(&str, Value, &str); 18] = [
        (
            "",
            json!({ "sampling_rate": 0 }),
            "`audio.sampling_rate` is 0, expected a number above 0",
        ),
        (
            "",
            json!({ "frame_rate": 0 }),
            "`audio.frame_rate` is 0, expected",
        ),
        (
            "",
            json!({ "frame_rate": -12.5 }),
            "`audio.frame_rate` is -12.5, expected",
        ),
        (
            "",
            json!({ "frame_rate": 16001 }),
            "at most 16000, the sampling rate",
        ),
        (
            "",
            json!({ "frame_rate": 1e-300 }),
            "`audio.frame_rate` is 0.0",
        ),
        (
            "",
            json!({ "frame_rate": null }),
            "not laid out as a tekken.json: invalid type: null",
        ),
        (
            "audio_encoding_config",
            json!({ "hop_length": 0 }),
            "`audio.audio_encoding_config.hop_length` is 0",
        ),
        (
            "audio_encoding_config",
            json!({ "hop_length": 1281 }),
            "hop_length` is 1281, expected at most 1280",
        ),
        (
            "",
            json!({ "chunk_length_s": 0 }),
            "`audio.chunk_length_s` is 0, expected",
        ),
        (
            "",
            json!({ "chunk_length_s": -30 }),
            "`audio.chunk_length_s` is -30, expected",
        ),
        (
            "",
            json!({ "chunk_length_s": 1e9 }),
            "`audio.chunk_length_s` is 1000000000, expected",
        ),
        (
            "",
            json!({ "transcription_format": "batch" }),
            "`audio.transcription_format` is \"batch\", expected \"instruct\" or",
        ),
        (
            "",
            json!({ "transcription_delay_ms": 480 }),
            "`audio.transcription_delay_ms` is 480, expected none",
        ),
        (
            "",
            json!({ "streaming_n_left_pad_tokens": 32 }),
            "`audio.streaming_n_left_pad_tokens` is 32, expected none",
        ),
        (
            "streaming",
            json!({ "transcription_delay_ms": 0 }),
            "`audio.transcription_delay_ms` is 0, expected a multiple of 80",
        ),
        (
            "streaming",
            json!({ "transcription_delay_ms": 500 }),
            "`audio.transcription_delay_ms` is 500, expected a multiple of 80",
        ),
        (
            "streaming",
            json!({ "streaming_look_ahead_ms": null }),
            "`audio.streaming_look_ahead_ms` is absent, expected a value",
        ),
        (
            "streaming",
            json!({ "chunk_length_s": 30.0 }),
            "`audio.chunk_length_s` is 30, expected none",
        ),
    ];
    assert!(with_audio(section()).is_ok() && with_audio(streaming()).is_ok());
    for (place, changes, expected) in cases {
        let mut section = if place == "streaming" {
            streaming()
        } else {
            section()
        };
        let target = match place {
            "audio_encoding_config" => &mut section[place],
            _ => &mut section,
        };
        for (key, value) in changes.as_object().unwrap() {
            target[key] = value.clone();
        }
        let message = with_audio(section).unwrap_err();
        assert!(message.contains(expected), "{message}");
    }
}
