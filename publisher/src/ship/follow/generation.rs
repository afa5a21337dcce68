//! One file of those that have or had a name, as it grows.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use tokio::task::block_in_place;

use super::super::family::Family;
use super::super::file::{self, FileKey, Opened, READ_BYTES, Reader};
use super::super::identity::{HEAD_BYTES, Identity};
use super::super::registry::{Answer, EntryId, Known, Question, Scope};
use super::super::shared::Shared;
use super::super::stream::Stream;
use super::super::summary::Summary;
use super::super::text::TextDecoder;
use crate::compression::Compression;

/// Bytes still read of a file after a signal to stop.
const STOP_READ_BYTES_MAX: u64 = 16 << 20;
/// Looks for a copy while files are renamed.
const LOOKS_MAX: usize = 5;
/// The time between two records of how far a growing file was shipped, in seconds.
const RECORD_SECONDS_MIN: u64 = 5;

/// One file, however it is named.
#[derive(Debug)]
pub(super) struct Generation {
    /// Its name when it was found.
    pub(super) path: PathBuf,
    /// What the system calls it; `opened` may be its copy.
    key: FileKey,
    opened: Opened,
    compression: Option<Compression>,
    reading: Option<Reading>,
    /// What is asked about it, once enough of it is there.
    question: Question,
    grown: Instant,
    recorded: Instant,
    /// Whether more is there than is read after a signal to stop.
    cut_short: bool,
    /// Where the rest of it is, once it was emptied.
    rest: Option<Rest>,
}

/// Where that is which was written to a file after it was read, and before it was
/// emptied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// In a copy, which is read in its place.
    InCopy,
    /// Nowhere, as far as can be seen.
    Lost,
}

/// A file that is known.
#[derive(Debug)]
struct Reading {
    reader: Reader,
    decoder: TextDecoder,
    stream: Stream,
    /// The first bytes of the file, as they were when it was found to be what it is.
    head: Vec<u8>,
}

/// What came of reading to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Drained {
    /// It was read to the end that it has now.
    ToEnd,
    /// It is not what it was: it was emptied, and possibly written again. All that
    /// was in it is sent.
    Truncated,
}

impl Reading {
    fn new(
        shared: &Shared,
        opened: &Opened,
        compression: Option<Compression>,
        scope: Scope,
        known: Result<Known, Identity>,
        head: Vec<u8>,
    ) -> io::Result<Self> {
        Ok(Self {
            reader: Reader::new(&opened.file, compression)?,
            decoder: TextDecoder::new(shared.options.encoding),
            stream: Stream::new(shared, scope, known),
            head,
        })
    }

    fn accept(&mut self, shared: &Shared, content: &[u8], summary: &mut Summary) {
        let mut text = Vec::new();
        self.decoder.push(content, &mut text);
        self.stream.accept(shared, content, &text, summary);
    }
}

impl Generation {
    /// A file that is asked about by `question` once a line of it is complete.
    pub(super) fn new(path: PathBuf, opened: Opened, question: Question) -> Self {
        // When it grew last, as far as that is known.
        let age = opened.metadata.modified().ok();
        let age = age.and_then(|time| SystemTime::now().duration_since(time).ok());
        let now = Instant::now();
        let grown = age.and_then(|age| now.checked_sub(age)).unwrap_or(now);
        Self {
            path,
            key: opened.key.clone(),
            opened,
            compression: None,
            reading: None,
            question,
            grown,
            recorded: now,
            cut_short: false,
            rest: None,
        }
    }

