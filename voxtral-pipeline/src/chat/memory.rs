//! What was computed of a conversation, and how much of it another begins with.

use std::sync::Arc;

use voxtral_audio::Audio;
use voxtral_nn::{Backend, KvCache};

use crate::{PipelineError, PromptSize};

/// A conversation as the decoder takes it.
#[derive(Debug, Clone, Default)]
pub(super) struct Prompt {
    pub(super) ids: Vec<u32>,
    /// The clips in the runs of the placeholder, one each.
    pub(super) clips: Vec<Arc<Audio>>,
    pub(super) placeholder: u32,
}

/// A beginning of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Beginning {
    pub(super) ids: usize,
    /// Clips that are in it as a whole.
    pub(super) clips: usize,
}

/// The cache of the last conversation, and what is in it.
pub(crate) struct Memory<B: Backend> {
    cache: Option<KvCache<B>>,
    held: Prompt,
}

impl<B: Backend> Default for Memory<B> {
    fn default() -> Self {
        Self {
            cache: None,
            held: Prompt::default(),
        }
    }
}

impl Prompt {
    pub(super) fn size(&self) -> PromptSize {
        let audio = self.ids.iter().filter(|&&id| id == self.placeholder);
        PromptSize {
            tokens: self.ids.len(),
            audio_tokens: audio.count(),
        }
    }

    /// How much of this prompt another begins with too: the same ids for the same sound.
    fn common(&self, other: &Self) -> Beginning {
        let mut end = Beginning { ids: 0, clips: 0 };
        let is_place = |a: &u32, b: &u32| (*a == self.placeholder) == (*b == self.placeholder);
        let runs = self.ids.chunk_by(is_place);
        for run in runs {
            let rest = &other.ids[end.ids..];
            let same = run.iter().zip(rest).take_while(|(a, b)| a == b).count();
            if run[0] != self.placeholder {
                end.ids += same;
                if same < run.len() {
                    break;
                }
                continue;
            }
            let clip = self.clips.get(end.clips).zip(other.clips.get(end.clips));
            if same < run.len() || !clip.is_some_and(|(a, b)| Arc::ptr_eq(a, b) || a == b) {
                break;
            }
            end.ids += same;
            end.clips += 1;
        }
        end
    }
}

impl<B: Backend> Memory<B> {
    /// What is held of the beginning of this prompt, but for its last token, which must be run to
    /// tell what follows it.
    pub(super) fn common(&self, prompt: &Prompt) -> Beginning {
        let run = prompt.ids.len().saturating_sub(1);
        let most = Prompt {
            ids: prompt.ids[..run].to_vec(),
            ..prompt.clone()
        };
        match self.cache {
            Some(_) => self.held.common(&most),
            None => Beginning { ids: 0, clips: 0 },
        }
    }

    /// The cache with so many of its positions, or a new one. What is held is forgotten, until it
    /// is [put back](Self::hold).
    pub(super) fn take(
        &mut self,
        positions: usize,
        new: impl FnOnce() -> KvCache<B>,
    ) -> Result<KvCache<B>, PipelineError> {
        let mut cache = self.cache.take().unwrap_or_else(new);
        self.held = Prompt::default();
        cache.truncate(positions)?;
        Ok(cache)
    }

    /// Remembers a prompt and the tokens behind it, of which a cache holds as many as were run.
    pub(super) fn hold(
        &mut self,
        mut prompt: Prompt,
        answer: impl Iterator<Item = u32>,
        cache: KvCache<B>,
    ) {
        prompt.ids.extend(answer);
        prompt.ids.truncate(cache.len());
        self.held = prompt;
        self.cache = Some(cache);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: u32 = 9;

    fn clip(sample: f32) -> Arc<Audio> {
        Arc::new(Audio::new(vec![sample], 16_000).unwrap())
    }

    fn prompt(ids: &[u32], clips: &[&Arc<Audio>]) -> Prompt {
        Prompt {
            ids: ids.to_vec(),
            clips: clips.iter().map(|&clip| Arc::clone(clip)).collect(),
            placeholder: PLACE,
        }
    }

    #[test]
    fn a_beginning_is_common_as_far_as_ids_and_sound_are_the_same() {
        let (a, b) = (clip(0.1), clip(0.2));
        let held = prompt(&[1, 3, 9, 9, 5, 9, 9, 4, 7], &[&a, &b]);
        for (other, ids, clips) in [
            (prompt(&[], &[]), 0, 0),
            (prompt(&[1, 3, 5], &[]), 2, 0),
            (prompt(&[1, 3, 9, 9, 5, 9, 9, 4, 7], &[&a, &b]), 9, 2),
            (prompt(&[1, 3, 9, 9, 5, 9, 9, 4, 7, 8], &[&a, &b]), 9, 2),
            (prompt(&[1, 3, 9, 9, 5, 9, 9, 4, 8], &[&a, &b]), 8, 2),
            (prompt(&[1, 3, 9, 9, 5, 9, 9, 4, 7], &[&a, &a]), 5, 1),
            (prompt(&[1, 3, 9, 9, 5, 9, 9, 4, 7], &[&b, &b]), 2, 0),
            // The same sound, held twice.
            (prompt(&[1, 3, 9, 9, 5], &[&clip(0.1)]), 5, 1),
            // Of a clip, all or nothing.
            (prompt(&[1, 3, 9], &[&a]), 2, 0),
            (prompt(&[1, 3, 9, 9, 9], &[&a]), 4, 1),
            (prompt(&[2, 3, 9, 9, 5], &[&a]), 0, 0),
        ] {
            assert_eq!(held.common(&other), Beginning { ids, clips }, "{other:?}");
        }
    }
}
