//! Times as readers of subtitles and people expect them.

use std::time::Duration;

/// The nearest millisecond, which is as fine as any of the formats is.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from((time.as_micros() + 500) / 1000).unwrap_or(u64::MAX)
}

/// `hh:mm:ss,mmm`, with another separator before the milliseconds in WebVTT.
pub(super) fn clock(millis: u64, separator: char) -> String {
    let (seconds, millis) = (millis / 1000, millis % 1000);
    let (minutes, seconds) = (seconds / 60, seconds % 60);
    let (hours, minutes) = (minutes / 60, minutes % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02}{separator}{millis:03}")
}

/// `h:mm:ss`, or `m:ss` below an hour, for people.
pub(super) fn short(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, seconds) = (seconds / 60, seconds % 60);
    let (hours, minutes) = (minutes / 60, minutes % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}