    /// A file that the registry knows.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub(super) fn of_known(
        shared: &Shared,
        path: PathBuf,
        opened: Opened,
        compression: Option<Compression>,
        question: Question,
        known: Known,
        head: Vec<u8>,
    ) -> io::Result<Self> {
        let scope = question.scope.clone();
        let reading = Reading::new(shared, &opened, compression, scope, Ok(known), head)?;
        let generation = Self::new(path, opened, question);
        Ok(Self { compression, reading: Some(reading), ..generation })
    }

    /// What the registry calls it.
    pub(super) fn entry(&self) -> Option<EntryId> {
        self.reading.as_ref().and_then(|reading| reading.stream.entry())
    }

    /// It is none of these, however alike.
    pub(super) fn is_not(&mut self, entries: impl Iterator<Item = EntryId>) {
        if self.reading.is_none() {
            self.question.not = entries.collect();
        }
    }

    /// What the system calls it.
    pub(super) fn key(&self) -> &FileKey {
        &self.key
    }

    /// Whether nothing more is to be expected of it, now that it has not the
    /// name any more.
    pub(super) fn is_quiet(&self, quiet: Duration) -> bool {
        self.compression.is_some() || self.grown.elapsed() >= quiet
    }

    /// Whether it was emptied, and possibly written again, since `read_bytes` of it
    /// were read.
    fn was_truncated(&mut self, read_bytes: u64) -> anyhow::Result<bool> {
        let Some(reading) = &mut self.reading else { return Ok(false) };
        if self.compression.is_some() {
            return Ok(false);
        }
        if self.opened.file.metadata().context("cannot look at it")?.len() < read_bytes {
            return Ok(true);
        }
        // As long as before, or longer: what was there is still there, unless
        // it was emptied and written again since the last look.
        let head = file::read_head(&mut self.opened.file, HEAD_BYTES, read_bytes)
            .context("cannot read")?;
        if !head.starts_with(&reading.head) {
            return Ok(true);
        }
        reading.head = head;
        Ok(false)
    }

    /// Reads to the end of the file and sends the complete lines; and if it was
    /// emptied, the rest of it.
    ///
    /// # Errors
    ///
    /// If it cannot be read or a request has no answer. The next call goes on
    /// where this one ended.
    pub(super) async fn drain(
        &mut self,
        shared: &Shared,
        summary: &mut Summary,
    ) -> anyhow::Result<Drained> {
        if self.rest.is_none() {
            if self.read_on(shared, summary).await? == Drained::ToEnd {
                return Ok(Drained::ToEnd);
            }
            self.rest = Some(block_in_place(|| self.find_rest(summary)));
        }
        if self.rest == Some(Rest::InCopy) {
            // Nobody empties it.
            let _ = self.read_on(shared, summary).await?;
        }
        self.finish(shared, summary).await?;
        Ok(Drained::Truncated)
    }

    async fn read_on(&mut self, shared: &Shared, summary: &mut Summary) -> anyhow::Result<Drained> {
        if !self.begin(shared, summary, false).await? {
            return Ok(Drained::ToEnd);
        }
        // What an earlier call could not send.
        if let Some(reading) = &mut self.reading {
            reading.stream.flush(shared, summary).await?;
        }
        let mut buffer = vec![0; READ_BYTES];
        let (mut any, mut stopping_bytes) = (false, 0);
        while let Some(reading) = &mut self.reading {
            let offset = reading.stream.offset_bytes();
            let read = block_in_place(|| file::read(&mut reading.reader, &mut buffer));
            let read = read.context("cannot read")?;
            // Looked at after it was read: who emptied it before that is seen now.
            if block_in_place(|| self.was_truncated(offset + read as u64))? {
                return Ok(Drained::Truncated);
            }
            let Some(reading) = self.reading.as_mut().filter(|_| read > 0) else { break };
            self.grown = Instant::now();
            reading.accept(shared, &buffer[..read], summary);
            reading.stream.remember_beginning(shared, summary).await;
            reading.stream.send_full(shared, summary).await?;
            any = true;
            stopping_bytes += if shared.stop.is_set() { read as u64 } else { 0 };
            if stopping_bytes >= STOP_READ_BYTES_MAX {
                self.cut_short = true;
                break;
            }
        }
        if let Some(reading) = &mut self.reading {
            reading.stream.flush(shared, summary).await?;
            if any && self.recorded.elapsed() >= Duration::from_secs(RECORD_SECONDS_MIN) {
                reading.stream.record(shared);
                self.recorded = Instant::now();
            }
        }
        Ok(Drained::ToEnd)
    }

    /// Finds out what it is once a line is complete, or in any case with `now`.
    async fn begin(
        &mut self,
        shared: &Shared,
        summary: &mut Summary,
        now: bool,
    ) -> anyhow::Result<bool> {
        if self.reading.is_some() {
            return Ok(true);
        }
        let encoding = shared.options.encoding;
        let file = &mut self.opened.file;
        let (compression, (window, head)) = block_in_place(|| {
            let compression = file::compression(file)?;
            let beginning = file::window(file, compression, encoding).context("cannot read")?;
            anyhow::Ok((compression, beginning))
        })?;
        file::ensure_text(&head, encoding)?;
        let enough = !window.lines().is_empty() || window.text().len() >= HEAD_BYTES;
        if window.is_empty() || !(now || enough) {
            return Ok(false);
        }
        let read_again = self.opened.file.try_clone().context("cannot read")?;
        let read = Box::new(move || Ok(file::window(&read_again, compression, encoding)?.0));
        let known = match shared.identify(self.question.clone(), read, summary).await {
            Some(Answer::Known(known)) => Ok(known),
            _ => Err(Identity::of_head(window.head())),
        };
        // It is what was asked about only if that is still there.
        let now = block_in_place(|| file::read_head(&mut self.opened.file, HEAD_BYTES, 0));
        if compression.is_none() && !now.context("cannot read")?.starts_with(&head) {
            return Ok(false);
        }
        let scope = self.question.scope.clone();
        let reading = Reading::new(shared, &self.opened, compression, scope, known, head);
        self.compression = compression;
        self.reading = Some(reading.context("cannot read")?);
        Ok(true)
    }

    /// Sends all that was read, an incomplete last line included, unless there is
    /// more than was read.
    ///
    /// # Errors
    ///
    /// As [`Generation::drain`].
    pub(super) async fn finish(
        &mut self,
        shared: &Shared,
        summary: &mut Summary,
    ) -> anyhow::Result<()> {
        if self.reading.is_none() && self.begin(shared, summary, true).await? {
            // Nothing but an incomplete line is in it.
            self.read_on(shared, summary).await?;
        }
        let Some(reading) = &mut self.reading else { return Ok(()) };
        if self.cut_short {
            reading.stream.record(shared);
            return Ok(());
        }
        let mut text = Vec::new();
        reading.decoder.finish(&mut text);
        reading.stream.accept(shared, &[], &text, summary);
        reading.stream.finish(shared, summary).await
    }

    /// Remembers how far it was shipped.
    pub(super) fn record(&self, shared: &Shared) {
        if let Some(reading) = &self.reading {
            reading.stream.record(shared);
        }
    }

    /// Lets go of it: counts what was read and never sent.
    pub(super) fn close(&mut self, shared: &Shared, summary: &mut Summary) {
        let Some(mut reading) = self.reading.take() else { return };
        summary.tally.hole_bytes += reading.decoder.hole_bytes();
        reading.stream.abandon(summary);
        if let Some(entry) = reading.stream.entry() {
            shared.registry.release(entry);
        }
    }

    /// Goes on in the copy that was made of it before it was emptied: in there is
    /// what was written to it since it was read.
    fn find_rest(&mut self, summary: &mut Summary) -> Rest {
        let begun = self.reading.as_mut().filter(|reading| reading.stream.offset_bytes() > 0);
        let Some(reading) = begun else { return Rest::Lost };
        let Some((copy, compression, reader)) = find_copy(&self.path, &self.key, &reading.stream)
        else {
            summary.say(&format!(
                "{} was truncated, and no copy of it is beside it: lines written to it just \
                 before are not shipped, if there were any",
                self.path.display()
            ));
            return Rest::Lost;
        };
        (self.opened, self.compression, reading.reader) = (copy, compression, reader);
        Rest::InCopy
    }
}

