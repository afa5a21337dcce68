//! What was shipped from this machine, to tell files apart that begin alike.
//!
//! The registry chooses the salt of a file's lines (see
//! [`identity`](super::identity)) and nothing else. It never decides that a
//! line need not be sent: the service alone knows what it has stored. Losing
//! it loses no line; it can at most store lines of a file's beginning twice.
//!
//! It is a SQLite database. A thread of its own decides on files, in the order
//! in which they are asked about and under the database's lock, so that all
//! processes of a machine decide one after the other on what they read at that
//! moment. Questions that come in meanwhile share the next transaction: ten
//! thousand small files cost some hundred writes to the disk and not twenty
//! thousand.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`decide`] | the rules: which known file one is, or none |
//! | [`database`] | what is remembered, in SQL |
//! | [`open`] | the file: made, moved from its old form, set aside |
//!
//! A store is named by the time it first started, which it tells in `/stats`,
//! and so is never taken for another one at the same address.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::SystemTime;

use anyhow::{Context as _, anyhow};
use encoding_rs::Encoding;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::family::Family;
use super::file::FileKey;
use super::identity::Identity;
use super::window::Window;

mod database;
mod decide;
mod open;
#[cfg(test)]
mod tests;

use database::Database;
pub(crate) use open::default_path;

/// Questions and records in one transaction, at most.
const GROUP_MAX: usize = 256;

/// Among which files ids could meet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Scope {
    /// The store of the service.
    pub store: String,
    /// The topic.
    pub topic: String,
    /// The source.
    pub source: String,
}

/// Names a file that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct EntryId(i64);

/// What is asked about a file.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    /// Where its ids must not meet another's.
    pub scope: Scope,
    /// What the system calls it; nothing for a pipe.
    pub key: Option<FileKey>,
    /// The files that rotation makes of one.
    pub family: Option<Family>,
    /// Whether it is read as it grows.
    pub followed: bool,
    /// Whether all of it is there. If not, and it is like a longer one so far,
    /// the answer is [`Answer::Undecided`].
    pub whole: bool,
    /// Files that it is not, however alike.
    pub not: Vec<EntryId>,
    /// Where it stands among the files that rotation makes of one, if it is
    /// followed.
    pub rotation: Option<Rotation>,
}

/// A file among those that rotation makes of one.
#[derive(Debug, Clone)]
pub(crate) struct Rotation {
    /// When it was made, if the system knows.
    pub born: Option<SystemTime>,
    /// Whether it is named as a rotation, and has not the name itself.
    pub beside: bool,
    /// Whether it is packed.
    pub packed: bool,
    /// All that are there.
    pub files: Arc<[FamilyFile]>,
    /// What they are encoded in.
    pub encoding: Option<&'static Encoding>,
}

/// A file that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FamilyFile {
    /// What the system calls it.
    pub key: FileKey,
    /// Its name.
    pub path: PathBuf,
    /// When it was made, if the system knows.
    pub born: Option<SystemTime>,
    /// Whether it is named as a rotation, and has not the name itself.
    pub beside: bool,
}

impl Question {
    /// About content without a name, all of which is there.
    #[must_use]
    pub(crate) fn of(scope: &Scope) -> Self {
        Self {
            scope: scope.clone(),
            key: None,
            family: None,
            followed: false,
            whole: true,
            not: Vec::new(),
            rotation: None,
        }
    }

    /// Whether all of it is there.
    #[must_use]
    pub(crate) fn whole(self, whole: bool) -> Self {
        Self { whole, ..self }
    }
}

/// What a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It is this one.
    Known(Known),
    /// More of it has to be seen first.
    Undecided,
}

/// A file that the registry knows, from now on at the latest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    /// Names it.
    pub id: EntryId,
    /// What its ids are made with.
    pub identity: Identity,
    /// Whether it was known before.
    pub seen: bool,
    /// How far it was shipped, in bytes.
    pub shipped_bytes: u64,
}

/// Reads the beginning of a file, when it is its turn.
pub(crate) type ReadWindow = Box<dyn FnOnce() -> io::Result<Window> + Send>;

enum Command {
    Identify(Box<Question>, ReadWindow, oneshot::Sender<anyhow::Result<Answer>>),
    Extend(EntryId, Window, oneshot::Sender<anyhow::Result<()>>),
    Record { id: EntryId, window: Window, shipped_bytes: u64 },
    Release(EntryId),
    WasFollowed(Scope, String, oneshot::Sender<bool>),
    SetFollowed(Scope, String),
    Close(oneshot::Sender<anyhow::Result<()>>),
}

