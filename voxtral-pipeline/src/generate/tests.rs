//! Sequences alone and together.

use burn_flex::Flex;
use burn_tensor::{Tensor, TensorData};

use super::*;
use crate::{
    Cancel, Voxtral,
    draft::Draft,
    fusion::{Splice, Sum},
    sample::Sampler,
};

/// What never ends, and is fed a pad.
const NEVER: End = End::Ignore {
    token: u32::MAX,
    pad: 32,
};

fn request(prompt: Vec<u32>, end: End, limit: usize, draft: Option<Draft>) -> Request {
    Request {
        prompt,
        end,
        limit,
        sampler: Sampler::greedy(),
        draft,
        cancel: Cancel::new(),
    }
}

/// The decoder of the Realtime demo, and silence of so many tokens for it.
fn realtime() -> (Decoder<Flex>, impl Fn(usize) -> Sum<Flex>) {
    let model = Voxtral::<Flex>::builder().demo_realtime().unwrap();
    let decoder = model.decoder.with_delay(6);
    let width = decoder.config().hidden_size;
    let silence = move |tokens: usize| {
        let mut fusion = Sum::new();
        for piece in [tokens / 2, tokens - tokens / 2] {
            fusion.push(Tensor::zeros([1, piece, width], &model.device));
        }
        fusion
    };
    (decoder, silence)
}

/// A sequence with a cache that holds all of it.
fn sequence_of<F: AudioFusion<Flex>>(
    decoder: &Decoder<Flex>,
    fusion: F,
    request: Request,
) -> Sequence<Flex, F> {
    let cache = decoder.new_cache(request.prompt.len() + request.limit);
    Sequence::with_cache(cache, fusion, request)
}

/// All tokens of a sequence alone.
fn alone<F: AudioFusion<Flex>>(
    decoder: &Decoder<Flex>,
    sequence: &mut Sequence<Flex, F>,
) -> Vec<u32> {
    std::iter::from_fn(|| sequence.next_token(decoder))
        .map(|choice| choice.unwrap().id)
        .collect()
}

/// Tokens of a generation on sound that is none, which the demo's decoder makes with a prompt of
/// three; and how much of the sound is left.
fn generate(end: End, limit: usize, draft: Option<Draft>) -> (Vec<u32>, usize, usize) {
    let (decoder, silence) = realtime();
    let request = request(vec![1, 32, 32], end, limit, draft);
    let mut sequence = sequence_of(&decoder, silence(40), request);
    let tokens = alone(&decoder, &mut sequence);
    assert_eq!(sequence.limit_reached(), tokens.len() == limit);
    (tokens, sequence.fusion.left(), sequence.passes)
}

/// The token that a model writes most: whatever it is, most of it can be guessed.
fn usual(tokens: &[u32]) -> u32 {
    let count = |id: &u32| tokens.iter().filter(|other| *other == id).count();
    *tokens.iter().max_by_key(|id| count(id)).unwrap()
}

/// A limit, an end token and the end of the sound, everywhere in a pass.
#[test]
fn guesses_respect_every_end() {
    let (plain, left, passes) = generate(NEVER, 100, None);
    // The last position of the prompt makes a token too.
    assert_eq!((plain.len(), left, passes), (38, 0, 37));
    let usual = usual(&plain);
    let draft = || Some(Draft::new(usual, u32::MAX));
    let (guessed, left, passes) = generate(NEVER, 100, draft());
    assert_eq!((&guessed, left), (&plain, 0));
    assert!(passes < 30, "{passes} passes: guesses were made and held");
    for limit in 1..=plain.len() {
        let (guessed, left, _) = generate(NEVER, limit, draft());
        assert_eq!(guessed, plain[..limit]);
        assert_eq!(left, 40 - 3 - (limit - 1), "the last token is not run");
    }
    for (at, &token) in plain.iter().enumerate() {
        let first = plain.iter().position(|&id| id == token);
        let expected = generate(End::Stop(token), 100, None);
        let found = generate(End::Stop(token), 100, draft());
        assert_eq!(
            (&found.0, found.1),
            (&expected.0, expected.1),
            "end at {at}"
        );
        assert_eq!(Some(found.0.len() - 1), first);
    }
}

/// Streams with guesses, of different lengths and limits, that join one pass behind the other.
#[test]
fn guesses_of_many_are_checked_in_one_pass() {
    let (decoder, silence) = realtime();
    let plain = generate(NEVER, 100, None).0;
    let usual = usual(&plain);
    let lengths = [40, 9, 25, 60, 33];
    let limits = [100, 100, 5, 100, 17];
    let sequence = |i: usize| {
        let draft = (i != 3).then(|| Draft::new(usual, u32::MAX));
        let request = request(vec![1, 32, 32], NEVER, limits[i], draft);
        Sequence::with_cache(decoder.new_cache(100), silence(lengths[i]), request)
    };
    let expected: Vec<_> = (0..5).map(|i| alone(&decoder, &mut sequence(i))).collect();
    let mut together = Vec::new();
    let mut found = vec![Vec::new(); 5];
    let mut passes = 0;
    loop {
        if together.len() < 5 {
            together.push(sequence(together.len()));
        }
        if !one_pass(&decoder, &mut together) {
            break;
        }
        passes += 1;
        for (sequence, found) in together.iter_mut().zip(&mut found) {
            found.extend(std::iter::from_fn(|| sequence.take()).map(|choice| choice.unwrap().id));
        }
    }
    assert_eq!(found, expected);
    let each: Vec<usize> = together.iter().map(|sequence| sequence.passes).collect();
    assert!(passes < each.iter().sum::<usize>(), "{passes} for {each:?}");
}

