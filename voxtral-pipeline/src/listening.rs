//! Clips on their way to the decoder: cut into windows, encoded a few at a time, also beside those
//! of others.

use std::borrow::Borrow;
use std::collections::VecDeque;

use burn_tensor::{DType, Tensor, TensorData};
use voxtral_audio::Audio;
use voxtral_nn::Backend;

use crate::{PipelineError, Timings, Voxtral};

/// Windows that the encoder takes at once. One window is work enough for a CPU; a few fill a GPU.
pub(crate) const WINDOWS_PER_BATCH: usize = 4;

/// Clips whose windows are to be encoded.
pub(crate) struct Listening<A> {
    clips: VecDeque<Sound<A>>,
    /// Windows that were taken, and all there are.
    taken: usize,
    all: usize,
}

/// A clip at the model's rate.
struct Sound<A> {
    samples: Samples<A>,
    windows: usize,
    /// Windows that were taken.
    taken: usize,
    /// Of the features' range.
    maximum: f32,
}

enum Samples<A> {
    Given(A),
    Resampled(Audio),
}

impl<A: Borrow<Audio>> Listening<A> {
    /// Resamples what is at another rate than the model's.
    pub(crate) fn new<B: Backend>(
        model: &Voxtral<B>,
        clips: impl IntoIterator<Item = A>,
        timings: &mut Timings,
    ) -> Result<Self, PipelineError> {
        let clips = clips.into_iter();
        let clips = clips.map(|clip| Sound::new(model, clip, timings));
        let clips: VecDeque<Sound<A>> = clips.collect::<Result<_, _>>()?;
        Ok(Self {
            all: clips.iter().map(|sound| sound.windows).sum(),
            taken: 0,
            clips,
        })
    }

    /// Windows that were taken, and all there are.
    pub(crate) fn progress(&self) -> (usize, usize) {
        (self.taken, self.all)
    }

    /// Windows that were not taken.
    pub(crate) fn left(&self) -> usize {
        self.all - self.taken
    }

    /// Features of the next windows, `[windows, mel, frames]`, at most so many and not of none.
    pub(crate) fn take<B: Backend>(
        &mut self,
        model: &Voxtral<B>,
        most: usize,
        timings: &mut Timings,
    ) -> Result<Tensor<B, 3>, PipelineError> {
        let mut windows = Vec::new();
        while let Some(sound) = self.clips.front_mut()
            && windows.len() < most
        {
            windows.push(timings.features(|| sound.features(model))?);
            sound.taken += 1;
            self.taken += 1;
            if sound.taken == sound.windows {
                self.clips.pop_front();
            }
        }
        Ok(Tensor::cat(windows, 0))
    }
}

impl<A: Borrow<Audio>> Sound<A> {
    fn new<B: Backend>(
        model: &Voxtral<B>,
        clip: A,
        timings: &mut Timings,
    ) -> Result<Self, PipelineError> {
        let windows = model.windows(clip.borrow())?;
        let rate = model.sample_rate();
        let samples = match clip.borrow().sample_rate() == rate {
            true => Samples::Given(clip),
            false => Samples::Resampled(clip.borrow().resampled(rate)?),
        };
        let padded = windows * model.samples_of_encoder_window()?;
        let maximum = timings.features(|| match model.config.features.log_mel_max {
            Some(fixed) => fixed,
            None => model.mel.clip_maximum(samples.get(), padded),
        });
        Ok(Self {
            samples,
            windows,
            taken: 0,
            maximum,
        })
    }

    /// Of the next window, `[1, mel, frames]`.
    fn features<B: Backend>(&self, model: &Voxtral<B>) -> Result<Tensor<B, 3>, PipelineError> {
        let frames = model.encoder_window()?;
        let padded = self.windows * model.samples_of_encoder_window()?;
        let start = self.taken * frames;
        let samples = self.samples.get();
        let features = model
            .mel
            .window(samples, padded, start, frames, self.maximum)?;
        Ok(model.mel_tensor(features.data, frames))
    }
}

impl<A: Borrow<Audio>> Samples<A> {
    fn get(&self) -> &[f32] {
        match self {
            Self::Given(clip) => clip.borrow().samples(),
            Self::Resampled(audio) => audio.samples(),
        }
    }
}

impl<B: Backend> Voxtral<B> {
    /// `[1, mel, frames]`.
    pub(crate) fn mel_tensor(&self, data: Vec<f32>, frames: usize) -> Tensor<B, 3> {
        let shape = [1, self.config.features.num_mel_bins, frames];
        Tensor::from_data(TensorData::new(data, shape), (&self.device, DType::F32))
    }

    /// Features of windows, `[windows, mel, frames]` → audio embeddings, `[1, windows × embeddings,
    /// width]`, window by window.
    pub(crate) fn encode(&self, mel: Tensor<B, 3>) -> Result<Tensor<B, 3>, PipelineError> {
        let hidden = self.encoder.forward(mel)?;
        let encoded = self.projector.forward(hidden)?;
        let [windows, embeddings, width] = encoded.dims();
        Ok(encoded.reshape([1, windows * embeddings, width]))
    }
}
