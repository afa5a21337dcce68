//! A request on its way in: what routes see of it, and its body, which is read
//! within bounds and only when a route wants it.

use std::cell::Cell;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, LocalBoxStream};
use http::request::Parts;
use http::{HeaderMap, header};
use http_body_util::BodyExt;

use crate::http::authentication::Caller;
use crate::http::coding::{Decoder, OF_STREAMS, OF_WHOLE_BODIES, decoded_parts};
use crate::http::noted::Noted;
use crate::http::problem::{Code, Problem};
use crate::http::query::Query;
use crate::http::trace::Trace;

/// How much of a body that is not wanted is read and thrown away, in bytes, so
/// that a client which sends first and listens then gets its reply and not a
/// broken connection.
pub(crate) const DISCARD_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// A request as a route sees it.
pub(crate) struct Request<'a> {
    /// Method, address and headers.
    pub(crate) head: &'a Parts,
    /// What stands for `{name}` in the path; empty in a path without.
    pub(crate) name: &'a str,
    /// The whole body, decoded; empty for a route that reads none.
    pub(crate) body: &'a [u8],
    /// The body as it comes, for a route that reads one like that.
    pub(crate) stream: Cell<Option<BodyStream>>,
    /// Who sent it.
    pub(crate) caller: Caller,
    /// What it is called by.
    pub(crate) trace: &'a Trace,
    /// What is noted of it.
    pub(crate) noted: &'a Noted,
}

/// A body as it comes. A problem is the last part.
pub(crate) type BodyStream = LocalBoxStream<'static, Result<Bytes, Problem>>;

/// What was read of a body before its route was asked.
pub(crate) enum Incoming {
    /// All of it.
    Whole(Vec<u8>),
    /// Nothing.
    Stream(BodyStream),
}

impl<'a> Request<'a> {
    /// Its query parameters.
    pub(crate) fn query(&self) -> Query<'a> {
        Query::parse(self.head.uri.query())
    }

    /// Its body as it comes. To be asked for once, by a route that reads one like
    /// that.
    ///
    /// # Errors
    ///
    /// 500 for a defect of ours.
    pub(crate) fn body_stream(&self) -> Result<BodyStream, Problem> {
        self.stream.take().ok_or_else(|| Problem::internal("the body was not kept"))
    }

    /// Its headers.
    pub(crate) fn headers(&self) -> &'a HeaderMap {
        &self.head.headers
    }
}

/// The body of a request, and how much of it is read.
pub(crate) struct RequestBody<B> {
    /// `None` when it was handed on.
    stream: Option<B>,
    bytes_read: u64,
    /// If the client announced it.
    length: Option<u64>,
    /// The client sends the body only once we consent, which the first poll of
    /// the stream does.
    awaits_consent: bool,
}

