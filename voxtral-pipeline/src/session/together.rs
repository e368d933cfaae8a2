//! Sessions that write together: one pass of the decoder for the new tokens of all, products on the
//! rows of all at once, attention of each on its own ring.

use voxtral_nn::Backend;

use super::{Session, State};
use crate::{
    PipelineError, Step,
    generate::{Pace, advance},
};

impl<B: Backend> Session<'_, B> {
    /// Takes sound as [`push`](Self::push) does and encodes it, but leaves its last tokens to
    /// [`write_together`](Self::write_together), or to whatever is called next. Steps that are made
    /// none the less, as of more sound than is [encoded at once](Self::samples_per_pass), are given.
    ///
    /// # Errors
    /// Those of [`push`](Self::push).
    pub fn prepare(&mut self, samples: &[f32]) -> Result<Vec<Step>, PipelineError> {
        self.check_open()?;
        let mut steps = self.run(Self::decode)?;
        steps.extend(self.take_in(samples, |_| Ok(()))?);
        Ok(steps)
    }

    /// Decodes what these sessions have [prepared](Self::prepare), and gives the steps of each, in
    /// their order. Sessions of one model with one delay share passes of the decoder, and nothing
    /// else: each writes what it writes alone. On the CPU, the scores of many together differ from those
    /// of one in the last digits, as those of a [`Batch`](crate::Batch) do.
    ///
    /// ```
    /// use burn_flex::Flex;
    /// use voxtral_pipeline::{Session, SessionOptions, Voxtral};
    ///
    /// # fn main() -> Result<(), voxtral_pipeline::PipelineError> {
    /// let model = Voxtral::<Flex>::builder().demo_realtime()?;
    /// let speech = model.read_audio("../samples/digits-stream-en.wav")?;
    /// let mut one = model.session(&SessionOptions::default())?;
    /// let mut other = model.session(&SessionOptions::default())?;
    /// for piece in speech.samples().chunks(1600) {
    ///     one.prepare(piece)?;
    ///     other.prepare(piece)?;
    ///     for steps in Session::write_together(&mut [&mut one, &mut other]) {
    ///         steps?;
    ///     }
    /// }
    /// assert_eq!(one.finish()?.text, other.finish()?.text);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Of a session, those of [`push`](Self::push), which concern no other; an error of a pass
    /// itself is that of all in it.
    pub fn write_together(sessions: &mut [&mut Self]) -> Vec<Result<Vec<Step>, PipelineError>> {
        let mut kinds: Vec<_> = sessions.iter().map(|session| session.kind()).collect();
        kinds.sort_unstable();
        kinds.dedup();
        for kind in kinds {
            let alike = sessions
                .iter_mut()
                .filter(|session| session.state == State::Open && session.kind() == kind);
            let mut decoder = None;
            let mut sequences = Vec::new();
            for session in alike {
                let Self {
                    decoder: theirs,
                    sequence,
                    ..
                } = &mut **session;
                decoder.get_or_insert(&*theirs);
                sequences.push(sequence);
            }
            if let Some(decoder) = decoder {
                let mut pace = Pace::default();
                while advance(
                    decoder,
                    sequences.iter_mut().map(|one| &mut **one),
                    &mut pace,
                ) {}
            }
        }
        let written = sessions.iter_mut().map(|session| session.write_made());
        written.collect()
    }

    /// Sessions that are alike in this can share passes.
    fn kind(&self) -> (*const (), usize) {
        let model: *const _ = self.model;
        (model.cast(), self.layout.delay_tokens)
    }

    /// Writes down what was made.
    fn write_made(&mut self) -> Result<Vec<Step>, PipelineError> {
        self.check_open()?;
        self.run(|session| {
            while let Some(choice) = session.sequence.take() {
                session.write(choice?);
            }
            Ok(())
        })
    }
}
