//! Where a model comes from, and how it is loaded.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use voxtral_audio::{LogMel, MelConfig};
use voxtral_checkpoint::{
    Checkpoint,
    config::{Fusion, ModelConfig},
};
use voxtral_decoder::Decoder;
use voxtral_encoder::{Encoder, Projector, STEM_STRIDE};
use voxtral_nn::{Backend, Loader, Precision};
use voxtral_tokenizer::{Language, Tokenizer, special};

use super::{Hearing, Voxtral};
use crate::{PipelineError, align::KnownHeads, language::Released};

/// How far loading is.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// A model is being fetched.
    #[cfg(feature = "hub")]
    Download(voxtral_hub::Download<'a>),
    /// Tensors are being placed on the device.
    Load {
        /// Stored bytes placed so far.
        done: u64,
        /// Stored bytes in all.
        total: u64,
    },
}

type OnProgress<'a> = Box<dyn Fn(Progress<'_>) + 'a>;

/// Says where a model comes from and how it is held; ends in [`open`](Self::open) or
/// [`demo`](Self::demo).
pub struct Builder<'a, B: Backend> {
    device: B::Device,
    precision: Precision,
    languages: Option<Vec<Language>>,
    progress: Option<OnProgress<'a>>,
    heads_folder: Option<PathBuf>,
}

impl<B: Backend> Voxtral<B> {
    /// A builder for the backend's default device and the stored precision.
    pub fn builder<'a>() -> Builder<'a, B> {
        Builder {
            device: B::Device::default(),
            precision: Precision::Auto,
            languages: None,
            progress: None,
            heads_folder: None,
        }
    }
}

impl<'a, B: Backend> Builder<'a, B> {
    /// The device that holds the weights and computes.
    #[must_use]
    pub fn device(mut self, device: B::Device) -> Self {
        self.device = device;
        self
    }

    /// The precision of the weights' matrices; [`Precision::Auto`] keeps the stored one.
    #[must_use]
    pub fn precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// The languages that the model understands, where they are others than those of the released
    /// models: one is found out among them, and no other can be asked for.
    #[must_use]
    pub fn languages(mut self, languages: impl IntoIterator<Item = Language>) -> Self {
        self.languages = Some(languages.into_iter().collect());
        self
    }

    /// Called again and again while the model is fetched and loaded.
    #[must_use]
    pub fn progress(mut self, progress: impl Fn(Progress<'_>) + 'a) -> Self {
        self.progress = Some(Box::new(progress));
        self
    }

    /// A folder, made if need be, where it is remembered which heads of attention go along with the
    /// speech (see [`TranscribeOptions::word_times`](crate::TranscribeOptions::word_times)), in a
    /// small file for each model. Without it, each process finds out anew.
    #[must_use]
    pub fn heads_folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.heads_folder = Some(folder.into());
        self
    }

    /// Loads the model embedded in the library: spoken digits in four languages.
    ///
    /// # Errors
    /// The backend cannot hold the precision.
    #[cfg(feature = "demo")]
    pub fn demo(self) -> Result<Voxtral<B>, PipelineError> {
        self.embedded(crate::Demo::Clips)
    }

    /// Loads the Realtime model embedded in the library: spoken digits in four languages, in
    /// streams.
    ///
    /// # Errors
    /// The backend cannot hold the precision.
    #[cfg(feature = "demo")]
    pub fn demo_realtime(self) -> Result<Voxtral<B>, PipelineError> {
        self.embedded(crate::Demo::Realtime)
    }

    #[cfg(feature = "demo")]
    fn embedded(mut self, demo: crate::Demo) -> Result<Voxtral<B>, PipelineError> {
        let (checkpoint, tokenizer) = demo.load()?;
        self.languages.get_or_insert_with(|| demo.languages());
        self.load(demo.name(), &checkpoint, tokenizer)
    }

    /// Loads a model by alias (`mini`, `small`, `realtime`), by name on the Hugging Face Hub
    /// (`org/name[@revision]`), or from a folder. Fetches what is not in the cache. With the
    /// feature `demo`, the names `demo` and `demo-realtime` are those of the embedded models.
    ///
    /// # Errors
    /// The name is unknown, the model cannot be fetched, or its files are at fault.
    #[cfg(feature = "hub")]
    pub fn open(self, model: &str) -> Result<Voxtral<B>, PipelineError> {
        #[cfg(feature = "demo")]
        if let Some(demo) = crate::Demo::named(model) {
            return self.embedded(demo);
        }
        let source = model.parse::<voxtral_hub::ModelSource>()?;
        let folder = voxtral_hub::Hub::from_env()?.resolve(&source, &mut |download| {
            self.report(Progress::Download(download));
        })?;
        let (checkpoint, tokenizer) = open_folder(&folder)?;
        self.load(model, &checkpoint, tokenizer)
    }

    /// Loads a model from a folder.
    ///
    /// # Errors
    /// A file is missing or at fault.
    pub fn open_folder(self, folder: impl AsRef<Path>) -> Result<Voxtral<B>, PipelineError> {
        let folder = folder.as_ref();
        let (checkpoint, tokenizer) = open_folder(folder)?;
        self.load(&folder.to_string_lossy(), &checkpoint, tokenizer)
    }