impl<B> RequestBody<B>
where
    B: http_body::Body<Data = Bytes, Error: std::fmt::Display> + Unpin,
{
    /// The body that `head` announces.
    pub(crate) fn of(head: &Parts, stream: B) -> Self {
        let length = head.headers.get(header::CONTENT_LENGTH);
        RequestBody {
            stream: Some(stream),
            bytes_read: 0,
            length: length.and_then(|length| length.to_str().ok()?.parse().ok()),
            awaits_consent: head.headers.contains_key(header::EXPECT),
        }
    }

    /// Reads and decodes the whole body, `body_bytes_max` bytes at most, also when it
    /// is decoded.
    ///
    /// # Errors
    ///
    /// 415 for a content coding that is not supported, 413 for a longer body,
    /// 400 for one that ends too early, 422 for one that is not in its coding.
    pub(crate) async fn read(
        &mut self,
        headers: &HeaderMap,
        body_bytes_max: usize,
    ) -> Result<Vec<u8>, Problem> {
        let mut decoder = Decoder::new(OF_WHOLE_BODIES.of(headers)?, body_bytes_max);
        if self.length.is_some_and(|length| length > body_bytes_max as u64) {
            return Err(Problem::body_too_large(body_bytes_max));
        }
        while let Some(data) = self.next().await {
            let data = data.map_err(|cause| self.incomplete().caused_by(cause))?;
            if self.bytes_read > body_bytes_max as u64 {
                return Err(Problem::body_too_large(body_bytes_max));
            }
            decoder.write(&data)?;
        }
        match self.length {
            Some(length) if self.bytes_read < length => Err(self.incomplete()),
            _ => decoder.end(),
        }
    }

    /// How many bytes of it were read; `None` when it was handed on.
    pub(crate) fn bytes_read(&self) -> Option<u64> {
        self.stream.is_some().then_some(self.bytes_read)
    }

    /// Hands the body on as it comes, decoded and of any length; nothing is left here.
    ///
    /// # Errors
    ///
    /// 415 for a content coding that is not supported.
    pub(crate) fn stream(&mut self, headers: &HeaderMap) -> Result<BodyStream, Problem>
    where
        B: 'static,
    {
        let coding = OF_STREAMS.of(headers)?;
        let taken = RequestBody { stream: self.stream.take(), ..*self };
        let parts = stream::unfold(Some(taken), async |body| {
            let mut body = body?;
            match body.next().await {
                Some(Ok(data)) => Some((Ok(data), Some(body))),
                Some(Err(cause)) => Some((Err(body.cut_off().caused_by(cause)), None)),
                None if body.length.is_some_and(|length| body.bytes_read < length) => {
                    Some((Err(body.cut_off()), None))
                }
                None => None,
            }
        });
        let parts = parts.boxed_local();
        Ok(match coding {
            None => parts,
            Some(coding) => decoded_parts(parts, coding).boxed_local(),
        })
    }

    /// Reads what is left of the body of a request that was refused.
    pub(crate) async fn discard(&mut self) {
        if self.awaits_consent && self.bytes_read == 0 {
            return;
        }
        let enough = self.bytes_read + DISCARD_BYTES_MAX;
        // How it ends does not matter any more.
        while self.bytes_read < enough && matches!(self.next().await, Some(Ok(_))) {}
    }

    /// The next part; `None` when no more is to come.
    ///
    /// A body whose length is known is read up to that length and not to the
    /// end of its stream, which arrives later than the last byte.
    async fn next(&mut self) -> Option<Result<Bytes, String>> {
        while self.length.is_none_or(|length| self.bytes_read < length) {
            match self.stream.as_mut()?.frame().await? {
                Ok(frame) => {
                    let Ok(data) = frame.into_data() else { continue };
                    self.bytes_read += data.len() as u64;
                    return Some(Ok(data));
                }
                Err(error) => return Some(Err(error.to_string())),
            }
        }
        None
    }

    fn incomplete(&self) -> Problem {
        self.ended_early("nothing of it was stored")
    }

    /// The same of a body that was handed on.
    fn cut_off(&self) -> Problem {
        self.ended_early("what was stored of it was told")
    }

    fn ended_early(&self, kept: &str) -> Problem {
        let announced = self.length.map_or_else(String::new, |length| format!(" of {length}"));
        let read = self.bytes_read;
        Problem::new(
            Code::IncompleteBody,
            format!("The body ended after {read}{announced} bytes; {kept}."),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::stream;
    use http_body::Frame;
    use http_body_util::StreamBody;

    use super::*;
    use crate::platform::fake::now;

    const BODY_BYTES_MAX: usize = 10;

    fn head(headers: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::builder();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    /// Reads a body that comes in `parts`, the first that is none an error of
    /// the connection.
    fn read(headers: &[(&str, &str)], parts: &[Option<&'static str>]) -> Result<String, String> {
        let head = head(headers);
        let frames: Vec<_> = parts
            .iter()
            .map(|part| part.map(|text| Frame::data(Bytes::from(text))).ok_or("reset"))
            .collect();
        let mut body = RequestBody::of(&head, StreamBody::new(stream::iter(frames)));
        now(body.read(&head.headers, BODY_BYTES_MAX))
            .map(|read| String::from_utf8(read).unwrap())
            .map_err(|problem| format!("{} {}", problem.status().as_u16(), problem.code().as_str()))
    }

    #[test]
    fn reads_whole_bodies_within_the_limit() {
        let length = |length| [("content-length", length)];
        for (headers, parts, expected) in [
            (&length("5")[..], &[Some("12"), Some("345")][..], Ok("12345")),
            (&[], &[Some("12"), Some("345")], Ok("12345")),
            (&[], &[], Ok("")),
            (&length("10"), &[Some("1234567890")], Ok("1234567890")),
            // What comes after its length is not of this body.
            (&length("2"), &[Some("12"), Some("3")], Ok("12")),
            (&length("5"), &[Some("12")], Err("400 incomplete_body")),
            (&length("5"), &[Some("12"), None], Err("400 incomplete_body")),
            (&[], &[Some("12"), None], Err("400 incomplete_body")),
            (&length("11"), &[], Err("413 body_too_large")),
            (&[], &[Some("123456"), Some("78901")], Err("413 body_too_large")),
        ] {
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(read(headers, parts), expected, "{headers:?} {parts:?}");
        }
    }

    #[test]
    fn undecodable_bodies_are_refused() {
        let of = |coding: &'static str| ("content-encoding", coding);
        for (headers, parts, expected) in [
            (of("identity"), &[Some("1")][..], Ok("1")),
            (of("br"), &[Some("1")], Err("415 unsupported_encoding")),
            (of("gzip"), &[Some("1")], Err("422 invalid_body")),
            (of("gzip"), &[], Ok("")),
            // The connection first: it may be whole the next time.
            (of("gzip"), &[Some("\u{1f}"), None], Err("400 incomplete_body")),
            (of("gzip"), &[Some("12345678901")], Err("413 body_too_large")),
        ] {
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(read(&[headers], parts), expected, "{headers:?} {parts:?}");
        }
    }

    #[test]
    fn discards_what_was_sent_and_no_more() {
        let discarded = |headers: &[(&str, &str)]| {
            let head = head(headers);
            let mut left = vec!["2", "1"];
            let frames = stream::iter(std::iter::from_fn(|| {
                left.pop().map(|text| Ok::<_, Infallible>(Frame::data(Bytes::from(text))))
            }));
            now(RequestBody::of(&head, StreamBody::new(frames)).discard());
            2 - left.len()
        };
        assert_eq!(discarded(&[]), 2);
        assert_eq!(discarded(&[("expect", "100-continue")]), 0, "it was not asked to send");
    }
}
