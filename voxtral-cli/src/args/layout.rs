//! How subtitles are set, under the names of Whisper's program.

use std::num::NonZeroUsize;

use anyhow::{Result, bail};
use clap::Args;
use voxtral_pipeline::{Format, Layout};

/// Lines and words of subtitles.
#[derive(Debug, Args)]
#[command(next_help_heading = "Subtitles")]
pub(crate) struct LayoutArgs {
    /// Break the lines of `srt` and `vtt` at so many columns, of which a wide character takes two.
    #[arg(long, value_name = "COLUMNS", value_parser = positive)]
    max_line_width: Option<NonZeroUsize>,
    /// Lines that a subtitle has at most; longer segments become several.
    #[arg(long, value_name = "LINES", requires = "max_line_width", value_parser = positive)]
    max_line_count: Option<NonZeroUsize>,
    /// Underline each word in `srt` and `vtt` while it is spoken.
    #[arg(long)]
    highlight_words: bool,
    /// Put words with their times into the segments of `json`.
    #[arg(long)]
    word_timestamps: bool,
}

impl LayoutArgs {
    /// The layout; fails where it has no effect on any of these formats.
    pub(crate) fn layout(&self, formats: &[Format]) -> Result<Layout> {
        let subtitles = formats.iter().any(|format| format.is_subtitles());
        let flags = [
            (self.max_line_width.is_some(), "--max-line-width"),
            (self.highlight_words, "--highlight-words"),
        ];
        for (given, flag) in flags {
            if given && !subtitles {
                bail!(
                    "`{flag}` is for subtitles, but the format is {}: add `--format srt` or `vtt`",
                    names(formats)
                );
            }
        }
        if self.word_timestamps && !subtitles && !formats.contains(&Format::Json) {
            bail!(
                "`--word-timestamps` has no place in the format {}: add `--format json`",
                names(formats)
            );
        }
        Ok(Layout {
            max_line_width: self.max_line_width,
            max_line_count: self.max_line_count,
            highlight_words: self.highlight_words,
            word_timestamps: self.word_timestamps,
        })
    }
}

/// `srt,json`
pub(crate) fn names(formats: &[Format]) -> String {
    let names: Vec<_> = formats.iter().map(|format| format.name()).collect();
    format!("`{}`", names.join(","))
}

/// A number that is not 0.
fn positive(text: &str) -> Result<NonZeroUsize, String> {
    text.parse()
        .map_err(|_| "expected a whole number of at least 1".to_owned())
}
