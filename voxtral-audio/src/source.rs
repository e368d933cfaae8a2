//! What the demuxers read from: any reader, with a few bytes of its header corrected.
//!
//! A file that was cut off can often still be read from front to back, where no demuxer looks for
//! its end: that is what [`View::Stream`] is for. A pipe cannot be read in another way: its header
//! is corrected by reading it twice ([`Pipe`]).
//!
//! Demuxers make up packets of many samples from a WAV file, and wait until one is full. On a
//! stream a [`Source`] therefore seems to end whenever all that was written so far has been read;
//! the demuxer hands out what it has and is asked again. [`Ended`] tells the true end.
//!
//! Demuxers report a broken disk and a file that simply ends in the same way. [`Source`] keeps
//! the reader's own errors aside in a [`Failure`], so that only the former is an error.

use std::io::{self, Read, Seek, SeekFrom};
use std::mem;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use symphonia::core::io::MediaSource;

/// Everything that can be decoded from.
pub(crate) trait Reader: Read + Seek + Send + Sync {}
impl<T: Read + Seek + Send + Sync> Reader for T {}

/// The first error that the underlying reader gave, if any.
#[derive(Clone, Default)]
pub(crate) struct Failure(Arc<Mutex<Option<io::Error>>>);

impl Failure {
    /// Takes the error out.
    pub(crate) fn take(&self) -> Option<io::Error> {
        lock(&self.0).take()
    }

    /// Keeps the first error, and returns one of the same kind to pass on.
    fn keep(&self, error: io::Error) -> io::Error {
        let copy = io::Error::from(error.kind());
        lock(&self.0).get_or_insert(error);
        copy
    }
}

/// A panic while the lock was held leaves nothing here that the next call would not set anew.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes of the file that are read as if they were others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Patch {
    /// Position of the first byte in the file.
    pub(crate) offset: u64,
    /// What is read there instead.
    pub(crate) bytes: [u8; 4],
}

/// Where the samples of a WAV file lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frames {
    /// Position of the first sample in the file.
    pub(crate) start: u64,
    /// Bytes that hold one sample of each channel, or a block of them.
    pub(crate) block: NonZeroU64,
}

/// Whether a source was read to its end.
#[derive(Clone, Default)]
pub(crate) struct Ended(Arc<AtomicBool>);

impl Ended {
    /// No more will come.
    pub(crate) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A reader that several attempts to decode can have, one after the other.
pub(crate) type Shared = Arc<Mutex<Box<dyn Reader>>>;

/// What a demuxer may do with a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// Look anywhere, and know where the end is.
    File,
    /// Only read on, to an end that comes as a surprise.
    Stream,
}

/// A reader with [`Patch`]es.
pub(crate) struct Source {
    reader: Shared,
    view: View,
    position: u64,
    /// In bytes; of a stream it is not known.
    length: Option<u64>,
    patches: Vec<Patch>,
    /// Where to pause.
    frames: Option<Frames>,
    /// Something was read since the last pause.
    fresh: bool,
    ended: Ended,
    failure: Failure,
}

impl Source {
    /// Measures the reader, and starts at its first byte.
    pub(crate) fn new(reader: Shared, view: View) -> io::Result<Self> {
        let length = {
            let mut reader = lock(&reader);
            let length = reader.seek(SeekFrom::End(0))?;
            reader.seek(SeekFrom::Start(0))?;
            length
        };
        Ok(Self::with_length(reader, view, Some(length)))
    }

    /// Reads what cannot seek. `None` if there is not a byte.
    pub(crate) fn stream<R>(reader: R) -> io::Result<Option<Self>>
    where
        R: Read + Send + Sync + 'static,
    {
        let pipe = Pipe::new(reader)?;
        Ok(pipe.map(|pipe| {
            Self::with_length(Arc::new(Mutex::new(Box::new(pipe))), View::Stream, None)
        }))
    }

    fn with_length(reader: Shared, view: View, length: Option<u64>) -> Self {
        Self {
            reader,
            view,
            position: 0,
            length,
            patches: Vec::new(),
            frames: None,
            fresh: false,
            ended: Ended::default(),
            failure: Failure::default(),
        }
    }

    /// Length in bytes, if it is known.
    pub(crate) fn length(&self) -> Option<u64> {
        self.length
    }

    /// Where it is told that a stream has ended.
    pub(crate) fn ended(&self) -> Ended {
        self.ended.clone()
    }

    /// Where the reader's own errors are kept.
    pub(crate) fn failure(&self) -> Failure {
        self.failure.clone()
    }

    /// Reads these bytes differently from now on.
    pub(crate) fn patch(&mut self, patches: Vec<Patch>) {
        self.patches = patches;
    }

    /// Seems to end, from now on, wherever the reader has nothing more at once and no frame is
    /// torn apart.
    pub(crate) fn pause(&mut self, frames: Frames) {
        self.frames = Some(frames);
    }

