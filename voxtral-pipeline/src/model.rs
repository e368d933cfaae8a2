//! A loaded model and the builder that loads it.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use voxtral_audio::{Audio, AudioError, LogMel, MelConfig};
use voxtral_checkpoint::{
    Checkpoint,
    config::{Fusion, ModelConfig},
};
use voxtral_decoder::Decoder;
use voxtral_encoder::{Encoder, Projector, STEM_STRIDE};
use voxtral_nn::{Backend, Loader, Precision};
use voxtral_tokenizer::{Language, Tokenizer, special};

use crate::{
    PipelineError, SamplingOptions, align::KnownHeads, chat::GrammarTokens, language::Released,
    sample::Sampler,
};

/// Longest recording that the 2507 models transcribe, by their model card; the checkpoint's files
/// do not state it.
pub(crate) const LONGEST_TRANSCRIBED: Duration = Duration::from_secs(30 * 60);

/// Longest recording that they understand, by the same card.
pub(crate) const LONGEST_UNDERSTOOD: Duration = Duration::from_secs(40 * 60);

/// An answer is bounded also where the checkpoint states no context.
const LONGEST_ANSWER: usize = 1 << 16;

/// How long a prompt is, known before anything is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PromptSize {
    /// All its tokens.
    pub tokens: usize,
    /// Those of them that audio takes.
    pub audio_tokens: usize,
}

/// A Voxtral model on a device, immutable and free to share between threads.
pub struct Voxtral<B: Backend> {
    pub(crate) name: String,
    pub(crate) config: ModelConfig,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) decoder: Decoder<B>,
    /// The token that ends an answer.
    pub(crate) end: u32,
    pub(crate) hearing: Hearing,
    pub(crate) languages: Vec<Language>,
    pub(crate) encoder: Encoder<B>,
    pub(crate) projector: Projector<B>,
    pub(crate) mel: LogMel,
    pub(crate) device: B::Device,
    /// For strict tools, made when they are first asked for.
    pub(crate) grammar_tokens: OnceLock<GrammarTokens>,
    /// For the times of words.
    pub(crate) known_heads: KnownHeads,
}

