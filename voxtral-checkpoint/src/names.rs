//! The canonical names of a model's tensors: the one place that spells them.
//!
//! A tensor's name is its module, with the layer's number in place of `{i}`, then `.weight` or
//! `.bias`. Which modules exist, with which shapes and biases, follows from [`ModelConfig`] alone;
//! how a form of checkpoint spells and lays out each of them is said by [`crate::hf`] and
//! [`crate::native`].
//!
//! With `E`, `F` the encoder's width and feed-forward width, `A` its heads · head size, `C` its mel
//! channels, `D`, `M`, `V` the decoder's width, feed-forward width and vocabulary, `Q`, `K` its
//! query and key heads · head size and `n` the projector's stacking, all matrices `[out, in]`:
//!
//! | module | weight | bias |
//! |---|---|---|
//! | `encoder.conv1`, `.conv2` | `[E, C, 3]`, `[E, E, 3]` | `[E]` |
//! | `encoder.positions` (the name in full) | `[positions, E]` | |
//! | `encoder.layers.{i}.attention.{wq,wk,wv}` | `[A, E]` | `[A]`, not for `wk` |
//! | `encoder.layers.{i}.attention.wo` | `[E, A]` | `[E]` |
//! | `encoder.layers.{i}.mlp.{gate,up}` | `[F, E]` | `[F]` in GELU blocks |
//! | `encoder.layers.{i}.mlp.down` | `[E, F]` | `[E]` |
//! | `encoder.layers.{i}.{attention,mlp}_norm`, `encoder.norm` | `[E]` | `[E]` for layer norms |
//! | `projector.linear1`, `.linear2` | `[D, nE]`, `[D, D]` | |
//! | `decoder.embedding`, `decoder.head` | `[V, D]` | |
//! | `decoder.layers.{i}.attention.{wq,wk,wv,wo}` | `[Q, D]`, `[K, D]`, `[K, D]`, `[D, Q]` | |
//! | `decoder.layers.{i}.mlp.{gate,up,down}` | `[M, D]`, `[M, D]`, `[D, M]` | |
//! | `decoder.layers.{i}.ada_norm.{down,up}` | `[c, D]`, `[D, c]` | |
//! | `decoder.layers.{i}.{attention,mlp}_norm`, `decoder.norm` | `[D]` | |

use crate::config::{Mlp, ModelConfig, Norm, Position};

/// Width of both convolutions' kernels: Whisper's stem, which every Voxtral encoder keeps and no
/// configuration states.
const KERNEL: usize = 3;

/// A kind of module that holds tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Module {
    EncoderConv1,
    EncoderConv2,
    EncoderPositions,
    EncoderAttentionNorm,
    EncoderQuery,
    EncoderKey,
    EncoderValue,
    EncoderOutput,
    EncoderMlpNorm,
    EncoderGate,
    EncoderUp,
    EncoderDown,
    EncoderNorm,
    Projector1,
    Projector2,
    Embedding,
    AttentionNorm,
    Query,
    Key,
    Value,
    Output,
    MlpNorm,
    Gate,
    Up,
    Down,
    AdaDown,
    AdaUp,
    Norm,
    Head,
}

