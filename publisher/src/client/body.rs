//! The body of a publish request.

use bytes::Bytes;

/// The body of a publish request.
#[derive(Debug, Clone)]
pub struct Body {
    pub(super) bytes: Bytes,
    pub(super) form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Json,
    Gzip,
    /// A line each of so many events.
    Lines(usize),
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self { bytes, form: Form::Json }
    }
}

impl Body {
    /// A body that is compressed.
    ///
    /// # Errors
    ///
    /// If there is no memory for it.
    pub fn gzip(bytes: &[u8]) -> std::io::Result<Self> {
        use std::io::Write as _;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes)?;
        Ok(Self { bytes: encoder.finish()?.into(), form: Form::Gzip })
    }

    /// So many events, a line each, for a client that has streams.
    #[must_use]
    pub fn lines(bytes: Bytes, events: usize) -> Self {
        Self { bytes, form: Form::Lines(events) }
    }

    /// Bytes on the wire.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }
}
