//! The model that is measured: its layers, and the whole of it where there is a tokenizer.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use voxtral_audio::{LogMel, MelConfig};
use voxtral_checkpoint::{
    Checkpoint,
    config::{Fusion, ModelConfig},
};
use voxtral_decoder::Decoder;
use voxtral_encoder::{Encoder, Projector, STEM_STRIDE};
use voxtral_nn::{Loader, Precision};
use voxtral_pipeline::{Demo, Voxtral};
use voxtral_tokenizer::Tokenizer;

use crate::{B, work::Demands};

/// Layers and what they demand.
pub(crate) struct Model {
    pub(crate) name: String,
    pub(crate) config: ModelConfig,
    pub(crate) mel: LogMel,
    /// The maximum of the features' range.
    pub(crate) log_mel_max: f32,
    pub(crate) encoder: Encoder<B>,
    pub(crate) projector: Projector<B>,
    /// For the delay.
    pub(crate) decoder: Decoder<B>,
    pub(crate) demands: Demands,
    /// All of it, where there is a tokenizer.
    pub(crate) whole: Option<Voxtral<B>>,
    /// What was asked for.
    pub(crate) delay: Option<Duration>,
    pub(crate) delay_tokens: usize,
}

impl Model {
    /// The demo model, or that of a folder, which may lie below `from`.
    pub(crate) fn open(path: &Path, from: &Path, delay: Option<Duration>) -> anyhow::Result<Self> {
        let name = path.display().to_string();
        let (checkpoint, tokenizer) = if name == Demo::Realtime.name() {
            let (checkpoint, tokenizer) = Demo::Realtime.load()?;
            (checkpoint, Some(tokenizer))
        } else {
            let folder = from.join(path);
            let tokenizer = folder.join("tekken.json");
            let tokenizer = tokenizer.is_file().then(|| Tokenizer::from_file(tokenizer));
            (Checkpoint::open(&folder)?, tokenizer.transpose()?)
        };
        Self::load(name, &checkpoint, tokenizer, delay)
    }

    fn load(
        name: String,
        checkpoint: &Checkpoint,
        tokenizer: Option<Tokenizer>,
        delay: Option<Duration>,
    ) -> anyhow::Result<Self> {
        let config = checkpoint.config().clone();
        let section = tokenizer.as_ref().and_then(Tokenizer::audio);
        let delay_tokens = match section {
            Some(audio) => audio.stream(delay)?.delay_tokens,
            None => delay_tokens(&config, delay)?,
        };
        let features = &config.features;
        let mel = LogMel::new(MelConfig {
            sample_rate: features.sample_rate,
            window_size: features.window_size,
            hop_length: features.hop_length,
            num_mel_bins: features.num_mel_bins,
        })?;
        let log_mel_max = features
            .log_mel_max
            .with_context(|| format!("`{name}` takes clips: expected a Realtime model"))?;
        let whole = tokenizer
            .map(|tokenizer| Voxtral::builder().load(&name, checkpoint, tokenizer))
            .transpose()?;
        let loader = Loader::<B>::new(checkpoint, Default::default(), Precision::Auto);
        Ok(Self {
            name,
            mel,
            log_mel_max,
            encoder: Encoder::load(&loader, &config.encoder)?,
            projector: Projector::load(&loader, &config.projector)?,
            decoder: Decoder::load(&loader, &config.decoder)?.with_delay(delay_tokens),
            demands: Demands::new(checkpoint),
            whole,
            delay,
            delay_tokens,
            config,
        })
    }

    pub(crate) fn sample_rate(&self) -> u32 {
        self.config.features.sample_rate
    }

    /// Features of a frame.
    pub(crate) fn bins(&self) -> usize {
        self.config.features.num_mel_bins
    }

    /// Feature frames of a token.
    pub(crate) fn token_frames(&self) -> usize {
        STEM_STRIDE * self.config.projector.downsample.get()
    }

    /// Samples of a token.
    pub(crate) fn token_samples(&self) -> usize {
        token_samples(&self.config)
    }

    /// Seconds of a token.
    pub(crate) fn token_seconds(&self) -> f64 {
        self.token_samples() as f64 / f64::from(self.sample_rate())
    }
}

/// The delay that was asked for or the checkpoint's own, in tokens, where no tokenizer tells it.
fn delay_tokens(config: &ModelConfig, delay: Option<Duration>) -> anyhow::Result<usize> {
    let Fusion::Sum {
        default_delay_tokens,
    } = config.fusion
    else {
        anyhow::bail!("the model takes clips: expected a Realtime model");
    };
    let Some(delay) = delay else {
        return default_delay_tokens
            .context("the checkpoint states no delay of its own: give one with --delay MS");
    };
    let samples = delay.as_secs_f64() * f64::from(config.features.sample_rate);
    let tokens = samples / token_samples(config) as f64;
    ensure!(
        tokens.fract() == 0.0 && tokens >= 1.0,
        "a delay of {delay:?} is no whole number of tokens"
    );
    Ok(tokens as usize)
}

fn token_samples(config: &ModelConfig) -> usize {
    config.features.hop_length * STEM_STRIDE * config.projector.downsample.get()
}
