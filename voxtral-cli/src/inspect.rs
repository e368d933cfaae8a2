//! `voxtral inspect`: what a model's files say, or what is in an audio file.

mod audio;
mod model;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::args::InspectArgs;

pub(crate) use model::{bits, precisions};

pub(crate) fn run(args: &InspectArgs, quiet: bool) -> Result<ExitCode> {
    let path = Path::new(&args.subject);
    if path.is_file() {
        return audio::run(path, args, quiet);
    }
    if args.plot.is_some() {
        bail!(
            "`{}` is no file, expected audio to draw: check the name",
            path.display()
        );
    }
    model::run(&args.subject)
}
