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
//!
//! How far a stream reaches is not known. Its samples end at the stated place, and at the end of
//! the stream where the header states a length that means "not known yet".

use std::io::{self, Read, Seek, SeekFrom};
use std::num::NonZeroU64;
use std::ops::RangeInclusive;

use crate::source::{Frames, Patch};

/// The samples' place and the corrections that a header needs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Repair {
    /// What the demuxer should read instead.
    pub(crate) patches: Vec<Patch>,
    /// The header promises samples that the file does not have.
    pub(crate) truncated: bool,
    /// The samples go on to the end of the stream, which is no truncation.
    pub(crate) open: bool,
    /// Where the samples of a WAV file lie.
    pub(crate) frames: Option<Frames>,
}

/// What programs write as a length that they do not know yet, if the file is shorter than that:
/// sox 0x7ffff000 and in AIFF a little more than 0x7f000000, arecord 0x7fffff00 or 0x80000000,
/// ffmpeg 0xffffffff.
const UNKNOWN: RangeInclusive<u64> = 0x7f00_0000..=0xffff_ffff;

/// More chunks than this before the samples means that this is no sound file.
const MAX_CHUNKS: usize = 4096;

/// Looks for the samples in a RIFF/WAVE, RF64, AIFF or CAF file of `length` bytes, or in a stream,
/// whose length is `None`.
///
/// `None` if it is another kind of file or has no `data` chunk; the demuxer then says so.
/// Fails only if the reader does. Leaves the reader at its start.
pub(crate) fn repair<R: Read + Seek>(
    reader: &mut R,
    length: Option<u64>,
) -> io::Result<Option<Repair>> {
    let found = find(reader, length);
    reader.seek(SeekFrom::Start(0))?;
    match found {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        result => result,
    }
}

fn find<R: Read + Seek>(reader: &mut R, length: Option<u64>) -> io::Result<Option<Repair>> {
    let mut head = [0; 12];
    reader.read_exact(&mut head)?;
    let kind = match (&head[..4], &head[8..]) {
        (b"RIFF" | b"RF64" | b"BW64", b"WAVE") => Kind::Wave,
        (b"FORM", b"AIFF" | b"AIFC") => Kind::Aiff,
        (b"caff", _) => return length.map_or(Ok(None), |length| find_caf(reader, length)),
        _ => return Ok(None),
    };
    let whole = kind.number(&head[4..8]);
    let mut at = 12;
    let mut long = None;
    let mut block = None;
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
                let mut repair = kind.mend(whole, at, stated, length);
                let start = at + 8;
                repair.frames = block.map(|block| Frames { start, block });
                return Ok(Some(repair));
            }
            b"fmt " => {
                let mut format = [0; 16];
                reader.read_exact(&mut format)?;
                block = kind.block(&format);
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
                open: false,
                frames: None,
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

    /// Bytes that hold one sample of each channel, or a block of ADPCM, by the content of `fmt `.
    fn block(self, format: &[u8; 16]) -> Option<NonZeroU64> {
        let (channels, bits) = (self.number(&format[2..4]), self.number(&format[14..]));
        NonZeroU64::new(match bits {
            // Less than a byte: only then does the header's own number count.
            0..8 => self.number(&format[12..14]),
            _ => channels * (bits / 8),
        })
    }

    /// Decides the length of the samples' chunk, whose header stands at `at`, in a file that
    /// states `whole` as its length.
    fn mend(self, whole: u64, at: u64, stated: u64, length: Option<u64>) -> Repair {
        let available = match (self, length) {
            (_, Some(length)) => length.saturating_sub(at + 8),
            (Self::Wave, None) => u64::MAX,
            // No length means "to the end"; the largest one fits in the largest file.
            (Self::Aiff, None) => u64::from(u32::MAX).saturating_sub(at),
        };
        // An honest file without samples has a length that fits; an unfinished one does not.
        let honest = length.is_some_and(|length| whole + 8 == length || whole + 9 == length);
        let unknown = if stated == 0 {
            !honest
        } else {
            UNKNOWN.contains(&stated)
        };
        let open = length.is_none() && (unknown || stated > *UNKNOWN.end());
        let actual = if open || (unknown && stated == 0) {
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
            Self::Aiff => {
                let whole = length.map_or(u64::MAX, |length| length.saturating_sub(8));
                patches.push(self.patch(4, whole));
            }
        }
        Repair {
            patches,
            truncated: !unknown && !open && stated > available,
            open,
            frames: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNKNOWN_LENGTH: u64 = 0xffff_ffff;

    /// Length of the samples that the demuxer will see, and whether the header promised more.
    fn check(riff_len: u64, stated: u64, available: u64) -> (u32, bool) {
        let repair = Kind::Wave.mend(riff_len, 36, stated, Some(44 + available));
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

    /// The same for a stream, and whether its samples go on to its end.
    #[test]
    fn samples_of_a_stream_end_where_the_header_says() {
        let check = |kind: Kind, stated| {
            let repair = kind.mend(0, 36, stated, None);
            assert!(!repair.truncated);
            (kind.number(&repair.patches[0].bytes), repair.open)
        };
        for unknown in [
            0,
            0x7f00_0008,
            0x7fff_f000,
            0x7fff_ff00,
            0x8000_0000,
            UNKNOWN_LENGTH,
        ] {
            assert_eq!(check(Kind::Wave, unknown), (UNKNOWN_LENGTH, true));
            // As much as fits in a file of the largest stated length.
            assert_eq!(check(Kind::Aiff, unknown), (UNKNOWN_LENGTH - 36, true));
        }
        assert_eq!(check(Kind::Wave, 5 << 30), (UNKNOWN_LENGTH, true), "RF64");
        for kind in [Kind::Wave, Kind::Aiff] {
            assert_eq!(check(kind, 100), (100, false));
        }
    }

    #[test]
    fn other_files_are_left_alone() {
        let mut text = io::Cursor::new(b"a text that is not sound".to_vec());
        assert_eq!(repair(&mut text, Some(24)).unwrap(), None);
        assert_eq!(text.position(), 0);
        let mut short = io::Cursor::new(b"RIFF\0\0".to_vec());
        assert_eq!(repair(&mut short, Some(6)).unwrap(), None);
    }
}
