//! How audio embeddings reach the decoder.

use std::collections::VecDeque;

use burn_tensor::Tensor;
use voxtral_decoder::Decoder;
use voxtral_nn::Backend;

use crate::PipelineError;

/// Gives the decoder its input embeddings, of the prompt and of each generated token.
///
/// The 2507 models put audio in the place of placeholder tokens ([`Splice`]), Realtime adds audio
/// to the token at every position ([`Sum`]).
pub(crate) trait AudioFusion<B: Backend> {
    /// Embeddings of the prompt, `[1, ids, width]`; `None` while there is too little audio.
    fn prompt(
        &mut self,
        decoder: &Decoder<B>,
        ids: &[u32],
    ) -> Result<Option<Tensor<B, 3>>, PipelineError>;

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

/// Audio embeddings replace the placeholder's, one each, in order.
pub(crate) struct Splice<B: Backend> {
    /// `[1, embeddings, width]` of all clips; none where there are no clips.
    pub(crate) audio: Option<Tensor<B, 3>>,
    /// The placeholder's id.
    pub(crate) placeholder: u32,
}

impl<B: Backend> AudioFusion<B> for Splice<B> {
    fn prompt(
        &mut self,
        decoder: &Decoder<B>,
        ids: &[u32],
    ) -> Result<Option<Tensor<B, 3>>, PipelineError> {
        let embeddings = self.audio.as_ref().map_or(0, |audio| audio.dims()[1]);
        let placeholders = ids.iter().filter(|&&id| id == self.placeholder).count();
        if placeholders != embeddings {
            return Err(PipelineError::AudioCount {
                placeholders,
                embeddings,
            });
        }
        let mut used = 0;
        let mut parts = Vec::new();
        for run in ids.chunk_by(|a, b| (*a == self.placeholder) == (*b == self.placeholder)) {
            match &self.audio {
                Some(audio) if run[0] == self.placeholder => {
                    let places = used..used + run.len();
                    used = places.end;
                    parts.push(audio.clone().slice_dim(1, places));
                }
                _ => parts.push(decoder.embed(run)?),
            }
        }
        Ok(Some(Tensor::cat(parts, 1)))
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
pub(crate) struct Sum<B: Backend> {
    /// Encoded pieces `[1, n, width]`, of which the first may be used in part.
    pieces: VecDeque<Tensor<B, 3>>,
    /// Embeddings of the first piece that are used.
    used: usize,
    /// Embeddings that are not used.
    waiting: usize,
}

impl<B: Backend> Sum<B> {
    pub(crate) fn new() -> Self {
        Self {
            pieces: VecDeque::new(),
            used: 0,
            waiting: 0,
        }
    }

    /// Adds what was encoded, `[1, n, width]`.
    pub(crate) fn push(&mut self, piece: Tensor<B, 3>) {
        self.waiting += piece.dims()[1];
        self.pieces.push_back(piece);
    }

    /// Embeddings that are not used.
    #[cfg(test)]
    pub(crate) fn left(&self) -> usize {
        self.waiting
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::new();
    }

    /// The next embeddings, `[1, count, width]`, if there are as many.
    fn peek(&self, count: usize) -> Option<Tensor<B, 3>> {
        if count == 0 || self.waiting < count {
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
}

impl<B: Backend> AudioFusion<B> for Sum<B> {
    fn prompt(
        &mut self,
        decoder: &Decoder<B>,
        ids: &[u32],
    ) -> Result<Option<Tensor<B, 3>>, PipelineError> {
        let Some(audio) = self.peek(ids.len()) else {
            return Ok(None);
        };
        self.advance(ids.len());
        Ok(Some(audio + decoder.embed(ids)?))
    }

    fn steps(
        &self,
        decoder: &Decoder<B>,
        ids: &[u32],
    ) -> Result<Option<Tensor<B, 3>>, PipelineError> {
        let count = ids.len().min(self.waiting);
        match self.peek(count) {
            Some(audio) => Ok(Some(audio + decoder.embed(&ids[..count])?)),
            None => Ok(None),
        }
    }

    fn advance(&mut self, count: usize) {
        self.waiting -= count;
        self.used += count;
        while let Some(first) = self.pieces.front()
            && self.used >= first.dims()[1]
        {
            self.used -= first.dims()[1];
            self.pieces.pop_front();
        }
    }
}