/// A pass that has learned nothing of the machine.
fn one_pass<'s, F: AudioFusion<Flex> + 's>(
    decoder: &Decoder<Flex>,
    sequences: impl IntoIterator<Item = &'s mut Sequence<Flex, F>>,
) -> bool {
    advance(decoder, sequences, &mut Pace::default())
}

/// A prompt of so many placeholders on noise, with the demo that takes clips.
fn spliced(
    model: &Voxtral<Flex>,
    count: usize,
    limit: usize,
    scale: f32,
) -> Sequence<Flex, Splice<Flex>> {
    const PLACEHOLDER: u32 = 24;
    let width = model.decoder.config().hidden_size;
    let noise = (0..count * width).map(|i| scale * ((i * 7919 % 997) as f32 / 997.0 - 0.5));
    let data = TensorData::new(noise.collect::<Vec<_>>(), [1, count, width]);
    let mut fusion = Splice::new(PLACEHOLDER);
    fusion.push(Tensor::from_data(data, &model.device));
    fusion.complete();
    let mut prompt = vec![1; 2];
    prompt.extend(vec![PLACEHOLDER; count]);
    prompt.push(4);
    let request = request(prompt, End::Stop(u32::MAX), limit, None);
    sequence_of(&model.decoder, fusion, request)
}

/// A long prompt is run in pieces, and those that are behind theirs make a token beside each.
#[test]
fn a_long_prompt_holds_up_nobody() {
    let builder = Voxtral::<Flex>::builder().precision(crate::Precision::F32);
    let model = builder.demo().unwrap();
    let decoder = &model.decoder;
    let long = || spliced(&model, 3 * Pace::default().beside, 5, 1.0);
    let short = || spliced(&model, 20, 30, 2.0);
    let expected = [alone(decoder, &mut long()), alone(decoder, &mut short())];
    let mut together = [long(), short()];
    assert!(one_pass(decoder, [&mut together[1]]));
    // Three pieces and the three tokens around the audio.
    for pass in 0..4 {
        assert!(!together[0].decodes(), "after {pass} passes");
        assert!(one_pass(decoder, &mut together));
        assert_eq!(together[1].passes, pass + 1);
    }
    assert!(together[0].decodes());
    let found = together.each_mut().map(|sequence| alone(decoder, sequence));
    assert_eq!(found, expected);
}

/// Prompts share a pass as far as the positions go.
#[test]
fn prompts_share_the_positions_of_a_pass() {
    let model = Voxtral::<Flex>::builder().demo().unwrap();
    let mut together = [600, 350, 300].map(|count| spliced(&model, count, 2, 1.0));
    assert!(one_pass(&model.decoder, &mut together));
    let begun = together.each_mut().map(|sequence| sequence.cache().len());
    assert_eq!(begun, [603, 353, PREFILL_POSITIONS - 603 - 353]);
    let lengths = together
        .each_mut()
        .map(|sequence| alone(&model.decoder, sequence).len());
    assert_eq!(lengths, [2, 2, 2]);
}

/// One whose scores are no numbers, one whose prompt does not fit its audio and one that is
/// cancelled fail alone.
#[test]
fn whoever_fails_fails_alone() {
    let model = Voxtral::<Flex>::builder().demo().unwrap();
    let decoder = &model.decoder;
    let good = || spliced(&model, 20, 10, 1.0);
    let expected = alone(decoder, &mut good());
    let mut contradictory = good();
    let width = decoder.config().hidden_size;
    let one_more = Tensor::zeros([1, 1, width], &model.device);
    contradictory.fusion.push(one_more);
    let cancelled = good();
    let cancel = cancelled.cancel.clone();
    let mut together = [
        good(),
        spliced(&model, 20, 10, f32::NAN),
        contradictory,
        cancelled,
        good(),
    ];
    assert!(one_pass(decoder, &mut together));
    cancel.cancel();
    while one_pass(decoder, &mut together) {}
    let found = together.each_mut().map(|sequence| {
        let made: Result<Vec<u32>, PipelineError> = std::iter::from_fn(|| sequence.take())
            .map(|choice| choice.map(|choice| choice.id))
            .collect();
        made
    });
    let [first, damaged, contradictory, cancelled, last] = found;
    assert_eq!(
        (first.unwrap(), last.unwrap()),
        (expected.clone(), expected)
    );
    assert!(matches!(damaged, Err(PipelineError::NotFinite)));
    assert!(matches!(
        contradictory,
        Err(PipelineError::AudioCount { .. })
    ));
    assert!(matches!(cancelled, Err(PipelineError::Cancelled)));
    assert!(together.iter().all(Sequence::has_ended));
}

/// What is in a cache need not be run again, and another end can follow what two have in common.
#[test]
fn a_prompt_follows_what_its_cache_holds() {
    let builder = Voxtral::<Flex>::builder().precision(crate::Precision::F32);
    let model = builder.demo().unwrap();
    let decoder = &model.decoder;
    let common = [1, 3, 40, 41, 42, 43, 4];
    let mut cache = decoder.new_cache(30);
    decoder
        .forward(decoder.embed(&common).unwrap(), &mut cache)
        .unwrap();
    for end in [vec![50, 51, 52], vec![60]] {
        let text = |prompt| request(prompt, End::Stop(u32::MAX), 8, None);
        let whole = text([&common[..], &end].concat());
        let fusion = || {
            let mut fusion = Splice::new(u32::MAX);
            fusion.complete();
            fusion
        };
        let expected = alone(decoder, &mut sequence_of(decoder, fusion(), whole));
        let mut sequence = Sequence::with_cache(cache, fusion(), text(end));
        assert_eq!(alone(decoder, &mut sequence), expected);
        cache = sequence.into_cache();
        cache.truncate(common.len()).unwrap();
    }
}
