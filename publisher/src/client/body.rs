//! The body of a publish request.

use bytes::Bytes;

/// The body of a publish request.
#[derive(Debug, Clone)]
pub struct Body {
    pub(super) bytes: Bytes,
    pub(super) form: Form,
    pub(super) is_gzip: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Json,
    /// A line each of so many events.
    Lines(usize),
}

impl Body {
    /// An event, or an array of events.
    #[must_use]
    pub fn json(bytes: Bytes) -> Self {
        Self { bytes, form: Form::Json, is_gzip: false }
    }

    /// So many events, a line each. A client that has streams sends them over those.
    #[must_use]
    pub fn lines(bytes: Bytes, events: usize) -> Self {
        Self { bytes, form: Form::Lines(events), is_gzip: false }
    }

    /// The same, compressed.
    ///
    /// # Errors
    ///
    /// If there is no memory for it.
    pub fn into_gzip(self) -> std::io::Result<Self> {
        use std::io::Write as _;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&self.bytes)?;
        Ok(Self { bytes: encoder.finish()?.into(), is_gzip: true, ..self })
    }

    /// Bytes on the wire.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }
}
