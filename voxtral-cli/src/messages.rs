//! What goes to stderr: notices, warnings and errors, one line each.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use serde::Serialize;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter,
    field::RecordFields,
    fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields, format::Writer},
    registry::LookupSpan,
};
use voxtral_pipeline::{DetectedLanguage, Doubt, Finish, Gap, LanguageSource, Timings, Warning};

use crate::progress;

/// An error and what caused it.
pub(crate) fn report(error: &anyhow::Error) {
    line(format_args!("error: {error:#}"));
}

/// Something that is no error; silenced by `-q`.
pub(crate) fn notice(quiet: bool, text: fmt::Arguments<'_>) {
    if !quiet {
        line(text);
    }
}

/// What a person should know of work on audio of this length that made so many tokens.
pub(crate) fn tell_work(finish: Finish, tokens: usize, audio: Duration, timings: &Timings) {
    if finish == Finish::Length {
        tracing::warn!(
            "stopped after {tokens} tokens, the text may be cut off (`--max-new-tokens`)"
        );
    }
    tracing::info!(
        "{audio:.1?} of audio; features {:.2?}, encoder {:.2?}, prefill {:.2?}, decode {:.2?} for \
         {tokens} tokens in {} passes",
        timings.features,
        timings.encoder,
        timings.prefill,
        timings.decode,
        timings.passes,
    );
}

/// Sound that has no text. Of a file that breaks off, its decoder has warned.
pub(crate) fn tell_gap(gap: &Gap) {
    if gap.reason != Doubt::Truncated {
        let (start, end) = (clock(gap.start), clock(gap.end));
        tracing::warn!("no text from {start} to {end}: {}", gap.reason);
    }
}

/// Text that is doubtful.
pub(crate) fn tell_warning(warning: &Warning) {
    let (start, end) = (clock(warning.start), clock(warning.end));
    tracing::warn!("doubtful text from {start} to {end}: {}", warning.reason);
}

/// `h:mm:ss.s`
fn clock(time: Duration) -> String {
    let tenths = (time.as_secs_f64() * 10.0).round() as u64;
    let (seconds, tenths) = (tenths / 10, tenths % 10);
    let (minutes, seconds) = (seconds / 60, seconds % 60);
    format!("{}:{:02}:{seconds:02}.{tenths}", minutes / 60, minutes % 60)
}

/// A JSON line on stderr.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(format_args!("{}", serde_json::to_string(value)?));
    Ok(())
}

/// The language, where it was found out.
pub(crate) fn tell_language(detected: Option<&DetectedLanguage>) {
    let Some(found) = detected else {
        return;
    };
    let by = match found.source {
        LanguageSource::Model => "by the model",
        _ => "by its words",
    };
    let percent = 100.0 * found.probability;
    tracing::info!(
        "language `{}` detected {by}, {percent:.0} % sure",
        found.language
    );
}

/// A wrong command line; shorter than clap says it, and on one line as every other error.
pub(crate) fn usage(error: &clap::Error) {
    let text = error.to_string();
    let mut message = String::new();
    for part in text.lines().map(str::trim) {
        if part.starts_with("Usage:") || part.starts_with("For more information") {
            break;
        }
        if !part.is_empty() {
            let glue = match message.chars().last() {
                None => "",
                Some(':') => " ",
                Some(_) => "; ",
            };
            message.push_str(glue);
            message.push_str(part);
        }
    }
    line(format_args!("{message} (`--help` tells more)"));
}

/// One line on stderr. If nobody reads it, there is nobody to tell.
fn line(text: fmt::Arguments<'_>) {
    let text = text.to_string();
    let text = text.lines().collect::<Vec<_>>().join(" ") + "\n";
    let _ = progress::without(|| io::stderr().lock().write_all(text.as_bytes()));
}

/// Warnings of our own crates by default; nothing with `-q`, more with `-v`, the libraries' too
/// with `-vv`. `RUST_LOG` overrides.
pub(crate) fn init_log(quiet: bool, verbose: u8) {
    let levels = match (quiet, verbose) {
        (true, _) => "off",
        (false, 0) => "off,voxtral=warn",
        (false, 1) => "off,voxtral=info",
        (false, _) => "info,voxtral=debug",
    };
    let filter = match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(levels) if !levels.is_empty() => EnvFilter::new(levels),
        _ => EnvFilter::new(levels),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .log_internal_errors(false)
        .fmt_fields(OneLine)
        .event_format(OneLine)
        .init();
}

/// The field of a span that tells which input a message is about.
const INPUT: &str = "input";

/// Until it is dropped, messages begin with the name of this input.
pub(crate) fn about(input: &str) -> tracing::span::EnteredSpan {
    tracing::error_span!("file", input = %input).entered()
}

/// `warning: talk.mp3: what is the matter`
struct OneLine;

impl<S, N> FormatEvent<S, N> for OneLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            Level::DEBUG => "debug",
            Level::TRACE => "trace",
        };
        write!(writer, "{level}: ")?;
        for span in context.event_scope().into_iter().flatten() {
            match span.extensions().get::<FormattedFields<N>>() {
                Some(fields) if span.metadata().fields().field(INPUT).is_some() => {
                    write!(writer, "{fields}: ")?;
                }
                _ => {}
            }
        }
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

impl<'w> FormatFields<'w> for OneLine {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut text = Text {
            writer,
            begun: false,
            outcome: Ok(()),
        };
        fields.record(&mut text);
        text.outcome
    }
}

/// `the message, name=value, name=value`
struct Text<'w> {
    writer: Writer<'w>,
    begun: bool,
    outcome: fmt::Result,
}

impl Visit for Text<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let name = match field.name() {
            // Where in a library's source a message of the `log` crate comes from.
            name if name.starts_with("log.") => return,
            "message" | INPUT => String::new(),
            name => format!("{name}="),
        };
        let glue = if self.begun { ", " } else { "" };
        self.begun = true;
        self.outcome = self
            .outcome
            .and_then(|()| write!(self.writer, "{glue}{name}{value:?}"));
    }
}
