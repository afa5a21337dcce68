//! Who is let in before anything else is looked at: by which host a request calls
//! the service, and on behalf of which page.
//!
//! Nothing here authenticates anyone: that is `authentication`. It keeps out what a browser does without its
//! user's knowing: a page of another origin that sends what it may not read, and
//! one whose own name was made to lead here (DNS rebinding). Whoever is no browser
//! sends neither `Origin` nor `Sec-Fetch-Site`.
//!
//! A page may send `GET`, `HEAD` and `OPTIONS`: no route changes anything by them,
//! and the browser does not let it read the reply (see [`cors`]).

use http::request::Parts;
use http::{HeaderMap, HeaderName, Method, header};

use crate::config::{Host, Hosts, Origins};
use crate::http::cors;
use crate::http::problem::{Code, Problem};

/// Most characters of a name that a client sent and is told again.
const SHOWN_CHARS_MAX: usize = 100;

/// What a browser says of the page that makes it send a request. No page can set
/// it.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What a proxy that ends TLS says of its client's connection.
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Checks the host that a request names.
///
/// # Errors
///
/// 421 when the service is not to be called by it.
pub(crate) fn check_host(hosts: &Hosts, head: &Parts) -> Result<(), Problem> {
    let host = host(head);
    if hosts.allow(host.as_ref()) {
        return Ok(());
    }
    let name = host.map_or_else(|| "None".to_owned(), |host| shown(&host.to_string()));
    Err(Problem::new(
        Code::HostRefused,
        format!(
            "{name} is not one of the hosts by which this service may be called (allowed_hosts)."
        ),
    ))
}

/// Checks on behalf of which page a request comes, if it may change anything.
///
/// # Errors
///
/// 403 for a page that is neither the service's own nor of an origin that may call
/// it.
pub(crate) fn check_origin(origins: &Origins, head: &Parts) -> Result<(), Problem> {
    let is_safe = [Method::GET, Method::HEAD, Method::OPTIONS].contains(&head.method);
    if is_safe || *origins == Origins::Any {
        return Ok(());
    }
    let given = || head.headers.get_all(header::ORIGIN).iter();
    let is_listed = |origin| cors::allow_origin(origins, origin).is_some();
    let refused = given().find(|origin| !is_listed(origin) && !is_own(head, origin.as_bytes()));
    if let Some(origin) = refused {
        let origin = shown(&String::from_utf8_lossy(origin.as_bytes()));
        return Err(refusal(&format!("pages of the origin {origin:?}")));
    }
    // To a browser every page of a listed origin is of another site.
    let is_listed = given().next().is_some() && given().all(is_listed);
    if is_cross_site(&head.headers) && !is_listed {
        return Err(refusal("pages of other sites"));
    }
    Ok(())
}

fn refusal(who: &str) -> Problem {
    Problem::new(
        Code::OriginRefused,
        format!("From {who} only GET, HEAD and OPTIONS are taken (cors_origins)."),
    )
}

fn shown(name: &str) -> String {
    name.chars().take(SHOWN_CHARS_MAX).collect()
}

/// The host that a request names.
fn host(head: &Parts) -> Option<Host> {
    match head.uri.authority() {
        Some(authority) => Host::of(authority),
        None => Host::parse(head.headers.get(header::HOST)?.to_str().ok()?),
    }
}

/// Whether an origin is that of the address to which the request was sent.
///
/// The scheme of that address is known only if a proxy tells it: TLS ends there,
/// and what arrives here is http. So a page of https is taken to be ours, and one of
/// http unless the proxy has been asked by https, which that page may not have been
/// loaded by.
fn is_own(head: &Parts, origin: &[u8]) -> bool {
    let parts = str::from_utf8(origin).ok().and_then(|origin| origin.split_once("://"));
    let Some((scheme, page)) = parts else { return false };
    let default_port = match scheme.to_ascii_lowercase().as_str() {
        "https" => 443,
        "http" if !is_forwarded_by_https(&head.headers) => 80,
        _ => return false,
    };
    let of = |host: Host| (host.name, host.port.unwrap_or(default_port));
    Host::parse(page).map(of).is_some_and(|page| Some(page) == host(head).map(of))
}

fn is_forwarded_by_https(headers: &HeaderMap) -> bool {
    // The first is what the proxy next to the client said.
    let scheme = headers.get(X_FORWARDED_PROTO).and_then(|value| value.to_str().ok());
    let scheme = scheme.and_then(|value| value.split(',').next());
    scheme.is_some_and(|scheme| scheme.trim().eq_ignore_ascii_case("https"))
}