/// How a model takes audio, with the ids that this needs, by the tokenizer's own names.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Hearing {
    /// Whole clips, in the places of a token in the prompt (2507).
    Clips {
        /// The token whose places they take.
        audio: u32,
    },
    /// A stream, added to every token (Realtime).
    Stream {
        /// Says that there is nothing to write yet.
        pad: u32,
        /// Says that a word was heard to its end.
        word: u32,
        /// The maximum of the features' range.
        log_mel_max: f32,
    },
}

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

    /// The name under which the model was opened.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the checkpoint says of itself.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Samples per second of the model's input.
    pub fn sample_rate(&self) -> u32 {
        self.config.features.sample_rate
    }

    /// Whether the model takes streams ([`session`](Self::session)) or whole clips.
    pub fn is_streaming(&self) -> bool {
        matches!(self.hearing, Hearing::Stream { .. })
    }

    /// Reads an audio file at the model's sample rate.
    ///
    /// # Errors
    /// The file cannot be read or decoded, or is longer than the model takes.
    pub fn read_audio(&self, path: impl AsRef<Path>) -> Result<Audio, PipelineError> {
        self.read_decoder(voxtral_audio::Decoder::open(path)?)
    }

    /// Reads the whole of what a decoder gives at the model's sample rate.
    ///
    /// # Errors
    /// As for [`read_audio`](Self::read_audio).
    pub fn read_decoder(&self, decoder: voxtral_audio::Decoder) -> Result<Audio, PipelineError> {
        if self.is_streaming() {
            return Ok(Audio::from_decoder(
                decoder,
                self.sample_rate(),
                Duration::MAX,
            )?);
        }
        // A little more than is taken, so that what is decoded of a longer file is refused below.
        let limit = LONGEST_UNDERSTOOD + Duration::from_secs(1);
        let stated = decoder.duration().unwrap_or(limit);
        let audio = Audio::from_decoder(decoder, self.sample_rate(), limit)?;
        if audio.duration() >= limit {
            check_length(stated.max(limit), LONGEST_UNDERSTOOD)?;
        }
        Ok(audio)
    }

    /// Mel frames of an encoder window.
    pub(crate) fn encoder_window(&self) -> Result<usize, PipelineError> {
        self.encoder
            .window_frames()
            .ok_or_else(|| self.unsupported("its encoder takes streams, not whole clips"))
    }

    /// Samples of an encoder window.
    pub(crate) fn samples_of_encoder_window(&self) -> Result<usize, PipelineError> {
        Ok(self.encoder_window()? * self.config.features.hop_length)
    }

    /// Encoder windows that a clip fills, the last one perhaps in part.
    pub(crate) fn windows(&self, audio: &Audio) -> Result<usize, PipelineError> {
        if audio.samples().is_empty() {
            return Err(AudioError::Empty.into());
        }
        // As many samples as the resampler gives.
        let (from, to) = (
            u64::from(audio.sample_rate()),
            u64::from(self.sample_rate()),
        );
        let samples = (audio.samples().len() as u64 * to + from / 2) / from;
        let window = self.encoder_window()? * self.config.features.hop_length;
        Ok((samples as usize).div_ceil(window))
    }

    /// Length of an encoder window, 30 s: whatever is shorter takes as long.
    ///
    /// # Errors
    /// The model takes streams.
    pub fn window_duration(&self) -> Result<Duration, PipelineError> {
        let samples = self.samples_of_encoder_window()? as u64;
        Ok(crate::session::clip_time(samples, self.sample_rate()))
    }

    /// Embeddings of an encoder window.
    ///
    /// # Errors
    /// The model takes streams.
    pub fn tokens_per_window(&self) -> Result<usize, PipelineError> {
        Ok(self.encoder_window()? / STEM_STRIDE / self.config.projector.downsample)
    }

    /// Embeddings that a clip of at most this length becomes, known before it is encoded.
    pub(crate) fn audio_tokens(
        &self,
        audio: &Audio,
        longest: Duration,
    ) -> Result<usize, PipelineError> {
        check_length(audio.duration(), longest)?;
        Ok(self.windows(audio)? * self.tokens_per_window()?)
    }

    /// Samples of the model's input that one audio embedding stands for.
    pub(crate) fn samples_per_token(&self) -> usize {
        let frames = STEM_STRIDE * self.config.projector.downsample.get();
        frames * self.config.features.hop_length
    }

    /// The token whose places audio takes.
    pub(crate) fn placeholder(&self) -> Result<u32, PipelineError> {
        match self.hearing {
            Hearing::Clips { audio } => Ok(audio),
            Hearing::Stream { .. } => Err(self.unsupported("it takes streams, not clips")),
        }
    }

    /// A sampler over this model's vocabulary.
    pub(crate) fn sampler(&self, options: &SamplingOptions) -> Result<Sampler, PipelineError> {
        Sampler::with_tokenizer(options, &self.tokenizer)
    }

    /// Tokens that may be generated behind a prompt: those asked for, if they fit, or else so many
    /// as `usual` says, as far as the context goes.
    pub(crate) fn answer_limit(
        &self,
        prompt: PromptSize,
        asked: Option<usize>,
        usual: usize,
    ) -> Result<usize, PipelineError> {
        let context = match self.config.decoder.max_positions {
            Some(context) => context,
            None => prompt.tokens + LONGEST_ANSWER,
        };
        let room = context.saturating_sub(prompt.tokens);
        if asked == Some(0) {
            return Err(PipelineError::InvalidOption {
                option: "number of new tokens",
                found: "0".to_owned(),
                expected: "at least 1",
            });
        }
        let limit = asked.unwrap_or(usual.min(room)).max(1);
        if limit > room {
            return Err(PipelineError::ContextOverflow {
                prompt,
                answer: limit,
                context,
            });
        }
        Ok(limit)
    }

    pub(crate) fn unsupported(&self, reason: &'static str) -> PipelineError {
        PipelineError::Unsupported {
            model: self.name.clone(),
            reason,
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

fn check_length(found: Duration, limit: Duration) -> Result<(), PipelineError> {
    if found > limit {
        return Err(PipelineError::AudioTooLong { found, limit });
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use burn_flex::Flex;
    use voxtral_audio::LogMelMax;

    use super::*;
    use crate::{
        Timings, TranscribeOptions,
        listening::{Listening, WINDOWS_PER_BATCH},
    };

    /// Five windows, the last one short: more than a batch, embedded as one clip and, for
    /// comparison, window by window from the features of the whole clip.
    #[test]
    fn windows_of_a_long_clip_are_embedded_in_order() {
        let model = Voxtral::<Flex>::builder().demo().unwrap();
        let rate = model.sample_rate() as usize;
        let samples: Vec<f32> = (0..130 * rate)
            .map(|i| {
                let t = i as f64 / rate as f64;
                // Louder and louder, so that the clip's maximum lies in the last window.
                ((t * 440.0 * (1.0 + t / 20.0)).sin() * t / 130.0) as f32
            })
            .collect();
        let audio = Audio::new(samples.clone(), model.sample_rate()).unwrap();
        let mut timings = Timings::default();
        let mut listening = Listening::new(&model, [&audio], &mut timings).unwrap();
        let mut together: Vec<f32> = Vec::new();
        while listening.left() > 0 {
            let mel = listening.take(&model, WINDOWS_PER_BATCH, &mut timings);
            let encoded = model.encode(mel.unwrap()).unwrap();
            together.extend(encoded.into_data().into_vec::<f32>().unwrap());
        }

        let frames = model.encoder.window_frames().unwrap();
        let (windows, bins) = (5, model.config.features.num_mel_bins);
        let mut padded = samples;
        padded.resize(windows * frames * model.config.features.hop_length, 0.0);
        let features = model.mel.features(&padded, LogMelMax::Clip).unwrap();
        let mut one_by_one = Vec::new();
        for window in 0..windows {
            let rows = (0..bins).flat_map(|bin| {
                let start = bin * windows * frames + window * frames;
                features.data[start..start + frames].to_vec()
            });
            let mel = model.mel_tensor(rows.collect(), frames);
            let h = model.encoder.forward(mel).unwrap();
            let h = model.projector.forward(h).unwrap();
            one_by_one.extend(h.into_data().into_vec::<f32>().unwrap());
        }
        assert_eq!(together.len(), one_by_one.len());
        let largest = one_by_one.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
        for (x, y) in together.iter().zip(&one_by_one) {
            // A batch may sum in another order.
            assert!((x - y).abs() <= 1e-5 * largest, "{x} and {y}");
        }
    }

    #[test]
    fn audio_without_samples_is_refused() {
        let model = Voxtral::<Flex>::builder().demo().unwrap();
        let audio = Audio::new(Vec::new(), model.sample_rate()).unwrap();
        let error = model.transcribe(&audio, &TranscribeOptions::default());
        assert_eq!(
            error.unwrap_err().to_string(),
            "audio is empty, it has no samples"
        );
    }
}
