//! Where the program keeps what it must remember from one run to the next.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

#[cfg(unix)]
use crate::console;

/// The permissions of others on a file that is the user's own.
#[cfg(unix)]
const OTHERS: u32 = 0o077;

/// The user's directory for the state of this program, if there is one.
#[must_use]
pub(crate) fn directory(var: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let absolute = |name| var(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .or_else(|| absolute("LOCALAPPDATA"))?;
    Some(state.join("sekali"))
}

/// A file that is made by these options is for the user alone, where systems
/// have such permissions.
pub(crate) fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

/// Opens a file that is for the user alone, and makes it so if it is there and
/// is not.
///
/// # Errors
///
/// If it cannot be opened.
pub(crate) fn open_private(options: &mut OpenOptions, path: &Path) -> std::io::Result<File> {
    let file = private(options).open(path)?;
    tighten(&file, path);
    Ok(file)
}

/// Takes from others what they may do with a file. Where that cannot be, the user
/// is told, and goes on.
pub(crate) fn tighten(file: &File, path: &Path) {
    #[cfg(unix)]
    {
        use std::fs::Permissions;
        use std::os::unix::fs::PermissionsExt as _;
        let tightened = file.metadata().and_then(|metadata| {
            let mode = metadata.permissions().mode();
            match metadata.is_file() && mode & OTHERS != 0 {
                true => file.set_permissions(Permissions::from_mode(mode & 0o7777 & !OTHERS)),
                false => Ok(()),
            }
        });
        if let Err(error) = tightened {
            console::note(format_args!("{} stays open to others: {error}", path.display()));
        }
    }
    #[cfg(not(unix))]
    let _ = (file, path);
}
