//! Tokenizers for checkpoints of random values: that of an embedded demo model, stretched to the
//! checkpoint's vocabulary by made-up byte strings.
//!
//! What the checkpoint states is kept: the size of its vocabulary, the id of its audio token, its
//! features and its delay. The ordinary tokens of the demo come first, so most text that a random
//! model makes is nonsense of the made-up ones.

use std::collections::HashSet;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use voxtral_checkpoint::{
    Checkpoint,
    config::{Fusion, ModelConfig, Position},
};

/// The file's name in either form of a checkpoint.
pub(crate) const FILE: &str = "tekken.json";

/// The token in whose places audio stands.
const AUDIO: &str = "[AUDIO]";

/// Mel frames of an encoder frame; part of the architecture.
const STEM_STRIDE: usize = 2;

/// The single bytes, which every vocabulary begins with.
const SINGLE_BYTES: usize = 256;

/// An embedded demo model.
pub(crate) struct Demo {
    folder: &'static str,
    tekken: &'static str,
}

macro_rules! demo {
    ($folder:literal) => {
        Demo {
            folder: $folder,
            tekken: include_str!(concat!("../../voxtral-pipeline/", $folder, "/tekken.json")),
        }
    };
}

/// The model that takes clips.
pub(crate) const DEMO: Demo = demo!("demo");

/// The model that takes streams.
pub(crate) const DEMO_REALTIME: Demo = demo!("demo-realtime");

impl Demo {
    /// Where its files are.
    pub(crate) fn folder(&self) -> PathBuf {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../voxtral-pipeline");
        workspace.join(self.folder)
    }
}

/// Writes a `tekken.json` for the checkpoint in `folder`, which has none yet.
pub(crate) fn write(folder: &Path) -> Result<()> {
    let checkpoint = Checkpoint::open(folder)?;
    let tekken = stretched(checkpoint.config())?;
    let path = folder.join(FILE);
    let written = File::create_new(&path).and_then(|mut file| {
        file.write_all(&serde_json::to_vec(&tekken)?)?;
        file.sync_all()
    });
    written.with_context(|| format!("cannot write `{}`", path.display()))
}

/// The tokenizer of the demo of the same kind, stretched.
fn stretched(config: &ModelConfig) -> Result<Value> {
    let demo = match config.fusion {
        Fusion::Splice { .. } => DEMO,
        Fusion::Sum { .. } => DEMO_REALTIME,
    };
    let mut tekken: Value = serde_json::from_str(demo.tekken)?;
    let special = special_tokens(&mut tekken, config)?;
    vocabulary(&mut tekken, config.decoder.vocab_size - special)?;
    let settings = &mut tekken["config"];
    settings["default_vocab_size"] = config.decoder.vocab_size.into();
    settings["default_num_special_tokens"] = special.into();
    settings["num_vocab_tokens"] = (config.decoder.vocab_size - special).into();
    audio(&mut tekken["audio"], config);
    Ok(tekken)
}

/// Puts the audio token where the checkpoint has it; gives the number of ids of special tokens.
fn special_tokens(tekken: &mut Value, config: &ModelConfig) -> Result<usize> {
    let usual = tekken["config"]["default_num_special_tokens"].as_u64();
    let listed = tekken["special_tokens"].as_array_mut();
    let listed = listed.context("the demo's tokenizer lists no special tokens")?;
    if let Fusion::Splice {
        audio_token_id: Some(id),
    } = config.fusion
    {
        let id = id as usize;
        for rank in listed.len()..=id {
            listed.push(json!({"rank": rank, "token_str": format!("<SPECIAL_{rank}>")}));
        }
        let stands = listed.iter().position(|token| token["token_str"] == AUDIO);
        let stands = stands.context("the demo's tokenizer has no audio token")?;
        if stands != id {
            let other = listed[id]["token_str"].take();
            // The name of a filler says where it stands.
            let filler = other
                .as_str()
                .is_some_and(|name| name.starts_with("<SPECIAL_"));
            listed[stands]["token_str"] = match filler {
                true => format!("<SPECIAL_{stands}>").into(),
                false => other,
            };
            listed[id]["token_str"] = AUDIO.into();
        }
    }
    let vocab_size = config.decoder.vocab_size;
    let least = listed.len() + SINGLE_BYTES;
    ensure!(
        vocab_size >= least,
        "the vocabulary has {vocab_size} entries, expected at least {least}: {} special tokens and \
         the single bytes; leave out --tekken, or raise `vocab_size`",
        listed.len()
    );
    let usual = usual.context("the demo's tokenizer states no number of special tokens")?;
    Ok((usual as usize).min(vocab_size - SINGLE_BYTES))
}

