//! A journal of the windows that are done with, so that a run that was stopped goes on where it was.
//!
//! JSON lines: the first says what the run was ([`JournalKey`]), each other is a window. A line is
//! on the disk before the next window is begun; a last line that is torn is not there.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::stitch::Settled;
use crate::PipelineError;

/// What a run depends on, by name: the file, the model, the options.
pub type JournalKey = BTreeMap<String, String>;

/// The windows of a recording that are done with, in a file.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    /// Windows that were read and not taken yet.
    finished: VecDeque<Settled>,
}

/// The first line.
#[derive(Serialize, Deserialize)]
struct Header {
    /// The version of these lines.
    voxtral_journal: u32,
    key: JournalKey,
}

/// The version of the lines that are written.
const VERSION: u32 = 1;

impl Journal {
    /// Opens a journal, or begins one.
    ///
    /// # Errors
    /// It cannot be read or written, is none, or is that of another run.
    pub fn open(path: impl AsRef<Path>, key: &JournalKey) -> Result<Self, PipelineError> {
        let path = path.as_ref();
        let failed = |source| PipelineError::Journal {
            path: path.to_owned(),
            source,
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(failed)?;
        let mut journal = Self {
            path: path.to_owned(),
            file,
            finished: VecDeque::new(),
        };
        let (lines, whole) = journal.lines().map_err(failed)?;
        match lines.split_first() {
            None => {
                journal.append(&Header {
                    voxtral_journal: VERSION,
                    key: key.clone(),
                })?;
            }
            Some((header, windows)) => {
                journal.check(header, key)?;
                // What was being written when the run was stopped.
                journal.file.set_len(whole).map_err(failed)?;
                journal.file.seek(SeekFrom::Start(whole)).map_err(failed)?;
                journal.finished = journal.read(windows)?.into();
            }
        }
        Ok(journal)
    }

    /// Windows that it tells of and that no transcription has taken.
    pub fn len(&self) -> usize {
        self.finished.len()
    }

    /// Whether it tells of none.
    pub fn is_empty(&self) -> bool {
        self.finished.is_empty()
    }

    /// The whole lines, and where they end.
    fn lines(&mut self) -> io::Result<(Vec<String>, u64)> {
        let mut reader = BufReader::new(&mut self.file);
        let (mut lines, mut whole) = (Vec::new(), 0);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line)? > 0 && line.last() == Some(&b'\n') {
            whole += line.len() as u64;
            lines.push(String::from_utf8_lossy(&line).into_owned());
            line.clear();
        }
        if lines.is_empty() {
            // Of a header that is torn, or of what is none.
            lines.extend((!line.is_empty()).then(|| String::from_utf8_lossy(&line).into_owned()));
        }
        Ok((lines, whole))
    }

    fn check(&self, header: &str, key: &JournalKey) -> Result<(), PipelineError> {
        let other = |what: &str, found: String, expected: String| PipelineError::JournalOfOther {
            path: self.path.clone(),
            what: what.to_owned(),
            found,
            expected,
        };
        let header: Header = match serde_json::from_str(header) {
            Ok(header) => header,
            Err(_) => {
                return Err(other(
                    "first line",
                    header.trim().chars().take(40).collect(),
                    "the header of a journal".into(),
                ));
            }
        };
        if header.voxtral_journal != VERSION {
            let found = header.voxtral_journal.to_string();
            return Err(other("version", found, VERSION.to_string()));
        }
        let names = header.key.keys().chain(key.keys());
        for name in names {
            let (found, expected) = (header.key.get(name), key.get(name));
            if found != expected {
                let text = |value: Option<&String>| value.cloned().unwrap_or_default();
                return Err(other(name, text(found), text(expected)));
            }
        }
        Ok(())
    }

    fn read(&self, lines: &[String]) -> Result<Vec<Settled>, PipelineError> {
        let parse = |line: &String| {
            serde_json::from_str(line).map_err(|error| PipelineError::Journal {
                path: self.path.clone(),
                source: error.into(),
            })
        };
        lines.iter().map(parse).collect()
    }

