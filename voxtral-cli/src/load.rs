//! Opens a model with a progress bar.

use std::num::NonZeroUsize;

use anyhow::{Context, Result};
use voxtral_checkpoint::{Checkpoint, Form};
use voxtral_hub::{Hub, ModelSource};
use voxtral_pipeline::{Backend, Demo, Precision, Progress, Voxtral};

use crate::{
    notice,
    progress::{self, Stage},
};

/// Within the cache of models: which heads of attention tell the times of words, a file for each.
const HEADS_FOLDER: &str = "voxtral-heads";

/// Says what a built-in model understands, so that nobody expects more of it.
pub(crate) fn tell_demo(model: &str, quiet: bool) {
    let (what, real) = match Demo::named(model) {
        Some(Demo::Clips) => ("one to eight in a row, ", "mini"),
        Some(Demo::Realtime) => ("", "realtime"),
        None => return,
    };
    notice(
        quiet,
        format_args!(
            "using the built-in demo model: it understands spoken digits, {what}in English, \
             French, German and Spanish; `--model {real}` fetches the real one"
        ),
    );
}

/// Sets the number of the CPU's threads: of the kernels, and of what Burn computes itself.
pub(crate) fn set_threads(threads: Option<u16>) -> Result<()> {
    let threads = match threads.map(usize::from).and_then(NonZeroUsize::new) {
        Some(threads) => threads,
        None => return Ok(()),
    };
    voxtral_kernels::set_threads(threads).context("cannot set the number of threads")?;
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads.get())
        .build_global()
        .context("cannot start the threads")
}

/// Opens the model of this name on this device.
pub(crate) fn open<B: Backend>(
    model: &str,
    device: B::Device,
    precision: Precision,
    quiet: bool,
) -> Result<Voxtral<B>> {
    tell_form(model, quiet);
    let mut builder = Voxtral::<B>::builder()
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
    if let Ok(hub) = Hub::from_env() {
        builder = builder.heads_folder(hub.cache_folder().join(HEADS_FOLDER));
    }
    let opened = builder.open(model);
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
