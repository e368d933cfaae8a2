//! Encoder, projector, logits and greedy tokens against `transformers`, on small random models
//! with odd shapes, in every storage precision and in both forms.

use burn_tensor::{DType, Tensor, TensorData};
use voxtral_checkpoint::{Checkpoint, Form};
use voxtral_decoder::{AttentionRequest, Decoder, Head};
use voxtral_encoder::{Encoder, Projector};
use voxtral_nn::{Backend, KvCache, Loader, Precision};

use crate::goldens::{Golden, LOGPROB, STAGE, assert_close, data};

/// Folder and, where the checkpoint is the native twin of another, whose goldens hold.
const MODELS: [(&str, &str); 5] = [
    ("odd-f32", "odd-f32"),
    ("odd-bf16/native", "odd-bf16"),
    ("odd-bf16", "odd-bf16"),
    ("odd-f16", "odd-f16"),
    ("tiny-a", "tiny-a"),
];

crate::on_every_backend!(
    stages_match_transformers,
    greedy_tokens_match_transformers,
    stored_precision_matches_transformers,
    windows_are_independent,
    native_form_is_identical,
    cached_equals_uncached,
    attention_matches_transformers,
    watched_attention_matches_transformers,
);

pub(crate) struct Model<B: Backend> {
    pub(crate) encoder: Encoder<B>,
    pub(crate) projector: Projector<B>,
    pub(crate) decoder: Decoder<B>,
}

impl<B: Backend> Model<B> {
    /// Loads a fixture in `f32`: the goldens were computed in `f32` from the stored values.
    pub(crate) fn open(folder: &str) -> Self {
        Self::open_in(folder, Precision::F32)
    }

    pub(crate) fn open_in(folder: &str, precision: Precision) -> Self {
        let checkpoint = Checkpoint::open(data("models").join(folder)).unwrap();
        checkpoint.check_complete().unwrap();
        let config = checkpoint.config();
        let loader = Loader::<B>::new(&checkpoint, B::Device::default(), precision);
        Self {
            encoder: Encoder::load(&loader, &config.encoder).unwrap(),
            projector: Projector::load(&loader, &config.projector).unwrap(),
            decoder: Decoder::load(&loader, &config.decoder).unwrap(),
        }
    }

    /// Encoder output and audio embeddings of the fixture's mel windows, both flattened over
    /// windows: `[1, frames, width]`.
    fn hear(&self, mel: Tensor<B, 3>) -> (Tensor<B, 3>, Tensor<B, 3>) {
        let encoded = self.encoder.forward(mel).unwrap();
        let projected = self.projector.forward(encoded.clone()).unwrap();
        (flatten(encoded), flatten(projected))
    }

    /// Prompt embeddings with the audio in its place.
    fn prompt(&self, ids: &[u32], audio: Tensor<B, 3>) -> Tensor<B, 3> {
        let first = ids.iter().position(|&id| id == AUDIO).unwrap();
        let last = ids.iter().rposition(|&id| id == AUDIO).unwrap();
        let embed = |ids| self.decoder.embed(ids).unwrap();
        Tensor::cat(
            vec![embed(&ids[..first]), audio, embed(&ids[last + 1..])],
            1,
        )
    }
}

/// The placeholder's id in every fixture's `config.json`.
const AUDIO: u32 = 24;

fn flatten<B: Backend>(x: Tensor<B, 3>) -> Tensor<B, 3> {
    let [windows, frames, width] = x.dims();
    x.reshape([1, windows * frames, width])
}

pub(crate) fn values<B: Backend>(x: Tensor<B, 3>) -> Vec<f32> {
    x.into_data().into_vec().unwrap()
}

/// Frames of a window.
const FRAMES: usize = 3000;

/// The mel frames of a fixture, `[windows, bins, frames]`; where it has none, so many of a formula.
pub(crate) fn mel<B: Backend>(golden: &Golden, frames: usize) -> Tensor<B, 3> {
    let (shape, values) = if golden.has("mel") {
        let shape = golden.shape("mel");
        ([shape[0], shape[1], shape[2]], golden.floats("mel"))
    } else {
        let wave = |c: usize, t: usize| (0.5 * (0.01 * (t * (c + 1)) as f64).sin()) as f32;
        let values = (0..128).flat_map(|c| (0..frames).map(move |t| wave(c, t)));
        ([1, 128, frames], values.collect())
    };
    let device = B::Device::default();
    Tensor::from_data(TensorData::new(values, shape), (&device, DType::F32))
}

