//! `ship --follow`: a file as it grows, through its rotations.
//!
//! The name is looked at again and again, also while a request waits for its
//! answer, and so are the files beside it that are named as its rotations
//! (`NAME.1`, `NAME-20260101`, `NAME.2.gz`). What is found is opened at once. A
//! growing file is read to its end and its complete lines are sent; an
//! incomplete last line is held back until it is complete, or until the file is
//! done with. A file is done with
//!
//! - when another one has the name (rotation by renaming) and nothing was
//!   written to it for long, for its writer may go on for minutes. It is open
//!   here, and so is read to its end whatever its name is now;
//! - when it is shorter than what was read, or begins otherwise (rotation by
//!   copying and truncating). What was written to it in between is in the copy:
//!   that is looked for among the files beside it, known by its content, and
//!   its rest is sent;
//! - at the end of the run.
//!
//! The file that comes after it under the same name is another one, even where
//! it begins with the same lines.
//!
//! A file beside it is shipped if it was not shipped to its end: one that was
//! rotated while nobody followed it, or that had the name between two looks
//! only. When a name is followed for the first time, the files that are beside
//! it already are left alone, unless they come after one that was shipped.
//!
//! No error ends it. What cannot be read, and a service that does not answer,
//! are said at once and tried again.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::task::block_in_place;

use super::family::Family;
use super::file::{self, FileKey, Opened};
use super::registry::{Answer, EntryId, FamilyFile, Known, Question, Rotation, Scope};
use super::shared::Shared;
use super::summary::Summary;
use crate::console;

mod generation;
mod watch;

use generation::{Drained, Generation, content_bytes};
use watch::{Found, Watch};

/// The longest pause before a service is tried again that did not answer, in
/// seconds.
const PAUSE_SECONDS_MAX: u64 = 5;

/// How long a packed file has to be unchanged before it is looked into, in
/// seconds: it may still be being packed.
const PACKING_SECONDS: u64 = 3;

/// Follows a file until the run is to stop.
pub(crate) async fn follow(
    shared: &Shared,
    path: &Path,
    topic: &str,
    summary: &mut Summary,
) -> anyhow::Result<()> {
    let mut stop = shared.stop.clone();
    let mut watch = Watch::new(path);
    let scope = shared.scope(topic);
    let mut follower = Follower::new(path, scope);
    follower.first = match shared.registry.was_followed(&follower.scope, path).await {
        Ok(followed) => !followed,
        Err(error) => {
            // Rather too much is shipped than too little.
            summary.note(format!("{} is taken for followed before: {error:#}", path.display()));
            false
        }
    };
    watch.ignore_unreadable = follower.first;
    let mut pause = shared.options.poll;
    loop {
        let stopping = stop.is_set();
        let mut found = VecDeque::from(block_in_place(|| watch.look()));
        if !watch.has_current() && !std::mem::replace(&mut follower.awaited, true) {
            console::note(format_args!("waiting for {} to appear", path.display()));
        }
        follower.files.clone_from(&watch.files);
        follower.queue.append(&mut found);
        let worked = {
            let work = follower.work(shared, summary);
            tokio::pin!(work);
            loop {
                tokio::select! {
                    worked = &mut work => break worked,
                    // Who waits for an answer must not miss what comes and goes meanwhile.
                    () = tokio::time::sleep(shared.options.poll) => {
                        found.extend(block_in_place(|| watch.look()));
                    }
                }
            }
        };
        follower.queue.append(&mut found);
        for key in follower.closed.drain(..) {
            watch.forget(&key);
        }
        for key in follower.emptied.drain(..) {
            watch.begin_anew(&key);
        }
        follower.troubles.see(&watch.troubles, summary);
        let answered = worked.is_ok();
        follower.troubles.service(worked.as_ref().err(), summary);
        if stopping {
            return follower.end(shared, worked, summary).await;
        }
        pause = match answered {
            true => shared.options.poll,
            false => (pause * 2).min(Duration::from_secs(PAUSE_SECONDS_MAX)),
        };
        stop.sleep(pause).await;
    }
}

/// The files of one name.
struct Follower {
    path: PathBuf,
    scope: Scope,
    /// Whether the name was never followed before.
    first: bool,
    /// Whether a reader was told that the file is not there yet.
    awaited: bool,
    /// Found, and not looked at yet.
    queue: VecDeque<Found>,
    /// The files of the family that are there.
    files: Arc<[FamilyFile]>,
    /// Those that had the name, or are named as rotations, in order.
    past: Vec<Generation>,
    current: Option<Generation>,
    /// What had the name in this run.
    entries: Vec<EntryId>,
    closed: Vec<FileKey>,
    /// Those of them that were emptied.
    emptied: Vec<FileKey>,
    troubles: Troubles,
}

impl Follower {
    fn new(path: &Path, scope: Scope) -> Self {
        Self {
            path: path.to_owned(),
            scope,
            first: false,
            awaited: false,
            queue: VecDeque::new(),
            files: Arc::from([]),
            past: Vec::new(),
            current: None,
            entries: Vec::new(),
            closed: Vec::new(),
            emptied: Vec::new(),
            troubles: Troubles::default(),
        }
    }

