//! What the demuxers read from: any seekable reader, with a few bytes of its header corrected.
//!
//! Demuxers report a broken disk and a file that simply ends in the same way. [`Source`] keeps
//! the reader's own errors aside in a [`Failure`], so that only the former is an error.

use std::io::{self, Read, Seek, SeekFrom};
use std::sync::{Arc, Mutex, PoisonError};

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
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Keeps the first error, and returns one of the same kind to pass on.
    fn keep(&self, error: io::Error) -> io::Error {
        let copy = io::Error::from(error.kind());
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slot.get_or_insert(error);
        copy
    }
}

/// Bytes of the file that are read as if they were others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Patch {
    /// Position of the first byte in the file.
    pub(crate) offset: u64,
    /// What is read there instead.
    pub(crate) bytes: [u8; 4],
}

/// A seekable reader of known length with [`Patch`]es.
pub(crate) struct Source {
    reader: Box<dyn Reader>,
    position: u64,
    length: u64,
    patches: Vec<Patch>,
    failure: Failure,
}

impl Source {
    /// Measures the reader, and starts at its first byte.
    pub(crate) fn new(mut reader: Box<dyn Reader>) -> io::Result<Self> {
        let length = reader.seek(SeekFrom::End(0))?;
        reader.seek(SeekFrom::Start(0))?;
        Ok(Self {
            reader,
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
        let count = match self.reader.read(buffer) {
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
            SeekFrom::Current(_) | SeekFrom::End(_) | SeekFrom::Start(_) => {
                self.reader.seek(to).map_err(|error| match error.kind() {
                    io::ErrorKind::InvalidInput => error,
                    _ => self.failure.keep(error),
                })?
            }
        };
        Ok(self.position)
    }
}

impl MediaSource for Source {
    fn is_seekable(&self) -> bool {
        true
    }

    fn byte_len(&self) -> Option<u64> {
        Some(self.length)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn patches_show_through_any_read_size_and_seek() {
        for size in 1..9 {
            let mut source =
                Source::new(Box::new(Cursor::new((0_u8..16).collect::<Vec<_>>()))).unwrap();
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
        let mut source = Source::new(Box::new(Broken)).unwrap();
        let failure = source.failure();
        assert!(source.read(&mut [0; 4]).is_err());
        assert_eq!(failure.take().unwrap().to_string(), "disk on fire");
    }
}
