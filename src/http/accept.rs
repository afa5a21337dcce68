//! Media types and codings, and which of them a client likes most.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, header};

/// The media type of rows, one per line.
pub(crate) const NDJSON: &str = "application/x-ndjson";

/// The names under which it is known.
const NDJSON_NAMES: [&str; 7] = [
    NDJSON,
    "application/ndjson",
    "application/jsonl",
    "application/x-jsonl",
    "application/jsonlines",
    "application/x-jsonlines",
    "application/json-seq",
];

/// What a route can answer with.
pub(crate) struct Offer {
    /// The names of its media type.
    names: &'static [&'static str],
    /// A parameter of it, such as `version=1.0.0`; empty when there is none.
    parameter: &'static str,
}

pub(crate) const JSON: Offer = Offer::new(&["application/json"], "charset=utf-8");
pub(crate) const LINES: Offer = Offer::new(&NDJSON_NAMES, "charset=utf-8");
pub(crate) const CLOUD_EVENTS: Offer =
    Offer::new(&["application/cloudevents-batch+json"], "charset=utf-8");
pub(crate) const HTML: Offer = Offer::new(&["text/html"], "charset=utf-8");
pub(crate) const TEXT: Offer = Offer::new(&["text/plain"], "charset=utf-8");
pub(crate) const ELASTICSEARCH: Offer =
    Offer::new(&["application/json", ELASTICSEARCH_JSON], "compatible-with=8");

/// JSON as a version of Elasticsearch has it, in the words of its clients.
pub(crate) const ELASTICSEARCH_JSON: &str = "application/vnd.elasticsearch+json";

/// The media type of a body in small letters, without its parameters; empty when
/// there is none.
pub(crate) fn media_type(headers: &HeaderMap) -> String {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let name = given.unwrap_or_default().split(';').next().unwrap_or_default();
    name.trim().to_ascii_lowercase()
}

/// Whether a media type is that of rows, one per line, under one of its names.
pub(crate) fn is_ndjson(media_type: &str) -> bool {
    NDJSON_NAMES.contains(&media_type)
}

/// Whether a client that sent these headers would have `other` rather than
/// `usual`, which is what it gets when it likes both the same, and also when it
/// takes neither: a reply that can be read is of more use than a 406.
pub(crate) fn prefers(headers: &HeaderMap, other: &Offer, usual: &Offer) -> bool {
    let (other, usual) = (other.liked(headers), usual.liked(headers));
    other.is_some_and(|other| other.quality > 0.0 && usual.is_none_or(|usual| other > usual))
}

/// Whether a client that sent these headers would have a reply in gzip rather than as
/// it is. One that does not say takes it as it is, and so does one that takes neither.
pub(crate) fn prefers_gzip(headers: &HeaderMap) -> bool {
    let values = texts(headers, header::ACCEPT_ENCODING);
    let ranges = || values.iter().flat_map(|value| split(value, ','));
    let liking = |names: &[&str]| {
        let named = |range: &&str| {
            let name = split(range, ';').next().unwrap_or_default().trim();
            names.iter().any(|one| one.eq_ignore_ascii_case(name))
        };
        ranges().filter(named).filter_map(quality).reduce(f64::max)
    };
    let any = || liking(&["*"]);
    let gzip = liking(&["gzip", "x-gzip"]).or_else(any).unwrap_or_default();
    // It does not have to be named, unless it is liked more.
    let as_it_is = liking(&["identity"]).unwrap_or_default();
    gzip > 0.0 && gzip >= as_it_is
}

/// The values of a header.
fn texts(headers: &HeaderMap, name: HeaderName) -> Vec<Cow<'_, str>> {
    let values = headers.get_all(name).iter();
    values.map(|value| String::from_utf8_lossy(value.as_bytes())).collect()
}

/// How well a media range fits an offer, from the least to the most.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum Fit {
    /// `*/*`
    Any,
    /// `type/*`
    OfType,
    /// Named, with other parameters: which those are matters to no client here,
    /// so long as it names the type in no better way.
    OtherParameters,
    /// Named.
    Named,
    /// Named with its parameter.
    WithParameter,
}

/// How much a client likes an offer: first by quality, then by whether it names it.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
struct Liking {
    quality: f64,
    is_named: bool,
}

