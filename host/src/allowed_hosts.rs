//! `allowed_outbound_hosts`: what a component may send requests to.
//!
//! Read as Spin reads it, as far as it speaks of components of the application.
//! What it grants besides them is refused: this host makes no requests to the
//! network.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail, ensure};
use http::Uri;
use http::uri::Authority;

use crate::console;
use crate::variables::ApplicationVariables;

/// What the hosts of components end with.
const DOMAIN_SUFFIX: &str = ".spin.internal";
/// Stands for any scheme, any component or any port.
const ANY: &str = "*";
/// What an empty variable makes of an address that may be left out.
const LEFT_OUT: [&str; 3] = ["", "http://", "https://"];

/// What a component may send requests to.
#[derive(Debug)]
pub(crate) struct AllowedHosts {
    component: String,
    hosts: Vec<AllowedHost>,
    denied: AtomicBool,
}

#[derive(Debug)]
struct AllowedHost {
    /// `None` is any.
    scheme: Option<&'static str>,
    /// In lower case.
    hosts: Vec<String>,
    ports: Range<u32>,
}

impl AllowedHosts {
    /// Those of `component` in a manifest whose components are `components`.
    ///
    /// # Errors
    ///
    /// What is malformed, and what this host does not do.
    pub(crate) fn new(
        component: &str,
        entries: &[String],
        variables: &ApplicationVariables,
        components: &[&str],
    ) -> Result<Self> {
        let mut hosts = Vec::new();
        for entry in entries {
            let context =
                || format!("{entry:?} in `allowed_outbound_hosts` of component {component:?}");
            let value = variables.evaluate(entry).with_context(context)?;
            if value != *entry && LEFT_OUT.contains(&value.as_str()) {
                continue;
            }
            hosts.push(AllowedHost::parse(value.trim(), components).with_context(context)?);
        }
        Ok(Self { component: component.to_owned(), hosts, denied: AtomicBool::new(false) })
    }

    /// Whether a request to `uri` may be sent.
    pub(crate) fn allow(&self, uri: &Uri) -> bool {
        let (Some(scheme), Some(host)) = (uri.scheme_str(), uri.host()) else { return false };
        let Some(port) = uri.port_u16().or_else(|| default_port(scheme)) else { return false };
        let host = host.to_ascii_lowercase();
        self.hosts.iter().any(|allowed| {
            allowed.scheme.is_none_or(|allowed| allowed == scheme)
                && allowed.hosts.contains(&host)
                && allowed.ports.contains(&port.into())
        })
    }

    /// Says so on stderr, once: a client may be able to ask for it at will.
    pub(crate) fn say_that_it_is_denied(&self, uri: &Uri) {
        if !self.denied.swap(true, Ordering::Relaxed) {
            console::message(format_args!(
                "a request of component {:?} to {} was denied, since its \
                 `allowed_outbound_hosts` do not allow it; others will be, in silence",
                self.component,
                uri.authority().map_or("no host", Authority::as_str)
            ));
        }
    }
}

impl AllowedHost {
    fn parse(entry: &str, components: &[&str]) -> Result<Self> {
        let (scheme, rest) = entry.split_once("://").context("it has no scheme")?;
        let scheme = match scheme {
            ANY => None,
            "http" => Some("http"),
            "https" => Some("https"),
            _ => return not_supported(),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        ensure!(!rest.contains('/'), "it must have no path");
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) => (host, port),
            None => (rest, ""),
        };
        let host = host.to_ascii_lowercase();
        let hosts = match host.strip_suffix(DOMAIN_SUFFIX) {
            Some(ANY) => components.iter().map(|id| format!("{id}{DOMAIN_SUFFIX}")).collect(),
            Some(id) if !id.is_empty() && !id.contains(['.', '*']) => vec![host],
            _ => return not_supported(),
        };
        Ok(Self { scheme, hosts, ports: ports(port, scheme)? })
    }
}

fn not_supported<T>() -> Result<T> {
    bail!("it is not supported by this host: only http://NAME{DOMAIN_SUFFIX} is, a component")
}

