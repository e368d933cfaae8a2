//! When the words of a clip were spoken, from the decoder's own attention to the audio.
//!
//! Each audio position of the prompt stands for 80 ms (or what the configuration makes of it). Some
//! heads of attention go along with the speech, see [`heads`]. Their mean where a word's first
//! piece is written gives the word a place in the audio ([`attention`]); it starts where the sound at
//! this place begins, as far as a pause tells. The idea is that of Whisper's word times; which
//! heads to trust is not known beforehand here, but found out on the audio itself: when the text is
//! complete, its tokens are run once more, all at once, and every head is scored. Once they are known,
//! the cache keeps their queries while the text is written, and nothing is run again. Where none
//! aligns, there are no times.

mod attention;
mod heads;

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use voxtral_audio::{Activity, Audio};
use voxtral_decoder::{AttentionRequest, Decoder, Head};
use voxtral_nn::{Backend, KvCache, NnError};

use crate::{
    PipelineError, Segment, Token, Voxtral, Word, WordAttention,
    session::clip_time,
    words::{Onsets, Piece, Spelled, begins_word, spell},
};

use attention::Attention;
pub(crate) use heads::KnownHeads;
use heads::{ALIGNS, choose};

/// Tokens and audio positions on which heads are chosen.
const CHOOSING: (usize, usize) = (256, 3000);

/// How far the onset of a word may be before and behind its place.
const ONSET: (Duration, Duration) = (Duration::from_millis(400), Duration::from_millis(100));

/// What is known of a clip and its prompt, for the times of the words to come.
pub(crate) struct Aligner {
    onsets: Onsets,
    duration: Duration,
    /// From the first sound to the end of the last; all where none stands out.
    sound: Range<Duration>,
    sample_rate: u32,
    /// Length of the prompt, and its last token.
    prompt: (usize, u32),
    /// The prompt's positions with sound: not those that pad its last window.
    audio: Range<usize>,
    /// Samples of the clip in a position; it need not be whole.
    samples_per_position: f64,
    keeps_attention: bool,
}

/// A text that was generated, with the cache that it left.
pub(crate) struct Spoken<'a, B: Backend> {
    pub(crate) text: &'a str,
    pub(crate) tokens: &'a [Token],
    pub(crate) cache: &'a mut KvCache<B>,
}

/// The tokens of a text, as a pass over them sees them.
struct Text {
    /// What is run: at each token's place the one before, whose position predicts it.
    inputs: Vec<u32>,
    /// The places of tokens that begin words: others are not asked where they look.
    begins: Vec<usize>,
}

impl Aligner {
    /// For a clip behind which this prompt was made.
    pub(crate) fn new<B: Backend>(
        model: &Voxtral<B>,
        audio: &Audio,
        prompt: &[u32],
        keeps_attention: bool,
    ) -> Option<Self> {
        let placeholder = model.placeholder().ok()?;
        let first = prompt.iter().position(|&id| id == placeholder)?;
        let (rate, samples) = (audio.sample_rate(), audio.samples().len());
        let ours = model.samples_per_token() as f64;
        let samples_per_position = ours * f64::from(rate) / f64::from(model.sample_rate());
        let positions = (samples as f64 / samples_per_position).ceil() as usize;
        let places = prompt[first..].iter().take_while(|&&id| id == placeholder);
        let activity = Activity::of(audio.samples(), rate);
        let time = |sample: usize| clip_time(sample as u64, rate).min(audio.duration());
        let sound = match activity.sound() {
            [] => Duration::ZERO..audio.duration(),
            [first, .., last] => time(first.start)..time(last.end),
            [all] => time(all.start)..time(all.end),
        };
        Some(Self {
            onsets: Onsets::of_clip(audio),
            duration: audio.duration(),
            sound,
            sample_rate: rate,
            prompt: (prompt.len(), *prompt.last()?),
            audio: first..first + positions.min(places.count()),
            samples_per_position,
            keeps_attention,
        })
    }

