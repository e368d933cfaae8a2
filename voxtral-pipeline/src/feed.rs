//! A bounded buffer between a source of sound and a session.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A buffer for up to `capacity` of sound at this rate, between a thread that records and one that
/// runs a [`Session`](crate::Session).
///
/// A source that can wait, as a pipe, uses [`push`](FeedWriter::push): it blocks while the buffer
/// is full. One that cannot, as a sound card's callback, uses [`offer`](FeedWriter::offer), which
/// never waits for the reader and tells what found no room. Either way no more is held than
/// `capacity`, and [`behind`](FeedReader::behind) tells how much waits.
///
/// Whichever side is dropped, the other notices: the reader gets what is left and then nothing,
/// and the writer is told that nobody listens.
///
/// ```
/// use std::time::Duration;
///
/// let (writer, mut reader) = voxtral_pipeline::feed(16_000, Duration::from_secs(1));
/// let source = std::thread::spawn(move || (0..50).all(|_| writer.push(&[0.5; 1_600])));
/// let mut samples = Vec::new();
/// let mut heard = 0;
/// while reader.read(&mut samples) {
///     assert!(reader.behind() <= Duration::from_secs(1));
///     heard += samples.len();
/// }
/// assert_eq!(heard, 80_000);
/// assert!(source.join().unwrap());
/// ```
pub fn feed(sample_rate: u32, capacity: Duration) -> (FeedWriter, FeedReader) {
    let capacity = (capacity.as_secs_f64() * f64::from(sample_rate)) as usize;
    let shared = Arc::new(Shared {
        sample_rate,
        capacity: capacity.max(1),
        state: Mutex::default(),
        changed: Condvar::new(),
    });
    let writer = FeedWriter(Arc::new(WritingEnd(Arc::clone(&shared))));
    (writer, FeedReader(shared))
}

/// The side of a [`feed`] that records. Clones write to the same feed; it ends when the last of
/// them is dropped.
#[derive(Debug, Clone)]
pub struct FeedWriter(Arc<WritingEnd>);

/// The side of a [`feed`] that listens.
#[derive(Debug)]
pub struct FeedReader(Arc<Shared>);

/// Ends a [`feed`] from elsewhere, as a signal does.
#[derive(Debug, Clone)]
pub struct FeedStopper(Arc<Shared>);