/// The copy of a file that was truncated, to be read from where the file was
/// read to. A file beside it that cannot be read is not it.
fn find_copy(
    path: &Path,
    key: &FileKey,
    stream: &Stream,
) -> Option<(Opened, Option<Compression>, Reader)> {
    let family = Family::of(path)?;
    let (offset, digest) = (stream.offset_bytes(), stream.digest());
    for _ in 0..LOOKS_MAX {
        // It may be renamed at this moment, and then is under neither name.
        let mut is_going_on = false;
        let entries = std::fs::read_dir(family.directory()).ok()?;
        let found = entries.flatten().find_map(|entry| {
            let path = entry.path();
            if Family::of(&path).as_ref() != Some(&family) {
                return None;
            }
            let mut opened = file::open(&path).inspect_err(|_| is_going_on = true).ok()?;
            let compression = file::compression(&mut opened.file).ok()?;
            let long_enough = compression.is_some() || opened.metadata.len() >= offset;
            if opened.key == *key || !opened.metadata.is_file() || !long_enough {
                return None;
            }
            let mut reader = Reader::new(&opened.file, compression).ok()?;
            let same = file::digest(&mut reader, offset).is_ok_and(|found| found == digest);
            same.then_some((opened, compression, reader))
        });
        if found.is_some() || !is_going_on {
            return found;
        }
    }
    None
}

/// The length of a file's content, in bytes.
///
/// # Errors
///
/// If it cannot be unpacked.
pub(super) fn content_bytes(file: &File, compression: Option<Compression>) -> io::Result<u64> {
    match compression {
        None => Ok(file.metadata()?.len()),
        Some(_) => io::copy(&mut Reader::new(file, compression)?, &mut io::sink()),
    }
}