impl Offer {
    pub(crate) const fn new(names: &'static [&'static str], parameter: &'static str) -> Self {
        Offer { names, parameter }
    }

    /// What the client says of it: the quality of the range that fits best, as RFC
    /// 9110 has it, and of several that fit as well the greatest, since an offer can
    /// have several names. `None` when no range fits.
    fn liked(&self, headers: &HeaderMap) -> Option<Liking> {
        let values = texts(headers, header::ACCEPT);
        let ranges = values.iter().flat_map(|value| split(value, ','));
        let fitting = ranges.filter_map(|range| Some((self.fit(range)?, quality(range)?)));
        let best = fitting.reduce(|best, next| if next > best { next } else { best });
        best.map(|(fit, quality)| Liking { quality, is_named: fit > Fit::OfType })
    }

    fn fit(&self, range: &str) -> Option<Fit> {
        let mut parts = split(range, ';').map(str::trim);
        let range = parts.next()?;
        if ["*/*", "*"].contains(&range) {
            return Some(Fit::Any);
        }
        if let Some(kind) = range.strip_suffix("/*") {
            let of_type = |name: &&str| {
                name.split_once('/').is_some_and(|(one, _)| one.eq_ignore_ascii_case(kind))
            };
            return self.names.iter().any(of_type).then_some(Fit::OfType);
        }
        if !self.names.iter().any(|name| name.eq_ignore_ascii_case(range)) {
            return None;
        }
        // What comes after the quality is none of the type's.
        let parameters = parts.take_while(|one| quality_of(one).is_none());
        let parameters: Vec<&str> = parameters.filter(|one| !one.is_empty()).collect();
        Some(match parameters.as_slice() {
            [] => Fit::Named,
            [only] if only.eq_ignore_ascii_case(self.parameter) => Fit::WithParameter,
            _ => Fit::OtherParameters,
        })
    }
}

/// The quality of a range, from 0 to 1. `None` when it is none, and then the range
/// is as good as not there.
fn quality(range: &str) -> Option<f64> {
    let Some(given) = split(range, ';').skip(1).find_map(quality_of) else { return Some(1.0) };
    let is_number = given.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let number = given.parse::<f64>().ok().filter(|_| is_number)?;
    Some(number.min(1.0))
}

/// The value of the parameter `q`, if this is it.
fn quality_of(parameter: &str) -> Option<&str> {
    let (name, value) = parameter.split_once('=')?;
    name.trim().eq_ignore_ascii_case("q").then(|| value.trim())
}

