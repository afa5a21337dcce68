//! Where PostgreSQL is, and as whom it runs.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::ServerError;

/// Where Debian has a folder for each version, of which none is in `PATH`.
const DEBIAN: &str = "/usr/lib/postgresql";

/// Who may run a server for root, the first that there is.
const USERS: [&str; 2] = ["postgres", "nobody"];

/// The programs of one installation.
#[derive(Debug)]
pub(crate) struct Binaries {
    pub(crate) initdb: PathBuf,
    pub(crate) postgres: PathBuf,
}

impl Binaries {
    /// Those of `PATH`, or else of Debian's newest version.
    pub(crate) fn find() -> Result<Self, ServerError> {
        let path = env::var_os("PATH").unwrap_or_default();
        let mut folders: Vec<PathBuf> = env::split_paths(&path).collect();
        folders.extend(versions(Path::new(DEBIAN)));
        let found = folders.into_iter().find_map(|folder| {
            let binaries =
                Binaries { initdb: folder.join("initdb"), postgres: folder.join("postgres") };
            (binaries.initdb.is_file() && binaries.postgres.is_file()).then_some(binaries)
        });
        let searched = || format!("a folder of PATH nor {DEBIAN}/*/bin");
        found.ok_or_else(|| ServerError::NotInstalled(searched()))
    }

    /// The version, as in 15.
    pub(crate) fn version(&self) -> Result<u32, ServerError> {
        let what = format!("{} --version", self.postgres.display());
        let output = Command::new(&self.postgres)
            .arg("--version")
            .output()
            .map_err(ServerError::system(&what))?;
        // As in "postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)".
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let number = text.split_whitespace().nth(2).and_then(|number| {
            let digits = number.find(|one: char| !one.is_ascii_digit()).unwrap_or(number.len());
            number[..digits].parse().ok()
        });
        number.ok_or_else(|| ServerError::System(format!("{what}: {text:?} has no version")))
    }
}

/// The folders of the binaries, the newest version first.
fn versions(under: &Path) -> Vec<PathBuf> {
    // Where there is none, nothing is installed there.
    let entries = fs::read_dir(under).into_iter().flatten().flatten();
    let mut versions: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    versions.sort_by(|one, other| other.cmp(one));
    versions.into_iter().map(|(_, path)| path).collect()
}

/// A user and its group, by their numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl User {
    /// As whom a server is to run: `None` is as whom we are.
    pub(crate) fn for_server() -> Result<Option<Self>, ServerError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let found = USERS.iter().find_map(|name| {
            Some(User { uid: id("-u", name)?, gid: id("-g", name)? }).filter(|user| user.uid != 0)
        });
        found.map(Some).ok_or(ServerError::NoUser)
    }
}

/// A number of a user, if there is that user.
fn id(which: &str, name: &str) -> Option<u32> {
    let output = Command::new("id").args([which, name]).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}
