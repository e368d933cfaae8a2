//! Stem, positions, transformer layers and a final norm.

use burn_tensor::{DType, Tensor};
use voxtral_checkpoint::config::{EncoderConfig, Position};
use voxtral_nn::{Backend, Block, BlockConfig, Continuation, Loader, NnError, Norm, Rotary, Scope};

use crate::{ConvStem, EncoderStream, STEM_STRIDE};

/// The audio encoder.
#[derive(Debug, Clone)]
pub struct Encoder<B: Backend> {
    pub(crate) stem: ConvStem<B>,
    position: PositionTable<B>,
    blocks: Vec<Block<B>>,
    norm: Norm<B>,
    pub(crate) config: EncoderConfig,
    pub(crate) device: B::Device,
}

/// Windows on their way through the layers.
#[derive(Debug)]
pub struct Encoding<B: Backend> {
    /// `[windows, frames / 2, width]`.
    h: Tensor<B, 3>,
    rotary: Option<Rotary<B>>,
    layers_left: usize,
}

impl<B: Backend> Encoding<B> {
    /// Layers that were not run.
    pub fn layers_left(&self) -> usize {
        self.layers_left
    }
}

#[derive(Debug, Clone)]
enum PositionTable<B: Backend> {
    /// Added after the stem, `[1, positions, width]`.
    Added(Tensor<B, 3>),
    /// Rotates queries and keys.
    Rotary { theta: f64 },
}

impl<B: Backend> Encoder<B> {
    /// Loads every tensor below `encoder.`.
    ///
    /// # Errors
    /// A tensor is missing or misshapen, or the precision cannot be held.
    pub fn load(loader: &Loader<'_, B>, config: &EncoderConfig) -> Result<Self, NnError> {
        let width = config.hidden_size;
        let position = match config.position {
            Position::Table { max_positions } => PositionTable::Added(
                loader
                    .float("encoder.positions", [max_positions, width])?
                    .unsqueeze(),
            ),
            Position::Rope { theta } => PositionTable::Rotary { theta },
        };
        let block = BlockConfig {
            hidden_size: width,
            intermediate_size: config.intermediate_size,
            attention: config.attention,
            mask: config.mask,
            norm: config.norm,
            mlp: config.mlp,
            bias: true,
            ada_norm: None,
        };
        Ok(Self {
            stem: ConvStem::load(loader, config)?,
            position,
            blocks: (0..config.num_layers)
                .map(|i| Block::load(loader, &format!("encoder.layers.{i}"), &block))
                .collect::<Result<_, _>>()?,
            norm: Norm::load(loader, "encoder.norm", config.norm, width)?,
            config: config.clone(),
            device: loader.device().clone(),
        })
    }

    /// The configuration that it was loaded with.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// Mel frames of a window, where the encoder takes windows of a fixed length.
    pub fn window_frames(&self) -> Option<usize> {
        match self.config.position {
            Position::Table { max_positions } => Some(max_positions * STEM_STRIDE),
            Position::Rope { .. } => None,
        }
    }

    /// `[windows, mel, frames]` → `[windows, frames / 2, width]`, each window on its own. A model
    /// that takes streams takes a whole one here.
    ///
    /// # Errors
    /// As for [`begin`](Self::begin).
    pub fn forward(&self, mel: Tensor<B, 3>) -> Result<Tensor<B, 3>, NnError> {
        let mut encoding = self.begin(mel)?;
        while encoding.layers_left() > 0 {
            encoding = self.advance(encoding);
        }
        Ok(self.end(encoding))
    }

    /// [`forward`](Self::forward) up to the first layer, for callers that have other work between
    /// layers.
    ///
    /// # Errors
    /// Another number of mel channels than configured, or of frames than
    /// [`window_frames`](Self::window_frames).
    pub fn begin(&self, mel: Tensor<B, 3>) -> Result<Encoding<B>, NnError> {
        let [windows, bins, frames] = mel.dims();
        let expected = self.window_frames().unwrap_or(frames);
        if bins != self.config.num_mel_bins || frames != expected || windows == 0 {
            return Err(NnError::Shape {
                subject: "mel",
                found: vec![windows, bins, frames],
                expected: format!("[windows, {}, {expected}]", self.config.num_mel_bins),
            });
        }
        let mut h = self.stem.forward(mel);
        let rotary = match &self.position {
            PositionTable::Added(table) => {
                h = h + table.clone();
                None
            }
            PositionTable::Rotary { theta } => Some(Rotary::new(
                0..h.dims()[1],
                self.head_dim(),
                *theta,
                &self.device,
            )),
        };
        Ok(Encoding {
            h,
            rotary,
            layers_left: self.blocks.len(),
        })
    }

    /// The next layer; behind the last, nothing.
    #[must_use]
    pub fn advance(&self, encoding: Encoding<B>) -> Encoding<B> {
        let layer = self.blocks.len().saturating_sub(encoding.layers_left);
        let Some(block) = self.blocks.get(layer) else {
            return encoding;
        };
        Encoding {
            h: block.forward(encoding.h, Scope::Windows(encoding.rotary.as_ref())),
            layers_left: encoding.layers_left - 1,
            rotary: encoding.rotary,
        }
    }

    /// What is behind the last layer, `[windows, frames / 2, width]`.
    pub fn end(&self, encoding: Encoding<B>) -> Tensor<B, 3> {
        self.norm.forward(encoding.h)
    }

    /// The next frames of a stream, `[1, mel, frames]` → `[1, frames / 2, width]`: together the
    /// pieces are what [`forward`](Self::forward) gives for the whole stream.
    ///
    /// # Errors
    /// Another number of mel channels than configured, an odd number of frames, none, or more
    /// than the stream was made for.
    pub fn forward_stream(
        &self,
        mel: Tensor<B, 3>,
        stream: &mut EncoderStream<B>,
    ) -> Result<Tensor<B, 3>, NnError> {
        let [windows, bins, frames] = mel.dims();
        let stride = STEM_STRIDE;
        let longest = stream.longest_step() * stride;
        let fits = (1..=longest).contains(&frames) && frames % stride == 0;
        if windows != 1 || bins != self.config.num_mel_bins || !fits {
            return Err(NnError::Shape {
                subject: "mel",
                found: vec![windows, bins, frames],
                expected: format!(
                    "[1, {}, a multiple of {stride} up to {longest}]",
                    self.config.num_mel_bins
                ),
            });
        }
        let mut h = self.stem.stream(mel, &mut stream.stem);
        let claim = stream.cache.claim(h.dims()[1])?;
        let rotary = Rotary::new(claim.angles, self.head_dim(), stream.theta, &self.device);
        for (block, layer) in self.blocks.iter().zip(claim.layers) {
            let continuation = Continuation {
                probe: None,
                start: claim.start,
                rotary: &rotary,
                cache: layer,
            };
            h = block.forward(h, Scope::Continuations(vec![continuation]));
        }
        Ok(self.norm.forward(h))
    }

    /// Where and how keys and values of a stream are held.
    pub(crate) fn cache_options(&self) -> (&B::Device, DType) {
        let dtype = self.blocks.first().map_or(DType::F32, Block::cache_dtype);
        (&self.device, dtype)
    }

    fn head_dim(&self) -> usize {
        self.config.attention.head_dim
    }
}