    /// The words and their times; nothing where no head of attention goes along with the speech.
    pub(crate) fn words<B: Backend>(
        &self,
        model: &Voxtral<B>,
        spoken: Spoken<'_, B>,
    ) -> Result<Option<Vec<Word>>, PipelineError> {
        let pieces = pieces(model, spoken.tokens);
        let words = within(spoken.text, spell(&pieces, begins_word));
        let Some(last) = words.last() else {
            return Ok(Some(Vec::new()));
        };
        let before = spoken.tokens[..last.at as usize].iter();
        let before = before.map(|token| token.id);
        let text = Text {
            inputs: std::iter::once(self.prompt.1).chain(before).collect(),
            begins: words.iter().map(|word| word.at as usize).collect(),
        };
        let attention = self.aligned(model, &text, spoken.cache)?;
        let Some(attention) = attention else {
            return Ok(None);
        };
        let path = attention.path();
        let mut words = self.timed(words, &path);
        if self.keeps_attention {
            for ((word, row), place) in words.iter_mut().zip(attention.rows()).zip(path) {
                word.attention = Some(Box::new(self.attention_of_word(row, place)));
            }
        }
        Ok(Some(words))
    }

    /// A word's attention to audio positions, and its place among them.
    fn attention_of_word(&self, row: &[(usize, f32)], place: usize) -> WordAttention {
        let stretch = self.samples_per_position / f64::from(self.sample_rate);
        let time = |position: usize| Duration::from_secs_f64(position as f64 * stretch);
        WordAttention {
            weights: row
                .iter()
                .map(|(at, weight)| (time(*at), *weight))
                .collect(),
            place: time(place),
            stretch: time(1),
        }
    }

    /// The text as one segment where there is sound, if nothing tells more; none of no text.
    pub(crate) fn whole(&self, text: &str, confidence: Option<f32>) -> Vec<Segment> {
        let segment = Segment {
            start: self.sound.start,
            end: self.sound.end,
            text: text.to_owned(),
            confidence,
            words: Vec::new(),
        };
        Some(segment)
            .filter(|segment| !segment.text.is_empty())
            .into_iter()
            .collect()
    }

    /// The attention of heads that go along with the speech: the known ones, if they do on this
    /// text too, or those that are chosen on it.
    fn aligned<B: Backend>(
        &self,
        model: &Voxtral<B>,
        text: &Text,
        cache: &mut KvCache<B>,
    ) -> Result<Option<Attention>, PipelineError> {
        let decoder = &model.decoder;
        let words = text.begins.len();
        let watched = self.watched(decoder, text, cache)?;
        cache.truncate(self.prompt.0 - 1)?;
        if let Some(known) = model.known_heads.get() {
            let attention = match watched {
                Some(attention) => attention,
                None => self.mean(decoder, text, &known, cache)?,
            };
            // One word alone explains nothing, see `Attention::explained`.
            if words < 2 || attention.explained(&attention.path()) >= ALIGNS {
                return Ok(Some(attention));
            }
        }
        let (tokens, positions) = CHOOSING;
        let beginning = text.first(tokens);
        let end = self.audio.end.min(self.audio.start + positions);
        let aligned = self.score(decoder, &beginning, self.audio.start..end, cache)?;
        let scored = aligned.iter().map(|(head, (score, _))| (*head, *score));
        let heads = choose(scored.collect());
        tracing::debug!("heads that align: {heads:?}");
        if heads.is_empty() {
            return Ok(None);
        }
        model.known_heads.learn(&heads, words);
        if beginning.begins.len() < words || end < self.audio.end {
            return Ok(Some(self.mean(decoder, text, &heads, cache)?));
        }
        let chosen = heads.iter().filter_map(|head| aligned.get(head));
        let chosen = chosen.map(|(_, attention)| attention);
        Ok(Some(Attention::mean(self.audio.len(), chosen)))
    }

    /// The heads that explain something of a text, what they explain, and their attention to these
    /// positions.
    fn score<B: Backend>(
        &self,
        decoder: &Decoder<B>,
        text: &Text,
        keys: Range<usize>,
        cache: &mut KvCache<B>,
    ) -> Result<BTreeMap<Head, (f32, Attention)>, NnError> {
        let all: Vec<Head> = decoder.heads().collect();
        let mut scored = BTreeMap::new();
        let asked = text.ask(&all, keys.clone());
        decoder.attention(
            decoder.embed(&text.inputs)?,
            cache,
            &asked,
            |head, weights| {
                let mut attention = Attention::new(keys.len());
                attention.extend(weights);
                // What is nowhere explains nothing.
                if attention.mass() >= ALIGNS {
                    let score = attention.explained(&attention.path());
                    if score >= ALIGNS {
                        scored.insert(head, (score, attention));
                    }
                }
            },
        )?;
        Ok(scored)
    }

