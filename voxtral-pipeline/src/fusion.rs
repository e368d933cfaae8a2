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

    /// The embedding of the next token, `[1, 1, width]`; `None` while there is no audio for it.
    fn step(
        &mut self,
        decoder: &Decoder<B>,
        id: u32,
    ) -> Result<Option<Tensor<B, 3>>, PipelineError>;
}

/// Audio embeddings replace the placeholder's, one each, in order.
pub(crate) struct Splice<B: Backend> {
    /// `[1, embeddings, width]` of all clips.
    pub(crate) audio: Tensor<B, 3>,
    /// The placeholder's id.
    pub(crate) placeholder: u32,
}

impl<B: Backend> AudioFusion<B> for Splice<B> {
    fn prompt(
        &mut self,
        decoder: &Decoder<B>,
        ids: &[u32],
    ) -> Result<Option<Tensor<B, 3>>, PipelineError> {
        let embeddings = self.audio.dims()[1];
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
            if run[0] == self.placeholder {
                let clip = used..used + run.len();
                used = clip.end;
                parts.push(self.audio.clone().slice_dim(1, clip));
            } else {
                parts.push(decoder.embed(run)?);
            }
        }
        Ok(Some(Tensor::cat(parts, 1)))
    }

    fn step(
        &mut self,
        decoder: &Decoder<B>,
        id: u32,
    ) -> Result<Option<Tensor<B, 3>>, PipelineError> {
        Ok(Some(decoder.embed(&[id])?))
    }
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

    pub(crate) fn clear(&mut self) {
        *self = Self::new();
    }

    /// The next embeddings, `[1, count, width]`, if there are as many.
    fn take(&mut self, count: usize) -> Option<Tensor<B, 3>> {
        if self.waiting < count {
            return None;
        }
        let mut parts = Vec::new();
        let mut missing = count;
        while missing > 0 {
            let first = self.pieces.front()?;
            let [_, len, _] = first.dims();
            let end = len.min(self.used + missing);
            parts.push(first.clone().slice_dim(1, self.used..end));
            missing -= end - self.used;
            self.used = end;
            if end == len {
                self.pieces.pop_front();
                self.used = 0;
            }
        }
        self.waiting -= count;
        Some(Tensor::cat(parts, 1))
    }
}

impl<B: Backend> AudioFusion<B> for Sum<B> {
    fn prompt(
        &mut self,
        decoder: &Decoder<B>,
        ids: &[u32],
    ) -> Result<Option<Tensor<B, 3>>, PipelineError> {
        match self.take(ids.len()) {
            Some(audio) => Ok(Some(audio + decoder.embed(ids)?)),
            None => Ok(None),
        }
    }

    fn step(
        &mut self,
        decoder: &Decoder<B>,
        id: u32,
    ) -> Result<Option<Tensor<B, 3>>, PipelineError> {
        match self.take(1) {
            Some(audio) => Ok(Some(audio + decoder.embed(&[id])?)),
            None => Ok(None),
        }
    }
}