fn ports(port: &str, scheme: Option<&str>) -> Result<Range<u32>> {
    let number = |text: &str| -> Result<u32> {
        Ok(text.parse::<u16>().with_context(|| format!("{text:?} is not a port"))?.into())
    };
    let one = |port: u32| port..port + 1;
    Ok(match port {
        "" => one(scheme.and_then(default_port).context("it needs a port")?.into()),
        ANY => 0..u32::from(u16::MAX) + 1,
        _ => match port.split_once("..") {
            Some((start, end)) => number(start)?..number(end)?,
            None => one(number(port)?),
        },
    })
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

/// The component that a request to `uri` is for.
pub(crate) fn component_of(uri: &Uri) -> Option<&str> {
    let component = uri.host()?.strip_suffix(DOMAIN_SUFFIX)?;
    (!component.contains('.')).then_some(component)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn allowed(entry: &str) -> Result<AllowedHosts> {
        let defaults = [("name", "b"), ("port", "81"), ("none", "")]
            .map(|(name, value)| (name.to_owned(), Some(value.to_owned())));
        let variables = ApplicationVariables::resolve(&BTreeMap::from(defaults), |_| Ok(None))?;
        AllowedHosts::new("a", &[entry.to_owned()], &variables, &["a", "b"])
    }

    #[test]
    fn components() -> Result<()> {
        for (entry, uri, expected) in [
            ("http://b.spin.internal", "http://b.spin.internal/x?y", true),
            ("http://b.spin.internal/", "http://b.spin.internal", true),
            ("http://B.spin.internal", "http://b.SPIN.internal/", true),
            ("http://b.spin.internal", "http://b.spin.internal:80/", true),
            ("http://b.spin.internal", "http://b.spin.internal:81/", false),
            ("http://b.spin.internal", "https://b.spin.internal/", false),
            ("http://b.spin.internal", "http://a.spin.internal/", false),
            ("http://b.spin.internal", "http://a.b.spin.internal/", false),
            ("http://b.spin.internal", "http://example.com/", false),
            ("http://b.spin.internal", "/x", false),
            ("https://b.spin.internal", "https://b.spin.internal/", true),
            ("*://b.spin.internal:*", "https://b.spin.internal:9/", true),
            ("http://b.spin.internal:80..82", "http://b.spin.internal:81", true),
            ("http://b.spin.internal:80..82", "http://b.spin.internal:82", false),
            ("http://*.spin.internal", "http://a.spin.internal/", true),
            ("http://*.spin.internal", "http://c.spin.internal/", false),
            ("http://{{ name }}.spin.internal:{{port}}", "http://b.spin.internal:81", true),
            ("{{ none }}", "http://b.spin.internal", false),
            ("http://{{ none }}", "http://b.spin.internal", false),
        ] {
            assert_eq!(allowed(entry)?.allow(&uri.parse()?), expected, "{entry} {uri}");
        }
        Ok(())
    }

    #[test]
    fn the_network_and_what_is_malformed() {
        for (entry, named) in [
            ("https://example.com", "only http://NAME.spin.internal"),
            ("http://127.0.0.1:8080", "only http://NAME.spin.internal"),
            ("*://*:*", "only http://NAME.spin.internal"),
            ("http://self", "only http://NAME.spin.internal"),
            ("redis://b.spin.internal", "only http://NAME.spin.internal"),
            ("http://.spin.internal", "only http://NAME.spin.internal"),
            ("http://a.b.spin.internal", "only http://NAME.spin.internal"),
            ("http://x*.spin.internal", "only http://NAME.spin.internal"),
            ("http://b.spin.internal/x", "path"),
            ("http://b.spin.internal:x", "port"),
            ("*://b.spin.internal", "port"),
            ("b.spin.internal", "scheme"),
            ("", "scheme"),
            ("http://{{ nothing }}.spin.internal", "nothing"),
        ] {
            let error = format!("{:#}", allowed(entry).expect_err(entry));
            assert!(error.contains(named) && error.contains(entry), "{entry}: {error}");
        }
    }

    #[test]
    fn the_component_of_a_request() {
        for (uri, expected) in [
            ("http://b.spin.internal/x", Some("b")),
            ("http://b.spin.internal:81/x", Some("b")),
            ("http://a.b.spin.internal/x", None),
            ("http://spin.internal/x", None),
            ("/x", None),
        ] {
            assert_eq!(component_of(&uri.parse().expect("a URI")), expected, "{uri}");
        }
    }
}
