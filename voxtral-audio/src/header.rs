//! Mends the lengths in a WAV, AIFF or CAF header that do not agree with the file.
//!
//! Such a file states its length twice, in front of the whole and in front of the samples
//! (`"RIFF" length "WAVE" ("fmt " length …)* "data" length samples…`, little-endian 32 bits:
//! Microsoft and IBM, "Multimedia Programming Interface and Data Specifications 1.0", 1991;
//! `"FORM" length "AIFF" … "SSND" length …`, big-endian: Apple, "Audio Interchange File Format",
//! 1989), or once (`"caff" version … "data" length …`, big-endian 64 bits: Apple, "Core Audio
//! Format Specification", 2011).
//! Recorders that were cut off leave zeros there, pipes leave the largest number, copies that
//! broke off promise more than there is, and RF64 (EBU Tech 3306) keeps the true length
//! elsewhere. All that is decided here is where the samples end: at the stated place if the file
//! reaches that far, otherwise at the end of the file.

use std::io::{self, Read, Seek, SeekFrom};
use std::ops::RangeInclusive;

use crate::source::Patch;

/// The samples' place and the corrections that a header needs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Repair {
    /// What the demuxer should read instead.
    pub(crate) patches: Vec<Patch>,
    /// The header promises samples that the file does not have.
    pub(crate) truncated: bool,
}

/// What programs write as a length that they do not know yet, if the file is shorter than that.
const UNKNOWN: RangeInclusive<u64> = 0x7fff_0000..=0xffff_ffff;

/// More chunks than this before the samples means that this is no sound file.
const MAX_CHUNKS: usize = 4096;

/// Looks for the samples in a RIFF/WAVE, RF64, AIFF or CAF file of `length` bytes.
///
/// `None` if it is another kind of file or has no `data` chunk; the demuxer then says so.
/// Fails only if the reader does. Leaves the reader at its start.
pub(crate) fn repair<R: Read + Seek>(reader: &mut R, length: u64) -> io::Result<Option<Repair>> {
    let found = find(reader, length);
    reader.seek(SeekFrom::Start(0))?;
    match found {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        result => result,
    }
}

fn find<R: Read + Seek>(reader: &mut R, length: u64) -> io::Result<Option<Repair>> {
    let mut head = [0; 12];
    reader.read_exact(&mut head)?;
    let kind = match (&head[..4], &head[8..]) {
        (b"RIFF" | b"RF64" | b"BW64", b"WAVE") => Kind::Wave,
        (b"FORM", b"AIFF" | b"AIFC") => Kind::Aiff,
        (b"caff", _) => return find_caf(reader, length),
        _ => return Ok(None),
    };
    let whole = kind.number(&head[4..8]);
    let mut at = 12;
    let mut long = None;
    for _ in 0..MAX_CHUNKS {
        let mut chunk = [0; 8];
        reader.seek(SeekFrom::Start(at))?;
        reader.read_exact(&mut chunk)?;
        let stated = kind.number(&chunk[4..]);
        match &chunk[..4] {
            b"data" | b"SSND" => {
                let stated = long
                    .filter(|_| stated == u64::from(u32::MAX))
                    .unwrap_or(stated);
                return Ok(Some(kind.mend(whole, at, stated, length)));
            }
            b"ds64" => {
                let mut sizes = [0; 16];
                reader.read_exact(&mut sizes)?;
                long = Some(kind.number(&sizes[8..]));
            }
            _ => {}
        }
        at += 8 + stated + (stated & 1);
    }
    Ok(None)
}

/// The same for CAF, where -1 is the honest way to say that a length is not known.
fn find_caf<R: Read + Seek>(reader: &mut R, length: u64) -> io::Result<Option<Repair>> {
    let mut at = 8_u64;
    for _ in 0..MAX_CHUNKS {
        let mut chunk = [0; 12];
        reader.seek(SeekFrom::Start(at))?;
        reader.read_exact(&mut chunk)?;
        at += 12;
        let Ok(stated) = u64::try_from(Kind::Aiff.number(&chunk[4..]) as i64) else {
            return Ok(None);
        };
        if &chunk[..4] == b"data" {
            let available = length.saturating_sub(at);
            let [high, low] = [available >> 32, available & u64::from(u32::MAX)];
            return Ok((stated > available).then(|| Repair {
                patches: vec![
                    Kind::Aiff.patch(at - 8, high),
                    Kind::Aiff.patch(at - 4, low),
                ],
                truncated: true,
            }));
        }
        at = match at.checked_add(stated) {
            Some(next) if next <= length => next,
            _ => return Ok(None),
        };
    }
    Ok(None)
}