/// What all clones of a writer have in common.
#[derive(Debug)]
struct WritingEnd(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    sample_rate: u32,
    capacity: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    samples: VecDeque<f32>,
    /// Samples that were offered and found no room.
    lost: u64,
    closed: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here can be left half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn time(&self, samples: u64) -> Duration {
        Duration::from_secs_f64(samples as f64 / f64::from(self.sample_rate))
    }

    fn close(&self) {
        self.state().closed = true;
        self.changed.notify_all();
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        self.changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl FeedWriter {
    /// Adds sound, waiting for room; tells whether anybody listens.
    pub fn push(&self, samples: &[f32]) -> bool {
        let shared = self.shared();
        let mut left = samples;
        let mut state = shared.state();
        while !state.closed && !left.is_empty() {
            let room = shared.capacity - state.samples.len();
            let (now, later) = left.split_at(room.min(left.len()));
            state.samples.extend(now);
            left = later;
            shared.changed.notify_all();
            if !left.is_empty() {
                state = shared.wait(state);
            }
        }
        !state.closed
    }

    /// Adds as much as there is room for, without waiting for the reader, and gives the number of
    /// samples that are lost.
    pub fn offer(&self, samples: &[f32]) -> usize {
        let shared = self.shared();
        let mut state = shared.state();
        let room = shared.capacity - state.samples.len();
        let (now, lost) = samples.split_at(room.min(samples.len()));
        state.samples.extend(now);
        state.lost += lost.len() as u64;
        shared.changed.notify_all();
        lost.len()
    }

    /// Whether nobody listens any more.
    pub fn is_closed(&self) -> bool {
        self.shared().state().closed
    }

    fn shared(&self) -> &Shared {
        &self.0.0
    }
}

impl FeedReader {
    /// Waits for sound and puts all there is in place of `samples`; false when the writer is gone
    /// and nothing is left.
    pub fn read(&mut self, samples: &mut Vec<f32>) -> bool {
        samples.clear();
        let mut state = self.0.state();
        while state.samples.is_empty() && !state.closed {
            state = self.0.wait(state);
        }
        samples.extend(state.samples.drain(..));
        self.0.changed.notify_all();
        !samples.is_empty()
    }

    /// What can end the feed from elsewhere.
    pub fn stopper(&self) -> FeedStopper {
        FeedStopper(Arc::clone(&self.0))
    }

    /// The sound that waits.
    pub fn behind(&self) -> Duration {
        let waiting = self.0.state().samples.len();
        self.0.time(waiting as u64)
    }

    /// The sound that was offered and found no room, since the beginning.
    pub fn lost(&self) -> Duration {
        let lost = self.0.state().lost;
        self.0.time(lost)
    }
}

impl FeedStopper {
    /// Ends the feed: the reader gets what is left and then nothing, the writer is told that
    /// nobody listens.
    pub fn stop(&self) {
        self.0.close();
    }
}

impl Drop for WritingEnd {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Drop for FeedReader {
    fn drop(&mut self) {
        self.0.close();
        self.0.state().samples = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_that_may_wait_waits_for_room() {
        let (writer, mut reader) = feed(10, Duration::from_secs(1));
        let source = std::thread::spawn(move || writer.push(&[1.0; 35]));
        let mut samples = Vec::new();
        let mut heard = 0;
        while reader.read(&mut samples) {
            assert!(samples.len() <= 10, "no more than the capacity is held");
            heard += samples.len();
        }
        assert_eq!(heard, 35);
        assert!(source.join().unwrap());
        assert_eq!(reader.lost(), Duration::ZERO);
    }

    #[test]
    fn a_writer_that_may_not_wait_is_told_what_is_lost() {
        let (writer, mut reader) = feed(10, Duration::from_secs(1));
        assert_eq!(writer.offer(&[1.0; 8]), 0);
        assert_eq!(reader.behind(), Duration::from_millis(800));
        assert_eq!(writer.offer(&[2.0; 8]), 6);
        assert_eq!(reader.lost(), Duration::from_millis(600));
        let mut samples = Vec::new();
        assert!(reader.read(&mut samples));
        assert_eq!(samples, [[1.0; 8].as_slice(), &[2.0; 2]].concat());
        drop(writer);
        assert!(!reader.read(&mut samples), "the writer is gone");
    }

    #[test]
    fn a_stopped_feed_ends_for_both_sides() {
        let (writer, mut reader) = feed(10, Duration::from_secs(1));
        assert!(writer.push(&[1.0; 4]));
        reader.stopper().stop();
        assert!(!writer.push(&[1.0; 4]));
        let mut samples = Vec::new();
        assert!(reader.read(&mut samples));
        assert_eq!(samples.len(), 4);
        assert!(!reader.read(&mut samples));
    }

    #[test]
    fn a_feed_is_open_until_one_side_is_gone() {
        let (writer, reader) = feed(10, Duration::from_secs(1));
        assert!(!writer.is_closed());
        drop(reader);
        assert!(writer.is_closed());

        let (writer, mut reader) = feed(10, Duration::from_secs(1));
        let callback = writer.clone();
        drop(writer);
        assert_eq!(callback.offer(&[1.0; 4]), 0);
        assert!(!callback.is_closed(), "one writer is left");
        let mut samples = Vec::new();
        assert!(reader.read(&mut samples));
        drop(callback);
        assert!(!reader.read(&mut samples), "all writers are gone");
    }

    #[test]
    fn a_reader_that_goes_frees_a_waiting_writer() {
        let (writer, reader) = feed(10, Duration::from_secs(1));
        let source = std::thread::spawn(move || writer.push(&[1.0; 35]));
        drop(reader);
        assert!(!source.join().unwrap(), "nobody listens");
    }
}
