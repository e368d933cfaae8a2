//! How audio embeddings reach the decoder.

use burn_tensor::Tensor;
use voxtral_decoder::Decoder;
use voxtral_nn::Backend;

use crate::PipelineError;

/// Gives the decoder its input embeddings, of the prompt and of each generated token.
///
/// The 2507 models put audio in the place of placeholder tokens ([`Splice`]); a model that adds
/// audio at every position is another implementation of this trait.
pub(crate) trait AudioFusion<B: Backend> {
    /// Embeddings of the prompt, `[1, ids, width]`.
    fn prompt(&self, decoder: &Decoder<B>, ids: &[u32]) -> Result<Tensor<B, 3>, PipelineError>;

    /// The embedding of the token at this position, `[1, 1, width]`; `None` where the audio is
    /// used up and nothing can follow.
    fn step(
        &self,
        decoder: &Decoder<B>,
        id: u32,
        position: usize,
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
    fn prompt(&self, decoder: &Decoder<B>, ids: &[u32]) -> Result<Tensor<B, 3>, PipelineError> {
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
        Ok(Tensor::cat(parts, 1))
    }

    fn step(
        &self,
        decoder: &Decoder<B>,
        id: u32,
        _position: usize,
    ) -> Result<Option<Tensor<B, 3>>, PipelineError> {
        Ok(Some(decoder.embed(&[id])?))
    }
}
