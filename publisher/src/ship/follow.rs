//! `ship --follow`: a file as it grows, through its rotations.
//!
//! The file is looked at every poll interval. A growing file is read to its
//! end and its complete lines are sent; an incomplete last line is held back
//! until it is complete, or until the file is done with. A file is done with
//!
//! - when the name stands for another file (it was renamed and made anew) and
//!   nothing more is being written to the old one, which is open here and so is
//!   read to its end whatever its name is now;
//! - when it is shorter than what was read, or begins otherwise (it was copied
//!   and truncated). What was written to it in between is in the copy: that is
//!   looked for among the files beside it whose names begin with its own, known
//!   by its first bytes, and its rest is sent;
//! - at the end of the run.
//!
//! The file that comes after it under the same name is another one, even where
//! it begins with the same lines.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::task::block_in_place;

use super::file::{self, Looked, READ_BYTES};
use super::identity::HEAD_BYTES;
use super::registry::EntryId;
use super::shared::Shared;
use super::stream::{Account, Stream};
use crate::signal::Stop;

/// Looks at a replaced file without a new byte, before it is done with.
const QUIET_POLLS_MIN: u32 = 2;
/// Bytes still read of a file after a signal to stop.
const STOP_READ_BYTES_MAX: u64 = 16 << 20;
/// The time between two records of how far a growing file was shipped, in seconds.
const RECORD_SECONDS_MIN: u64 = 5;

/// What a look at the name says of the file that is being read.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    /// It still has the name.
    Same,
    /// Nothing has the name.
    Missing,
    /// Another file has it.
    Replaced,
    /// It was emptied, and possibly written again.
    Truncated,
}

/// Follows a file until the run is to stop.
///
/// # Errors
///
/// If the file cannot be read or a request has no answer.
pub async fn follow(
    shared: &Shared,
    path: &Path,
    topic: &str,
    account: &mut Account,
) -> anyhow::Result<()> {
    let mut stop = shared.stop.clone();
    let mut missing = false;
    // What had the name before.
    let mut past = Vec::new();
    while !stop.is_set() {
        match block_in_place(|| file::open(path)) {
            Ok((file, metadata)) => {
                let key = file::key(&metadata);
                let not = std::mem::take(&mut past);
                let mut tail = Tail { file, key, stream: None, recorded: Instant::now(), not };
                let result = tail.run(shared, path, topic, account, &mut stop).await;
                past = tail.not;
                if let Some(mut stream) = tail.stream {
                    past.extend(stream.entry());
                    stream.abandon(account);
                }
                result?;
            }
            Err(error) => {
                let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
                if kind != Some(ErrorKind::NotFound) {
                    return Err(error);
                }
                if !std::mem::replace(&mut missing, true) {
                    eprintln!("publisher: waiting for {} to appear", path.display());
                }
                pause(shared.options.poll, &mut stop).await;
            }
        }
    }
    Ok(())
}

async fn pause(duration: Duration, stop: &mut Stop) {
    tokio::select! {
        () = tokio::time::sleep(duration) => {}
        () = stop.wait() => {}
    }
}

/// One file, however it is named.
struct Tail {
    file: File,
    key: Option<(u64, u64)>,
    /// Once enough of it is there to know what it is.
    stream: Option<Stream>,
    recorded: Instant,
    /// What it is not.
    not: Vec<EntryId>,
}

impl Tail {
    /// Reads the file until it is done with.
    async fn run(
        &mut self,
        shared: &Shared,
        path: &Path,
        topic: &str,
        account: &mut Account,
        stop: &mut Stop,
    ) -> anyhow::Result<()> {
        let mut quiet_polls = 0;
        loop {
            let turn = block_in_place(|| self.look(path))?;
            if turn == Turn::Truncated {
                self.rest_of_copy(shared, path, account).await?;
                return self.finish(shared, topic, account).await;
            }
            let stopping = stop.is_set();
            let read = self.drain(shared, topic, account, stop).await?;
            if stopping && read < STOP_READ_BYTES_MAX {
                return self.finish(shared, topic, account).await;
            }
            if stopping {
                // More is there than will be read: what is held is no last line.
                if let Some(stream) = &self.stream {
                    stream.record(shared, account);
                }
                return Ok(());
            }
            quiet_polls = if read > 0 || turn != Turn::Replaced { 0 } else { quiet_polls + 1 };
            if quiet_polls >= QUIET_POLLS_MIN {
                return self.finish(shared, topic, account).await;
            }
            pause(shared.options.poll, stop).await;
        }
    }

