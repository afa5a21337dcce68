//! What the component prints: log files, and this host's stderr.
//!
//! As in Spin, each instance opens `<component>_stdout.txt` and
//! `<component>_stderr.txt` for appending, both are followed on stderr (so that
//! this host's stdout stays its own), and writes are synchronous.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError};

/// What the guest may write at once.
const WRITE_BYTES_MAX: usize = 1024 * 1024;

/// Where the output of every instance goes.
#[derive(Debug)]
pub(crate) struct Logs {
    files: Option<(PathBuf, PathBuf)>,
    follow: bool,
}

impl Logs {
    /// Logs of `component` into files in `directory`, also to stderr unless
    /// `quiet`. Without a directory they go to stderr only, `quiet` or not.
    pub(crate) fn new(component: &str, directory: Option<&Path>, quiet: bool) -> Self {
        let files = directory.map(|directory| {
            let file = |name| directory.join(format!("{component}_{name}.txt"));
            (file("stdout"), file("stderr"))
        });
        Self { follow: !quiet || files.is_none(), files }
    }

    /// The stdout and stderr of one new instance.
    pub(crate) fn open(&self) -> io::Result<(LogStream, LogStream)> {
        let open = |path: &PathBuf| {
            let file = File::options().create(true).append(true).open(path)?;
            Ok::<_, io::Error>(Some(Arc::new(file)))
        };
        let (stdout, stderr) = match &self.files {
            Some((stdout, stderr)) => (open(stdout)?, open(stderr)?),
            None => (None, None),
        };
        let follow = self.follow;
        Ok((LogStream { file: stdout, follow }, LogStream { file: stderr, follow }))
    }
}

/// One output of one instance; clones write to the same places.
#[derive(Clone, Debug)]
pub(crate) struct LogStream {
    file: Option<Arc<File>>,
    follow: bool,
}

impl Write for LogStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match &self.file {
            Some(file) => file.as_ref().write(bytes)?,
            None => bytes.len(),
        };
        if self.follow {
            io::stderr().write_all(&bytes[..written])?;
        }
        Ok(written)
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
