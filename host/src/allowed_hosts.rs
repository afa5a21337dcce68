//! `allowed_outbound_hosts`: what a component may send requests to, and which
//! PostgreSQL servers it may connect to.
//!
//! Read as Spin reads it. What it grants besides components of the application
//! and PostgreSQL servers is refused: this host makes no other connections to the
//! network.

use std::net::IpAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail, ensure};
use http::Uri;
use ipnet::IpNet;
use url::{Host, Url};

use crate::console;
use crate::variables::ApplicationVariables;

/// What the hosts of components end with.
const DOMAIN_SUFFIX: &str = ".spin.internal";
/// Stands for any scheme, any host or any port, and before a dot for any part of a
/// domain.
const ANY: &str = "*";
const POSTGRES: &str = "postgres";
const POSTGRES_PORT: u16 = 5432;
/// What an empty variable makes of an address that may be left out.
const LEFT_OUT: [&str; 3] = ["", "http://", "https://"];

/// What a component may connect to.
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
    host: HostPattern,
    ports: Range<u32>,
}

#[derive(Debug)]
enum HostPattern {
    Any,
    One(Host),
    /// Those that end so.
    Below(String),
    Network(IpNet),
    /// Components, by their hosts.
    Components(Vec<String>),
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
        self.allow_host(scheme, host, uri.port_u16())
    }

    /// Whether a connection to the PostgreSQL server at `host`, with a port or
    /// without one, may be opened.
    pub(crate) fn allow_postgres(&self, host: &str) -> bool {
        let Ok(url) = Url::parse(&format!("{POSTGRES}://{host}")) else { return false };
        url.host_str().is_some_and(|host| self.allow_host(POSTGRES, host, url.port()))
    }

    fn allow_host(&self, scheme: &str, host: &str, port: Option<u16>) -> bool {
        let Some(port) = port.or_else(|| default_port(scheme)) else { return false };
        let Ok(host) = Host::parse(host) else { return false };
        self.hosts.iter().any(|allowed| {
            allowed.scheme.is_none_or(|allowed| allowed == scheme)
                && allowed.host.matches(&host)
                && allowed.ports.contains(&port.into())
        })
    }

    /// Says on stderr that the component was kept from `to`, once: a client may be
    /// able to ask for it at will.
    pub(crate) fn say_that_it_is_denied(&self, to: &str) {
        if !self.denied.swap(true, Ordering::Relaxed) {
            console::message(format_args!(
                "component {:?} was kept from {to}, since its `allowed_outbound_hosts` \
                 do not allow it; others will be, in silence",
                self.component,
            ));
        }
    }
}

impl AllowedHost {
    fn parse(entry: &str, components: &[&str]) -> Result<Self> {
        let (scheme, rest) =
            entry.split_once("://").context("it has no scheme (such as 'postgres://')")?;
        let scheme = match scheme {
            ANY => None,
            "http" => Some("http"),
            "https" => Some("https"),
            POSTGRES => Some(POSTGRES),
            _ => return not_supported(),
        };
        let (host, port) = split_port(rest)?;
        let host = HostPattern::parse(host, components)?;
        // What any scheme may connect to, HTTP may.
        let is_component = match &host {
            HostPattern::One(Host::Domain(domain)) => component_of_host(domain).is_some(),
            HostPattern::Components(_) => true,
            _ => false,
        };
        if scheme != Some(POSTGRES) && !is_component {
            return not_supported();
        }
        Ok(Self { scheme, host, ports: ports(port, scheme)? })
    }
}

/// Host and port, which may be empty.
fn split_port(rest: &str) -> Result<(&str, &str)> {
    // A network has a slash of its own.
    if rest.parse::<IpNet>().is_ok() {
        return Ok((rest, ""));
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    Ok(match rest.rsplit_once(':') {
        // The last group of an IPv6 address is no port.
        Some(_) if rest.ends_with(']') => (rest, ""),
        Some((host, port)) => {
            ensure!(!port.contains('/'), "it must have no path");
            (host, port)
        }
        None => (rest, ""),
    })
}

impl HostPattern {
    fn parse(host: &str, components: &[&str]) -> Result<Self> {
        if host == ANY {
            return Ok(Self::Any);
        }
        if host == "self" || host == "self.alt" {
            return not_supported();
        }
        if let Ok(network) = host.parse::<IpNet>() {
            return Ok(Self::Network(network.trunc()));
        }
        ensure!(!host.contains('/'), "it must have no path");
        let parse = |host: &str| {
            Host::parse(host).map_err(|error| anyhow::anyhow!("{host:?} is not a host: {error}"))
        };
        if let Some(domain) = host.strip_prefix("*.") {
            ensure!(!domain.contains(ANY), "'*' may only be the whole host or its beginning");
            let Host::Domain(domain) = parse(domain)? else { bail!("'*.' must precede a domain") };
            let below = format!(".{domain}");
            if below != DOMAIN_SUFFIX {
                return Ok(Self::Below(below));
            }
            let hosts = components.iter().map(|id| format!("{id}{DOMAIN_SUFFIX}"));
            return Ok(Self::Components(hosts.collect()));
        }
        ensure!(!host.contains(ANY), "'*' may only be the whole host or its beginning");
        Ok(Self::One(parse(host)?))
    }

    fn matches(&self, host: &Host) -> bool {
        match (self, host) {
            (Self::Any, _) => true,
            (Self::One(one), host) => one == host,
            (Self::Below(suffix), Host::Domain(domain)) => domain.ends_with(suffix),
            (Self::Components(hosts), Host::Domain(domain)) => hosts.contains(domain),
            (Self::Network(network), Host::Ipv4(one)) => network.contains(&IpAddr::V4(*one)),
            (Self::Network(network), Host::Ipv6(one)) => network.contains(&IpAddr::V6(*one)),
            _ => false,
        }
    }
}

fn not_supported<T>() -> Result<T> {
    bail!(
        "it is not supported by this host: only http://NAME{DOMAIN_SUFFIX} is, a component, \
         and {POSTGRES}://HOST:PORT"
    )
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
        POSTGRES => Some(POSTGRES_PORT),
        _ => None,
    }
}