fn prompt_ids(golden: &Golden) -> Vec<u32> {
    golden
        .integers("input_ids")
        .into_iter()
        .map(|id| id as u32)
        .collect()
}

/// The rows of `x` that the golden file kept of a stage.
pub(crate) fn kept_rows<B: Backend>(golden: &Golden, stage: &str, x: Tensor<B, 3>) -> Vec<f32> {
    let width = x.dims()[2];
    let all = values(x);
    golden
        .integers(&format!("{stage}_rows"))
        .into_iter()
        .flat_map(|row| all[row as usize * width..][..width].to_vec())
        .collect()
}

fn stages_match_transformers<B: Backend>() {
    for (folder, twin) in MODELS {
        let model = Model::<B>::open(folder);
        let golden = Golden::of(twin);
        let (encoded, audio) = model.hear(mel(&golden, FRAMES));
        let check = |stage: &str, x| {
            let found = kept_rows(&golden, stage, x);
            assert_close(
                &format!("{folder} {stage}"),
                &found,
                &golden.floats(stage),
                STAGE,
            );
        };
        check("encoder", encoded);
        check("projector", audio.clone());
        // The logits of every position, by a prompt that grows.
        let ids = prompt_ids(&golden);
        let prompt = model.prompt(&ids, audio);
        let mut cache = model.decoder.new_cache(ids.len());
        let vocab = model.decoder.config().vocab_size;
        let expected = golden.floats("logits");
        let hidden = model.decoder.forward(prompt, &mut cache).unwrap();
        for position in (0..ids.len()).step_by(7).chain([ids.len() - 1]) {
            let until = hidden.clone().slice_dim(1, 0..position + 1);
            let found = model.decoder.logits(until, 1).unwrap();
            assert_close(
                &format!("{folder} logits at {position}"),
                &found,
                &expected[position * vocab..][..vocab],
                // Of the largest logit of all positions, as stated.
                STAGE * largest(&expected) / largest(&expected[position * vocab..][..vocab]),
            );
        }
    }
}

/// What every head attends to, of the prompt's last position and greedy tokens, against the weights
/// that transformers gives; also when only some heads are asked for, and the cache stays as it was.
fn attention_matches_transformers<B: Backend>() {
    for (folder, twin) in MODELS {
        let model = Model::<B>::open(folder);
        let golden = Golden::of(twin);
        let (_, audio) = model.hear(mel(&golden, FRAMES));
        let ids = prompt_ids(&golden);
        let first = ids.iter().position(|&id| id == AUDIO).unwrap();
        let [_, _, rows, positions] = golden.shape("attention")[..] else {
            panic!("attention has four dimensions");
        };
        let keys = first..first + positions;
        let prompt = model.prompt(&ids, audio);
        let mut cache = model.decoder.new_cache(ids.len() + rows);
        model.decoder.forward(prompt, &mut cache).unwrap();
        cache.truncate(ids.len() - 1).unwrap();
        let answer = golden.integers("greedy_ids");
        let answer = answer[..rows - 1].iter().map(|&id| id as u32);
        let asked: Vec<u32> = ids.last().copied().into_iter().chain(answer).collect();
        let all: Vec<Head> = model.decoder.heads().collect();
        let every: Vec<usize> = (0..rows).collect();
        let expected = golden.floats("attention");
        for (heads, rows) in [
            (&all[..], &every[..]),
            (&all[..], &every[1..2]),
            (&all[1..2], &every),
            (&all[all.len() - 2..], &every[rows - 2..]),
        ] {
            let mut visited = Vec::new();
            let embeddings = model.decoder.embed(&asked).unwrap();
            let visit = |head: Head, weights: &[f32]| {
                let at = all.iter().position(|one| *one == head).unwrap();
                let expected = &expected[at * every.len() * positions..];
                let expected = &expected[rows[0] * positions..][..rows.len() * positions];
                let stage = format!("{folder} attention of {head:?}");
                // A weight is at most 1.
                assert_close(&stage, weights, expected, STAGE / largest(expected));
                visited.push(head);
            };
            let asked = AttentionRequest {
                heads,
                rows,
                keys: keys.clone(),
            };
            let decoder = &model.decoder;
            let attended = decoder.attention(embeddings, &mut cache, &asked, visit);
            attended.unwrap();
            assert_eq!(visited, heads);
            assert_eq!(cache.len(), ids.len() - 1);
        }
    }
}

