//! What the component prints: log files, and this host's stderr.
//!
//! As in Spin, the files are `<component>_stdout.txt` and
//! `<component>_stderr.txt`, written at their ends, both are followed on stderr
//! (so that this host's stdout stays its own), and writes are synchronous.
//!
//! Unlike in Spin, all instances share the two open files, and a file that is no
//! longer at its path is made again, with its directory: whoever deletes or
//! rotates logs loses no line and stops no instance. Where that fails, lines go
//! to stderr.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError};

use crate::console;
use crate::file_identity::FileIdentity;

/// What the guest may write at once.
const WRITE_BYTES_MAX: usize = 1024 * 1024;

/// Where the output of every instance goes.
#[derive(Debug)]
pub(crate) struct Logs {
    stdout: LogStream,
    stderr: LogStream,
}

impl Logs {
    /// Logs of `component` into files in `directory`, also to stderr unless
    /// `quiet`. Without a directory they go to stderr only, `quiet` or not.
    pub(crate) fn new(component: &str, directory: Option<&Path>, quiet: bool) -> Self {
        let stream = |name| LogStream {
            file: directory.map(|directory| {
                Arc::new(LogFile::new(directory.join(format!("{component}_{name}.txt"))))
            }),
            follow: !quiet || directory.is_none(),
        };
        Self { stdout: stream("stdout"), stderr: stream("stderr") }
    }

    /// The stdout and stderr of one new instance. Their files are there from now on.
    pub(crate) fn open(&self) -> (LogStream, LogStream) {
        for file in [&self.stdout, &self.stderr].into_iter().filter_map(|log| log.file.as_ref()) {
            file.write(&[]);
        }
        (self.stdout.clone(), self.stderr.clone())
    }
}

/// A file that is written at its end.
#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    opened: Mutex<Opened>,
}

#[derive(Debug, Default)]
struct Opened {
    file: Option<(File, FileIdentity)>,
    /// Whether writing failed last, and that was said.
    failed: bool,
}

impl LogFile {
    /// Nothing is opened yet.
    fn new(path: PathBuf) -> Self {
        Self { path, opened: Mutex::default() }
    }

    /// Whether all of `bytes` is in the file at the path now.
    fn write(&self, bytes: &[u8]) -> bool {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let written = self.try_write(&mut opened.file, bytes);
        let failed_before = std::mem::replace(&mut opened.failed, written.is_err());
        match written {
            Ok(()) => true,
            Err(error) => {
                if !failed_before {
                    console::message(format_args!(
                        "cannot write to {} ({error}); log lines are on stderr until that works",
                        self.path.display()
                    ));
                }
                false
            }
        }
    }

    fn try_write(&self, opened: &mut Option<(File, FileIdentity)>, bytes: &[u8]) -> io::Result<()> {
        let at_path = FileIdentity::at(&self.path);
        // One that is elsewhere by now is closed.
        let mut file = match opened.take_if(|(_, identity)| at_path == Some(*identity)) {
            Some(opened) => opened,
            None => {
                if let Some(directory) = self.path.parent() {
                    fs::create_dir_all(directory)?;
                }
                let file = File::options().create(true).append(true).open(&self.path)?;
                let identity = FileIdentity::of_open(&file)?;
                (file, identity)
            }
        };
        let written = file.0.write_all(bytes);
        *opened = Some(file);
        written
    }
}

/// One output of one instance; clones write to the same places.
#[derive(Clone, Debug)]
pub(crate) struct LogStream {
    file: Option<Arc<LogFile>>,
    follow: bool,
}

impl Write for LogStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let is_in_file = self.file.as_ref().is_some_and(|file| file.write(bytes));
        if self.follow || !is_in_file {
            io::stderr().write_all(bytes)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        // Neither a file nor stderr is buffered.
        Ok(())
    }
}

impl OutputStream for LogStream {
    fn write(&mut self, bytes: Bytes) -> Result<(), StreamError> {
        self.write_all(&bytes).map_err(|error| StreamError::LastOperationFailed(error.into()))
    }

    fn flush(&mut self) -> Result<(), StreamError> {
        Ok(())
    }

    fn check_write(&mut self) -> Result<usize, StreamError> {
        Ok(WRITE_BYTES_MAX)
    }
}

#[async_trait]
impl Pollable for LogStream {
    async fn ready(&mut self) {}
}

impl AsyncWrite for LogStream {
    fn poll_write(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Write::write(self.get_mut(), bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl IsTerminal for LogStream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for LogStream {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_went_is_made_again() -> io::Result<()> {
        let root = std::env::temp_dir().join(format!("sekali-logs-{}", std::process::id()));
        let logs = root.join("logs");
        let (_, mut stderr) = Logs::new("c", Some(&logs), true).open();
        let path = logs.join("c_stderr.txt");
        let mut check = |line: &str, expected: &str| -> io::Result<()> {
            stderr.write_all(line.as_bytes())?;
            assert_eq!(fs::read_to_string(&path)?, expected);
            Ok(())
        };
        check("1", "1")?;
        check("2", "12")?;
        fs::rename(&path, logs.join("rotated"))?;
        check("3", "3")?;
        fs::remove_dir_all(&logs)?;
        check("4", "4")?;
        // In the way: the line is on stderr, and the next one in the file again.
        fs::remove_dir_all(&logs)?;
        fs::write(&logs, "")?;
        stderr.write_all(b"5")?;
        fs::remove_file(&logs)?;
        stderr.write_all(b"6")?;
        assert_eq!(fs::read_to_string(&path)?, "6");
        fs::remove_dir_all(&root)
    }
}
