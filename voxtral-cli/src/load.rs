//! Opens a model with a progress bar.

use std::cell::RefCell;

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use voxtral_checkpoint::{Checkpoint, Form};
use voxtral_hub::ModelSource;
use voxtral_pipeline::{Backend, Precision, Progress, Voxtral};

use crate::{args::DEMO, notice};

/// Opens the model of this name on this device.
pub(crate) fn open<B: Backend>(
    model: &str,
    device: B::Device,
    precision: Precision,
    quiet: bool,
) -> Result<Voxtral<B>> {
    tell_form(model, quiet);
    let bar = Bar::new(quiet);
    let builder = Voxtral::<B>::builder()
        .device(device)
        .precision(precision)
        .progress(|progress| bar.update(&progress));
    let opened = match model {
        DEMO => builder.demo(),
        name => builder.open(name),
    };
    bar.clear();
    opened.with_context(|| format!("failed to load model `{model}`"))
}

/// Says which form is read of a folder that holds the model in both.
fn tell_form(model: &str, quiet: bool) {
    let Ok(ModelSource::Folder(folder)) = model.parse() else {
        return;
    };
    let forms = [Form::HuggingFace, Form::Native];
    if forms.map(|form| Checkpoint::open_form(&folder, form).is_ok()) == [true, true]
        && let Ok(read) = Checkpoint::open(&folder)
    {
        notice(
            quiet,
            format_args!(
                "`{model}` holds the model in two forms: reading the {} one",
                read.form()
            ),
        );
    }
}

/// Two bars, one after the other: fetching, loading. They show on a terminal alone.
struct Bar {
    quiet: bool,
    current: RefCell<Option<(&'static str, ProgressBar)>>,
}

impl Bar {
    fn new(quiet: bool) -> Self {
        Self {
            quiet,
            current: RefCell::new(None),
        }
    }

    fn update(&self, progress: &Progress) {
        match progress {
            Progress::Download(part) => {
                self.show("fetching", part.done, part.total, &part.file);
            }
            Progress::Load { done, total } => self.show("loading", *done, *total, ""),
            _ => {}
        }
    }

    fn show(&self, stage: &'static str, done: u64, total: u64, detail: &str) {
        if self.quiet {
            return;
        }
        let mut current = self.current.borrow_mut();
        if current.as_ref().is_none_or(|(shown, _)| *shown != stage) {
            if let Some((_, old)) = current.take() {
                old.finish_and_clear();
            }
            *current = Some((stage, bar(stage)));
        }
        if let Some((_, bar)) = current.as_ref() {
            bar.set_length(total);
            bar.set_position(done);
            bar.set_message(detail.to_owned());
        }
    }

    fn clear(&self) {
        if let Some((_, bar)) = self.current.borrow_mut().take() {
            bar.finish_and_clear();
        }
    }
}

fn bar(stage: &'static str) -> ProgressBar {
    const TEMPLATE: &str = "{prefix} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta} {msg}";
    let style =
        ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(0).with_style(style).with_prefix(stage)
}