impl Module {
    /// The module's canonical name.
    const fn canonical(self) -> &'static str {
        match self {
            Self::EncoderConv1 => "encoder.conv1",
            Self::EncoderConv2 => "encoder.conv2",
            Self::EncoderPositions => "encoder.positions",
            Self::EncoderAttentionNorm => "encoder.layers.{i}.attention_norm",
            Self::EncoderQuery => "encoder.layers.{i}.attention.wq",
            Self::EncoderKey => "encoder.layers.{i}.attention.wk",
            Self::EncoderValue => "encoder.layers.{i}.attention.wv",
            Self::EncoderOutput => "encoder.layers.{i}.attention.wo",
            Self::EncoderMlpNorm => "encoder.layers.{i}.mlp_norm",
            Self::EncoderGate => "encoder.layers.{i}.mlp.gate",
            Self::EncoderUp => "encoder.layers.{i}.mlp.up",
            Self::EncoderDown => "encoder.layers.{i}.mlp.down",
            Self::EncoderNorm => "encoder.norm",
            Self::Projector1 => "projector.linear1",
            Self::Projector2 => "projector.linear2",
            Self::Embedding => "decoder.embedding",
            Self::AttentionNorm => "decoder.layers.{i}.attention_norm",
            Self::Query => "decoder.layers.{i}.attention.wq",
            Self::Key => "decoder.layers.{i}.attention.wk",
            Self::Value => "decoder.layers.{i}.attention.wv",
            Self::Output => "decoder.layers.{i}.attention.wo",
            Self::MlpNorm => "decoder.layers.{i}.mlp_norm",
            Self::Gate => "decoder.layers.{i}.mlp.gate",
            Self::Up => "decoder.layers.{i}.mlp.up",
            Self::Down => "decoder.layers.{i}.mlp.down",
            Self::AdaDown => "decoder.layers.{i}.ada_norm.down",
            Self::AdaUp => "decoder.layers.{i}.ada_norm.up",
            Self::Norm => "decoder.norm",
            Self::Head => "decoder.head",
        }
    }

    /// Whether this is a normalisation's gain and offset.
    pub(crate) const fn is_norm(self) -> bool {
        matches!(
            self,
            Self::EncoderAttentionNorm
                | Self::EncoderMlpNorm
                | Self::EncoderNorm
                | Self::AttentionNorm
                | Self::MlpNorm
                | Self::Norm
        )
    }
}

/// Which of a module's tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Weight,
    Bias,
}

/// One tensor that a model has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    pub(crate) module: Module,
    pub(crate) part: Part,
    pub(crate) layer: Option<usize>,
    /// Heads whose rows are rotated in pairs, for queries and keys under rotary embeddings.
    pub(crate) rotary_heads: Option<usize>,
    shape: Vec<usize>,
}

impl TensorSpec {
    /// The canonical name.
    pub fn name(&self) -> String {
        match self.module {
            // The table is the only tensor of its module.
            Module::EncoderPositions => self.module.canonical().to_owned(),
            module => self.spell(module.canonical()),
        }
    }

    /// The shape that the configuration demands.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of elements.
    pub fn num_elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The name of this tensor where its module is called `module`.
    pub(crate) fn spell(&self, module: &str) -> String {
        let module = match self.layer {
            Some(layer) => module.replace("{i}", &layer.to_string()),
            None => module.to_owned(),
        };
        module
            + match self.part {
                Part::Weight => ".weight",
                Part::Bias => ".bias",
            }
    }

    /// The head of a model whose head is its embedding: some files store the copy.
    pub(crate) fn tied_head(config: &ModelConfig) -> Option<Self> {
        let decoder = &config.decoder;
        let shape = [decoder.vocab_size, decoder.hidden_size];
        decoder
            .tied_head
            .then(|| Specs::default().weight(Module::Head, &shape).remove_last())
            .flatten()
    }
}

/// Every tensor of the model that `config` describes, in the order of the computation.
///
/// ```
/// # fn show(config: &voxtral_checkpoint::ModelConfig) {
/// for tensor in voxtral_checkpoint::tensors(config) {
///     println!("{} {:?}", tensor.name(), tensor.shape());
/// }
/// # }
/// ```
pub fn tensors(config: &ModelConfig) -> Vec<TensorSpec> {
    let mut specs = Specs::default();
    encoder(config, &mut specs);
    let (input, output) = (config.projector.input_size, config.projector.output_size);
    specs
        .weight(Module::Projector1, &[output, input])
        .weight(Module::Projector2, &[output, output]);
    decoder(config, &mut specs);
    specs.list
}