    /// Writes a window down, for good.
    pub(super) fn push(&mut self, settled: &Settled) -> Result<(), PipelineError> {
        self.append(settled)
    }

    /// What it tells of the next window, if anything.
    pub(super) fn take(&mut self, samples: Range<u64>) -> Result<Option<Settled>, PipelineError> {
        match self.finished.pop_front() {
            Some(found) if (found.start..found.end) != samples => Err(self.of_other(
                format!("a window of samples {}..{}", found.start, found.end),
                format!("{}..{}", samples.start, samples.end),
            )),
            found => Ok(found),
        }
    }

    /// That the audio is not what it was.
    fn of_other(&self, found: String, expected: String) -> PipelineError {
        PipelineError::JournalOfOther {
            path: self.path.clone(),
            what: "audio".to_owned(),
            found,
            expected,
        }
    }

    fn append(&mut self, line: &impl Serialize) -> Result<(), PipelineError> {
        let mut write = || -> io::Result<()> {
            let line = serde_json::to_string(line)? + "\n";
            self.file.write_all(line.as_bytes())?;
            self.file.sync_data()
        };
        write().map_err(|source| PipelineError::Journal {
            path: self.path.clone(),
            source,
        })
    }
}

/// A word, as a line has it.
#[derive(Serialize, Deserialize)]
struct Word {
    word: String,
    start: f64,
    end: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    confidence: Option<f32>,
    spaced: bool,
}

impl From<&crate::Word> for Word {
    fn from(word: &crate::Word) -> Self {
        Self {
            word: word.word.clone(),
            start: word.start.as_secs_f64(),
            end: word.end.as_secs_f64(),
            confidence: word.confidence,
            spaced: word.spaced,
        }
    }
}

impl From<Word> for crate::Word {
    fn from(word: Word) -> Self {
        Self {
            word: word.word,
            start: duration(word.start),
            end: duration(word.end),
            confidence: word.confidence,
            attention: None,
            spaced: word.spaced,
        }
    }
}

/// What a file says may be anything.
fn duration(seconds: f64) -> std::time::Duration {
    std::time::Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

/// Words, or none.
pub(super) mod words {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Word;

    pub(in crate::long) fn serialize<S: Serializer>(
        words: &Option<Vec<crate::Word>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let words = words.as_ref();
        let words: Option<Vec<Word>> = words.map(|words| words.iter().map(Word::from).collect());
        words.serialize(serializer)
    }

    pub(in crate::long) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Vec<crate::Word>>, D::Error> {
        let words = Option::<Vec<Word>>::deserialize(deserializer)?;
        Ok(words.map(|words| words.into_iter().map(crate::Word::from).collect()))
    }
}

/// Segments with their words.
pub(super) mod segments {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{Word, duration};

    #[derive(Serialize, Deserialize)]
    struct Segment {
        start: f64,
        end: f64,
        text: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        confidence: Option<f32>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        words: Vec<Word>,
    }

    pub(in crate::long) fn serialize<S: Serializer>(
        segments: &[crate::Segment],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let line = |segment: &crate::Segment| Segment {
            start: segment.start.as_secs_f64(),
            end: segment.end.as_secs_f64(),
            text: segment.text.clone(),
            confidence: segment.confidence,
            words: segment.words.iter().map(Word::from).collect(),
        };
        let segments: Vec<Segment> = segments.iter().map(line).collect();
        segments.serialize(serializer)
    }

    pub(in crate::long) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<crate::Segment>, D::Error> {
        let segments = Vec::<Segment>::deserialize(deserializer)?;
        let segments = segments.into_iter().map(|segment| crate::Segment {
            start: duration(segment.start),
            end: duration(segment.end),
            text: segment.text,
            confidence: segment.confidence,
            words: segment.words.into_iter().map(crate::Word::from).collect(),
        });
        Ok(segments.collect())
    }
}