    /// The mean attention of the heads that the cache has watched, if it has.
    fn watched<B: Backend>(
        &self,
        decoder: &Decoder<B>,
        text: &Text,
        cache: &KvCache<B>,
    ) -> Result<Option<Attention>, NnError> {
        let keys = self.audio.clone();
        let first = self.prompt.0 - 1;
        let at: Vec<usize> = text.begins.iter().map(|row| first + row).collect();
        let mut each = Vec::new();
        let visit = |_, weights: &[f32]| {
            let mut attention = Attention::new(keys.len());
            attention.extend(weights);
            each.push(attention);
        };
        let told = decoder.watched(cache, &at, keys.clone(), visit)?;
        Ok(told.then(|| Attention::mean(keys.len(), each.iter())))
    }

    /// The mean attention of these heads.
    fn mean<B: Backend>(
        &self,
        decoder: &Decoder<B>,
        text: &Text,
        heads: &[Head],
        cache: &mut KvCache<B>,
    ) -> Result<Attention, NnError> {
        let keys = self.audio.clone();
        let mut each = BTreeMap::new();
        let asked = text.ask(heads, keys.clone());
        decoder.attention(
            decoder.embed(&text.inputs)?,
            cache,
            &asked,
            |head, weights| {
                let attention = each.entry(head);
                let attention = attention.or_insert_with(|| Attention::new(keys.len()));
                attention.extend(weights);
            },
        )?;
        Ok(Attention::mean(keys.len(), each.values()))
    }

    /// Words at these audio positions.
    fn timed(&self, words: Vec<Spelled>, places: &[usize]) -> Vec<Word> {
        let sample = |place: usize| (place as f64 * self.samples_per_position) as u64;
        let samples = |time: Duration| (time.as_secs_f64() * f64::from(self.sample_rate)) as u64;
        let (before, behind) = (samples(ONSET.0), samples(ONSET.1));
        let mut earliest = 0;
        let mut spans = Vec::new();
        for &place in places {
            let near = sample(place).max(earliest);
            let range = earliest.max(near.saturating_sub(before))..near + behind;
            let start = self.onsets.onset(near, range).unwrap_or(near);
            earliest = start.max(sample(place));
            spans.push((start, start.max(sample(place + 1))));
        }
        let end_of_clip = samples(self.duration);
        let nexts = spans.iter().skip(1).map(|(start, _)| *start);
        let nexts: Vec<u64> = nexts.chain([end_of_clip]).collect();
        let time = |sample: u64| clip_time(sample, self.sample_rate).min(self.duration);
        let timed = words.into_iter().zip(spans.into_iter().zip(nexts));
        timed
            .map(|(word, ((start, heard), next))| Word {
                word: word.text,
                start: time(start),
                end: time(self.onsets.fade(heard, next).max(start)),
                confidence: Some(word.confidence),
                attention: None,
                spaced: word.spaced,
            })
            .collect()
    }
}

impl Text {
    /// The first so many tokens.
    fn first(&self, count: usize) -> Self {
        let begins = self.begins.iter().filter(|at| **at < count);
        Self {
            inputs: self.inputs.iter().copied().take(count).collect(),
            begins: begins.copied().collect(),
        }
    }

    /// What these heads attend to where words begin.
    fn ask<'a>(&'a self, heads: &'a [Head], keys: Range<usize>) -> AttentionRequest<'a> {
        AttentionRequest {
            heads,
            rows: &self.begins,
            keys,
        }
    }
}

/// The tokens that have text, each at its own number.
fn pieces<B: Backend>(model: &Voxtral<B>, tokens: &[Token]) -> Vec<Piece> {
    let pieces = (0..).zip(tokens).filter_map(|(at, token)| {
        Some(Piece {
            bytes: model.tokenizer.token_bytes(token.id)?.to_vec(),
            at,
            logprob: token.logprob,
        })
    });
    pieces.collect()
}

/// The words that are in the text: a stop string, and what follows it, is not.
fn within(text: &str, words: Vec<Spelled>) -> Vec<Spelled> {
    let mut rest = text;
    let mut is_there = |word: &Spelled| {
        rest = rest.trim_start();
        let found = rest.strip_prefix(word.text.as_str());
        rest = found.unwrap_or_default();
        found.is_some()
    };
    words
        .into_iter()
        .take_while(|word| is_there(word))
        .collect()
}