fn encoder(config: &ModelConfig, specs: &mut Specs) {
    let config = &config.encoder;
    let (width, inner) = (config.hidden_size, config.intermediate_size);
    let heads = config.attention;
    let (queries, keys) = (
        heads.num_heads * heads.head_dim,
        heads.num_kv_heads * heads.head_dim,
    );
    let norm_bias = matches!(config.norm, Norm::Layer { .. });
    let rotary = matches!(config.position, Position::Rope { .. });

    specs
        .weight(Module::EncoderConv1, &[width, config.num_mel_bins, KERNEL])
        .bias();
    specs
        .weight(Module::EncoderConv2, &[width, width, KERNEL])
        .bias();
    if let Position::Table { max_positions } = config.position {
        specs.weight(Module::EncoderPositions, &[max_positions, width]);
    }
    for layer in 0..config.num_layers {
        specs.layer = Some(layer);
        specs
            .weight(Module::EncoderAttentionNorm, &[width])
            .bias_if(norm_bias);
        specs.weight(Module::EncoderQuery, &[queries, width]).bias();
        specs.rotary(rotary.then_some(heads.num_heads), 2);
        specs.weight(Module::EncoderKey, &[keys, width]);
        specs.rotary(rotary.then_some(heads.num_kv_heads), 1);
        specs.weight(Module::EncoderValue, &[keys, width]).bias();
        specs
            .weight(Module::EncoderOutput, &[width, queries])
            .bias();
        specs
            .weight(Module::EncoderMlpNorm, &[width])
            .bias_if(norm_bias);
        match config.mlp {
            Mlp::Gelu => {
                specs.weight(Module::EncoderUp, &[inner, width]).bias();
            }
            Mlp::SwiGlu => {
                specs.weight(Module::EncoderGate, &[inner, width]);
                specs.weight(Module::EncoderUp, &[inner, width]);
            }
        }
        specs.weight(Module::EncoderDown, &[width, inner]).bias();
    }
    specs.layer = None;
    specs
        .weight(Module::EncoderNorm, &[width])
        .bias_if(norm_bias);
}

fn decoder(config: &ModelConfig, specs: &mut Specs) {
    let config = &config.decoder;
    let (width, inner) = (config.hidden_size, config.intermediate_size);
    let heads = config.attention;
    let (queries, keys) = (
        heads.num_heads * heads.head_dim,
        heads.num_kv_heads * heads.head_dim,
    );

    specs.weight(Module::Embedding, &[config.vocab_size, width]);
    for layer in 0..config.num_layers {
        specs.layer = Some(layer);
        specs.weight(Module::AttentionNorm, &[width]);
        specs
            .weight(Module::Query, &[queries, width])
            .rotary(Some(heads.num_heads), 1);
        specs
            .weight(Module::Key, &[keys, width])
            .rotary(Some(heads.num_kv_heads), 1);
        specs.weight(Module::Value, &[keys, width]);
        specs.weight(Module::Output, &[width, queries]);
        specs.weight(Module::MlpNorm, &[width]);
        if let Some(bottleneck) = config.ada_norm {
            specs.weight(Module::AdaDown, &[bottleneck, width]);
            specs.weight(Module::AdaUp, &[width, bottleneck]);
        }
        specs.weight(Module::Gate, &[inner, width]);
        specs.weight(Module::Up, &[inner, width]);
        specs.weight(Module::Down, &[width, inner]);
    }
    specs.layer = None;
    specs.weight(Module::Norm, &[width]);
    if !config.tied_head {
        specs.weight(Module::Head, &[config.vocab_size, width]);
    }
}

/// The list under construction.
#[derive(Default)]
struct Specs {
    layer: Option<usize>,
    list: Vec<TensorSpec>,
}

impl Specs {
    fn weight(&mut self, module: Module, shape: &[usize]) -> &mut Self {
        let layer = self.layer;
        let shape = shape.to_vec();
        self.list.push(TensorSpec {
            module,
            part: Part::Weight,
            layer,
            rotary_heads: None,
            shape,
        });
        self
    }

    /// A bias for the last weight, one element per row.
    fn bias(&mut self) -> &mut Self {
        if let Some(weight) = self.list.last().cloned() {
            let shape = weight.shape.iter().take(1).copied().collect();
            self.list.push(TensorSpec {
                part: Part::Bias,
                shape,
                ..weight
            });
        }
        self
    }

    fn bias_if(&mut self, wanted: bool) -> &mut Self {
        if wanted { self.bias() } else { self }
    }

    /// Marks the last `count` tensors as rotated in `heads` heads.
    fn rotary(&mut self, heads: Option<usize>, count: usize) -> &mut Self {
        self.list
            .iter_mut()
            .rev()
            .take(count)
            .for_each(|spec| spec.rotary_heads = heads);
        self
    }

    fn remove_last(&mut self) -> Option<TensorSpec> {
        self.list.pop()
    }
}
