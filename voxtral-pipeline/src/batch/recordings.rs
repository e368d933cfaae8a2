//! Recordings among the members of a batch: their windows come and go as clips.

use std::sync::Arc;

use voxtral_nn::Backend;

use super::{Batch, BatchEvent, alone};
use crate::{OnWindow, PipelineError, Recording, TranscribeOptions, long::Job};

/// A recording, and what of it is being heard.
pub(super) struct Course {
    pub(super) number: usize,
    recording: Recording,
    /// Jobs that are members.
    pub(super) open: usize,
    /// Jobs that were given.
    given: usize,
    /// What happened and nobody was told.
    told: Vec<BatchEvent>,
    /// Whether it failed or ended.
    over: bool,
}

impl Course {
    pub(super) fn new(number: usize, recording: Recording) -> Self {
        Self {
            number,
            recording,
            open: 0,
            given: 0,
            told: Vec::new(),
            over: false,
        }
    }

    /// Stretches to hear now.
    fn wanted(&mut self) -> Result<Vec<Job>, PipelineError> {
        loop {
            while let Some(event) = self.recording.event()? {
                self.told.push(BatchEvent::Recording(event));
            }
            let room = self.recording.room().saturating_sub(self.open);
            if self.recording.has_ended() || room == 0 {
                return Ok(Vec::new());
            }
            let jobs = self.recording.wanted(room)?;
            if !jobs.is_empty() || !self.recording.is_settled() {
                return Ok(jobs);
            }
        }
    }

    fn fail(&mut self, error: PipelineError) {
        if !self.over {
            self.told.push(BatchEvent::Failed(error));
            self.over = true;
        }
    }
}

impl<B: Backend> Batch<'_, B> {
    /// Adds what recordings want to be heard.
    pub(super) fn hear_recordings(&mut self, events: &mut Vec<(usize, BatchEvent)>) {
        let mut courses = std::mem::take(&mut self.recordings);
        for course in &mut courses {
            match alone(|| course.wanted()) {
                Ok(jobs) => {
                    for job in jobs {
                        self.hear(course, job);
                    }
                }
                Err(error) => course.fail(error),
            }
        }
        self.recordings = courses;
        self.tell_recordings(events);
    }

    fn hear(&mut self, course: &mut Course, job: Job) {
        let options = TranscribeOptions {
            on_window: OnWindow::default(),
            ..job.options
        };
        let owner = (course.number, Some(job.id), course.given);
        course.given += 1;
        match self.add_clip(owner, Arc::new(job.audio), &options) {
            Ok(()) => course.open += 1,
            Err(error) => course.fail(error),
        }
    }

    /// What became of a job.
    pub(super) fn heard(&mut self, number: usize, job: usize, event: BatchEvent) {
        let mut courses = self.recordings.iter_mut();
        let Some(course) = courses.find(|course| course.number == number) else {
            return;
        };
        course.open -= 1;
        let heard = match event {
            BatchEvent::Transcript(transcript) => {
                alone(|| course.recording.heard(job, *transcript))
            }
            BatchEvent::Failed(error) => Err(error),
            BatchEvent::Step(_) | BatchEvent::Answer(_) | BatchEvent::Recording(_) => Ok(()),
        };
        if let Err(error) = heard {
            course.fail(error);
        }
    }

    /// Tells what happened in recordings; those that are over leave.
    pub(super) fn tell_recordings(&mut self, events: &mut Vec<(usize, BatchEvent)>) {
        for mut course in std::mem::take(&mut self.recordings) {
            let number = course.number;
            events.extend(course.told.drain(..).map(|event| (number, event)));
            if !course.over && !course.recording.has_ended() {
                self.recordings.push(course);
                continue;
            }
            // A text that ended at a stop string may have left windows behind.
            self.members.retain(|entry| entry.number != number);
            if !course.over {
                let transcript = Box::new(course.recording.finish());
                events.push((number, BatchEvent::Transcript(transcript)));
            }
        }
    }
}