    /// Takes in what was found, and sends what there is to send.
    ///
    /// # Errors
    ///
    /// If a request has no answer.
    async fn work(&mut self, shared: &Shared, summary: &mut Summary) -> anyhow::Result<()> {
        let mut after_known = !self.first;
        while let Some(found) = self.queue.pop_front() {
            match found {
                Found::Sibling(path, opened) => {
                    let name = path.clone();
                    let taken =
                        self.take_sibling(shared, path, opened, &mut after_known, summary).await;
                    self.troubles.set(&name.display().to_string(), taken.err(), summary);
                }
                Found::Current(opened) => {
                    self.past.extend(self.current.take());
                    self.current = Some(self.begin(shared, opened));
                }
            }
        }
        if std::mem::take(&mut self.first) {
            shared.registry.set_followed(&self.scope, &self.path);
        }
        self.drain(shared, summary).await
    }

    /// The file that has the name from now on.
    fn begin(&self, shared: &Shared, opened: Opened) -> Generation {
        let question = self.question(shared, &opened, false, false);
        Generation::new(self.path.clone(), opened, question)
    }

    fn question(&self, shared: &Shared, opened: &Opened, beside: bool, packed: bool) -> Question {
        let rotation = Rotation {
            born: opened.metadata.created().ok(),
            beside,
            packed,
            files: Arc::clone(&self.files),
            encoding: shared.options.encoding,
        };
        Question {
            key: Some(opened.key.clone()),
            family: Family::of(&self.path),
            followed: true,
            rotation: Some(rotation),
            ..Question::of(&self.scope)
        }
    }

    /// Takes a file that is named as a rotation, if it was not shipped to its
    /// end. `after_known` says whether it comes after one that was shipped.
    async fn take_sibling(
        &mut self,
        shared: &Shared,
        path: PathBuf,
        mut opened: Opened,
        after_known: &mut bool,
        summary: &mut Summary,
    ) -> anyhow::Result<()> {
        let encoding = shared.options.encoding;
        let compression = block_in_place(|| file::compression(&mut opened.file));
        let packing = || opened.age().is_none_or(|age| age <= Duration::from_secs(PACKING_SECONDS));
        if compression.as_ref().is_ok_and(Option::is_some) && packing() {
            // What it is made of is there as well for a moment.
            self.closed.push(opened.key);
            return Ok(());
        }
        let beginning = block_in_place(|| {
            let compression = compression?;
            let (window, head) =
                file::window(&opened.file, compression, encoding).context("cannot read")?;
            file::ensure_text(&head, encoding)?;
            anyhow::Ok((compression, window, head))
        });
        let (compression, window, head) = match beginning {
            Ok(beginning) => beginning,
            // It was none of ours before.
            Err(_) if !*after_known => return Ok(()),
            // Whether it was shipped before it was packed is not known.
            Err(error) => {
                summary.say(&format!("{} is not looked into: {error:#}", path.display()));
                return Ok(());
            }
        };
        if window.is_empty() {
            return Ok(());
        }
        for generation in self.past.iter().chain(&self.current) {
            generation.record(shared);
        }
        let question = self.question(shared, &opened, true, compression.is_some());
        let asked = window.clone();
        let read = Box::new(move || Ok(asked));
        let Some(Answer::Known(known)) = shared.identify(question.clone(), read, summary).await
        else {
            return Ok(());
        };
        if self.is_open(known.id) {
            // A copy of what is being read anyway.
            return Ok(());
        }
        *after_known |= known.seen;
        let bytes = block_in_place(|| content_bytes(&opened.file, compression))
            .context("cannot unpack it")?;
        let Known { id, seen, shipped_bytes, .. } = known;
        if !seen && !*after_known {
            // It was there before the name was followed.
            shared.registry.record(id, window, bytes);
            shared.registry.release(id);
            return Ok(());
        }
        if seen && bytes <= shipped_bytes {
            shared.registry.release(id);
            return Ok(());
        }
        summary.note(format!("{} is shipped, too: it was not shipped to its end", path.display()));
        let generation =
            Generation::of_known(shared, path, opened, compression, question, known, head)?;
        self.past.push(generation);
        Ok(())
    }

    fn is_open(&self, id: EntryId) -> bool {
        self.past.iter().chain(&self.current).any(|generation| generation.entry() == Some(id))
    }

