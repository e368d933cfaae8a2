//! What the demuxers read from: any seekable reader, with a few bytes of its header corrected.
//!
//! A file that was cut off can often still be read from front to back, where no demuxer looks for
//! its end: that is what [`View::Stream`] is for.
//!
//! Demuxers report a broken disk and a file that simply ends in the same way. [`Source`] keeps
//! the reader's own errors aside in a [`Failure`], so that only the former is an error.

use std::io::{self, Read, Seek, SeekFrom};
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

/// A reader of known length with [`Patch`]es.
pub(crate) struct Source {
    reader: Shared,
    view: View,
    position: u64,
    length: u64,
    patches: Vec<Patch>,
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
        Ok(Self {
            reader,
            view,
            position: 0,
            length,
            patches: Vec::new(),
            failure: Failure::default(),
        })
    }

    /// Length in bytes.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Where the reader's own errors are kept.
    pub(crate) fn failure(&self) -> Failure {
        self.failure.clone()
    }

    /// Reads these bytes differently from now on.
    pub(crate) fn patch(&mut self, patches: Vec<Patch>) {
        self.patches = patches;
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = match lock(&self.reader).read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            result => result.map_err(|error| self.failure.keep(error))?,
        };
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
        (self.view == View::File).then_some(self.length)
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