/// What a cache watched while tokens were run one by one is what those tokens attend to.
fn watched_attention_matches_transformers<B: Backend>() {
    for (folder, twin) in MODELS {
        let model = Model::<B>::open(folder);
        let golden = Golden::of(twin);
        let (_, audio) = model.hear(mel(&golden, FRAMES));
        let ids = prompt_ids(&golden);
        let first = ids.iter().position(|&id| id == AUDIO).unwrap();
        let [layers, heads, rows, positions] = golden.shape("attention")[..] else {
            panic!("attention has four dimensions");
        };
        let prompt = model.prompt(&ids, audio);
        let mut cache = model.decoder.new_cache(ids.len() + rows);
        let watched = [(0, 1), (layers - 1, 0), (layers - 1, heads - 1)];
        let watched = watched.map(|(layer, head)| Head { layer, head });
        model.decoder.watch(&mut cache, &watched).unwrap();
        // A prompt may come in pieces.
        for piece in [0..first + 1, first + 1..ids.len()] {
            let piece = prompt.clone().slice_dim(1, piece);
            model.decoder.forward(piece, &mut cache).unwrap();
        }
        for &id in &golden.integers("greedy_ids")[..rows - 1] {
            let embedding = model.decoder.embed(&[id as u32]).unwrap();
            model.decoder.forward(embedding, &mut cache).unwrap();
        }
        let expected = golden.floats("attention");
        let asked: Vec<usize> = (0..rows).step_by(2).collect();
        let at: Vec<usize> = asked.iter().map(|row| ids.len() - 1 + row).collect();
        let mut visited = Vec::new();
        let visit = |head: Head, weights: &[f32]| {
            for (weights, row) in weights.chunks_exact(positions).zip(&asked) {
                let at = (head.layer * heads + head.head) * rows + row;
                let expected = &expected[at * positions..][..positions];
                let stage = format!("{folder} attention of {head:?} at {row}");
                assert_close(&stage, weights, expected, STAGE / largest(expected));
            }
            visited.push(head);
        };
        let keys = first..first + positions;
        assert!(
            model
                .decoder
                .watched(&cache, &at, keys.clone(), visit)
                .unwrap()
        );
        assert_eq!(visited, watched);
        // What was not the last of a pass, and what was taken back, is not known.
        let unknown = |cache: &_, at: usize| {
            let told = model.decoder.watched(cache, &[at], keys.clone(), |_, _| {});
            !told.unwrap()
        };
        assert!(unknown(&cache, ids.len() - 2));
        cache.truncate(ids.len()).unwrap();
        assert!(unknown(&cache, ids.len()) && !unknown(&cache, ids.len() - 1));
    }
}

pub(crate) fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |max, x| max.max(x.abs()))
}

/// Greedy decoding, one token per step: ids and log-probabilities.
fn decode<B: Backend>(
    model: &Model<B>,
    prompt: Tensor<B, 3>,
    steps: usize,
) -> (Vec<i64>, Vec<f32>) {
    let mut cache = model.decoder.new_cache(prompt.dims()[1] + steps);
    let mut sampler = voxtral_pipeline::Sampler::greedy();
    let mut next = prompt;
    let mut chosen = (Vec::new(), Vec::new());
    for _ in 0..steps {
        let hidden = model.decoder.forward(next, &mut cache).unwrap();
        let choice = sampler
            .choose(&model.decoder.logits(hidden, 1).unwrap())
            .unwrap();
        chosen.0.push(i64::from(choice.id));
        chosen.1.push(choice.logprob);
        next = model.decoder.embed(&[choice.id]).unwrap();
    }
    chosen
}

fn greedy_tokens_match_transformers<B: Backend>() {
    for (folder, twin) in MODELS {
        let model = Model::<B>::open(folder);
        let golden = Golden::of(twin);
        let (_, audio) = model.hear(mel(&golden, FRAMES));
        let prompt = model.prompt(&prompt_ids(&golden), audio);
        let expected = golden.integers("greedy_ids");
        let (ids, logprobs) = decode(&model, prompt, expected.len());
        assert_eq!(ids, expected, "{folder} greedy ids");
        let of = golden.floats("greedy_logprobs");
        assert_eq!(logprobs.len(), of.len());
        for (found, expected) in logprobs.iter().zip(of) {
            let close = (found - expected).abs() <= LOGPROB;
            assert!(
                close,
                "{folder} log-probability {found} instead of {expected}"
            );
        }
    }
}

