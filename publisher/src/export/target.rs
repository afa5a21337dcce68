//! Where an export goes: a file, which has its name only once it is whole, or standard
//! output.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use anyhow::Context as _;

use crate::compression::{Compression, Encoder};
use crate::unnamed::Unnamed;

/// Bytes collected before they are written.
const BUFFER_BYTES: usize = 256 * 1024;

/// Where an export goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum To {
    Stdout,
    File(PathBuf),
}

impl std::fmt::Display for To {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stdout => f.write_str("standard output"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// An export that is being written.
pub(super) struct Target {
    encoder: Encoder<BufWriter<Out>>,
    to: To,
    manifest: Option<Unnamed>,
    bytes: u64,
}

/// What was written.
pub(super) struct Written {
    /// Bytes of lines.
    pub(super) bytes: u64,
    /// Bytes of the file; of standard output as many as `bytes`.
    pub(super) file_bytes: u64,
}

impl Target {
    /// Begins one, and its manifest if it is to have one.
    ///
    /// # Errors
    ///
    /// If it cannot be written there.
    pub(super) fn create(to: &To, manifest: Option<PathBuf>) -> anyhow::Result<Self> {
        let (compression, out) = match to {
            To::Stdout => (None, Out::Stdout(io::stdout())),
            To::File(path) => {
                (Compression::asked_for(path)?, Out::File(Unnamed::create(path.clone())?))
            }
        };
        let encoder = Encoder::new(compression, BufWriter::with_capacity(BUFFER_BYTES, out))
            .with_context(|| cannot_write(to))?;
        let manifest = manifest.map(Unnamed::create).transpose()?;
        Ok(Self { encoder, to: to.clone(), manifest, bytes: 0 })
    }

    /// Writes whole lines.
    ///
    /// # Errors
    ///
    /// If they cannot be written.
    pub(super) fn write(&mut self, lines: &[u8]) -> anyhow::Result<()> {
        self.bytes += lines.len() as u64;
        self.encoder.write_all(lines).with_context(|| cannot_write(&self.to))
    }

    /// Writes the rest, and gives file and manifest their names.
    ///
    /// # Errors
    ///
    /// If that fails. A file is then there without its manifest at most.
    pub(super) fn finish(self, manifest: &str) -> anyhow::Result<Written> {
        let Self { encoder, to, manifest: beside, bytes } = self;
        let out = encoder.finish().and_then(|mut buffer| {
            buffer.flush()?;
            buffer.into_inner().map_err(io::IntoInnerError::into_error)
        });
        let out = out.with_context(|| cannot_write(&to))?;
        if let Some(beside) = &beside {
            // That of an earlier export must not stand beside this one.
            beside.remove_named()?;
        }
        let file_bytes = match out {
            Out::Stdout(_) => bytes,
            Out::File(file) => file.name()?,
        };
        if let Some(mut beside) = beside {
            beside.write_all(manifest.as_bytes()).context("cannot write the manifest")?;
            beside.name()?;
        }
        Ok(Written { bytes, file_bytes })
    }
}

fn cannot_write(to: &To) -> String {
    format!("cannot write {to}")
}

enum Out {
    Stdout(io::Stdout),
    File(Unnamed),
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout(out) => out.write(bytes),
            Self::File(unnamed) => unnamed.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout(out) => out.flush(),
            Self::File(unnamed) => unnamed.flush(),
        }
    }
}