/// The two families of files.
#[derive(Clone, Copy)]
enum Kind {
    Wave,
    Aiff,
}

impl Kind {
    fn number(self, bytes: &[u8]) -> u64 {
        let join = |value, &byte: &u8| (value << 8) | u64::from(byte);
        match self {
            Self::Wave => bytes.iter().rev().fold(0, join),
            Self::Aiff => bytes.iter().fold(0, join),
        }
    }

    /// A number of 32 bits, the largest of which stands for all that are larger.
    fn patch(self, offset: u64, value: u64) -> Patch {
        let value = u32::try_from(value).unwrap_or(u32::MAX);
        let bytes = match self {
            Self::Wave => value.to_le_bytes(),
            Self::Aiff => value.to_be_bytes(),
        };
        Patch { offset, bytes }
    }

    /// Decides the length of the samples' chunk, whose header stands at `at`, in a file that
    /// states `whole` as its length.
    fn mend(self, whole: u64, at: u64, stated: u64, length: u64) -> Repair {
        let available = length.saturating_sub(at + 8);
        // An honest file without samples has a length that fits; an unfinished one does not.
        let honest = whole + 8 == length || whole + 9 == length;
        let unknown = if stated == 0 {
            !honest
        } else {
            UNKNOWN.contains(&stated)
        };
        let actual = if unknown && stated == 0 {
            available
        } else {
            available.min(stated)
        };
        let mut patches = vec![self.patch(at + 4, actual)];
        match self {
            // The largest length reads as "to the end of the file".
            Self::Wave => {
                patches.push(Patch {
                    offset: 0,
                    bytes: *b"RIFF",
                });
                patches.push(self.patch(4, u64::MAX));
            }
            // Chunks after the samples are read as well, up to the end of the file.
            Self::Aiff => patches.push(self.patch(4, length.saturating_sub(8))),
        }
        Repair {
            patches,
            truncated: !unknown && stated > available,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNKNOWN_LENGTH: u64 = 0xffff_ffff;

    /// Length of the samples that the demuxer will see, and whether the header promised more.
    fn check(riff_len: u64, stated: u64, available: u64) -> (u32, bool) {
        let repair = Kind::Wave.mend(riff_len, 36, stated, 44 + available);
        (
            u32::from_le_bytes(repair.patches[0].bytes),
            repair.truncated,
        )
    }

    #[test]
    fn samples_end_where_the_header_or_the_file_ends() {
        assert_eq!(check(136, 100, 100), (100, false));
        assert_eq!(check(146, 100, 110), (100, false), "chunks may follow");
        assert_eq!(check(136, 100, 60), (60, true));
        assert_eq!(
            check(UNKNOWN_LENGTH, UNKNOWN_LENGTH, 60),
            (60, false),
            "a pipe"
        );
        assert_eq!(check(0, 0, 60), (60, false), "never finished");
        assert_eq!(check(36, 0, 60), (60, false), "never finished");
        assert_eq!(check(96, 0, 60), (0, false), "no samples, but other chunks");
        assert_eq!(check(36, 0, 0), (0, false), "no samples");
        assert_eq!(
            check(7, 100, 100),
            (100, false),
            "only the outer length lies"
        );
        assert_eq!(
            check(UNKNOWN_LENGTH, 5 << 30, 5 << 30),
            (u32::MAX, false),
            "RF64"
        );
    }

    #[test]
    fn other_files_are_left_alone() {
        let mut text = io::Cursor::new(b"a text that is not sound".to_vec());
        assert_eq!(repair(&mut text, 24).unwrap(), None);
        assert_eq!(text.position(), 0);
        let mut short = io::Cursor::new(b"RIFF\0\0".to_vec());
        assert_eq!(repair(&mut short, 6).unwrap(), None);
    }
}
