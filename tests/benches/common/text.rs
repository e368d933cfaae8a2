//! How figures are written.

/// A share of one.
pub(crate) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent.abs() < 10.0 {
        format!("{percent:.2} %")
    } else {
        format!("{percent:.0} %")
    }
}

/// A time in seconds.
pub(crate) fn milliseconds(seconds: f64) -> String {
    let milliseconds = seconds * 1e3;
    let decimals = match milliseconds.abs() {
        large if large >= 100.0 => 0,
        large if large >= 10.0 => 1,
        small if small >= 0.1 => 3,
        _ => 4,
    };
    format!("{milliseconds:.decimals$} ms")
}

/// A number of three digits or more.
pub(crate) fn rounded(number: f64) -> String {
    if number < 9.995 {
        format!("{number:.2}")
    } else if number < 99.95 {
        format!("{number:.1}")
    } else {
        format!("{number:.0}")
    }
}

/// A size.
pub(crate) fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// A person who waits may want to know what is being measured.
#[allow(clippy::print_stderr, reason = "progress of the command")]
pub(crate) fn progress(what: &str) {
    eprintln!("{what}");
}
