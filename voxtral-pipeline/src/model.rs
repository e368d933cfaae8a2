//! A loaded model.

mod builder;

use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use voxtral_audio::{Audio, AudioError, LogMel};
use voxtral_checkpoint::config::ModelConfig;
use voxtral_decoder::Decoder;
use voxtral_encoder::{Encoder, Projector, STEM_STRIDE};
use voxtral_nn::Backend;
use voxtral_tokenizer::{Language, Tokenizer};

use crate::{
    PipelineError, SamplingOptions, align::KnownHeads, chat::GrammarTokens, sample::Sampler,
};

pub use builder::{Builder, Progress};

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

impl<B: Backend> Voxtral<B> {
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

fn check_length(found: Duration, limit: Duration) -> Result<(), PipelineError> {
    if found > limit {
        return Err(PipelineError::AudioTooLong { found, limit });
    }
    Ok(())
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
