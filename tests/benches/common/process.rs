//! Memory of the process, as Linux tells it in `/proc/self/status`.

use serde::Serialize;

/// In bytes.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Resident {
    /// All of it (`VmRSS`).
    pub(crate) all: u64,
    /// What belongs to the process alone (`RssAnon`).
    pub(crate) anonymous: u64,
    /// Pages of mapped files that were touched, which the system may take back (`RssFile`).
    pub(crate) file: u64,
}

/// What is resident now, where the system tells it.
pub(crate) fn resident() -> Option<Resident> {
    Some(Resident {
        all: status("VmRSS:")?,
        anonymous: status("RssAnon:")?,
        file: status("RssFile:")?,
    })
}

/// The most that was resident since the peak was forgotten (`VmHWM`).
pub(crate) fn peak() -> Option<u64> {
    status("VmHWM:")
}

/// Forgets the peak. Where the system refuses, it stays that of the whole process.
pub(crate) fn forget_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// A line of the process's status, in bytes.
fn status(name: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}
