//! The events of a file, line by line, and their sums.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, bail, ensure};

use crate::compression;
use crate::exported::line::Given;
use crate::exported::sums::{Summing, TopicSums};

/// The longest line, in bytes: far more than a service takes. It keeps what has no lines
/// from being read into memory whole.
const LINE_BYTES_MAX: u64 = 256 << 20;
/// Bytes read at a time.
const READ_BYTES: usize = 256 * 1024;
/// What takes an export from a pipe.
const TAKER: &str = "publisher import --manifest MANIFEST -";

/// The lines of an export.
pub(super) struct Lines {
    reader: BufReader<Box<dyn Read + Send>>,
    read_bytes: Arc<AtomicU64>,
    line: Vec<u8>,
    number: u64,
    sums: Summing,
}

/// The length of a file.
///
/// # Errors
///
/// If it is not there, or is no file.
pub(super) fn length_bytes(path: &Path) -> anyhow::Result<u64> {
    let metadata = path.metadata().with_context(|| format!("cannot open {}", path.display()))?;
    ensure!(metadata.is_file(), "{} is not a file; - reads standard input", path.display());
    Ok(metadata.len())
}

impl Lines {
    /// Those of a file, which may be compressed.
    ///
    /// # Errors
    ///
    /// If it cannot be opened, or is compressed in a way that is not read here.
    pub(super) fn of_file(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        Self::of(file).with_context(|| format!("cannot read {}", path.display()))
    }

    /// Those of standard input.
    ///
    /// # Errors
    ///
    /// As of a file.
    pub(super) fn of_stdin() -> anyhow::Result<Self> {
        Self::of(io::stdin()).context("cannot read standard input")
    }

    fn of(reader: impl Read + Send + 'static) -> anyhow::Result<Self> {
        let read_bytes = Arc::new(AtomicU64::new(0));
        let counted = Counted { reader, bytes: Arc::clone(&read_bytes) };
        let unpacked = compression::unpacked(counted, TAKER)?;
        Ok(Self {
            reader: BufReader::with_capacity(READ_BYTES, unpacked),
            read_bytes,
            line: Vec::new(),
            number: 0,
            sums: Summing::default(),
        })
    }

    /// Bytes of the file, as it is, that were read.
    pub(super) fn read_bytes(&self) -> u64 {
        self.read_bytes.load(Ordering::Relaxed)
    }

    /// Takes the next event, which is on the line with the number that is given with it;
    /// nothing at the end.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or there is a line that is no event.
    pub(super) fn next<T>(
        &mut self,
        take: impl FnOnce(u64, &Given<'_>) -> T,
    ) -> anyhow::Result<Option<T>> {
        loop {
            self.line.clear();
            let read = self.reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut self.line);
            let number = self.number + 1;
            match read {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    bail!("it is cut off, in line {number}: what it is compressed by has no end")
                }
                Err(error) => return Err(error).with_context(|| format!("in line {number}")),
            }
            self.number = number;
            let has_end = self.line.ends_with(b"\n");
            let too_long = self.line.len() as u64 >= LINE_BYTES_MAX && !has_end;
            ensure!(!too_long, "line {number} has more than {LINE_BYTES_MAX} bytes");
            if self.line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let given: Given<'_> = match serde_json::from_slice(&self.line) {
                Ok(given) => given,
                Err(error) if !has_end => {
                    bail!("it is cut off: line {number}, the last, has no end ({error})")
                }
                Err(error) => bail!("line {number} is not an event of an export: {error}"),
            };
            let added = self.sums.add(&given.topic, given.content());
            if let Err(why) = added {
                bail!("line {number} is not an event of an export: its payload: {why}");
            }
            return Ok(Some(take(number, &given)));
        }
    }

    /// The sums of all events that were taken.
    pub(super) fn finish(self) -> TopicSums {
        self.sums.finish()
    }
}

/// A reader that counts.
struct Counted<R> {
    reader: R,
    bytes: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.bytes.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str = r#"{"seq":1,"topic":"t","event_id":"e","source":"s","payload":{"n":1.0}}"#;

    fn read(text: &str) -> anyhow::Result<(Vec<u64>, TopicSums)> {
        let mut lines = Lines::of(io::Cursor::new(text.as_bytes().to_vec()))?;
        let mut numbers = Vec::new();
        while let Some(number) = lines.next(|number, _| number)? {
            numbers.push(number);
        }
        Ok((numbers, lines.finish()))
    }

    #[test]
    fn events_are_lines() {
        assert!(read("").unwrap().0.is_empty());
        let (numbers, sums) = read(&format!("{EVENT}\r\n\n {EVENT}")).unwrap();
        assert_eq!((numbers, sums["t"].events), (vec![1, 3], 2));
    }

    #[test]
    fn what_is_no_event_is_named_by_its_line() {
        for (text, expected) in [
            (format!("{EVENT}\n{}", &EVENT[..20]), "cut off: line 2"),
            (format!("{EVENT}\n7\n"), "line 2 is not an event"),
            (format!("{EVENT}\n{{}}\n"), "missing field `topic`"),
            ("a log line\n".to_owned(), "line 1 is not an event"),
            (EVENT.replace("1.0", r#""\ud800""#) + "\n", "its payload"),
        ] {
            let error = read(&text).unwrap_err().to_string();
            assert!(error.contains(expected), "{expected}: {error}");
        }
    }
}