    fn look(&mut self, path: &Path) -> anyhow::Result<Turn> {
        let metadata = match std::fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Turn::Missing),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot look at {}", path.display()));
            }
        };
        if file::key(&metadata) != self.key {
            return Ok(Turn::Replaced);
        }
        let Some(stream) = &self.stream else { return Ok(Turn::Same) };
        if metadata.len() < stream.position_bytes() {
            return Ok(Turn::Truncated);
        }
        // As long as before, or longer: what was there is still there, unless
        // it was emptied and written again since the last look.
        let head = file::read_head(&mut self.file, stream.head().len(), stream.position_bytes())
            .with_context(|| format!("cannot read {}", path.display()))?;
        Ok(if head == stream.head() { Turn::Same } else { Turn::Truncated })
    }

    /// Reads to the end of the file and sends the complete lines. Returns the
    /// number of bytes read.
    async fn drain(
        &mut self,
        shared: &Shared,
        topic: &str,
        account: &mut Account,
        stop: &Stop,
    ) -> anyhow::Result<u64> {
        if !self.begin(shared, topic, account, false)? {
            return Ok(0);
        }
        let Some(stream) = &mut self.stream else { return Ok(0) };
        let mut buffer = vec![0; READ_BYTES];
        let mut read_bytes = 0;
        let mut read_stopping_bytes = 0;
        loop {
            let read = block_in_place(|| self.file.read(&mut buffer)).context("cannot read")?;
            if read == 0 {
                break;
            }
            stream.push(shared, &buffer[..read], account).await?;
            read_bytes += read as u64;
            if stop.is_set() {
                read_stopping_bytes += read as u64;
                if read_stopping_bytes >= STOP_READ_BYTES_MAX {
                    break;
                }
            }
        }
        stream.flush(shared, account).await?;
        let due = self.recorded.elapsed() >= Duration::from_secs(RECORD_SECONDS_MIN);
        if read_bytes > 0 && due {
            stream.record(shared, account);
            self.recorded = Instant::now();
        }
        Ok(read_bytes)
    }

    /// Begins the stream once a line is complete, or in any case with `now`.
    fn begin(
        &mut self,
        shared: &Shared,
        topic: &str,
        account: &mut Account,
        now: bool,
    ) -> anyhow::Result<bool> {
        if self.stream.is_some() {
            return Ok(true);
        }
        block_in_place(|| {
            let head = file::read_head(&mut self.file, HEAD_BYTES, 0).context("cannot read")?;
            file::ensure_text(&head)?;
            if head.is_empty() || !(now || head.len() == HEAD_BYTES || head.contains(&b'\n')) {
                return Ok(false);
            }
            let len_bytes = self.file.metadata().context("cannot look at it")?.len();
            let mut content = Looked { file: &mut self.file, len_bytes };
            let stream =
                Stream::begin(shared, topic, &head, Some(&mut content), &self.not, account);
            self.stream = Some(stream);
            Ok(true)
        })
    }

    /// Sends all that was read, an incomplete last line included.
    async fn finish(
        &mut self,
        shared: &Shared,
        topic: &str,
        account: &mut Account,
    ) -> anyhow::Result<()> {
        if self.stream.is_none() && self.begin(shared, topic, account, true)? {
            // Nothing but an incomplete line is in it.
            self.drain(shared, topic, account, &shared.stop).await?;
        }
        match &mut self.stream {
            Some(stream) => stream.finish(shared, account).await,
            None => Ok(()),
        }
    }

    /// Sends what was written to a file between the last look at it and its
    /// truncation, from the copy that was made of it.
    async fn rest_of_copy(
        &mut self,
        shared: &Shared,
        path: &Path,
        account: &mut Account,
    ) -> anyhow::Result<()> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        let Some(mut copy) = block_in_place(|| find_copy(path, stream)) else {
            let name = path.display();
            account.notes.push(format!(
                "{name} was truncated after {} bytes and no copy of it is beside it: lines \
                 written to it just before are not shipped, if there were any",
                stream.position_bytes()
            ));
            return Ok(());
        };
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let read = block_in_place(|| copy.read(&mut buffer)).context("cannot read the copy")?;
            if read == 0 {
                return Ok(());
            }
            stream.push(shared, &buffer[..read], account).await?;
        }
    }
}

/// The copy of a file that was truncated, to be read from where the file was
/// read to. A file beside it that cannot be read is not it.
fn find_copy(path: &Path, stream: &Stream) -> Option<File> {
    let name = path.file_name()?.to_string_lossy().into_owned();
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let position = stream.position_bytes();
    let entries = std::fs::read_dir(directory.unwrap_or(Path::new("."))).ok()?;
    for entry in entries.flatten() {
        let other = entry.file_name().to_string_lossy().into_owned();
        if other == name || !other.starts_with(&name) {
            continue;
        }
        let Ok((mut file, metadata)) = file::open(&entry.path()) else { continue };
        if !metadata.is_file() || metadata.len() < position {
            continue;
        }
        let digest = file::digests(&mut file, &[position]);
        if digest.is_ok_and(|digest| digest == [stream.digest()])
            && file.seek(SeekFrom::Start(position)).is_ok()
        {
            return Some(file);
        }
    }
    None
}
