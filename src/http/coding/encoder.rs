//! Replies that go out compressed: in gzip, to whoever likes that.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use futures::StreamExt;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::http::accept;
use crate::http::reply::{Body, ByteStream, Parts, Reply};
use crate::store::StoreError;

/// Shortest reply that is compressed, in bytes: a shorter one takes a packet as well.
pub(crate) const COMPRESSED_BYTES_MIN: usize = 1_024;

/// `reply`, which depends on nothing but what was asked for, as the client that sent
/// these headers likes it best.
pub(crate) fn compressed(headers: &HeaderMap, reply: Reply) -> Reply {
    let mut reply = reply.varying_by("accept-encoding");
    if !accept::prefers_gzip(headers) {
        return reply;
    }
    // Compressed or not it is the same for who has it already, but not byte by byte.
    if let Some(weak) = reply.headers.get(header::ETAG).and_then(weakened) {
        reply.headers.insert(header::ETAG, weak);
    }
    let is_compressed = reply.headers.contains_key(header::CONTENT_ENCODING);
    if is_compressed || reply.status == StatusCode::NOT_MODIFIED {
        return reply;
    }
    reply.body = match reply.body {
        Body::Whole(body) => match gzip(&body) {
            Some(shorter) => Body::Whole(shorter),
            None => return Reply { body: Body::Whole(body), ..reply },
        },
        Body::Stream(parts) => Body::Stream(CompressedParts::of(parts).into_stream()),
    };
    reply.with_header(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"))
}

/// An entity tag that does not tell apart what means the same.
fn weakened(tag: &HeaderValue) -> Option<HeaderValue> {
    HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat()).ok()
}

/// The same in gzip, if it is worth while.
fn gzip(body: &[u8]) -> Option<Vec<u8>> {
    if body.len() < COMPRESSED_BYTES_MIN {
        return None;
    }
    let mut encoder = encoder();
    encoder.write_all(body).ok()?;
    encoder.finish().ok().filter(|shorter| shorter.len() < body.len())
}

/// Fast rather than thorough: other requests of the instance wait meanwhile.
fn encoder() -> GzEncoder<Vec<u8>> {
    GzEncoder::new(Vec::new(), Compression::fast())
}

/// A body that comes in parts, each of which can be read as soon as it has come.
struct CompressedParts {
    parts: ByteStream,
    /// `None` after the end.
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl CompressedParts {
    fn of(parts: ByteStream) -> Self {
        CompressedParts { parts, encoder: Some(encoder()) }
    }
}

impl Parts for CompressedParts {
    async fn next(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(encoder) = &mut self.encoder else { return Ok(None) };
        let Some(part) = self.parts.next().await.transpose()? else {
            return Ok(self.encoder.take().and_then(|encoder| encoder.finish().ok()));
        };
        // Nothing of it can fail: it is written to memory.
        encoder.write_all(&part).and_then(|()| encoder.flush()).ok();
        Ok(Some(std::mem::take(encoder.get_mut())))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::MultiGzDecoder;
    use futures::stream;

    use super::*;
    use crate::platform::fake::now;

    fn headers(accept_encoding: &str) -> HeaderMap {
        let value = HeaderValue::from_str(accept_encoding).unwrap();
        [(header::ACCEPT_ENCODING, value)].into_iter().collect()
    }

    fn page(length: usize) -> Reply {
        Reply::whole(StatusCode::OK, "text/plain", vec![b'x'; length])
            .with_header(header::VARY, HeaderValue::from_static("accept"))
            .with_header(header::ETAG, HeaderValue::from_static("\"1\""))
    }

    fn shown(reply: &Reply) -> (usize, &str, &str, Option<&str>) {
        let Body::Whole(body) = &reply.body else { panic!("a stream") };
        let told = |name| reply.headers.get(name).map(|value| value.to_str().unwrap());
        let (vary, tag) = (told(header::VARY).unwrap(), told(header::ETAG).unwrap());
        (body.len(), vary, tag, told(header::CONTENT_ENCODING))
    }

    fn decoded(body: &[u8]) -> Vec<u8> {
        let mut decoded = Vec::new();
        MultiGzDecoder::new(body).read_to_end(&mut decoded).unwrap();
        decoded
    }

    #[test]
    fn long_replies_are_compressed_for_who_likes_it() {
        let vary = "accept, accept-encoding";
        let long = compressed(&headers("gzip"), page(COMPRESSED_BYTES_MIN));
        let Body::Whole(body) = &long.body else { panic!("a stream") };
        assert_eq!(decoded(body), vec![b'x'; COMPRESSED_BYTES_MIN]);
        assert_eq!(shown(&long), (body.len(), vary, "W/\"1\"", Some("gzip")));
        assert!(body.len() < 100);

        let short = compressed(&headers("gzip"), page(COMPRESSED_BYTES_MIN - 1));
        assert_eq!(shown(&short), (COMPRESSED_BYTES_MIN - 1, vary, "W/\"1\"", None));
        let as_it_is = compressed(&headers("br"), page(COMPRESSED_BYTES_MIN));
        assert_eq!(shown(&as_it_is), (COMPRESSED_BYTES_MIN, vary, "\"1\"", None));
        let mut known = page(0);
        known.status = StatusCode::NOT_MODIFIED;
        assert_eq!(shown(&compressed(&headers("gzip"), known)), (0, vary, "W/\"1\"", None));
    }

    #[test]
    fn what_does_not_get_shorter_stays() {
        // No byte of it comes again soon.
        let random = |index: u32| (index.wrapping_mul(2_654_435_761) >> 13) as u8;
        let bytes: Vec<u8> = (0..2_000).map(random).collect();
        let reply = Reply::whole(StatusCode::OK, "text/plain", bytes.clone());
        let Body::Whole(body) = compressed(&headers("gzip"), reply).body else {
            panic!("a stream")
        };
        assert!(body == bytes || body.len() < bytes.len());
    }

    #[test]
    fn each_part_can_be_read_when_it_has_come() {
        let lost = || StoreError::unavailable("lost");
        for (end, parts) in [(None, 3), (Some(lost()), 3)] {
            let is_broken = end.is_some();
            let lines = (0..parts).map(|number| Ok(format!("{number}\n").into_bytes()));
            let parts = stream::iter(lines.chain(end.map(Err))).boxed_local();
            let reply = compressed(&headers("*"), Reply::stream("application/x-ndjson", parts));
            assert_eq!(reply.headers[header::CONTENT_ENCODING], "gzip");
            let Body::Stream(mut parts) = reply.body else { panic!("no stream") };
            let mut decoder = flate2::write::GzDecoder::new(Vec::new());
            for number in 0..3 {
                let part = now(parts.next()).unwrap().unwrap();
                decoder.write_all(&part).unwrap();
                decoder.flush().unwrap();
                let line = std::mem::take(decoder.get_mut());
                assert_eq!(line, format!("{number}\n").into_bytes());
            }
            if is_broken {
                assert!(now(parts.next()).unwrap().is_err());
            } else {
                decoder.write_all(&now(parts.next()).unwrap().unwrap()).unwrap();
                decoder.try_finish().unwrap();
            }
            assert!(now(parts.next()).is_none());
        }
    }
}
