//! Several recordings that share a model: windows of one fill the room that another leaves.

use std::collections::VecDeque;
use std::iter::Fuse;
use std::num::NonZeroUsize;

use super::{
    Recording,
    listener::{Job, Listener},
};
use crate::{PipelineError, Transcript};

/// Recordings that share a model.
pub(super) struct Together<L, J: Iterator, E> {
    listener: L,
    jobs: Fuse<J>,
    open: Vec<(usize, Recording)>,
    /// Recordings that were taken.
    taken: usize,
    size: NonZeroUsize,
    ready: VecDeque<(usize, Result<Transcript, E>)>,
}

impl<L, J, E> Together<L, J, E>
where
    L: Listener,
    J: Iterator<Item = Result<Recording, E>>,
    E: From<PipelineError>,
{
    pub(super) fn new(listener: L, jobs: J, size: NonZeroUsize) -> Self {
        Self {
            listener,
            jobs: jobs.fuse(),
            open: Vec::new(),
            taken: 0,
            size,
            ready: VecDeque::new(),
        }
    }

    /// Stretches to hear, of those recordings first that came first, with the numbers of these.
    fn wanted(&mut self) -> Vec<(usize, Job)> {
        let mut wanted = Vec::new();
        let mut at = 0;
        while wanted.len() < self.size.get() {
            if at == self.open.len() && !self.take() {
                break;
            }
            let Some((number, recording)) = self.open.get_mut(at) else {
                break;
            };
            let number = *number;
            match gather(recording, self.size.get() - wanted.len()) {
                Ok(jobs) => {
                    wanted.extend(jobs.into_iter().map(|job| (number, job)));
                    at += 1;
                }
                Err(error) => {
                    self.open.remove(at);
                    wanted.retain(|(other, _)| *other != number);
                    self.ready.push_back((number, Err(error.into())));
                }
            }
        }
        wanted
    }

    /// Takes the next recording that can be had; tells whether there is one.
    fn take(&mut self) -> bool {
        for job in self.jobs.by_ref() {
            let number = self.taken;
            self.taken += 1;
            match job {
                Ok(recording) => {
                    self.open.push((number, recording));
                    return true;
                }
                Err(error) => self.ready.push_back((number, Err(error))),
            }
        }
        false
    }

    fn advance(&mut self) {
        let (numbers, jobs): (Vec<_>, Vec<_>) = self.wanted().into_iter().unzip();
        let heard = self.listener.hear(&jobs);
        for ((number, job), transcript) in numbers.into_iter().zip(&jobs).zip(heard) {
            let Some(at) = self.open.iter().position(|(open, _)| *open == number) else {
                continue;
            };
            let course = &mut self.open[at].1.course;
            if let Err(error) = transcript.and_then(|heard| course.heard(job.id, heard)) {
                self.open.remove(at);
                self.ready.push_back((number, Err(error.into())));
            }
        }
        let mut at = 0;
        while at < self.open.len() {
            let (number, recording) = &mut self.open[at];
            let number = *number;
            let drained = drain(recording);
            if drained.is_ok() && !recording.closed {
                at += 1;
                continue;
            }
            let (_, recording) = self.open.remove(at);
            let result = drained.map(|()| recording.finish());
            self.ready.push_back((number, result.map_err(E::from)));
        }
    }
}

/// Stretches of a recording to hear, once nothing waits to be told.
fn gather(recording: &mut Recording, room: usize) -> Result<Vec<Job>, PipelineError> {
    loop {
        drain(recording)?;
        if recording.closed {
            return Ok(Vec::new());
        }
        let jobs = recording.wanted(room)?;
        if !jobs.is_empty() || !recording.course.is_settled() {
            return Ok(jobs);
        }
    }
}

/// Passes over events.
fn drain(recording: &mut Recording) -> Result<(), PipelineError> {
    while recording.event()?.is_some() {}
    Ok(())
}

impl<L, J, E> Iterator for Together<L, J, E>
where
    L: Listener,
    J: Iterator<Item = Result<Recording, E>>,
    E: From<PipelineError>,
{
    type Item = (usize, Result<Transcript, E>);

    fn next(&mut self) -> Option<Self::Item> {
        while self.ready.is_empty() {
            if self.open.is_empty() && !self.take() {
                break;
            }
            self.advance();
        }
        self.ready.pop_front()
    }
}