    /// Loads a model from an open checkpoint and its tokenizer.
    ///
    /// # Errors
    /// A tensor is missing, misshapen or unknown, or the two do not fit together.
    pub fn load(
        self,
        name: &str,
        checkpoint: &Checkpoint,
        tokenizer: Tokenizer,
    ) -> Result<Voxtral<B>, PipelineError> {
        let config = checkpoint.config().clone();
        checkpoint.check_complete()?;
        check_together(&tokenizer, &config)?;
        let end = tokenizer.special(special::EOS)?;
        let hearing = match config.fusion {
            Fusion::Splice { audio_token_id } => clips(&tokenizer, audio_token_id)?,
            Fusion::Sum {
                default_delay_tokens,
            } => stream(name, &tokenizer, &config, default_delay_tokens)?,
        };
        let released = match hearing {
            Hearing::Clips { .. } => Released::Clips,
            Hearing::Stream { .. } => Released::Streams,
        };
        let languages = self.languages.clone();
        let mel = LogMel::new(MelConfig {
            sample_rate: config.features.sample_rate,
            window_size: config.features.window_size,
            hop_length: config.features.hop_length,
            num_mel_bins: config.features.num_mel_bins,
        })?;
        let done = std::cell::Cell::new(0);
        let total = checkpoint.total_bytes();
        let report = |bytes: u64| {
            done.set(done.get() + bytes);
            self.report(Progress::Load {
                done: done.get(),
                total,
            });
        };
        let loader = Loader::<B>::new(checkpoint, self.device.clone(), self.precision)
            .with_progress(&report);
        let heads = [
            config.decoder.num_layers,
            config.decoder.attention.num_heads,
        ];
        Ok(Voxtral {
            name: name.to_owned(),
            known_heads: KnownHeads::new(name, heads, self.heads_folder.as_deref()),
            encoder: Encoder::load(&loader, &config.encoder)?,
            projector: Projector::load(&loader, &config.projector)?,
            decoder: Decoder::load(&loader, &config.decoder)?,
            device: self.device.clone(),
            config,
            tokenizer,
            end,
            hearing,
            languages: languages.unwrap_or_else(|| released.languages()),
            mel,
            grammar_tokens: OnceLock::new(),
        })
    }

    fn report(&self, progress: Progress<'_>) {
        if let Some(call) = &self.progress {
            call(progress);
        }
    }
}

fn open_folder(folder: &Path) -> Result<(Checkpoint, Tokenizer), PipelineError> {
    /// The tokenizer's file in either form of a checkpoint.
    const TOKENIZER: &str = "tekken.json";

    let checkpoint = Checkpoint::open(folder)?;
    let path = folder.join(TOKENIZER);
    if !path.is_file() {
        return Err(PipelineError::MissingFile {
            folder: folder.display().to_string(),
            file: TOKENIZER,
        });
    }
    Ok((checkpoint, Tokenizer::from_file(path)?))
}

/// What the placeholder of a model that takes clips is.
fn clips(tokenizer: &Tokenizer, stated: Option<u32>) -> Result<Hearing, PipelineError> {
    let audio = tokenizer.special(special::AUDIO)?;
    match stated {
        Some(id) if id != audio => Err(contradiction("id of [AUDIO]", audio, id)),
        _ => Ok(Hearing::Clips { audio }),
    }
}

/// What a model that takes streams needs, after a check that a token of its tokenizer is as long
/// as one of its encoder.
fn stream(
    name: &str,
    tokenizer: &Tokenizer,
    config: &ModelConfig,
    default_delay: Option<usize>,
) -> Result<Hearing, PipelineError> {
    let unsupported = |reason| PipelineError::Unsupported {
        model: name.to_owned(),
        reason,
    };
    let section = tokenizer
        .audio()
        .ok_or_else(|| unsupported("its tokenizer says nothing of the stream's layout"))?;
    let layout = section.stream(None)?;
    let frames = STEM_STRIDE * config.projector.downsample.get();
    if layout.frames_per_token != frames {
        let subject = "number of mel frames of a token";
        return Err(contradiction(subject, layout.frames_per_token, frames));
    }
    if let Some(delay) = default_delay
        && delay != layout.delay_tokens
    {
        return Err(contradiction("delay in tokens", layout.delay_tokens, delay));
    }
    Ok(Hearing::Stream {
        pad: tokenizer.special(special::STREAMING_PAD)?,
        word: tokenizer.special(special::STREAMING_WORD)?,
        log_mel_max: config
            .features
            .log_mel_max
            .ok_or_else(|| unsupported("its features depend on the whole clip"))?,
    })
}

/// Checks that tokenizer and checkpoint belong together.
fn check_together(tokenizer: &Tokenizer, config: &ModelConfig) -> Result<(), PipelineError> {
    if let Some(audio) = tokenizer.audio() {
        let features = &config.features;
        let figures = [
            (
                "sample rate",
                u64::from(audio.sampling_rate),
                u64::from(features.sample_rate),
            ),
            (
                "number of mel bins",
                audio.encoding.num_mel_bins.into(),
                features.num_mel_bins as u64,
            ),
            (
                "hop length",
                audio.encoding.hop_length.into(),
                features.hop_length as u64,
            ),
            (
                "window size",
                audio.encoding.window_size.into(),
                features.window_size as u64,
            ),
        ];
        for (subject, tokenizer, checkpoint) in figures {
            if tokenizer != checkpoint {
                return Err(contradiction(subject, tokenizer, checkpoint));
            }
        }
    }
    if tokenizer.vocab_size() != config.decoder.vocab_size {
        return Err(contradiction(
            "vocabulary size",
            tokenizer.vocab_size(),
            config.decoder.vocab_size,
        ));
    }
    Ok(())
}

fn contradiction(
    subject: &'static str,
    tokenizer: impl ToString,
    checkpoint: impl ToString,
) -> PipelineError {
    PipelineError::Contradiction {
        subject,
        found: tokenizer.to_string(),
        found_in: "the tokenizer",
        expected: checkpoint.to_string(),
        expected_in: "the checkpoint's configuration",
    }
}
