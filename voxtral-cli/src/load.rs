//! Opens a model with a progress bar.

use anyhow::{Context, Result};
use voxtral_checkpoint::{Checkpoint, Form};
use voxtral_hub::ModelSource;
use voxtral_pipeline::{Backend, Precision, Progress, Voxtral};

use crate::{
    args::DEMO,
    notice,
    progress::{self, Stage},
};

/// Opens the model of this name on this device.
pub(crate) fn open<B: Backend>(
    model: &str,
    device: B::Device,
    precision: Precision,
    quiet: bool,
) -> Result<Voxtral<B>> {
    tell_form(model, quiet);
    let builder = Voxtral::<B>::builder()
        .device(device)
        .precision(precision)
        .progress(|progress| match progress {
            _ if quiet => {}
            Progress::Download(part) => {
                progress::show(Stage::Fetching, part.done, part.total, part.file);
            }
            Progress::Load { done, total } => progress::show(Stage::Loading, done, total, ""),
            _ => {}
        });
    let opened = match model {
        DEMO => builder.demo(),
        name => builder.open(name),
    };
    progress::clear();
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
