//! How audio embeddings reach the decoder.

use std::collections::VecDeque;
use std::ops::Range;

use burn_tensor::Tensor;
use voxtral_decoder::Decoder;
use voxtral_nn::Backend;

use crate::PipelineError;

/// Gives the decoder its input embeddings, of the prompt and of each generated token.
///
/// The 2507 models put audio in the place of placeholder tokens ([`Splice`]), Realtime adds audio
/// to the token at every position ([`Sum`]).
pub(crate) trait AudioFusion<B: Backend> {
    /// Whether the audio of a prompt is there.
    fn is_ready(&self, prompt: &[u32]) -> Result<bool, PipelineError>;

    /// Embeddings of a piece of a prompt, `[1, positions, width]`. The pieces follow each other, and
    /// their audio is used up.
    fn piece(
        &mut self,
        decoder: &Decoder<B>,
        prompt: &[u32],
        piece: Range<usize>,
    ) -> Result<Tensor<B, 3>, PipelineError>;

    /// The embeddings of as many of the next tokens as there is audio for, `[1, at most ids,
    /// width]`; `None` if there is for none. It is used up by [`advance`](Self::advance) alone:
    /// tokens may be guesses.
    fn steps(
        &self,
        decoder: &Decoder<B>,
        ids: &[u32],
    ) -> Result<Option<Tensor<B, 3>>, PipelineError>;

    /// Goes on behind the next `count` tokens.
    fn advance(&mut self, count: usize);
}

/// Audio embeddings that wait to be used, in the pieces in which they were encoded.
struct Waiting<B: Backend> {
    /// `[1, n, width]` each, of which the first may be used in part.
    pieces: VecDeque<Tensor<B, 3>>,
    /// Embeddings of the first piece that are used.
    used: usize,
    /// Embeddings that are not used.
    left: usize,
}

impl<B: Backend> Waiting<B> {
    fn new() -> Self {
        Self {
            pieces: VecDeque::new(),
            used: 0,
            left: 0,
        }
    }

    fn push(&mut self, piece: Tensor<B, 3>) {
        self.left += piece.dims()[1];
        self.pieces.push_back(piece);
    }

    /// The next embeddings, `[1, count, width]`, if there are as many.
    fn peek(&self, count: usize) -> Option<Tensor<B, 3>> {
        if count == 0 || self.left < count {
            return None;
        }
        let mut parts = Vec::new();
        let (mut start, mut missing) = (self.used, count);
        for piece in &self.pieces {
            let end = piece.dims()[1].min(start + missing);
            parts.push(piece.clone().slice_dim(1, start..end));
            missing -= end - start;
            if missing == 0 {
                break;
            }
            start = 0;
        }
        Some(Tensor::cat(parts, 1))
    }

    fn advance(&mut self, count: usize) {
        self.left -= count;
        self.used += count;
        while let Some(first) = self.pieces.front()
            && self.used >= first.dims()[1]
        {
            self.used -= first.dims()[1];
            self.pieces.pop_front();
        }
    }
}

/// Audio embeddings replace the placeholder's, one each, in order.
pub(crate) struct Splice<B: Backend> {
    audio: Waiting<B>,
    /// Whether that is all.
    complete: bool,
    /// The placeholder's id.
    placeholder: u32,
}

impl<B: Backend> Splice<B> {
    /// Waits for the embeddings that take the places of this token.
    pub(crate) fn new(placeholder: u32) -> Self {
        Self {
            audio: Waiting::new(),
            complete: false,
            placeholder,
        }
    }

    /// Adds what was encoded, `[1, n, width]`.
    pub(crate) fn push(&mut self, piece: Tensor<B, 3>) {
        self.audio.push(piece);
    }

    /// That was all.
    pub(crate) fn complete(&mut self) {
        self.complete = true;
    }

    fn places(&self, ids: &[u32]) -> usize {
        ids.iter().filter(|&&id| id == self.placeholder).count()
    }
}

impl<B: Backend> AudioFusion<B> for Splice<B> {
    fn is_ready(&self, prompt: &[u32]) -> Result<bool, PipelineError> {
        let (placeholders, embeddings) = (self.places(prompt), self.audio.left);
        if self.complete && placeholders != embeddings {
            return Err(PipelineError::AudioCount {
                placeholders,
                embeddings,
            });
        }
        Ok(self.complete)
    }

    fn piece(
        &mut self,
        decoder: &Decoder<B>,
        prompt: &[u32],
        piece: Range<usize>,
    ) -> Result<Tensor<B, 3>, PipelineError> {
        let mut parts = Vec::new();
        let is_place = |id: &u32| *id == self.placeholder;
        for run in prompt[piece].chunk_by(|a, b| is_place(a) == is_place(b)) {
            match self.audio.peek(self.places(run)) {
                Some(audio) => {
                    parts.push(audio);
                    self.audio.advance(run.len());
                }
                None => parts.push(decoder.embed(run)?),
            }
        }
        Ok(Tensor::cat(parts, 1))
    }

    fn steps(
        &self,
        decoder: &Decoder<B>,
        ids: &[u32],
    ) -> Result<Option<Tensor<B, 3>>, PipelineError> {
        Ok(Some(decoder.embed(ids)?))
    }

    fn advance(&mut self, _count: usize) {}
}

/// Each position takes the sum of a token's embedding and the next audio embedding.
pub(crate) struct Sum<B: Backend>(Waiting<B>);

impl<B: Backend> Sum<B> {
    pub(crate) fn new() -> Self {
        Self(Waiting::new())
    }

    /// Adds what was encoded, `[1, n, width]`.
    pub(crate) fn push(&mut self, piece: Tensor<B, 3>) {
        self.0.push(piece);
    }

    /// Embeddings that are not used.
    #[cfg(test)]
    pub(crate) fn left(&self) -> usize {
        self.0.left
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::new();
    }
}

impl<B: Backend> AudioFusion<B> for Sum<B> {
    fn is_ready(&self, prompt: &[u32]) -> Result<bool, PipelineError> {
        Ok(self.0.left >= prompt.len())
    }

    fn piece(
        &mut self,
        decoder: &Decoder<B>,
        prompt: &[u32],
        piece: Range<usize>,
    ) -> Result<Tensor<B, 3>, PipelineError> {
        let ids = &prompt[piece];
        let audio = self.0.peek(ids.len());
        let audio = audio.ok_or(PipelineError::AudioCount {
            placeholders: ids.len(),
            embeddings: self.0.left,
        })?;
        self.0.advance(ids.len());
        Ok(audio + decoder.embed(ids)?)
    }

    fn steps(
        &self,
        decoder: &Decoder<B>,
        ids: &[u32],
    ) -> Result<Option<Tensor<B, 3>>, PipelineError> {
        let count = ids.len().min(self.0.left);
        match self.0.peek(count) {
            Some(audio) => Ok(Some(audio + decoder.embed(&ids[..count])?)),
            None => Ok(None),
        }
    }

    fn advance(&mut self, count: usize) {
        self.0.advance(count);
    }
}
