//! Media types, and which of them a client takes.

use http::{HeaderMap, header};

/// The media type of rows, one per line.
pub(crate) const NDJSON: &str = "application/x-ndjson";

/// Whether a media type, with or without parameters, is that of rows, one per
/// line, under one of its names.
pub(crate) fn is_ndjson(media_type: &str) -> bool {
    [NDJSON, "application/ndjson", "application/jsonl", "application/x-jsonlines"]
        .iter()
        .any(|known| is_media_type(media_type, known))
}

/// Whether a media type, with or without parameters, is `name`.
pub(crate) fn is_media_type(media_type: &str, name: &str) -> bool {
    media_type.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(name)
}

/// Whether the client names a media type for which `is_wanted` holds as what it
/// accepts, and not only to refuse it.
pub(crate) fn accepts(headers: &HeaderMap, is_wanted: impl Fn(&str) -> bool) -> bool {
    let ranges = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    ranges.flat_map(|value| value.split(',')).any(|range| {
        let refused = range.split(';').skip(1).any(|parameter| {
            let quality = parameter.trim().strip_prefix("q=").map(str::parse::<f32>);
            quality.is_some_and(|quality| quality == Ok(0.0))
        });
        is_wanted(range) && !refused
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn what_is_refused_is_not_accepted() {
        for (accept, expected) in [
            ("application/x-ndjson", true),
            ("text/html, Application/JSONL; charset=utf-8", true),
            ("application/x-ndjson;q=0.5", true),
            ("application/x-ndjson; q=0", false),
            ("application/json", false),
            ("*/*", false),
        ] {
            let headers: HeaderMap =
                [(header::ACCEPT, HeaderValue::from_static(accept))].into_iter().collect();
            assert_eq!(accepts(&headers, is_ndjson), expected, "{accept}");
        }
    }
}