/// What stands between separators that are not in a quoted string.
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    text.split(move |one| {
        match one {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = is_quoted,
            '"' => is_quoted = !is_quoted,
            _ => {}
        }
        one == separator && !is_quoted
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const OPEN_METRICS: Offer = Offer::new(&["application/openmetrics-text"], "version=1.0.0");
    const METRICS: Offer = Offer::new(&["text/plain"], "version=0.0.4");

    fn headers(values: &[&str]) -> HeaderMap {
        let values = values.iter().map(|value| HeaderValue::from_bytes(value.as_bytes()).unwrap());
        values.map(|value| (header::ACCEPT, value)).collect()
    }

    fn is_preferred(accept: &str, other: &Offer, usual: &Offer) -> bool {
        prefers(&headers(&[accept]), other, usual)
    }

    #[test]
    fn lines_for_who_likes_them_more_than_a_page() {
        for (accept, expected) in [
            ("application/x-ndjson", true),
            ("application/ndjson", true),
            ("application/jsonl", true),
            ("application/x-jsonl", true),
            ("application/jsonlines", true),
            ("application/x-jsonlines", true),
            ("application/json-seq", true),
            ("Application/JSONL; charset=utf-8", true),
            ("application/x-ndjson;q=0.5", true),
            ("text/html, application/x-ndjson;q=0.1", true),
            ("application/json;q=0.5, application/x-ndjson", true),
            ("application/json;q=0.899,application/jsonl;q=0.9", true),
            ("application/json;q=0, application/x-ndjson;q=0.001", true),
            // Named by itself, where the other comes with all.
            ("application/x-ndjson, */*", true),
            ("*/*, application/x-ndjson", true),
            ("application/*, application/jsonl", true),
            ("application/json;q=0, */*", true),
            ("application/json;q=0.2, application/*;q=0.3", true),
            // The best fitting range counts, not the best quality.
            ("application/x-ndjson, application/json;q=0.5, */*", true),
            // Under one of its names.
            ("application/x-ndjson;q=0, application/jsonl, application/json;q=0.5", true),
            // As likeable: the server chooses.
            ("application/x-ndjson, application/json", false),
            ("application/json, application/x-ndjson", false),
            ("application/x-ndjson;q=0.5, application/json;q=0.5", false),
            ("application/x-ndjson;q=0.5, application/json;q=0.500", false),
            ("application/x-ndjson, application/json;charset=utf-8", false),
            ("*/*", false),
            ("*", false),
            ("application/*", false),
            ("application/json, application/x-ndjson;q=0.5", false),
            ("application/x-ndjson;q=0.5, */*", false),
            ("application/x-ndjson;q=0, */*", false),
            ("application/json;q=0.1, application/x-ndjson;q=0, application/*", false),
            // Nothing that there is.
            ("application/x-ndjson;q=0", false),
            ("application/x-ndjson; Q=0.0", false),
            ("application/x-ndjson;q=0.000, application/json;q=0", false),
            ("*/*;q=0", false),
            ("text/html", false),
            ("image/*", false),
            ("application/x-ndjson-not", false),
            ("x-ndjson", false),
            // Nothing at all.
            ("", false),
            (",;, ;q=1,/,;", false),
        ] {
            assert_eq!(is_preferred(accept, &LINES, &JSON), expected, "{accept}");
        }
        assert!(!prefers(&HeaderMap::new(), &LINES, &JSON));
    }

    #[test]
    fn what_is_malformed_counts_for_nothing() {
        for (accept, expected) in [
            // A quality that is none.
            ("application/x-ndjson;q=high", false),
            ("application/x-ndjson;q=", false),
            ("application/x-ndjson;q=-1", false),
            ("application/x-ndjson;q=nan", false),
            ("application/x-ndjson;q=inf", false),
            ("application/x-ndjson;q=1e0", false),
            ("application/x-ndjson;q=0.5.5", false),
            ("application/x-ndjson;q=.", false),
            ("application/x-ndjson;q=\"1\"", false),
            ("application/x-ndjson;q=high, application/jsonl", true),
            // One that is meant well.
            ("application/x-ndjson;q=.5", true),
            ("application/x-ndjson;q=1.", true),
            ("application/x-ndjson ; q = 0.5", true),
            ("application/x-ndjson;q=0.12345, application/json;q=0.1", true),
            ("application/x-ndjson;q=7, application/json;q=2", false),
            // Parameters after it, and other ones.
            ("application/x-ndjson;q=0.5;level=1", true),
            ("application/x-ndjson;;;q=0.5", true),
            ("application/x-ndjson;quiet=1;q=0.5, application/json;q=0.4", true),
            ("application/x-ndjson;\tq=0.9\t,\tapplication/json;q=0.8", true),
            // A comma or a semicolon in a quoted string is none.
            ("application/json;title=\"a,b;q=0\", application/x-ndjson;q=0.5", false),
            ("application/x-ndjson;title=\"a\\\",b\";q=0.9, application/json;q=0.8", true),
            ("application/json;title=\"open, application/x-ndjson", false),
            ("é, application/x-ndjson", true),
        ] {
            assert_eq!(is_preferred(accept, &LINES, &JSON), expected, "{accept}");
        }
    }

    #[test]
    fn open_metrics_for_who_likes_them_more_than_text() {
        for (accept, expected) in [
            ("application/openmetrics-text", true),
            ("application/openmetrics-text;version=1.0.0", true),
            ("application/openmetrics-text; Version=1.0.0; charset=utf-8", true),
            (
                "application/openmetrics-text;version=0.0.1,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                true,
            ),
            // What Prometheus 3 sends.
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                 application/openmetrics-text;version=0.0.1;q=0.5,\
                 text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
                 text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                true,
            ),
            ("text/plain;q=0.5, application/openmetrics-text;version=1.0.0", true),
            ("text/plain;q=1, application/openmetrics-text;q=0.1", false),
            ("text/plain;version=0.0.4;q=1,application/openmetrics-text;q=0.1", false),
            ("text/plain, application/openmetrics-text", false),
            // The version that there is says more than another, and than none.
            (
                "application/openmetrics-text;version=1.0.0;q=0.1, \
                 application/openmetrics-text;version=2.0.0, \
                 application/openmetrics-text, text/plain;q=0.5",
                false,
            ),
            ("text/plain;version=0.0.4;q=0, text/plain, application/openmetrics-text;q=0.1", true),
            ("application/vnd.google.protobuf;q=0.7, */*;q=0.1", false),
            ("*/*", false),
        ] {
            assert_eq!(is_preferred(accept, &OPEN_METRICS, &METRICS), expected, "{accept}");
        }
    }

    #[test]
    fn a_page_for_who_likes_it_more_than_text() {
        for (accept, expected) in [
            ("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8", true),
            ("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", true),
            ("text/plain;q=0.5, text/html;q=0.6", true),
            ("text/plain, text/html;q=0.9", false),
            ("text/html, text/plain", false),
            ("text/html;q=0, */*", false),
            ("text/*", false),
            ("*/*", false),
            ("application/json", false),
        ] {
            assert_eq!(is_preferred(accept, &HTML, &TEXT), expected, "{accept}");
        }
    }

    #[test]
    fn gzip_for_who_likes_it_as_much() {
        let prefers = |values: &[&str]| {
            let value = |value: &&str| HeaderValue::from_str(value).unwrap();
            let values = values.iter().map(|one| (header::ACCEPT_ENCODING, value(one)));
            prefers_gzip(&values.collect())
        };
        for (accept, expected) in [
            ("gzip", true),
            ("GZip", true),
            ("x-gzip", true),
            ("gzip, deflate, br, zstd", true),
            ("br;q=1.0, gzip;q=0.8, *;q=0.1", true),
            ("gzip;q=0.001", true),
            ("gzip, identity", true),
            ("identity;q=0.5, gzip;q=0.5", true),
            ("gzip;q=0.5, identity;q=0", true),
            ("*", true),
            ("*;q=0.1", true),
            ("identity;q=0, *", true),
            ("br, *;q=0.2", true),
            (" gzip ; q = 0.5 ", true),
            ("gzip;q=0, x-gzip", true),
            // As it is.
            ("", false),
            ("identity", false),
            ("br", false),
            ("deflate, br", false),
            ("gzip;q=0", false),
            ("gzip; Q=0.000", false),
            ("gzip;q=0, *", false),
            ("x-gzip;q=0, *;q=1", false),
            ("*;q=0", false),
            ("identity;q=0", false),
            ("identity, gzip;q=0.5", false),
            ("gzip;q=0.5, identity;q=0.6", false),
            ("identity, *;q=0.9", false),
            ("gzipped", false),
            // Malformed.
            ("gzip;q=high", false),
            ("gzip;q=-1", false),
            ("gzip;q=, *;q=0.1", true),
            ("gzip;q=7", true),
            (",;,;q=1,gzip", true),
        ] {
            assert_eq!(prefers(&[accept]), expected, "{accept}");
        }
        assert!(!prefers(&[]));
        assert!(prefers(&["br", "gzip"]));
        assert!(!prefers(&["gzip;q=0.1", "identity"]));
        assert!(!prefers(&[&"br;q=0.9, ".repeat(20_000)]));
    }

    #[test]
    fn several_headers_are_one() {
        for (accept, expected) in [
            (["application/json;q=0.5", "application/x-ndjson"], true),
            (["application/x-ndjson;q=0.5", "application/json"], false),
            (["", "application/x-ndjson"], true),
            // A quoted string ends with its header.
            (["text/html;title=\"open", "application/x-ndjson"], true),
        ] {
            assert_eq!(prefers(&headers(&accept), &LINES, &JSON), expected, "{accept:?}");
        }
    }

    #[test]
    fn a_huge_header_is_gone_through_once() {
        let many = "application/x-other;q=0.9, ".repeat(20_000);
        assert!(is_preferred(&format!("{many}application/x-ndjson"), &LINES, &JSON));
        let last = format!("{many}application/x-ndjson;q=0.8, application/json");
        assert!(!is_preferred(&last, &LINES, &JSON));
        assert!(!is_preferred(&"\"".repeat(200_001), &LINES, &JSON));
        assert!(!is_preferred(&";".repeat(200_000), &LINES, &JSON));
    }
}