    /// Sends what is new, of the oldest file first.
    ///
    /// # Errors
    ///
    /// If a request has no answer.
    async fn drain(&mut self, shared: &Shared, summary: &mut Summary) -> anyhow::Result<()> {
        let has_successor = self.current.is_some();
        let mut left = Vec::new();
        let mut past = std::mem::take(&mut self.past).into_iter();
        let mut failed = None;
        for mut generation in past.by_ref() {
            let quiet = has_successor && generation.is_quiet(shared.options.renamed_quiet);
            let name = generation.path.display().to_string();
            let result = async {
                let drained = generation.drain(shared, summary).await?;
                if quiet && drained == Drained::ToEnd {
                    generation.finish(shared, summary).await?;
                }
                anyhow::Ok(drained)
            }
            .await;
            let emptied = matches!(result, Ok(Drained::Truncated));
            let done = emptied || (quiet && result.is_ok());
            if let Err(error) = self.troubles.sort_out(&name, result.map(|_| ()), summary) {
                failed = Some(error);
            }
            if done {
                self.close(shared, generation, emptied, summary);
            } else {
                left.push(generation);
            }
            if failed.is_some() {
                break;
            }
        }
        left.extend(past);
        self.past = left;
        if let Some(error) = failed {
            return Err(error);
        }
        let Some(mut current) = self.current.take() else { return Ok(()) };
        let past = self.past.iter().filter_map(Generation::entry);
        current.is_not(past.chain(self.entries.iter().copied()));
        let name = current.path.display().to_string();
        let result = current.drain(shared, summary).await;
        match result {
            Ok(Drained::Truncated) => self.close(shared, current, true, summary),
            _ => self.current = Some(current),
        }
        self.troubles.sort_out(&name, result.map(|_| ()), summary)
    }

    /// Is done with a file. What there is in its place, if it was `emptied`, and its
    /// copy is looked at after that: the copy is known for what it is by now.
    fn close(
        &mut self,
        shared: &Shared,
        mut generation: Generation,
        emptied: bool,
        summary: &mut Summary,
    ) {
        self.entries.extend(generation.entry());
        self.closed.push(generation.key().clone());
        if emptied {
            self.emptied.push(generation.key().clone());
        }
        generation.close(shared, summary);
    }

    /// Sends what is left at the end of the run, if the service answers: `worked`
    /// says so.
    ///
    /// # Errors
    ///
    /// If it does not.
    async fn end(
        mut self,
        shared: &Shared,
        mut worked: anyhow::Result<()>,
        summary: &mut Summary,
    ) -> anyhow::Result<()> {
        for mut generation in std::mem::take(&mut self.past).into_iter().chain(self.current.take())
        {
            if worked.is_ok() {
                let name = generation.path.display().to_string();
                let finished = generation.finish(shared, summary).await;
                worked = self.troubles.sort_out(&name, finished, summary);
            }
            self.close(shared, generation, false, summary);
        }
        summary.tally.unread += self.troubles.unread(summary);
        worked
    }
}

/// What does not go as it should, by what it concerns. It is said when it comes
/// and when it changes, and counts if it is there at the end.
#[derive(Debug, Default)]
struct Troubles {
    files: HashMap<String, String>,
    /// Those that the watch has.
    seen: HashMap<PathBuf, String>,
    service: bool,
}

impl Troubles {
    fn service(&mut self, error: Option<&anyhow::Error>, summary: &mut Summary) {
        match error {
            Some(error) if !self.service => {
                summary.say(&format!("the service does not answer: {error:#}; it is tried again"));
            }
            None if self.service => console::note(format_args!("the service answers again")),
            _ => {}
        }
        self.service = error.is_some();
    }

    fn set(&mut self, concerns: &str, error: Option<anyhow::Error>, summary: &mut Summary) {
        let Some(error) = error else {
            if self.files.remove(concerns).is_some() {
                console::note(format_args!("{concerns}: goes on"));
            }
            return;
        };
        let text = format!("{error:#}");
        if self.files.insert(concerns.to_owned(), text.clone()).is_none() {
            summary.say(&format!("{concerns}: {text}; it is tried again"));
        }
    }

    fn see(&mut self, troubles: &HashMap<PathBuf, String>, summary: &mut Summary) {
        for (path, text) in troubles {
            if self.seen.get(path) != Some(text) {
                summary.say(&format!("{}: {text}; it is tried again", path.display()));
            }
        }
        for path in self.seen.keys().filter(|path| !troubles.contains_key(*path)) {
            console::note(format_args!("{}: goes on", path.display()));
        }
        self.seen.clone_from(troubles);
    }

    /// Passes on what concerns the service; the rest concerns a file.
    fn sort_out(
        &mut self,
        name: &str,
        result: anyhow::Result<()>,
        summary: &mut Summary,
    ) -> anyhow::Result<()> {
        match result {
            Err(error) if error.is::<crate::client::Failure>() => Err(error),
            other => {
                self.set(name, other.err(), summary);
                Ok(())
            }
        }
    }

    /// Counts the files that could not be read to the end, and lists them.
    fn unread(&self, summary: &mut Summary) -> u64 {
        let files = self.files.iter().map(|(name, text)| (name.clone(), text));
        let seen = self.seen.iter().map(|(path, text)| (path.display().to_string(), text));
        let mut count = 0;
        for (name, text) in files.chain(seen) {
            count += 1;
            summary.problem(format!("{name} could not be read to its end: {text}"));
        }
        count
    }
}