fn is_cross_site(headers: &HeaderMap) -> bool {
    let values = headers.get_all(SEC_FETCH_SITE).iter();
    let mut sites = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    sites.any(|site| site.trim_ascii().eq_ignore_ascii_case(b"cross-site"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTED: &str = "https://app.example";

    fn head(method: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::builder().method(method).uri("/publish");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn is_let_in(origins: &Origins, method: &str, headers: &[(&str, &str)]) -> bool {
        match check_origin(origins, &head(method, headers)) {
            Ok(()) => true,
            Err(problem) => {
                assert_eq!((problem.status().as_u16(), problem.code()), (403, Code::OriginRefused));
                false
            }
        }
    }

    #[test]
    fn a_page_is_ours_when_it_came_from_the_address_that_is_called() {
        let origins = Origins::Only(vec![LISTED.to_owned()]);
        for (host, origin, expected) in [
            ("127.0.0.1:3000", "http://127.0.0.1:3000", true),
            ("127.0.0.1:3000", "http://127.0.0.1:3001", false),
            ("127.0.0.1:3000", "http://127.0.0.1", false),
            ("127.0.0.1:3000", "http://localhost:3000", false),
            ("[::1]:3000", "http://[::1]:3000", true),
            ("[0:0:0:0:0:0:0:1]:3000", "http://[::1]:3000", true),
            ("[::1]:3000", "http://[::2]:3000", false),
            ("x.example", "http://x.example", true),
            ("x.example", "http://x.example:80", true),
            ("x.example:80", "http://x.example", true),
            ("X.Example", "HTTP://x.eXample", true),
            ("x.example.", "http://x.example", true),
            // TLS ended before it came here.
            ("x.example", "https://x.example", true),
            ("x.example:443", "https://x.example", true),
            ("x.example", "https://x.example:443", true),
            ("x.example:8443", "https://x.example:8443", true),
            ("x.example:443", "http://x.example", false),
            ("x.example", "https://x.example:8443", false),
            ("x.example", "http://x.example:443", false),
            ("x.example", LISTED, true),
            ("x.example", "https://app.example:8443", false),
            ("x.example", "http://app.example", false),
            ("x.example", "https://evil.example", false),
            ("x.example", "https://x.example.evil.example", false),
            ("x.example", "https://sub.x.example", false),
            ("x.example", "https://evilx.example", false),
            ("x.example", "https://x.example@evil.example", false),
            ("x.example", "https://evil.example@x.example", false),
            ("x.example", "https://x.example/", false),
            ("x.example", "https://evil.example https://x.example", false),
            ("x.example", "x.example", false),
            ("x.example", "ftp://x.example", false),
            ("x.example", "chrome-extension://x.example", false),
            ("x.example", "//x.example", false),
            ("x.example", "null", false),
            ("x.example", "", false),
            ("x.example", "*", false),
            ("x.example", "é", false),
            ("null", "null", false),
        ] {
            let headers = [("host", host), ("origin", origin)];
            assert_eq!(is_let_in(&origins, "POST", &headers), expected, "{origin} to {host}");
        }
        assert!(!is_let_in(&origins, "POST", &[("origin", "http://x.example")]), "no host");
    }

    #[test]
    fn a_proxy_tells_the_scheme() {
        let origins = Origins::Only(Vec::new());
        for (scheme, origin, expected) in [
            ("https", "https://x.example", true),
            ("https", "http://x.example", false),
            ("HTTPS, http", "http://x.example", false),
            ("http", "http://x.example", true),
            // A second proxy saw http; the page was loaded by more than that.
            ("http", "https://x.example", true),
            ("https", "https://evil.example", false),
        ] {
            let headers =
                [("host", "x.example"), ("origin", origin), ("x-forwarded-proto", scheme)];
            assert_eq!(is_let_in(&origins, "PUT", &headers), expected, "{origin} by {scheme}");
        }
    }

    #[test]
    fn every_header_has_its_say() {
        let (own, evil) = (("origin", "http://x.example"), ("origin", "https://evil.example"));
        let listed = ("origin", LISTED);
        let site = |site| ("sec-fetch-site", site);
        let origins = Origins::Only(vec![LISTED.to_owned()]);
        for (headers, expected) in [
            (&[][..], true),
            (&[own], true),
            (&[own, own], true),
            (&[own, listed], true),
            (&[own, evil], false),
            (&[evil, own], false),
            (&[site("same-origin")], true),
            (&[site("none")], true),
            (&[site("same-site")], true),
            (&[site("cross-site")], false),
            (&[site("Cross-Site")], false),
            (&[site("same-origin"), site("cross-site")], false),
            (&[site("none, cross-site")], false),
            (&[site("")], true),
            (&[own, site("same-origin")], true),
            (&[own, site("cross-site")], false),
            (&[listed, site("cross-site")], true),
            (&[listed, own, site("cross-site")], false),
            (&[evil, site("same-origin")], false),
            (&[evil, site("same-site")], false),
        ] {
            let with_host = [&[("host", "x.example")], headers].concat();
            for method in ["POST", "PUT", "DELETE", "PATCH", "TRACE", "QUERY", "post"] {
                let let_in = is_let_in(&origins, method, &with_host);
                assert_eq!(let_in, expected, "{method} {headers:?}");
                assert!(is_let_in(&Origins::Any, method, &with_host), "{method} {headers:?}");
            }
            for method in ["GET", "HEAD", "OPTIONS"] {
                assert!(is_let_in(&origins, method, &with_host), "{method} {headers:?}");
            }
        }
    }

    #[test]
    fn what_a_client_sent_is_not_told_at_length() {
        let long = format!("https://{}", "a".repeat(100_000));
        let problem = check_origin(&Origins::Only(Vec::new()), &head("POST", &[("origin", &long)]));
        assert!(problem.unwrap_err().detail().len() < 300);
        let hosts = Hosts::parse("a").unwrap();
        let problem = check_host(&hosts, &head("GET", &[("host", &"b".repeat(100_000))]));
        let problem = problem.unwrap_err();
        assert_eq!((problem.status().as_u16(), problem.code()), (421, Code::HostRefused));
        assert!(problem.detail().len() < 300, "{}", problem.detail());
        check_host(&hosts, &head("GET", &[("host", "a:3000")])).unwrap();
        check_host(&hosts, &head("GET", &[])).unwrap_err();
        check_host(&Hosts::Any, &head("GET", &[])).unwrap();
    }
}
