//! Audio of members on its way through the encoder, a few layers at a time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use burn_tensor::Tensor;
use voxtral_encoder::Encoding;
use voxtral_nn::Backend;

use super::{Entry, alone};
use crate::{PipelineError, Voxtral, listening::WINDOWS_PER_BATCH};

/// How long members that are behind their audio wait for that of others, in a pass. A layer of a few
/// windows is never interrupted.
const ENCODE_BESIDE: Duration = Duration::from_millis(250);

/// Windows that are encoded together.
struct Together<B: Backend> {
    encoding: Encoding<B>,
    /// Members, and how many windows of each.
    windows: Vec<(u64, usize)>,
    /// How many windows their callers had before, at most: the lowest goes first.
    turn: usize,
}

/// All that is being encoded. Members have windows in one of them at most.
pub(super) struct Encodings<B: Backend>(Vec<Together<B>>);

impl<B: Backend> Default for Encodings<B> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<B: Backend> Entry<'_, B> {
    /// Windows that the caller's member had before the next of this one.
    fn turn(&self) -> usize {
        self.before + self.listening.progress().0
    }

    pub(super) fn fail(&mut self, error: PipelineError) {
        self.member.writing().sequence.fail(error);
    }
}

impl<B: Backend> Encodings<B> {
    /// Runs the layers of what is most urgent, for a short time.
    pub(super) fn advance(&mut self, model: &Voxtral<B>, members: &mut [Entry<'_, B>]) {
        for entry in members.iter_mut() {
            if entry.listening.left() > 0
                && let Err(error) = entry.member.writing().sequence.cancel.check()
            {
                entry.fail(error);
            }
        }
        // Nobody waits for those whose members have left.
        self.0.retain(|together| {
            let mut left = together.windows.iter();
            left.any(|(id, _)| members.iter().any(|entry| entry.id == *id))
        });
        self.begin(model, members);
        let Some(at) = (0..self.0.len()).min_by_key(|&at| self.0[at].turn) else {
            return;
        };
        let mut together = self.0.remove(at);
        let started = Instant::now();
        while together.encoding.layers_left() > 0 && started.elapsed() < ENCODE_BESIDE {
            together.encoding = model.encoder.advance(together.encoding);
        }
        let ended = together.encoding.layers_left() == 0;
        let taken = started.elapsed();
        for (id, _) in &together.windows {
            if let Some(entry) = members.iter_mut().find(|entry| entry.id == *id) {
                entry.member.writing().timings.encoder += taken;
            }
        }
        if ended {
            deliver(model, together, members);
        } else {
            self.0.push(together);
        }
    }

    /// Begins with windows that wait, where they are more urgent than all that is being encoded.
    fn begin(&mut self, model: &Voxtral<B>, members: &mut [Entry<'_, B>]) {
        let busy = |id: u64| {
            let mut windows = self.0.iter().flat_map(|together| &together.windows);
            windows.any(|(other, _)| *other == id)
        };
        let waiting = members.iter_mut().filter_map(|entry| {
            let over = entry.member.writing().sequence.has_ended();
            (entry.listening.left() > 0 && !over && !busy(entry.id)).then_some((entry, 0))
        });
        let mut waiting: Vec<_> = waiting.collect();
        let mut turn = 0;
        for _ in 0..WINDOWS_PER_BATCH {
            let open = waiting.iter_mut();
            let open = open.filter(|(entry, taken)| *taken < entry.listening.left());
            let Some((entry, taken)) = open.min_by_key(|(entry, taken)| entry.turn() + taken)
            else {
                break;
            };
            turn = turn.max(entry.turn() + *taken);
            *taken += 1;
        }
        waiting.retain(|(_, taken)| *taken > 0);
        if waiting.is_empty() || self.0.iter().any(|together| together.turn <= turn) {
            return;
        }
        let mut windows = Vec::new();
        let mut mel = Vec::new();
        for (entry, taken) in &mut waiting {
            let timings = &mut entry.member.writing().timings;
            match alone(|| entry.listening.take(model, *taken, timings)) {
                Ok(features) => {
                    mel.push(features);
                    windows.push((entry.id, *taken));
                }
                Err(error) => entry.fail(error),
            }
        }
        if mel.is_empty() {
            return;
        }
        match model.encoder.begin(Tensor::cat(mel, 0)) {
            Ok(encoding) => self.0.push(Together {
                encoding,
                windows,
                turn,
            }),
            Err(error) => {
                let error = Arc::new(error);
                for (entry, _) in waiting {
                    entry.fail(PipelineError::Pass(Arc::clone(&error)));
                }
            }
        }
    }
}

/// Gives members the embeddings of their windows.
fn deliver<B: Backend>(model: &Voxtral<B>, together: Together<B>, members: &mut [Entry<'_, B>]) {
    let hidden = model.encoder.end(together.encoding);
    let encoded = match model.projector.forward(hidden) {
        Ok(encoded) => encoded,
        Err(error) => {
            let error = Arc::new(error);
            let is_in = |id| together.windows.iter().any(|(other, _)| *other == id);
            for entry in members.iter_mut().filter(|entry| is_in(entry.id)) {
                entry.fail(PipelineError::Pass(Arc::clone(&error)));
            }
            return;
        }
    };
    let [_, embeddings, width] = encoded.dims();
    let mut first = 0;
    for (id, windows) in together.windows {
        let piece = encoded.clone().slice_dim(0, first..first + windows);
        first += windows;
        let Some(entry) = members.iter_mut().find(|entry| entry.id == id) else {
            continue;
        };
        let fusion = &mut entry.member.writing().sequence.fusion;
        fusion.push(piece.reshape([1, windows * embeddings, width]));
        if entry.listening.left() == 0 {
            fusion.complete();
        }
        let (done, all) = entry.listening.progress();
        let called = alone(|| {
            entry.on_window.call(done, all);
            Ok(())
        });
        if let Err(error) = called {
            entry.fail(error);
        }
    }
}
