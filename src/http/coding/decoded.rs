//! What comes out of a decoder, within bounds.

use std::io::{self, ErrorKind, Write};

/// What was decoded and not taken yet. It takes no more than its limit, however much
/// there is to decode, so that a few bytes which stand for many fill no memory.
#[derive(Default)]
pub(super) struct Decoded {
    bytes: Vec<u8>,
    bytes_max: usize,
    is_over: bool,
}

impl Decoded {
    pub(super) fn new(bytes_max: usize) -> Self {
        Decoded { bytes: Vec::new(), bytes_max, is_over: false }
    }

    /// Whether there was more than its limit.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Says that there will be more than its limit.
    pub(super) fn overflow(&mut self) -> io::Error {
        self.is_over = true;
        ErrorKind::FileTooLarge.into()
    }

    /// Room for as many bytes more as there may be.
    pub(super) fn room(&self) -> usize {
        self.bytes_max - self.bytes.len()
    }

    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }
}

/// The error that says why a body is not in its coding.
pub(super) fn invalid(why: impl Into<String>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why.into())
}

impl Write for Decoded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.room() {
            return Err(self.overflow());
        }
        let len = self.bytes.len() + bytes.len();
        if len > self.bytes.capacity() {
            // Never to more than there may be.
            let doubled = (2 * self.bytes.capacity()).min(self.bytes_max);
            self.bytes.reserve_exact(doubled.max(len) - self.bytes.len());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
