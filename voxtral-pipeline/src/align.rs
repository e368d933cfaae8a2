//! When the words of a clip were spoken, from the decoder's own attention to the audio.
//!
//! Each audio position of the prompt stands for 80 ms (or what the configuration makes of it). When
//! the text is complete, its tokens are run once more, all at once, and some heads of attention are
//! written down: those that go along with the speech, see [`heads`]. Their mean where a word's first
//! piece is written gives the word a place in the audio ([`attention`]); it starts where the sound at
//! this place begins, as far as a pause tells. The idea is that of Whisper's word times; which
//! heads to trust is not known beforehand here, but found out on the audio itself. Where none
//! aligns, there are no times.

mod attention;
mod heads;

use std::ops::Range;
use std::time::Duration;

use voxtral_audio::Audio;
use voxtral_decoder::{Decoder, Head};
use voxtral_nn::{Backend, KvCache, NnError};

use crate::{
    PipelineError, Segment, Token, Voxtral, Word,
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
    sample_rate: u32,
    /// Length of the prompt, and its last token.
    prompt: (usize, u32),
    /// The prompt's positions with sound: not those that pad its last window.
    audio: Range<usize>,
    /// Samples of the clip in a position; it need not be whole.
    samples_per_position: f64,
}

/// A text that was generated, with the cache that it left.
pub(crate) struct Spoken<'a, B: Backend> {
    pub(crate) text: &'a str,
    pub(crate) tokens: &'a [Token],
    pub(crate) cache: &'a mut KvCache<B>,
}

/// The tokens of a text, as a pass over them sees them.
struct Text<'a> {
    /// The token whose position predicts the first.
    before: u32,
    tokens: &'a [Token],
    /// Whether a token begins a word: others are not asked where they look.
    begins: Vec<bool>,
}

impl Aligner {
    /// For a clip behind which this prompt was made.
    pub(crate) fn new<B: Backend>(
        model: &Voxtral<B>,
        audio: &Audio,
        prompt: &[u32],
    ) -> Option<Self> {
        let placeholder = model.placeholder().ok()?;
        let first = prompt.iter().position(|&id| id == placeholder)?;
        let (rate, samples) = (audio.sample_rate(), audio.samples().len());
        let ours = model.samples_per_token() as f64;
        let samples_per_position = ours * f64::from(rate) / f64::from(model.sample_rate());
        let positions = (samples as f64 / samples_per_position).ceil() as usize;
        let places = prompt[first..].iter().take_while(|&&id| id == placeholder);
        Some(Self {
            onsets: Onsets::of_clip(audio),
            duration: audio.duration(),
            sample_rate: rate,
            prompt: (prompt.len(), *prompt.last()?),
            audio: first..first + positions.min(places.count()),
            samples_per_position,
        })
    }

    /// The words and their times; nothing, and a warning, where no head of attention goes along
    /// with the speech.
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
        let tokens = &spoken.tokens[..=last.at as usize];
        let mut begins = vec![false; tokens.len()];
        words
            .iter()
            .for_each(|word| begins[word.at as usize] = true);
        let text = Text {
            before: self.prompt.1,
            tokens,
            begins,
        };
        spoken.cache.truncate(self.prompt.0 - 1)?;
        let attention = self.aligned(model, &text, words.len(), spoken.cache)?;
        let Some(attention) = attention else {
            tracing::warn!(
                "no head of attention goes along with the speech: the words have no times"
            );
            return Ok(None);
        };
        Ok(Some(self.timed(words, &attention.path())))
    }

    /// The text as one segment that takes the whole clip, where nothing tells more; none of no text.
    pub(crate) fn whole(&self, text: &str) -> Vec<Segment> {
        let segment = Segment {
            start: Duration::ZERO,
            end: self.duration,
            text: text.to_owned(),
            confidence: None,
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
        text: &Text<'_>,
        words: usize,
        cache: &mut KvCache<B>,
    ) -> Result<Option<Attention>, PipelineError> {
        let decoder = &model.decoder;
        if let Some(known) = model.known_heads.get() {
            let attention = self.mean(decoder, text, &known, cache)?;
            // One word alone explains nothing, see `Attention::explained`.
            if words < 2 || attention.explained(&attention.path()) >= ALIGNS {
                return Ok(Some(attention));
            }
        }
        let heads = choose(self.score(decoder, text, cache)?);
        tracing::debug!("heads that align: {heads:?}");
        if heads.is_empty() {
            return Ok(None);
        }
        model.known_heads.learn(&heads, words);
        Ok(Some(self.mean(decoder, text, &heads, cache)?))
    }

    /// What each head explains of the beginning of the text.
    fn score<B: Backend>(
        &self,
        decoder: &Decoder<B>,
        text: &Text<'_>,
        cache: &mut KvCache<B>,
    ) -> Result<Vec<(Head, f32)>, NnError> {
        let (tokens, positions) = CHOOSING;
        let text = text.first(tokens);
        let end = self.audio.end.min(self.audio.start + positions);
        let keys = self.audio.start..end;
        let all: Vec<Head> = decoder.heads().collect();
        let mut scored = Vec::new();
        let embeddings = decoder.embed(&text.inputs())?;
        decoder.attention(embeddings, cache, &all, keys.clone(), |head, weights| {
            let mut attention = Attention::new(keys.len());
            text.add(&mut attention, 0, weights, keys.len());
            // What is nowhere explains nothing.
            if attention.mass() >= ALIGNS {
                let path = attention.path();
                scored.push((head, attention.explained(&path)));
            }
        })?;
        Ok(scored)
    }

    /// The mean attention of these heads.
    fn mean<B: Backend>(
        &self,
        decoder: &Decoder<B>,
        text: &Text<'_>,
        heads: &[Head],
        cache: &mut KvCache<B>,
    ) -> Result<Attention, NnError> {
        let keys = self.audio.clone();
        let mut attention = Attention::new(keys.len());
        let (mut sum, mut added, mut row) = (Vec::new(), 0, 0);
        let embeddings = decoder.embed(&text.inputs())?;
        decoder.attention(embeddings, cache, heads, keys.clone(), |_, weights| {
            sum.resize(weights.len(), 0.0_f32);
            for (sum, weight) in sum.iter_mut().zip(weights) {
                *sum += weight / heads.len() as f32;
            }
            added += 1;
            // The same positions of all heads come behind each other.
            if added == heads.len() {
                text.add(&mut attention, row, &sum, keys.len());
                row += sum.len() / keys.len();
                sum.clear();
                added = 0;
            }
        })?;
        Ok(attention)
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
                spaced: word.spaced,
            })
            .collect()
    }
}

impl Text<'_> {
    /// The first so many tokens.
    fn first(&self, count: usize) -> Self {
        let count = count.min(self.tokens.len());
        Self {
            before: self.before,
            tokens: &self.tokens[..count],
            begins: self.begins[..count].to_vec(),
        }
    }

    /// What is run: at each token's place the one before, whose position predicts it.
    fn inputs(&self) -> Vec<u32> {
        let before = self.tokens.iter().map(|token| token.id);
        std::iter::once(self.before)
            .chain(before)
            .take(self.tokens.len())
            .collect()
    }

    /// Adds the rows of words among these, `[rows, positions]`, of which this is the first.
    fn add(&self, attention: &mut Attention, first: usize, weights: &[f32], positions: usize) {
        let rows = weights.chunks_exact(positions);
        for (row, begins) in rows.zip(&self.begins[first..]) {
            if *begins {
                attention.push(row);
            }
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
