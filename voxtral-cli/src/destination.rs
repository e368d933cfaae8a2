//! Where transcripts go, found out before any work.

mod template;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use voxtral_pipeline::{Demo, Format};

use crate::{
    args::{TranscribeArgs, format_names},
    output::{check_writable, is_same_file, is_special, parent},
};

pub(crate) use template::Template;
use template::Values;

/// Where the transcripts of a run go, and in which formats.
pub(crate) struct Destination {
    place: Place,
    formats: Vec<Format>,
}

enum Place {
    /// To stdout, the text piece by piece.
    Stdout,
    /// To one file.
    File(PathBuf),
    /// To a file for each input and format.
    Folder {
        folder: PathBuf,
        template: Template,
        values: Values,
    },
}

impl Destination {
    /// The destination of a run; finds out before any work whether it can be written.
    pub(crate) fn of(args: &TranscribeArgs) -> Result<Self> {
        let formats = &args.formats;
        if let Some(twice) = (1..formats.len()).find(|&i| formats[..i].contains(&formats[i])) {
            bail!(
                "`--format` has `{}` twice: name each format once",
                formats[twice]
            );
        }
        let place = match (&args.output, &args.output_dir, &args.output_template) {
            (Some(_), _, _) if formats.len() > 1 => bail!(
                "`--output` takes one format but {} are {} of them: use `--output-dir`",
                format_names(formats),
                formats.len()
            ),
            (Some(path), _, _) if path.as_os_str() == "-" => Place::Stdout,
            (Some(_), _, _) if args.files.len() > 1 => bail!(
                "`--output` takes one input but {} were given: use `--output-dir`",
                args.files.len()
            ),
            (Some(path), _, _) => Place::File(path.clone()),
            (None, None, None) if formats.len() > 1 => bail!(
                "{} make {} files of an input: say where, with `--output-dir` (`.` is here)",
                format_names(formats),
                formats.len()
            ),
            (None, None, None) => Place::Stdout,
            (None, folder, template) => Place::Folder {
                folder: folder.clone().unwrap_or_default(),
                template: template.clone().unwrap_or_default(),
                values: Values::new(args.model.name_or(Demo::Clips)),
            },
        };
        let destination = Self {
            place,
            formats: formats.clone(),
        };
        destination.check(&args.files)?;
        Ok(destination)
    }

    /// Each format, and the file for this input; none where it goes to stdout.
    pub(crate) fn outputs(&self, input: &Path) -> Vec<(Format, Option<PathBuf>)> {
        let output = |&format: &Format| (format, self.path(input, format));
        self.formats.iter().map(output).collect()
    }

    /// Whether transcripts go to stdout.
    pub(crate) fn is_stdout(&self) -> bool {
        matches!(self.place, Place::Stdout)
    }

    /// Whether words are printed as they come.
    pub(crate) fn is_live(&self) -> bool {
        self.is_stdout() && self.formats == [Format::Text]
    }

    fn path(&self, input: &Path, format: Format) -> Option<PathBuf> {
        match &self.place {
            Place::Stdout => None,
            Place::File(path) => Some(path.clone()),
            Place::Folder {
                folder,
                template,
                values,
            } => Some(folder.join(template.fill(input, format, values))),
        }
    }

    fn check(&self, inputs: &[PathBuf]) -> Result<()> {
        let mut seen = HashMap::new();
        for input in inputs {
            for (format, path) in self.outputs(input) {
                let Some(path) = path else {
                    continue;
                };
                check_file(&path, inputs)?;
                if let Some((other, first)) = seen.insert(path.clone(), (input, format)) {
                    bail!("{}", both((other, first), (input, format), &path));
                }
            }
        }
        match &self.place {
            Place::Stdout => Ok(()),
            Place::File(path) if is_special(path) => Ok(()),
            Place::File(path) => check_writable(parent(path)),
            Place::Folder { .. } => seen.keys().try_for_each(|path| {
                let folder = parent(path);
                fs::create_dir_all(folder).with_context(|| {
                    format!(
                        "cannot make folder `{}`, choose another `--output-dir`",
                        folder.display()
                    )
                })?;
                check_writable(folder)
            }),
        }
    }
}

/// Fails if a transcript has no place there.
fn check_file(path: &Path, inputs: &[PathBuf]) -> Result<()> {
    if path.is_dir() {
        bail!(
            "`{}` is a folder, expected a file to write: choose another name, or write into it with \
             `--output-dir`",
            path.display()
        );
    }
    if let Some(same) = inputs.iter().find(|input| is_same_file(input, path)) {
        bail!(
            "the transcript would overwrite the input `{}`: choose another output",
            same.display()
        );
    }
    Ok(())
}

/// Why two transcripts cannot go to one file.
fn both(one: (&PathBuf, Format), other: (&PathBuf, Format), path: &Path) -> String {
    let path = path.display();
    if one.0 == other.0 && one.1 != other.1 {
        return format!(
            "`{}` and `{}` would both be written to `{path}`: put {{ext}} or {{format}} into \
             `--output-template`",
            one.1, other.1
        );
    }
    format!(
        "`{}` and `{}` would both be written to `{path}`: rename one or run them apart",
        one.0.display(),
        other.0.display(),
    )
}