/// Cuts the vocabulary to this size, or fills it up.
fn vocabulary(tekken: &mut Value, size: usize) -> Result<()> {
    let entries = tekken["vocab"].as_array_mut();
    let entries = entries.context("the demo's tokenizer has no vocabulary")?;
    entries.truncate(size);
    let known: HashSet<String> = entries
        .iter()
        .filter_map(|entry| Some(entry["token_bytes"].as_str()?.to_owned()))
        .collect();
    let made_up = (0..)
        .map(|number: usize| format!(" w{number}"))
        .map(|text| (STANDARD.encode(&text), text))
        .filter(|(bytes, _)| !known.contains(bytes));
    for (rank, (bytes, text)) in (entries.len()..size).zip(made_up) {
        entries.push(json!({"rank": rank, "token_bytes": bytes, "token_str": text}));
    }
    Ok(())
}

/// Lets the layout of sound be the checkpoint's.
fn audio(section: &mut Value, config: &ModelConfig) {
    let features = &config.features;
    let samples = features.hop_length * STEM_STRIDE;
    let rate = f64::from(features.sample_rate);
    let token = (samples * config.projector.downsample.get()) as f64 / rate;
    section["sampling_rate"] = features.sample_rate.into();
    section["frame_rate"] = (1.0 / token).into();
    section["audio_encoding_config"] = json!({
        "num_mel_bins": features.num_mel_bins,
        "hop_length": features.hop_length,
        "window_size": features.window_size,
    });
    if let Position::Table { max_positions } = config.encoder.position {
        section["chunk_length_s"] = ((samples * max_positions) as f64 / rate).into();
    }
    if let Fusion::Sum {
        default_delay_tokens: Some(delay),
    } = config.fusion
    {
        section["transcription_delay_ms"] = (delay as f64 * token * 1e3).into();
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use voxtral_checkpoint::Preset;

    use super::*;

    fn special(tekken: &Value, name: &str) -> Option<u64> {
        let listed = tekken["special_tokens"].as_array()?;
        let found = listed.iter().find(|token| token["token_str"] == name)?;
        found["rank"].as_u64()
    }

    #[test]
    fn the_vocabulary_is_that_of_the_checkpoint() {
        for preset in [Preset::Mini, Preset::Small, Preset::Realtime] {
            let config = preset.config().unwrap();
            let tekken = stretched(&config).unwrap();
            let vocab = tekken["vocab"].as_array().unwrap();
            assert_eq!(vocab.len() + 1000, config.decoder.vocab_size);
            let bytes: HashSet<_> = vocab.iter().map(|entry| &entry["token_bytes"]).collect();
            assert_eq!(bytes.len(), vocab.len(), "each is another");
            assert_eq!(tekken["audio"]["frame_rate"], 12.5);
            assert_eq!(special(&tekken, AUDIO), Some(24));
        }
    }

    #[test]
    fn the_audio_token_moves_to_its_id() {
        let mut config = Preset::Mini.config().unwrap();
        for id in [24, 20, 4, 34, 40] {
            config.fusion = Fusion::Splice {
                audio_token_id: Some(id),
            };
            let tekken = stretched(&config).unwrap();
            assert_eq!(special(&tekken, AUDIO), Some(u64::from(id)));
            let listed = tekken["special_tokens"].as_array().unwrap();
            let names: HashSet<_> = listed.iter().map(|token| &token["token_str"]).collect();
            assert_eq!(names.len(), listed.len(), "each is another");
        }
    }

    #[test]
    fn a_small_vocabulary_has_fewer_special_tokens() {
        let mut config = Preset::Realtime.config().unwrap();
        config.decoder.vocab_size = 600;
        config.projector.downsample = NonZeroUsize::new(2).unwrap();
        let tekken = stretched(&config).unwrap();
        assert_eq!(tekken["config"]["default_num_special_tokens"], 344);
        assert_eq!(tekken["audio"]["frame_rate"], 25.0);
        config.decoder.vocab_size = 200;
        let error = stretched(&config).unwrap_err().to_string();
        assert!(error.contains("expected at least 292"), "{error}");
    }
}