    fn pauses(&mut self) -> bool {
        let between = self.frames.is_some_and(|Frames { start, block }| {
            let done = self.position.checked_sub(start);
            done.is_some_and(|done| done.is_multiple_of(block.get()))
        });
        between && mem::take(&mut self.fresh)
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.pauses() {
            return Ok(0);
        }
        // Demuxers take an interruption for the end.
        let count = loop {
            match lock(&self.reader).read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result.map_err(|error| self.failure.keep(error))?,
            }
        };
        self.fresh = count > 0;
        if count == 0 && !buffer.is_empty() {
            self.ended.0.store(true, Ordering::Relaxed);
        }
        for patch in &self.patches {
            for (at, &byte) in (patch.offset..).zip(&patch.bytes) {
                let index = at.wrapping_sub(self.position);
                if index < count as u64 {
                    buffer[index as usize] = byte;
                }
            }
        }
        self.position += count as u64;
        Ok(count)
    }
}

impl Seek for Source {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = match to {
            // A demuxer that follows a lying header beyond every file is told so without asking
            // the operating system, whose refusal would count as a failure of the reader.
            SeekFrom::Start(position) if i64::try_from(position).is_err() => {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            SeekFrom::Current(_) | SeekFrom::End(_) | SeekFrom::Start(_) => lock(&self.reader)
                .seek(to)
                .map_err(|error| match error.kind() {
                    io::ErrorKind::InvalidInput => error,
                    _ => self.failure.keep(error),
                })?,
        };
        Ok(self.position)
    }
}

impl MediaSource for Source {
    fn is_seekable(&self) -> bool {
        self.view == View::File
    }

    fn byte_len(&self) -> Option<u64> {
        self.length.filter(|_| self.view == View::File)
    }
}

/// The most that is looked at to find the samples of a stream, in bytes. Headers have room for
/// pictures.
const MAX_HEAD: u64 = 1 << 24;

/// A reader that cannot seek, but can be looked at until it is sent back to its start, once.
///
/// No more is read than is asked for.
struct Pipe<R> {
    reader: R,
    /// What was looked at and is yet to be read.
    head: Vec<u8>,
    position: u64,
    looking: bool,
}

impl<R: Read> Pipe<R> {
    /// Waits for the first byte; `None` if there is none.
    fn new(mut reader: R) -> io::Result<Option<Self>> {
        let mut head = Vec::new();
        reader.by_ref().take(1).read_to_end(&mut head)?;
        Ok((!head.is_empty()).then_some(Self {
            reader,
            head,
            position: 0,
            looking: true,
        }))
    }

    /// Reads the head up to a position, if it reaches that far.
    fn look(&mut self, end: u64) -> io::Result<()> {
        let missing = end.min(MAX_HEAD).saturating_sub(self.head.len() as u64);
        let mut rest = self.reader.by_ref().take(missing);
        rest.read_to_end(&mut self.head).map(drop)
    }
}

impl<R: Read> Read for Pipe<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.looking {
            self.look(self.position.saturating_add(buffer.len() as u64))?;
        } else if self.position >= self.head.len() as u64 {
            self.head = Vec::new();
            return self.reader.read(buffer);
        }
        let start = self.position.min(self.head.len() as u64) as usize;
        let count = (&self.head[start..]).read(buffer)?;
        self.position += count as u64;
        Ok(count)
    }
}

impl<R: Read> Seek for Pipe<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match to {
            SeekFrom::Start(position) if self.looking => {
                self.position = position;
                self.looking = position > 0;
                Ok(position)
            }
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn source(reader: impl Reader + 'static) -> Source {
        Source::new(Arc::new(Mutex::new(Box::new(reader))), View::File).unwrap()
    }

    #[test]
    fn patches_show_through_any_read_size_and_seek() {
        for size in 1..9 {
            let mut source = source(Cursor::new((0_u8..16).collect::<Vec<_>>()));
            source.patch(vec![Patch {
                offset: 5,
                bytes: [100, 101, 102, 103],
            }]);
            let mut all = Vec::new();
            let mut buffer = vec![0; size];
            loop {
                let count = source.read(&mut buffer).unwrap();
                if count == 0 {
                    break;
                }
                all.extend_from_slice(&buffer[..count]);
            }
            assert_eq!(
                all,
                [0, 1, 2, 3, 4, 100, 101, 102, 103, 9, 10, 11, 12, 13, 14, 15]
            );
            source.seek(SeekFrom::Start(7)).unwrap();
            source.read_exact(&mut buffer[..1]).unwrap();
            assert_eq!(buffer[0], 102);
        }
    }

    #[test]
    fn the_readers_own_error_is_kept() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("disk on fire"))
            }
        }
        impl Seek for Broken {
            fn seek(&mut self, _: SeekFrom) -> io::Result<u64> {
                Ok(0)
            }
        }
        let mut source = source(Broken);
        let failure = source.failure();
        assert!(source.read(&mut [0; 4]).is_err());
        assert_eq!(failure.take().unwrap().to_string(), "disk on fire");
    }
}
