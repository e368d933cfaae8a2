//! The model that is measured: where it comes from, its layers, and the whole of it where there is
//! a tokenizer.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use burn_tensor::{DType, Tensor};
use voxtral_audio::{LogMel, MelConfig};
use voxtral_checkpoint::{
    Checkpoint, Quant,
    config::{Fusion, ModelConfig},
};
use voxtral_decoder::Decoder;
use voxtral_encoder::{Encoder, Projector, STEM_STRIDE};
use voxtral_nn::{Loader, Precision};
use voxtral_pipeline::{Demo, Voxtral};
use voxtral_tokenizer::Tokenizer;

use super::{B, work::Demands};

/// Names for which `cargo xtask bench` makes a checkpoint of random values.
const PRESETS: [&str; 3] = ["mini", "small", "realtime"];

/// Which model, as every benchmark takes it.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Source {
    /// demo, demo-realtime, the folder of a checkpoint, or mini, small or realtime, of which a
    /// checkpoint of random values is made below target/bench, once
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<String>,
    /// Quantize matrices: of mini, small and realtime the checkpoint, of others when they are loaded
    #[arg(long, value_name = "FORMAT", value_parser = quant)]
    pub(crate) quant: Option<Quant>,
    /// The checkpoint that was made for `--model`
    #[arg(long, hide = true)]
    prepared: Option<PathBuf>,
    /// Folder that a relative path starts from: cargo runs benches in their package's
    #[arg(long, hide = true, default_value = ".")]
    pub(crate) from: PathBuf,
}

/// What is known of a model without its layers.
pub(crate) struct Facts {
    pub(crate) name: String,
    pub(crate) config: ModelConfig,
    pub(crate) demands: Demands,
    /// What was asked for.
    pub(crate) delay: Option<Duration>,
    /// 0 of a model that takes clips.
    pub(crate) delay_tokens: usize,
}

/// Layers, and what is known of them.
pub(crate) struct Model {
    facts: Facts,
    pub(crate) mel: LogMel,
    pub(crate) encoder: Encoder<B>,
    pub(crate) projector: Projector<B>,
    /// For the delay.
    pub(crate) decoder: Decoder<B>,
}

impl Deref for Model {
    type Target = Facts;

    fn deref(&self) -> &Facts {
        &self.facts
    }
}

impl Source {
    /// The name of the model, where none is asked for that of the demo.
    pub(crate) fn name(&self, demo: Demo) -> String {
        let name = self.model.clone().unwrap_or(demo.name().to_owned());
        match self.quant {
            Some(quant) => format!("{name}, {}", quant.name()),
            None => name,
        }
    }

    /// The checkpoint, and its tokenizer if it has one.
    pub(crate) fn open(&self, demo: Demo) -> anyhow::Result<(Checkpoint, Option<Tokenizer>)> {
        let demo = match &self.model {
            Some(name) => Demo::named(name),
            None => Some(demo),
        };
        if let Some(demo) = demo {
            let (checkpoint, tokenizer) = demo.load()?;
            return Ok((checkpoint, Some(tokenizer)));
        }
        let folder = self.folder()?;
        let tokenizer = folder.join("tekken.json");
        let tokenizer = tokenizer.is_file().then(|| Tokenizer::from_file(tokenizer));
        Ok((Checkpoint::open(&folder)?, tokenizer.transpose()?))
    }

    /// The folder of a model that is not embedded.
    pub(crate) fn folder(&self) -> anyhow::Result<PathBuf> {
        if let Some(folder) = &self.prepared {
            return Ok(folder.clone());
        }
        let model = self.model.as_deref().unwrap_or_default();
        let folder = self.from.join(model);
        if !folder.is_dir() && PRESETS.contains(&model) {
            bail!("no checkpoint of `{model}` was made: run the benchmark as `cargo xtask bench`");
        }
        Ok(folder)
    }

    /// How matrices are held.
    pub(crate) fn precision(&self) -> Precision {
        self.quant.map_or(Precision::Auto, Precision::Quantized)
    }