/// The component that a request to `uri` is for.
pub(crate) fn component_of(uri: &Uri) -> Option<&str> {
    component_of_host(uri.host()?)
}

fn component_of_host(host: &str) -> Option<&str> {
    let component = host.strip_suffix(DOMAIN_SUFFIX)?;
    (!component.is_empty() && !component.contains('.')).then_some(component)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn allowed(entry: &str) -> Result<AllowedHosts> {
        let defaults = [
            ("name", "b"),
            ("port", "81"),
            ("none", ""),
            ("database_host", "postgres://db.example:5433"),
        ]
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
            ("postgres://b.spin.internal:80", "http://b.spin.internal", false),
        ] {
            assert_eq!(allowed(entry)?.allow(&uri.parse()?), expected, "{entry} {uri}");
        }
        Ok(())
    }

    #[test]
    fn postgres_servers() -> Result<()> {
        for (entry, host, expected) in [
            ("postgres://localhost", "localhost", true),
            ("postgres://localhost", "localhost:5432", true),
            ("postgres://localhost/", "localhost:5432", true),
            ("postgres://localhost:", "localhost:5432", true),
            ("postgres://localhost:5432", "LOCALHOST", true),
            ("postgres://localhost:5432", "localhost:5433", false),
            ("postgres://localhost:5432", "127.0.0.1:5432", false),
            ("postgres://localhost:5432/", "localhost:5432", true),
            ("postgres://db.example:*", "db.example:1", true),
            ("postgres://db.example:5432..5434", "db.example:5433", true),
            ("postgres://db.example:5432..5434", "db.example:5434", false),
            ("postgres://*", "db.example:5432", true),
            ("postgres://*:*", "127.0.0.1:1", true),
            ("postgres://*.example", "a.db.example", true),
            ("postgres://*.example", "example", false),
            ("postgres://*.example", "127.0.0.1", false),
            ("postgres://127.0.0.1", "127.0.0.1", true),
            ("postgres://10.1.2.3/8", "10.9.9.9", true),
            ("postgres://10.0.0.0/8:*", "10.9.9.9:9", true),
            ("postgres://10.0.0.0/8", "11.0.0.0", false),
            ("postgres://10.0.0.0/8", "db.example", false),
            // An IPv6 address of a connection string has lost its brackets.
            ("postgres://[::1]:5432", "[::1]:5432", true),
            ("postgres://[::1]", "[::1]", true),
            ("postgres://[::1]:5432", "::1:5432", false),
            ("postgres://*:*", "", false),
            ("postgres://*:*", "a b", false),
            ("http://b.spin.internal:5432", "b.spin.internal", false),
            ("*://b.spin.internal:5432", "b.spin.internal", true),
            ("{{ database_host }}", "db.example:5433", true),
            ("{{ database_host }}", "db.example:5432", false),
            ("{{ none }}", "localhost", false),
        ] {
            assert_eq!(allowed(entry)?.allow_postgres(host), expected, "{entry} {host}");
        }
        Ok(())
    }

    #[test]
    fn the_network_and_what_is_malformed() {
        for (entry, named) in [
            ("https://example.com", "only http://NAME.spin.internal"),
            ("http://127.0.0.1:8080", "only http://NAME.spin.internal"),
            ("*://*:*", "only http://NAME.spin.internal"),
            ("*://db.example:5432", "only http://NAME.spin.internal"),
            ("http://10.0.0.0/8", "only http://NAME.spin.internal"),
            ("http://self", "only http://NAME.spin.internal"),
            ("postgres://self", "only http://NAME.spin.internal"),
            ("redis://b.spin.internal", "only http://NAME.spin.internal"),
            ("http://.spin.internal", "only http://NAME.spin.internal"),
            ("http://a.b.spin.internal", "only http://NAME.spin.internal"),
            ("http://x*.spin.internal", "'*'"),
            ("postgres://*.*.example", "'*'"),
            ("postgres://*.127.0.0.1", "'*.'"),
            ("postgres://a b", "\"a b\""),
            ("http://b.spin.internal:x", "port"),
            ("postgres://localhost:65536", "port"),
            ("*://b.spin.internal", "port"),
            ("http://b.spin.internal/x", "path"),
            ("postgres://localhost:5432/x", "path"),
            ("postgres://localhost/x", "path"),
            ("b.spin.internal", "scheme"),
            ("localhost:5432", "scheme"),
            ("", "scheme"),
            ("postgres://{{ none }}", "\"\""),
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
