//! What commands that write checkpoints take and tell.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use anyhow::{Context, ensure};
use clap::ValueEnum;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use voxtral_checkpoint::{Checkpoint, CheckpointError, Form, Progress, Quant, Written};

/// A form of checkpoint, as it is named on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormArg {
    /// config.json, model.safetensors or shards
    Hf,
    /// params.json, consolidated.safetensors
    Native,
}

impl From<FormArg> for Form {
    fn from(form: FormArg) -> Self {
        match form {
            FormArg::Hf => Self::HuggingFace,
            FormArg::Native => Self::Native,
        }
    }
}

/// A format of quantized weights, as it is named on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum QuantArg {
    /// 8.25 bits a weight
    Q8,
    /// 4.5 bits a weight
    Q4,
}

impl From<QuantArg> for Quant {
    fn from(quant: QuantArg) -> Self {
        match quant {
            QuantArg::Q8 => Self::Q8,
            QuantArg::Q4 => Self::Q4,
        }
    }
}

/// Parses a size such as `5GB`, `200MB` or a plain number of bytes, in powers of 1 000.
pub(crate) fn size(text: &str) -> anyhow::Result<u64> {
    let upper = text.trim().to_ascii_uppercase();
    let units = [
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("B", 1),
        ("", 1),
    ];
    let split = units
        .iter()
        .find_map(|&(unit, scale)| Some((upper.strip_suffix(unit)?, scale)));
    let (digits, scale) = split.unwrap_or((&upper, 1));
    let bytes = digits
        .trim()
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(scale));
    let bytes =
        bytes.with_context(|| format!("`{text}` is not a size: expected e.g. 5GB or 200MB"))?;
    ensure!(bytes > 0, "`{text}` leaves no room for a tensor");
    Ok(bytes)
}

/// Runs `write` with a progress bar, which shows on a terminal alone, and says what came of it.
pub(crate) fn with_bar<E>(
    out: &Path,
    write: impl FnOnce(&mut dyn FnMut(Progress<'_>) -> ControlFlow<()>) -> Result<Written, E>,
) -> Result<Written, E> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    // Without a handler Ctrl-C would leave the temporary files; if none can be set, so be it.
    let _ = ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed));
    let bar = ProgressBar::no_length();
    if let Ok(style) = ProgressStyle::with_template(
        "{bar:30} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta} {wide_msg}",
    ) {
        bar.set_style(style);
    }
    let written = write(&mut |progress| {
        bar.set_length(progress.total);
        bar.set_position(progress.bytes);
        bar.set_message(progress.tensor.to_owned());
        if interrupted.load(Ordering::Relaxed) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    let elapsed = bar.elapsed().as_secs_f64();
    bar.finish_and_clear();
    let written = written?;
    say(&format!(
        "wrote {} tensors, {} bytes, to `{}` in {elapsed:.1} s ({}/s)",
        written.num_tensors,
        written.bytes,
        out.display(),
        HumanBytes((written.bytes as f64 / elapsed.max(1e-3)) as u64),
    ));
    Ok(written)
}

/// What a quantized checkpoint's tensors take: `5.12 bits a weight: q4 (419 tensors, 123 bytes), …`.
pub(crate) fn formats(out: &Path) -> Result<String, CheckpointError> {
    let checkpoint = Checkpoint::open_form(out, Form::HuggingFace)?;
    let shares = checkpoint.formats().into_iter().map(|share| {
        let (count, bytes) = (share.num_tensors, share.bytes);
        format!("{} ({count} tensors, {bytes} bytes)", share.name)
    });
    let shares = shares.collect::<Vec<_>>().join(", ");
    let bits = checkpoint.bits_per_parameter();
    Ok(format!("{bits:.2} bits a weight: {shares}"))
}

/// A line to the person at the terminal.
#[allow(clippy::print_stderr, reason = "the command's messages")]
pub(crate) fn say(line: &str) {
    eprintln!("{line}");
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes() {
        assert_eq!(size("5GB").unwrap(), 5_000_000_000);
        assert_eq!(size("200 mb").unwrap(), 200_000_000);
        assert_eq!(size("12000").unwrap(), 12_000);
        assert_eq!(size("7B").unwrap(), 7);
        assert_eq!(
            size("lots").unwrap_err().to_string(),
            "`lots` is not a size: expected e.g. 5GB or 200MB"
        );
        assert!(size("0").is_err());
        assert!(size("99999999999GB").is_err());
    }
}
