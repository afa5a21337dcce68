//! Names of hosts: those by which the service may be called, and the one by which
//! a request calls it.

use std::fmt;
use std::net::Ipv6Addr;

use http::uri::Authority;

/// The ports that an address leaves out, of http and https. Which of them is meant
/// cannot be told where a proxy ends TLS.
const DEFAULT_PORTS: [u16; 2] = [80, 443];

/// A host and its port, such as `events.example`, `127.0.0.1:3000` or `[::1]:3000`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    /// In lower case, an IPv6 address in brackets and in its shortest form, a name
    /// without the dot that may end it.
    pub(crate) name: String,
    /// If it was given.
    pub(crate) port: Option<u16>,
}

impl Host {
    /// Reads a host as it stands in the header or in an address. `None` when it is
    /// none.
    pub(crate) fn parse(given: &str) -> Option<Self> {
        Host::of(&given.parse().ok()?)
    }

    /// The host of an authority. `None` when its port is none, or it names a user.
    pub(crate) fn of(authority: &Authority) -> Option<Self> {
        let name = authority.host();
        let port = match authority.as_str().strip_prefix(name)? {
            "" | ":" => None,
            port => Some(port.strip_prefix(':')?.parse().ok()?),
        };
        let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        let name = match address.map(str::parse::<Ipv6Addr>) {
            Some(address) => format!("[{}]", address.ok()?),
            None => name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase(),
        };
        (!name.is_empty()).then_some(Host { name, port })
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// By which names the service may be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hosts {
    /// By any.
    Any,
    /// By these.
    Only(Vec<HostPattern>),
}

/// Hosts that the service may be called by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostPattern {
    /// Without a port: whatever the port.
    host: Host,
    /// Every name that ends with a dot and this one, in place of this one.
    is_of_subdomains: bool,
}

impl Hosts {
    /// Reads hosts with commas between, each with or without a port; `*.` before a
    /// name stands for its subdomains. Nothing, or `*`, is any host.
    ///
    /// # Errors
    ///
    /// What is no host.
    pub(crate) fn parse(value: &str) -> Result<Self, &str> {
        let given = value.split(',').map(str::trim).filter(|given| !given.is_empty());
        let given: Vec<&str> = given.collect();
        if given.is_empty() || given == ["*"] {
            return Ok(Hosts::Any);
        }
        let patterns = given.into_iter().map(|given| HostPattern::parse(given).ok_or(given));
        patterns.collect::<Result<_, _>>().map(Hosts::Only)
    }

    /// Whether a request may call the service by this name, if it names one.
    pub(crate) fn allow(&self, host: Option<&Host>) -> bool {
        match self {
            Hosts::Any => true,
            Hosts::Only(patterns) => {
                host.is_some_and(|host| patterns.iter().any(|pattern| pattern.fits(host)))
            }
        }
    }
}

impl HostPattern {
    fn parse(given: &str) -> Option<Self> {
        // An address as people write it when there is no port.
        if let Ok(address) = given.parse::<Ipv6Addr>() {
            let host = Host { name: format!("[{address}]"), port: None };
            return Some(HostPattern { host, is_of_subdomains: false });
        }
        let (given, is_of_subdomains) = match given.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (given, false),
        };
        let host = Host::parse(given)?;
        let is_plain = |one: u8| one.is_ascii_alphanumeric() || b"-._[]:".contains(&one);
        let is_host = host.name.bytes().all(is_plain) && !given.ends_with(':');
        is_host.then_some(HostPattern { host, is_of_subdomains })
    }

    fn fits(&self, called: &Host) -> bool {
        let Host { name, port } = &self.host;
        let fits_name = match self.is_of_subdomains {
            true => called.name.strip_suffix(name.as_str()).is_some_and(|sub| sub.ends_with('.')),
            false => called.name == *name,
        };
        let fits_port = match (port, called.port) {
            (None, _) => true,
            (Some(port), Some(called)) => *port == called,
            (Some(port), None) => DEFAULT_PORTS.contains(port),
        };
        fits_name && fits_port
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_a_host_are_one() {
        for (given, name, port) in [
            ("Events.Example", "events.example", None),
            ("events.example.", "events.example", None),
            ("events.example:", "events.example", None),
            ("127.0.0.1:3000", "127.0.0.1", Some(3000)),
            ("[::1]:3000", "[::1]", Some(3000)),
            ("[0:0:0:0:0:0:0:1]", "[::1]", None),
        ] {
            let host = Host { name: name.to_owned(), port };
            assert_eq!(Host::parse(given), Some(host), "{given}");
        }
        for wrong in ["", "a b", "u@a", "a:99999", "a:x", "http://a", "a/b", "[::g]", "::1", "."] {
            assert_eq!(Host::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn only_the_hosts_that_are_named_are_allowed() {
        let allowed = "127.0.0.1, localhost:3000, [::1], fe80::1, Events.Example., \
                       plain.example:80, *.apps.example, *.ports.example:8443";
        let hosts = Hosts::parse(allowed).unwrap();
        for (host, expected) in [
            ("127.0.0.1", true),
            ("127.0.0.1:9", true),
            ("127.0.0.2", false),
            ("localhost:3000", true),
            ("LOCALHOST.:3000", true),
            ("localhost:3001", false),
            ("localhost", false),
            ("[::1]:3000", true),
            ("[0:0::1]", true),
            ("[::2]", false),
            ("[fe80::1]", true),
            ("events.example:8443", true),
            ("events.example.evil.example", false),
            ("evil.example", false),
            ("xevents.example", false),
            ("plain.example", true),
            ("plain.example:80", true),
            ("plain.example:8080", false),
            ("a.apps.example", true),
            ("a.b.apps.example:1", true),
            ("apps.example", false),
            ("aapps.example", false),
            ("a.ports.example:8443", true),
            ("a.ports.example", false),
        ] {
            assert_eq!(hosts.allow(Host::parse(host).as_ref()), expected, "{host}");
        }
        assert!(!hosts.allow(None));
    }

    #[test]
    fn hosts_are_checked() {
        for any in ["", " ", ",", "*", " * "] {
            assert_eq!(Hosts::parse(any), Ok(Hosts::Any), "{any}");
        }
        for wrong in
            ["http://a", "a/b", "u@a", "a:99999", "a:", "a,*", "*.*", "a*", "[::1", "a b", "a;b"]
        {
            assert!(Hosts::parse(wrong).is_err(), "{wrong}");
        }
    }
}
