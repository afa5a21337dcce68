//! `ship --follow`: a file as it grows, through its rotations.
//!
//! The file is polled at an interval. A growing file is read to its end and its
//! complete lines are sent; an incomplete last line is held back until it is
//! complete, or until the file is done with. A file is done with
//!
//! - when the name stands for another file (rotation by renaming) and nothing
//!   more is being written to the old one, which is open here and so is read to
//!   its end whatever its name is now;
//! - when it is shorter than what was read, or begins otherwise (rotation by
//!   copying and truncating). What was written to it in between is in the copy:
//!   that is looked for among the files beside it whose names begin with its
//!   own, known by its first bytes, and its rest is sent;
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

use super::file::{self, FileContent, READ_BYTES};
use super::identity::HEAD_BYTES;
use super::registry::EntryId;
use super::shared::Shared;
use super::stream::{Stream, Summary};
use crate::signal::Stop;

/// Polls of a replaced file without a new byte, before it is done with.
const IDLE_POLLS_MIN: u32 = 2;
/// Bytes still read of a file after a signal to stop.
const STOP_READ_BYTES_MAX: u64 = 16 << 20;
/// The time between two records of how far a growing file was shipped, in seconds.
const RECORD_SECONDS_MIN: u64 = 5;

/// What a poll of the name says of the file that is being read.
#[derive(Debug, PartialEq, Eq)]
enum FileState {
    /// It has the name, and what was read of it is there.
    Current,
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
pub(crate) async fn follow(
    shared: &Shared,
    path: &Path,
    topic: &str,
    summary: &mut Summary,
) -> anyhow::Result<()> {
    let mut stop = shared.stop.clone();
    let mut missing = false;
    // Files that had the name before.
    let mut past = Vec::new();
    while !stop.is_set() {
        match block_in_place(|| file::open(path)) {
            Ok((file, metadata)) => {
                let key = file::key(&metadata);
                let excluded = std::mem::take(&mut past);
                let mut follower =
                    Follower { file, key, stream: None, recorded: Instant::now(), excluded };
                let result = follower.run(shared, path, topic, summary, &mut stop).await;
                past = follower.excluded;
                if let Some(mut stream) = follower.stream {
                    past.extend(stream.entry());
                    stream.abandon(summary);
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
struct Follower {
    file: File,
    key: Option<(u64, u64)>,
    /// Once enough of it is there to know what it is.
    stream: Option<Stream>,
    recorded: Instant,
    /// Files that it is not, however alike.
    excluded: Vec<EntryId>,
}

impl Follower {
    /// Reads the file until it is done with.
    async fn run(
        &mut self,
        shared: &Shared,
        path: &Path,
        topic: &str,
        summary: &mut Summary,
        stop: &mut Stop,
    ) -> anyhow::Result<()> {
        let mut idle_polls = 0;
        loop {
            let state = block_in_place(|| self.poll(path))?;
            if state == FileState::Truncated {
                self.read_rotated_copy(shared, path, summary).await?;
                return self.finish(shared, topic, summary).await;
            }
            let stopping = stop.is_set();
            let read = self.drain(shared, topic, summary, stop).await?;
            if stopping && read < STOP_READ_BYTES_MAX {
                return self.finish(shared, topic, summary).await;
            }
            if stopping {
                // More is there than will be read: what is held is no last line.
                if let Some(stream) = &self.stream {
                    stream.record(shared, summary);
                }
                return Ok(());
            }
            idle_polls = if read > 0 || state != FileState::Replaced { 0 } else { idle_polls + 1 };
            if idle_polls >= IDLE_POLLS_MIN {
                return self.finish(shared, topic, summary).await;
            }
            pause(shared.options.poll, stop).await;
        }
    }

    fn poll(&mut self, path: &Path) -> anyhow::Result<FileState> {
        let metadata = match std::fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(FileState::Missing),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot look at {}", path.display()));
            }
        };
        if file::key(&metadata) != self.key {
            return Ok(FileState::Replaced);
        }
        let Some(stream) = &self.stream else { return Ok(FileState::Current) };
        if metadata.len() < stream.offset_bytes() {
            return Ok(FileState::Truncated);
        }
        // As long as before, or longer: what was there is still there, unless
        // it was emptied and written again since the last poll.
        let head = file::read_head(&mut self.file, stream.head().len(), stream.offset_bytes())
            .with_context(|| format!("cannot read {}", path.display()))?;
        Ok(if head == stream.head() { FileState::Current } else { FileState::Truncated })
    }

    /// Reads to the end of the file and sends the complete lines. Returns the
    /// number of bytes read.
    async fn drain(
        &mut self,
        shared: &Shared,
        topic: &str,
        summary: &mut Summary,
        stop: &Stop,
    ) -> anyhow::Result<u64> {
        if !self.begin(shared, topic, summary, false)? {
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
            stream.push(shared, &buffer[..read], summary).await?;
            read_bytes += read as u64;
            if stop.is_set() {
                read_stopping_bytes += read as u64;
                if read_stopping_bytes >= STOP_READ_BYTES_MAX {
                    break;
                }
            }
        }
        stream.flush(shared, summary).await?;
        let due = self.recorded.elapsed() >= Duration::from_secs(RECORD_SECONDS_MIN);
        if read_bytes > 0 && due {
            stream.record(shared, summary);
            self.recorded = Instant::now();
        }
        Ok(read_bytes)
    }

    /// Begins the stream once a line is complete, or in any case with `now`.
    fn begin(
        &mut self,
        shared: &Shared,
        topic: &str,
        summary: &mut Summary,
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
            let mut content = FileContent { file: &mut self.file, len_bytes };
            let stream =
                Stream::begin(shared, topic, &head, Some(&mut content), &self.excluded, summary);
            self.stream = Some(stream);
            Ok(true)
        })
    }

    /// Sends all that was read, an incomplete last line included.
    async fn finish(
        &mut self,
        shared: &Shared,
        topic: &str,
        summary: &mut Summary,
    ) -> anyhow::Result<()> {
        if self.stream.is_none() && self.begin(shared, topic, summary, true)? {
            // Nothing but an incomplete line is in it.
            self.drain(shared, topic, summary, &shared.stop).await?;
        }
        match &mut self.stream {
            Some(stream) => stream.finish(shared, summary).await,
            None => Ok(()),
        }
    }

    /// Sends what was written to a file between the last poll and its truncation,
    /// from the copy that was made of it.
    async fn read_rotated_copy(
        &mut self,
        shared: &Shared,
        path: &Path,
        summary: &mut Summary,
    ) -> anyhow::Result<()> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        let Some(mut copy) = block_in_place(|| find_copy(path, stream)) else {
            let name = path.display();
            summary.notes.push(format!(
                "{name} was truncated after {} bytes and no copy of it is beside it: lines \
                 written to it just before are not shipped, if there were any",
                stream.offset_bytes()
            ));
            return Ok(());
        };
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let read = block_in_place(|| copy.read(&mut buffer)).context("cannot read the copy")?;
            if read == 0 {
                return Ok(());
            }
            stream.push(shared, &buffer[..read], summary).await?;
        }
    }
}

/// The copy of a file that was truncated, to be read from where the file was
/// read to. A file beside it that cannot be read is not it.
fn find_copy(path: &Path, stream: &Stream) -> Option<File> {
    let name = path.file_name()?.to_string_lossy().into_owned();
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let offset = stream.offset_bytes();
    let entries = std::fs::read_dir(directory.unwrap_or(Path::new("."))).ok()?;
    for entry in entries.flatten() {
        let other = entry.file_name().to_string_lossy().into_owned();
        if other == name || !other.starts_with(&name) {
            continue;
        }
        let Ok((mut file, metadata)) = file::open(&entry.path()) else { continue };
        if !metadata.is_file() || metadata.len() < offset {
            continue;
        }
        let digest = file::digests(&mut file, &[offset]);
        if digest.is_ok_and(|digest| digest == [stream.digest()])
            && file.seek(SeekFrom::Start(offset)).is_ok()
        {
            return Some(file);
        }
    }
    None
}