    /// All of the model.
    pub(crate) fn whole(
        &self,
        name: &str,
        checkpoint: &Checkpoint,
        tokenizer: Tokenizer,
    ) -> anyhow::Result<Voxtral<B>> {
        let builder = Voxtral::builder().precision(self.precision());
        Ok(builder.load(name, checkpoint, tokenizer)?)
    }
}

fn quant(name: &str) -> Result<Quant, String> {
    let found = Quant::ALL.into_iter().find(|quant| quant.name() == name);
    found.ok_or_else(|| "expected q8 or q4".to_owned())
}

impl Model {
    /// The layers of a checkpoint.
    pub(crate) fn load(
        source: &Source,
        checkpoint: &Checkpoint,
        facts: Facts,
    ) -> anyhow::Result<Self> {
        let config = &facts.config;
        let features = &config.features;
        let mel = LogMel::new(MelConfig {
            sample_rate: features.sample_rate,
            window_size: features.window_size,
            hop_length: features.hop_length,
            num_mel_bins: features.num_mel_bins,
        })?;
        let loader = Loader::<B>::new(checkpoint, Default::default(), source.precision());
        let decoder = Decoder::load(&loader, &config.decoder)?;
        Ok(Self {
            mel,
            encoder: Encoder::load(&loader, &config.encoder)?,
            projector: Projector::load(&loader, &config.projector)?,
            decoder: decoder.with_delay(facts.delay_tokens),
            facts,
        })
    }
}

impl Facts {
    /// Of a checkpoint and its tokenizer.
    pub(crate) fn new(
        source: &Source,
        name: String,
        checkpoint: &Checkpoint,
        tokenizer: Option<&Tokenizer>,
        delay: Option<Duration>,
    ) -> anyhow::Result<Self> {
        let config = checkpoint.config().clone();
        let delay_tokens = match (config.fusion, tokenizer.and_then(Tokenizer::audio)) {
            (Fusion::Splice { .. }, _) => 0,
            (_, Some(audio)) => audio.stream(delay)?.delay_tokens,
            (_, None) => delay_tokens(&config, delay)?,
        };
        // The decoder is asked, and forgotten.
        let loader = Loader::<B>::new(checkpoint, Default::default(), Precision::Auto);
        let cached = cached_dtype(&Decoder::load(&loader, &config.decoder)?)?;
        Ok(Self {
            name,
            demands: Demands::new(checkpoint, source.quant, cached.size()),
            delay,
            delay_tokens,
            config,
        })
    }

    /// Whether the model takes streams, not clips.
    pub(crate) fn streams(&self) -> bool {
        matches!(self.config.fusion, Fusion::Sum { .. })
    }

    /// The maximum of the features' range, of a model that takes streams.
    pub(crate) fn log_mel_max(&self) -> anyhow::Result<f32> {
        self.config
            .features
            .log_mel_max
            .with_context(|| format!("`{}` takes clips: expected a Realtime model", self.name))
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

/// A file below the package of the tests, wherever cargo runs them.
pub(crate) fn test_file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// What the decoder's cache holds numbers in.
pub(crate) fn cached_dtype(decoder: &Decoder<B>) -> anyhow::Result<DType> {
    let heads = decoder.config().attention;
    let mut cache = decoder.new_cache(1);
    let shape = [1, heads.num_kv_heads, 1, heads.head_dim];
    let row = Tensor::<B, 4>::zeros(shape, (&Default::default(), DType::F32));
    let claim = cache.claim(1)?;
    let layer = claim
        .layers
        .first_mut()
        .context("the decoder has no layer")?;
    Ok(layer.append(claim.start, row.clone(), row).0.dtype())
}

/// The delay that was asked for or the checkpoint's own, in tokens, where no tokenizer tells it.
fn delay_tokens(config: &ModelConfig, delay: Option<Duration>) -> anyhow::Result<usize> {
    let Fusion::Sum {
        default_delay_tokens,
    } = config.fusion
    else {
        bail!("the model takes clips: expected a Realtime model");
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
