//! Which path belongs to the component, and what it is told about that.
//!
//! Matching is left to `routefinder`, as in Spin: exact routes win over
//! `/...`, and a trailing slash does not tell two paths apart.

use std::net::SocketAddr;

use anyhow::{Context, Result, anyhow};
use http::header::{HOST, HeaderName, HeaderValue};
use http::request::Parts;

const WILDCARD: &str = "/...";

/// The routes of one component.
pub(crate) struct Routes {
    component: String,
    router: routefinder::Router<Route>,
}

struct Route {
    /// As written in the manifest.
    raw: String,
    /// As matched: absolute, without a trailing slash.
    absolute: String,
}

impl Routes {
    /// The manifest's `routes` of `component`.
    pub(crate) fn new(component: &str, routes: &[String]) -> Result<Self> {
        let mut router = routefinder::Router::new();
        for raw in routes {
            let slash = if raw.starts_with('/') { "" } else { "/" };
            let absolute = format!("{slash}{raw}");
            let absolute = absolute.strip_suffix('/').unwrap_or(&absolute).to_owned();
            let pattern = match absolute.strip_suffix(WILDCARD) {
                Some(prefix) => format!("{prefix}/*"),
                None => absolute.clone(),
            };
            let route = Route { raw: raw.clone(), absolute };
            router
                .add(pattern.as_str(), route)
                .map_err(|error| anyhow!("the route {raw:?} cannot be parsed: {error}"))?;
        }
        Ok(Self { component: component.to_owned(), router })
    }

    /// Whether a request for `path` goes to the component.
    pub(crate) fn matches(&self, path: &str) -> bool {
        self.router.best_match(path).is_some()
    }

    /// One line per route, as Spin lists them.
    pub(crate) fn describe(&self, base_url: &str) -> String {
        self.router
            .iter()
            .map(|(_, route)| {
                let (path, kind) = match route.absolute.strip_suffix(WILDCARD) {
                    Some(prefix) => (prefix, " (wildcard)"),
                    None => (route.absolute.as_str(), ""),
                };
                format!("  {}: {base_url}{path}{kind}\n", self.component)
            })
            .collect()
    }

    /// The headers of `request` as the component gets them: its own, and the
    /// `spin-*` ones after them. `None` when no route matches; an error when a
    /// header is not valid UTF-8.
    pub(crate) fn headers(
        &self,
        request: &Parts,
        client: SocketAddr,
    ) -> Option<Result<http::HeaderMap>> {
        let path = request.uri.path();
        let found = self.router.best_match(path)?;
        let mut headers = Vec::new();
        // Spin tells the rest of the path with the slash that led to it, and
        // with the one that ended it, which the matcher leaves out.
        let path_info = match (found.captures().wildcard(), path.ends_with('/')) {
            (None, _) | (Some(""), false) => String::new(),
            (Some(""), true) => "/".to_owned(),
            (Some(rest), false) => format!("/{rest}"),
            (Some(rest), true) => format!("/{rest}/"),
        };
        let route = found.handler();
        let prefix = route.raw.strip_suffix(WILDCARD).unwrap_or(&route.raw);
        headers.push(("spin-path-info".to_owned(), path_info));
        headers.push(("spin-full-url".to_owned(), full_url(request)));
        headers.push(("spin-matched-route".to_owned(), route.absolute.clone()));
        headers.push(("spin-base-path".to_owned(), "/".to_owned()));
        headers.push(("spin-raw-component-route".to_owned(), route.raw.clone()));
        headers.push(("spin-component-route".to_owned(), prefix.to_owned()));
        headers.push(("spin-client-addr".to_owned(), client.to_string()));
        for (name, value) in found.captures().iter() {
            let name = name.replace('_', "-").to_ascii_lowercase();
            headers.push((format!("spin-path-match-{name}"), value.to_owned()));
        }
        Some(with(request, headers))
    }
}

fn full_url(request: &Parts) -> String {
    let host = request.headers.get(HOST).and_then(|host| host.to_str().ok());
    format!(
        "{}://{}{}",
        request.uri.scheme_str().unwrap_or("http"),
        host.unwrap_or("localhost"),
        request.uri.path_and_query().map_or("", |path| path.as_str()),
    )
}

fn with(request: &Parts, added: Vec<(String, String)>) -> Result<http::HeaderMap> {
    let mut headers = http::HeaderMap::with_capacity(request.headers.len() + added.len());
    for (name, value) in &request.headers {
        std::str::from_utf8(value.as_bytes())
            .with_context(|| format!("the header {name} is not valid UTF-8"))?;
        headers.append(name, value.clone());
    }
    for (name, value) in added {
        // What cannot be a header is left out, as in Spin.
        if let (Ok(name), Ok(value)) =
            (HeaderName::try_from(name), HeaderValue::from_bytes(value.as_bytes()))
        {
            headers.append(name, value);
        }
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(routes: &[&str]) -> Routes {
        let routes: Vec<_> = routes.iter().map(|route| (*route).to_owned()).collect();
        Routes::new("c", &routes).expect("routes")
    }

    #[test]
    fn exact_and_wildcard() {
        for (route, path, expected) in [
            ("/...", "/", true),
            ("/...", "/a/b", true),
            ("/a", "/a", true),
            ("/a", "/a/", true),
            ("a", "/a", true),
            ("/a", "/", false),
            ("/a", "/ab", false),
            ("/a", "/a/b", false),
            ("/a/...", "/a", true),
            ("/a/...", "/a/", true),
            ("/a/...", "/a/b", true),
            ("/a/...", "/ab", false),
        ] {
            assert_eq!(routes(&[route]).matches(path), expected, "{route} {path}");
        }
    }

    #[test]
    fn listing() {
        assert_eq!(routes(&["/..."]).describe("http://h"), "  c: http://h (wildcard)\n");
        assert_eq!(routes(&["/a"]).describe("http://h"), "  c: http://h/a\n");
    }

    #[test]
    fn headers_tell_the_route() -> Result<()> {
        let (request, ()) = http::Request::builder()
            .uri("http://example.com/a/b?c=d")
            .header("host", "example.com")
            .header("spin-base-path", "/mine")
            .body(())?
            .into_parts();
        let headers =
            routes(&["/a/..."]).headers(&request, "127.0.0.1:8777".parse()?).expect("a match")?;
        for (name, expected) in [
            ("host", "example.com"),
            ("spin-full-url", "http://example.com/a/b?c=d"),
            ("spin-path-info", "/b"),
            ("spin-matched-route", "/a/..."),
            ("spin-raw-component-route", "/a/..."),
            ("spin-component-route", "/a"),
            ("spin-client-addr", "127.0.0.1:8777"),
        ] {
            assert_eq!(headers.get_all(name).iter().collect::<Vec<_>>(), [expected], "{name}");
        }
        let both: Vec<_> = headers.get_all("spin-base-path").iter().collect();
        assert_eq!(both, ["/mine", "/"]);
        Ok(())
    }
}