/// The registry: in a file, or for this process only.
#[derive(Debug)]
pub(crate) struct Registry {
    /// Until it is dropped.
    commands: Option<Sender<Command>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Registry {
    /// Waits until the database is closed.
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

impl Registry {
    /// A registry that is forgotten at the end of the process.
    ///
    /// # Errors
    ///
    /// If there is no memory or no thread for it.
    pub(crate) fn in_memory() -> anyhow::Result<Self> {
        Self::start(Database::in_memory()?)
    }

    /// The registry in a file, which need not exist yet. One that cannot be
    /// read is set aside, and a new one begun; `say` is told of it.
    ///
    /// # Errors
    ///
    /// If it can be neither read nor made.
    pub(crate) fn at(path: PathBuf, say: &mut dyn FnMut(String)) -> anyhow::Result<Self> {
        Self::start(open::open(&path, say)?)
    }

    fn start(database: Database) -> anyhow::Result<Self> {
        let (commands, receiver) = mpsc::channel();
        let thread = std::thread::Builder::new().name("registry".to_owned());
        let thread =
            thread.spawn(move || work(database, &receiver)).context("cannot start a thread")?;
        Ok(Self { commands: Some(commands), thread: Some(thread) })
    }

    /// Whether the thread takes it.
    fn command(&self, command: Command) -> anyhow::Result<()> {
        let sent = self.commands.as_ref().is_some_and(|thread| thread.send(command).is_ok());
        sent.then_some(()).ok_or_else(ended)
    }

    /// Decides what a file is, and remembers it on disk before the answer.
    ///
    /// # Errors
    ///
    /// If its content or the registry cannot be read, or not be written.
    pub(crate) async fn identify(
        &self,
        question: Question,
        read: ReadWindow,
    ) -> anyhow::Result<Answer> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Identify(Box::new(question), read, reply);
        self.command(command)?;
        answer.await.map_err(|_| ended())?
    }

    /// Remembers the beginning of a file as it is now, on disk before it returns:
    /// so that it is found again by it, whatever becomes of the file.
    ///
    /// # Errors
    ///
    /// If the registry cannot be written.
    pub(crate) async fn extend(&self, id: EntryId, window: Window) -> anyhow::Result<()> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::Extend(id, window, reply))?;
        answer.await.map_err(|_| ended())?
    }

    /// Remembers that a file was shipped up to an offset in bytes, and its
    /// beginning as it is now. What goes wrong is said by [`Registry::close`].
    pub(crate) fn record(&self, id: EntryId, window: Window, shipped_bytes: u64) {
        self.command(Command::Record { id, window, shipped_bytes }).ok();
    }

    /// Says that the file is no longer read in this run, and what is like it may
    /// be it.
    pub(crate) fn release(&self, id: EntryId) {
        self.command(Command::Release(id)).ok();
    }

    /// Whether a name was followed before, as far as is known.
    pub(crate) async fn was_followed(&self, scope: &Scope, path: &Path) -> bool {
        let (reply, answer) = oneshot::channel();
        let command = Command::WasFollowed(scope.clone(), absolute(path), reply);
        self.command(command).is_ok() && answer.await.unwrap_or_default()
    }

    /// Remembers that a name is followed, and that all files beside it are known
    /// that were there before.
    pub(crate) fn set_followed(&self, scope: &Scope, path: &Path) {
        self.command(Command::SetFollowed(scope.clone(), absolute(path))).ok();
    }

    /// Waits until all is on disk.
    ///
    /// # Errors
    ///
    /// If something that was to be remembered is not.
    pub(crate) async fn close(&self) -> anyhow::Result<()> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::Close(reply))?;
        answer.await.map_err(|_| ended())?
    }
}

fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}

fn ended() -> anyhow::Error {
    anyhow!("the registry's thread has ended")
}

/// Obeys commands, as many as there are in one transaction, until nobody can
/// give any.
fn work(mut database: Database, commands: &Receiver<Command>) {
    let mut failed = None;
    while let Ok(first) = commands.recv() {
        let mut group = vec![first];
        group.extend(commands.try_iter().take(GROUP_MAX - 1));
        let mut identified = Vec::new();
        let mut extended = Vec::new();
        let mut closing = Vec::new();
        let done = database.transaction(|registry| {
            for command in group {
                match command {
                    Command::Identify(question, read, reply) => {
                        let answer = registry.identify(&question, read);
                        identified.push((reply, answer));
                    }
                    Command::Extend(id, window, reply) => {
                        extended.push((reply, registry.record(id, &window, 0)));
                    }
                    Command::Record { id, window, shipped_bytes } => {
                        if let Err(error) = registry.record(id, &window, shipped_bytes) {
                            failed.get_or_insert(error);
                        }
                    }
                    Command::Release(id) => registry.release(id),
                    Command::WasFollowed(scope, path, reply) => {
                        let _ =
                            reply.send(registry.was_followed(&scope, &path).unwrap_or_default());
                    }
                    Command::SetFollowed(scope, path) => {
                        if let Err(error) = registry.set_followed(&scope, &path) {
                            failed.get_or_insert(error);
                        }
                    }
                    Command::Close(reply) => {
                        if let Err(error) = registry.forget_oldest() {
                            failed.get_or_insert(error);
                        }
                        closing.push(reply);
                    }
                }
            }
        });
        let refused = done.err().map(|error| format!("{error:#}"));
        let refused = refused.map(|error| format!("cannot write the registry: {error}"));
        // Who asked may have been interrupted.
        for (reply, answer) in identified {
            let _ = reply.send(refused.clone().map_or(answer, |error| Err(anyhow!(error))));
        }
        for (reply, answer) in extended {
            let _ = reply.send(refused.clone().map_or(answer, |error| Err(anyhow!(error))));
        }
        if let Some(error) = refused {
            failed.get_or_insert(anyhow!(error));
        }
        for reply in closing {
            let _ = reply.send(failed.take().map_or(Ok(()), Err));
        }
    }
}
