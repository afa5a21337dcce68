//! Which path belongs to which component, and what it is told about that.
//!
//! Matching is left to `routefinder`, as in Spin: exact routes win over
//! `/...`, and a trailing slash does not tell two paths apart.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context, Result, anyhow};
use http::header::{HOST, HeaderName, HeaderValue};
use http::request::Parts;

use crate::console;
use crate::manifest::Trigger;

const WILDCARD: &str = "/...";

/// Whom a component that another calls is told as its client.
const CHAINED_CLIENT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// The routes of the application from outside.
pub(crate) struct Routes {
    router: routefinder::Router<Route>,
}

struct Route {
    component: String,
    /// As written in the manifest.
    raw: String,
    /// As matched: absolute, without a trailing slash.
    absolute: String,
}

impl Routes {
    /// Of the manifest's `triggers`. Of several with the same route the last one
    /// counts, as in Spin.
    pub(crate) fn new(triggers: &[Trigger]) -> Result<Self> {
        let mut router = routefinder::Router::new();
        for (index, Trigger { component, route }) in triggers.iter().enumerate() {
            let Some(raw) = route else { continue };
            if let Some(later) = triggers[index + 1..].iter().find(|later| later.route == *route) {
                console::message(format_args!(
                    "the route {raw:?} of {component} is never used: it is one of {} as well",
                    later.component
                ));
                continue;
            }
            let slash = if raw.starts_with('/') { "" } else { "/" };
            let absolute = format!("{slash}{raw}");
            let absolute = absolute.strip_suffix('/').unwrap_or(&absolute).to_owned();
            let pattern = match absolute.strip_suffix(WILDCARD) {
                Some(prefix) => format!("{prefix}/*"),
                None => absolute.clone(),
            };
            let route = Route { component: component.clone(), raw: raw.clone(), absolute };
            router
                .add(pattern.as_str(), route)
                .map_err(|error| anyhow!("the route {raw:?} cannot be parsed: {error}"))?;
        }
        Ok(Self { router })
    }

    /// The component that a request for `path` goes to.
    pub(crate) fn component(&self, path: &str) -> Option<&str> {
        self.router.best_match(path).map(|found| found.handler().component.as_str())
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
                format!("  {}: {base_url}{path}{kind}\n", route.component)
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
        // Spin tells the rest of the path with the slash that led to it, and
        // with the one that ended it, which the matcher leaves out.
        let path_info = match (found.captures().wildcard(), path.ends_with('/')) {
            (None, _) | (Some(""), false) => String::new(),
            (Some(""), true) => "/".to_owned(),
            (Some(rest), false) => format!("/{rest}"),
            (Some(rest), true) => format!("/{rest}/"),
        };
        let route = found.handler();
        let mut headers = told(request, path_info, &route.absolute, &route.raw, client);
        for (name, value) in found.captures().iter() {
            let name = name.replace('_', "-").to_ascii_lowercase();
            headers.push((format!("spin-path-match-{name}"), value.to_owned()));
        }
        Some(with(request, headers))
    }
}

/// The headers of a `request` by which one component calls another: as if that one
/// had every path.
pub(crate) fn chained_headers(request: &Parts) -> Result<http::HeaderMap> {
    let path_info = request.uri.path().to_owned();
    with(request, told(request, path_info, WILDCARD, WILDCARD, CHAINED_CLIENT))
}

/// What a component is told about how it was called.
fn told(
    request: &Parts,
    path_info: String,
    absolute: &str,
    raw: &str,
    client: SocketAddr,
) -> Vec<(String, String)> {
    let prefix = raw.strip_suffix(WILDCARD).unwrap_or(raw);
    [
        ("spin-path-info", path_info),
        ("spin-full-url", full_url(request)),
        ("spin-matched-route", absolute.to_owned()),
        ("spin-base-path", "/".to_owned()),
        ("spin-raw-component-route", raw.to_owned()),
        ("spin-component-route", prefix.to_owned()),
        ("spin-client-addr", client.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
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
        let trigger =
            |route: &&str| Trigger { component: "c".to_owned(), route: Some((*route).to_owned()) };
        Routes::new(&routes.iter().map(trigger).collect::<Vec<_>>()).expect("routes")
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
            assert_eq!(routes(&[route]).component(path).is_some(), expected, "{route} {path}");
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

    #[test]
    fn each_path_has_its_component() -> Result<()> {
        let trigger = |component: &str, route: Option<&str>| Trigger {
            component: component.to_owned(),
            route: route.map(str::to_owned),
        };
        let routes = Routes::new(&[
            trigger("a", Some("/...")),
            trigger("b", Some("/b/...")),
            trigger("c", Some("/b/c")),
            trigger("hidden", None),
            trigger("d", Some("/b/c")),
        ])?;
        for (path, component) in
            [("/", "a"), ("/bc", "a"), ("/b", "b"), ("/b/x", "b"), ("/b/c", "d")]
        {
            assert_eq!(routes.component(path), Some(component), "{path}");
        }
        let listed = routes.describe("http://h");
        assert!(listed.contains("  b: http://h/b (wildcard)\n"), "{listed}");
        assert!(!listed.contains("hidden"), "{listed}");
        let private = Routes::new(&[trigger("hidden", None)])?;
        assert_eq!(private.component("/"), None);
        Ok(())
    }

    #[test]
    fn headers_of_a_call_by_another_component() -> Result<()> {
        let (request, ()) = http::Request::builder()
            .uri("http://b.spin.internal/a/b?c=d")
            .header("spin-base-path", "/mine")
            .body(())?
            .into_parts();
        let headers = chained_headers(&request)?;
        for (name, expected) in [
            ("spin-full-url", "http://localhost/a/b?c=d"),
            ("spin-path-info", "/a/b"),
            ("spin-matched-route", "/..."),
            ("spin-raw-component-route", "/..."),
            ("spin-component-route", ""),
            ("spin-client-addr", "0.0.0.0:0"),
        ] {
            assert_eq!(headers.get_all(name).iter().collect::<Vec<_>>(), [expected], "{name}");
        }
        assert_eq!(headers.get_all("spin-base-path").iter().count(), 2);
        Ok(())
    }
}
