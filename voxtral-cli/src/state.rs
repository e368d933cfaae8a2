//! The folder of what the program remembers.

use std::env;
use std::fs;
use std::path::PathBuf;

/// The folder, which is there: below `$XDG_STATE_HOME`, or else `~/.local/state`.
pub(crate) fn folder() -> Option<PathBuf> {
    let set = env::var_os("XDG_STATE_HOME").filter(|path| !path.is_empty());
    let state = set
        .map(PathBuf::from)
        .or_else(|| Some(env::home_dir()?.join(".local").join("state")))?;
    let folder = state.join("voxtral");
    fs::create_dir_all(&folder).ok()?;
    Some(folder)
}
