//! Which heads of attention go along with the speech, found out on the audio itself and remembered.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use voxtral_decoder::Head;

/// What a head must explain of the text to be used, see [`Attention::explained`]. In the demo model,
/// on texts of four words and more, the heads of the last layer explain 0.5 to 1, all others at most
/// 0.25.
///
/// [`Attention::explained`]: super::attention::Attention::explained
pub(super) const ALIGNS: f32 = 0.3;

/// Of the best head's, what the other heads must explain: worse ones blur the times.
const BESIDE_BEST: f32 = 0.5;

/// Heads that are used at most: more make no better mean, and cost time.
const MOST: usize = 4;

/// Words from which heads are chosen once and for all.
const ENOUGH_WORDS: usize = 8;

/// The best of these heads by what they explain; none where none aligns.
pub(super) fn choose(mut scored: Vec<(Head, f32)>) -> Vec<Head> {
    scored.sort_by(|a, b| b.1.total_cmp(&a.1));
    let least = scored
        .first()
        .map_or(ALIGNS, |best| ALIGNS.max(best.1 * BESIDE_BEST));
    let good = scored.into_iter().take_while(|(_, score)| *score >= least);
    let mut heads: Vec<Head> = good.take(MOST).map(|(head, _)| head).collect();
    heads.sort();
    heads
}

/// The heads of a model that are known to align, in memory and in a file.
#[derive(Debug)]
pub(crate) struct KnownHeads {
    heads: Mutex<Option<Vec<Head>>>,
    record: Option<PathBuf>,
    /// The model's name, layers, and heads of a layer.
    model: (String, [usize; 2]),
}

/// The file of a model's heads.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    model: String,
    layers: usize,
    heads: usize,
    /// Layer and head.
    aligned: Vec<[usize; 2]>,
}

impl KnownHeads {
    /// Of a model with so many layers and heads in each, which are remembered in this folder.
    pub(crate) fn new(name: &str, shape: [usize; 2], folder: Option<&Path>) -> Self {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        let file = format!("{}.json", name.chars().map(plain).collect::<String>());
        Self {
            heads: Mutex::new(None),
            record: folder.map(|folder| folder.join(file)),
            model: (name.to_owned(), shape),
        }
    }

    /// Those that were found, in this process or before.
    pub(crate) fn get(&self) -> Option<Vec<Head>> {
        let mut known = self.lock();
        if known.is_none() {
            *known = self.record.as_deref().and_then(|path| self.read(path));
        }
        known.clone()
    }

    /// Remembers heads that were chosen on a text of so many words, if that is enough.
    pub(super) fn learn(&self, heads: &[Head], words: usize) {
        if words < ENOUGH_WORDS || heads.is_empty() {
            return;
        }
        *self.lock() = Some(heads.to_vec());
        if let Some(path) = &self.record
            && let Err(error) = self.write(path, heads)
        {
            tracing::warn!(
                "cannot remember which heads align: `{}`: {error}",
                path.display()
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Vec<Head>>> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the file says; nothing where there is none for this model, or a damaged one.
    fn read(&self, path: &Path) -> Option<Vec<Head>> {
        let text = std::fs::read(path).ok()?;
        let (name, shape) = &self.model;
        let damaged = |why: &str| {
            tracing::warn!(
                "`{}` is ignored, it {why}: the heads are chosen anew",
                path.display()
            );
        };
        let Ok(record) = serde_json::from_slice::<Record>(&text) else {
            damaged("is no list of heads");
            return None;
        };
        if record.model != *name || [record.layers, record.heads] != *shape {
            damaged("is of another model");
            return None;
        }
        let fits = |[layer, head]: &[usize; 2]| *layer < shape[0] && *head < shape[1];
        if record.aligned.is_empty() || !record.aligned.iter().all(fits) {
            damaged("names heads that the model lacks");
            return None;
        }
        let heads = record.aligned.into_iter();
        Some(heads.map(|[layer, head]| Head { layer, head }).collect())
    }

    /// Writes a file that appears whole or not at all.
    fn write(&self, path: &Path, heads: &[Head]) -> std::io::Result<()> {
        let (name, [layers, count]) = &self.model;
        let record = Record {
            model: name.clone(),
            layers: *layers,
            heads: *count,
            aligned: heads.iter().map(|head| [head.layer, head.head]).collect(),
        };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let beside = path.with_extension(format!("{}.tmp", std::process::id()));
        std::fs::write(&beside, serde_json::to_vec(&record)?)?;
        std::fs::rename(&beside, path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(layer: usize, head: usize) -> Head {
        Head { layer, head }
    }

    #[test]
    fn heads_that_explain_little_are_left_out() {
        let scored = vec![
            (head(0, 0), 0.25),
            (head(1, 1), 0.9),
            (head(0, 1), 0.5),
            (head(1, 0), 0.4),
        ];
        assert_eq!(choose(scored.clone()), [head(0, 1), head(1, 1)]);
        assert!(choose(scored[..1].to_vec()).is_empty());
        assert!(choose(Vec::new()).is_empty());
        let many = (0..20).map(|i| (head(0, i), 0.5 + i as f32 / 100.0));
        assert_eq!(choose(many.collect()).len(), MOST);
    }

    #[test]
    fn heads_are_remembered_in_a_file_and_damaged_files_ignored() {
        let folder = std::env::temp_dir().join(format!("voxtral-heads-{}", std::process::id()));
        let known = |shape| KnownHeads::new("org/a model", shape, Some(&folder));
        assert_eq!(known([3, 6]).get(), None);
        let heads = [head(1, 2), head(2, 5)];
        known([3, 6]).learn(&heads, 2);
        assert_eq!(known([3, 6]).get(), None, "two words are not enough");
        known([3, 6]).learn(&heads, 100);
        assert_eq!(known([3, 6]).get().as_deref(), Some(&heads[..]));
        assert_eq!(known([2, 6]).get(), None, "another model");
        let file = folder.join("org-a-model.json");
        let names: Vec<_> = std::fs::read_dir(&folder).unwrap().collect();
        assert_eq!(names.len(), 1, "no temporary file is left");
        let absent = r#"{"model":"org/a model","layers":3,"heads":6,"aligned":[[3,0]]}"#;
        for damaged in ["", "[[1, 2", "{}", absent] {
            std::fs::write(&file, damaged).unwrap();
            assert_eq!(known([3, 6]).get(), None, "{damaged}");
        }
        known([3, 6]).learn(&heads, 100);
        assert_eq!(known([3, 6]).get().as_deref(), Some(&heads[..]));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
