//! Where the program keeps what it must remember from one run to the next.

use std::ffi::OsString;
use std::path::PathBuf;

/// The user's directory for the state of this program, if there is one.
#[must_use]
pub(crate) fn directory(var: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let absolute = |name| var(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .or_else(|| absolute("LOCALAPPDATA"))?;
    Some(state.join("sekali"))
}