/// Weights as they are stored, which backends widen or multiply as they are.
fn stored_precision_matches_transformers<B: Backend>() {
    for (folder, narrow) in [("odd-bf16", DType::BF16), ("odd-f16", DType::F16)] {
        let model = Model::<B>::open_in(folder, Precision::Auto);
        let golden = Golden::of(folder);
        let ids = prompt_ids(&golden);
        let (_, audio) = model.hear(mel(&golden, FRAMES));
        let mut cache = model.decoder.new_cache(ids.len());
        let prompt = model.prompt(&ids, audio);
        let hidden = model.decoder.forward(prompt, &mut cache).unwrap();
        let found = model.decoder.logits(hidden, 1).unwrap();
        let all = golden.floats("logits");
        let vocab = model.decoder.config().vocab_size;
        let held = B::supports_dtype(&B::Device::default(), narrow);
        let tolerance = match narrow {
            // Inputs of products are rounded to 8 bits: on GPUs those of every one, and the results
            // too, and on the CPU those of many rows, where the processor multiplies bfloat16.
            DType::BF16 if held => 5e-2,
            // Rounded to 11 bits.
            _ if held && B::matmul_dtype(narrow) == narrow => 1e-2,
            _ => STAGE,
        };
        let stage = format!("{folder} logits in {narrow:?}");
        assert_close(&stage, &found, &all[all.len() - vocab..], tolerance);
    }
}

fn windows_are_independent<B: Backend>() {
    let model = Model::<B>::open("odd-bf16");
    let mel = mel::<B>(&Golden::of("odd-bf16"), FRAMES);
    let windows = mel.dims()[0];
    assert!(windows > 1);
    let together = model.encoder.forward(mel.clone()).unwrap();
    for window in 0..windows {
        let alone = mel.clone().slice_dim(0, window..window + 1);
        let alone = model.encoder.forward(alone).unwrap();
        let of_batch = together.clone().slice_dim(0, window..window + 1);
        assert_close("window alone", &values(alone), &values(of_batch), 1e-5);
    }
}

fn native_form_is_identical<B: Backend>() {
    let folder = data("models/odd-bf16");
    assert_eq!(Checkpoint::open(&folder).unwrap().form(), Form::HuggingFace);
    assert_eq!(
        Checkpoint::open(folder.join("native")).unwrap().form(),
        Form::Native
    );
    let golden = Golden::of("odd-bf16");
    let ids = prompt_ids(&golden);
    let [hf, native] = ["odd-bf16", "odd-bf16/native"].map(|folder| {
        let model = Model::<B>::open(folder);
        // The position table is rounded to bf16 in one file and computed for the other: compare
        // the decoder, on the same audio.
        let audio = Tensor::from_data(
            TensorData::new(
                golden.floats("projector"),
                golden.shape_of_rows("projector"),
            ),
            (&B::Device::default(), DType::F32),
        );
        let prompt = model.prompt(&ids, audio);
        let mut cache = model.decoder.new_cache(ids.len());
        let hidden = model.decoder.forward(prompt, &mut cache).unwrap();
        model.decoder.logits(hidden, 1).unwrap()
    });
    assert_eq!(hf, native, "same bits, whichever form");
}

fn cached_equals_uncached<B: Backend>() {
    let model = Model::<B>::open("odd-f32");
    let golden = Golden::of("odd-f32");
    let (_, audio) = model.hear(mel(&golden, FRAMES));
    let prompt = model.prompt(&prompt_ids(&golden), audio);
    let generated = &golden.integers("greedy_ids")[..24];
    let run = |input: Tensor<B, 3>, cache: &mut KvCache<B>| {
        let hidden = model.decoder.forward(input, cache).unwrap();
        model.decoder.logits(hidden, 1).unwrap()
    };
    let length = prompt.dims()[1] + generated.len();
    let mut cache = model.decoder.new_cache(length);
    // A prompt in uneven pieces is the same as in one.
    let split = prompt.dims()[1] / 3;
    run(prompt.clone().slice_dim(1, 0..split), &mut cache);
    run(prompt.clone().slice_dim(1, split..), &mut cache);
    for end in 1..=generated.len() {
        let ids: Vec<u32> = generated[..end].iter().map(|&id| id as u32).collect();
        let newest = model.decoder.embed(&ids[end - 1..]).unwrap();
        let cached = run(newest, &mut cache);
        let whole = Tensor::cat(vec![prompt.clone(), model.decoder.embed(&ids).unwrap()], 1);
        let uncached = run(whole, &mut model.decoder.new_cache(length));
        assert_close("cached logits", &cached, &uncached, 1e-5);
    }
}
