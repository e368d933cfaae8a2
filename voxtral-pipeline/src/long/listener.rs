//! Who hears the windows: the model, or in tests a script.

use voxtral_audio::Audio;
use voxtral_nn::Backend;

use crate::{BatchEvent, OnWindow, PipelineError, TranscribeOptions, Transcript, Voxtral};

/// A stretch of audio that is to be heard.
pub(crate) struct Job {
    /// Tells it from all others of a recording.
    pub(crate) id: usize,
    /// Its first sample in the recording.
    pub(crate) start: u64,
    pub(crate) audio: Audio,
    pub(crate) options: TranscribeOptions,
}

/// Hears stretches of audio, together if it can.
pub(super) trait Listener {
    /// What is said in each of them, in their order, with times from its own beginning.
    fn hear(&mut self, jobs: &[Job]) -> Vec<Result<Transcript, PipelineError>>;
}

/// A model that takes clips.
pub(super) struct Model<'m, B: Backend>(pub(super) &'m Voxtral<B>);

impl<B: Backend> Listener for Model<'_, B> {
    fn hear(&mut self, jobs: &[Job]) -> Vec<Result<Transcript, PipelineError>> {
        let mut batch = self.0.batch();
        let mut results: Vec<_> = (0..jobs.len()).map(|_| None).collect();
        for (number, job) in jobs.iter().enumerate() {
            tracing::debug!(first_sample = job.start, duration = ?job.audio.duration(), "hearing");
            let options = TranscribeOptions {
                on_window: OnWindow::default(),
                ..job.options.clone()
            };
            if let Err(error) = batch.add(number, job.audio.clone(), &options) {
                results[number] = Some(Err(error));
            }
        }
        while !batch.is_empty() {
            for (number, event) in batch.advance() {
                match event {
                    BatchEvent::Transcript(transcript) => results[number] = Some(Ok(*transcript)),
                    BatchEvent::Failed(error) => results[number] = Some(Err(error)),
                    BatchEvent::Step(_) | BatchEvent::Answer(_) | BatchEvent::Recording(_) => {}
                }
            }
        }
        let unfinished = || Err(PipelineError::Unfinished);
        let results = results.into_iter();
        results
            .map(|result| result.unwrap_or_else(unfinished))
            .collect()
    }
}
