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
//! | [`model`] | what is asked and answered |
//! | [`decide`] | the rules: which known file one is, or none |
//! | [`database`] | what is remembered, in SQL |
//! | [`open`] | the file: made, moved from its old form, set aside |
//!
//! A store is named by the time it first started, which it tells in `/stats`,
//! and so is never taken for another one at the same address.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;

use anyhow::{Context as _, anyhow};
use tokio::sync::oneshot;

use super::window::Window;

mod database;
mod decide;
mod model;
mod open;
#[cfg(test)]
mod tests;

use database::Database;
pub(crate) use model::{Answer, EntryId, FamilyFile, Known, Question, ReadWindow, Rotation, Scope};
pub(crate) use open::default_path;

/// Questions and records in one transaction, at most.
const GROUP_MAX: usize = 256;

enum Command {
    Identify(Box<Question>, ReadWindow, oneshot::Sender<anyhow::Result<Answer>>),
    Extend(EntryId, Window, oneshot::Sender<anyhow::Result<()>>),
    Record { id: EntryId, window: Window, shipped_bytes: u64 },
    Release(EntryId),
    WasFollowed(Scope, String, oneshot::Sender<anyhow::Result<bool>>),
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

    /// Whether a name was followed before.
    ///
    /// # Errors
    ///
    /// If the registry cannot be read.
    pub(crate) async fn was_followed(&self, scope: &Scope, path: &Path) -> anyhow::Result<bool> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::WasFollowed(scope.clone(), absolute(path), reply))?;
        answer.await.map_err(|_| ended())?
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
                        let _ = reply.send(registry.was_followed(&scope, &path));
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
