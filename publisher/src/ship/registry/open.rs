//! The registry's file: made, moved from its old form, set aside.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rusqlite::ErrorCode;
use serde::Deserialize;

use super::super::identity::Identity;
use super::super::window::{WINDOW_BYTES, Window};
use super::database::{Database, VERSION};
use super::model::Scope;
use crate::state;

/// What a database begins with.
const MAGIC: &[u8] = b"SQLite format 3\0";
/// The version of the old form, a JSON document.
const OLD_FORMAT: u32 = 1;
/// The extension of a registry in the old form.
const OLD_EXTENSION: &str = "json";

/// Where the registry is unless told otherwise: in the user's directory for
/// state, if there is one.
#[must_use]
pub(crate) fn default_path(var: impl Fn(&str) -> Option<std::ffi::OsString>) -> Option<PathBuf> {
    Some(state::directory(var)?.join("ship.db"))
}

/// Opens the registry in a file, and makes it if it is not there.
///
/// # Errors
///
/// If it can be neither read nor made.
pub(super) fn open(path: &Path, say: &mut dyn FnMut(String)) -> anyhow::Result<Database> {
    let locked = lock(path).with_context(|| format!("cannot lock {}", path.display()))?;
    let mut old = None;
    match content(path).with_context(|| format!("cannot read {}", path.display()))? {
        Content::Database | Content::Nothing => {}
        Content::Old(document) => {
            match files(&document) {
                Ok(files) => old = Some(files),
                Err(error) => set_aside(path, &error, say)?,
            };
        }
        Content::Other => set_aside(path, &anyhow::anyhow!("it is something else"), say)?,
    }
    if old.is_none() && !path.exists() {
        // One that was made before there were databases.
        let beside = path.with_extension(OLD_EXTENSION);
        if let Ok(Content::Old(document)) = content(&beside) {
            old = files(&document).ok();
        }
    }
    let database = match old {
        Some(files) => moved(path, &files),
        None => opened(path, say),
    }?;
    // Held until it is in place.
    drop(locked);
    Ok(database)
}

/// Opens a database that may be damaged, or of another version.
fn opened(path: &Path, say: &mut dyn FnMut(String)) -> anyhow::Result<Database> {
    let cannot = || format!("cannot open {}", path.display());
    // Topics and sources may say more than others should know. SQLite gives what it
    // makes beside it the same permissions.
    state::open_private(OpenOptions::new().create(true).truncate(false).write(true), path)
        .with_context(cannot)?;
    let damage = match Database::at(path) {
        Ok(database) => match database.version().with_context(cannot)? {
            VERSION => return Ok(database),
            other => anyhow::anyhow!("it is of version {other}, and this is {VERSION}"),
        },
        Err(error) if is_damage(&error) => anyhow::Error::new(error),
        Err(error) => return Err(error).with_context(cannot),
    };
    set_aside(path, &damage, say)?;
    state::open_private(OpenOptions::new().create_new(true).write(true), path)
        .with_context(cannot)?;
    Database::at(path).with_context(cannot)
}

fn is_damage(error: &rusqlite::Error) -> bool {
    match error {
        rusqlite::Error::SqliteFailure(error, _) => {
            matches!(error.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
        }
        // A table or a column is not there, or not of its type.
        rusqlite::Error::SqlInputError { .. } => true,
        _ => false,
    }
}

enum Content {
    Nothing,
    Database,
    Old(Vec<u8>),
    Other,
}

fn content(path: &Path) -> io::Result<Content> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Content::Nothing),
        Err(error) => return Err(error),
    };
    let mut head = Vec::new();
    file.by_ref().take(MAGIC.len() as u64).read_to_end(&mut head)?;
    if head.is_empty() {
        return Ok(Content::Nothing);
    }
    if head == MAGIC {
        return Ok(Content::Database);
    }
    if head.trim_ascii_start().starts_with(b"{") {
        file.read_to_end(&mut head)?;
        return Ok(Content::Old(head));
    }
    Ok(Content::Other)
}

/// Sets a registry aside that is of no use, for whoever can make use of it.
fn set_aside(path: &Path, why: &anyhow::Error, say: &mut dyn FnMut(String)) -> anyhow::Result<()> {
    let names = (0..).map(|number| match number {
        0 => appended(path, ".bad"),
        number => appended(path, &format!(".bad.{number}")),
    });
    let free = names.into_iter().find(|name| !name.exists()).unwrap_or_else(|| path.to_owned());
    std::fs::rename(path, &free).with_context(|| format!("cannot set {} aside", path.display()))?;
    for end in ["-wal", "-shm"] {
        let _ = std::fs::rename(appended(path, end), appended(&free, end));
    }
    say(format!(
        "{} is not a registry of shipped files that can be read here ({why:#}): it is set aside \
         as {}, and a new one is begun. No line is lost by that; files that begin alike, and \
         were shipped before, may have lines stored again. If it is of a newer version, put it \
         back and use that one",
        path.display(),
        free.display()
    ));
    Ok(())
}

fn appended(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// A file in the old form.
#[derive(Debug, Deserialize)]
struct OldFile {
    #[serde(flatten)]
    scope: Scope,
    salt: Option<String>,
    zone_bytes: u64,
    ends: Vec<OldEnd>,
}

/// How far it was shipped, and the SHA-256 of the bytes before it.
#[derive(Debug, Deserialize)]
struct OldEnd {
    bytes: u64,
    digest: String,
}

fn files(document: &[u8]) -> anyhow::Result<Vec<OldFile>> {
    #[derive(Deserialize)]
    struct Version {
        format: u32,
    }
    #[derive(Deserialize)]
    struct Document {
        files: Vec<OldFile>,
    }
    let Version { format } = serde_json::from_slice(document)?;
    anyhow::ensure!(format == OLD_FORMAT, "it is of version {format}");
    Ok(serde_json::from_slice::<Document>(document)?.files)
}

/// Makes a database of files in the old form, in place of what is there. Of a
/// file the longest end is kept that can be compared; one that has none was
/// long, and has by its content the ids that it had.
fn moved(path: &Path, files: &[OldFile]) -> anyhow::Result<Database> {
    let cannot = || format!("cannot write {}", path.display());
    let new = appended(path, ".new");
    state::open_private(OpenOptions::new().create(true).truncate(true).write(true), &new)
        .with_context(cannot)?;
    let mut database = Database::at(&new).with_context(cannot)?;
    let mut done = Ok(());
    database.transaction(|registry| {
        done = files.iter().try_for_each(|file| {
            let comparable = |end: &&OldEnd| end.bytes > 0 && end.bytes <= WINDOW_BYTES as u64;
            let Some(end) = file.ends.iter().rfind(comparable) else { return Ok(()) };
            let zone_bytes = file.zone_bytes.min(Identity::ZONE_BYTES_MAX);
            let identity = Identity { salt: file.salt.clone(), zone_bytes };
            let id = registry.insert(&file.scope, &identity, &Window::default(), None)?;
            registry.set_beginning(id, end.bytes, &end.digest)
        });
    })?;
    done.with_context(cannot)?;
    // Closed, so that all of it is in the one file that is moved.
    drop(database);
    std::fs::rename(&new, path).with_context(cannot)?;
    Database::at(path).with_context(cannot)
}

fn lock(path: &Path) -> io::Result<File> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    // A file of its own: the registry itself may be replaced.
    let name = appended(path, ".lock");
    let mut options = OpenOptions::new();
    let file = state::open_private(options.create(true).truncate(false).write(true), &name)?;
    file.lock()?;
    Ok(file)
}
