//! A body that is decoded part by part.

use bytes::{Buf, Bytes};
use futures::stream::{self, Stream, StreamExt};

use super::decoder::Decoder;
use super::names::Coding;
use crate::http::problem::Problem;

/// Longest part of a body that is decoded as it comes, in bytes.
const PART_BYTES_MAX: usize = 64 * 1024;

/// A body in `coding` as it was before, in parts of bounded length, each handed on as
/// soon as it is there. A problem is the last part.
pub(crate) fn decoded_parts(
    encoded: impl Stream<Item = Result<Bytes, Problem>> + Unpin,
    coding: Coding,
) -> impl Stream<Item = Result<Bytes, Problem>> {
    let parts = Parts {
        encoded,
        rest: Bytes::new(),
        decoder: Some(Decoder::of_stream(coding)),
        decoded: Bytes::new(),
    };
    stream::unfold(parts, async |mut parts| {
        let part = parts.next().await.transpose()?;
        if part.is_err() {
            parts.decoder = None;
        }
        Some((part, parts))
    })
}

struct Parts<S> {
    encoded: S,
    /// What came last, as far as it is not decoded.
    rest: Bytes,
    /// `None` after the last part.
    decoder: Option<Decoder>,
    /// What is decoded and not handed on.
    decoded: Bytes,
}

impl<S: Stream<Item = Result<Bytes, Problem>> + Unpin> Parts<S> {
    async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        loop {
            if !self.decoded.is_empty() {
                let length = self.decoded.len().min(PART_BYTES_MAX);
                return Ok(Some(self.decoded.split_to(length)));
            }
            let Some(decoder) = &mut self.decoder else { return Ok(None) };
            if !self.rest.is_empty() {
                // A few bytes may stand for many.
                self.rest.advance(decoder.step(&self.rest)?);
                self.decoded = decoder.take()?.into();
            } else if let Some(next) = self.encoded.next().await {
                self.rest = next?;
            } else if let Some(decoder) = self.decoder.take() {
                self.decoded = decoder.end()?.into();
            }
        }
    }
}
