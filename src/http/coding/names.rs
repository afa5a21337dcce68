//! Which codings there are, and which of them a body has.

use http::{HeaderMap, HeaderValue, header};

use crate::http::problem::{Code, Problem, TOLD_BACK_BYTES_MAX};
use crate::text::shortened;

/// How a body may be compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    /// RFC 1952.
    Gzip,
    /// RFC 1950, and RFC 1951 by itself, which some clients send by that name.
    Deflate,
    /// RFC 8878.
    Zstd,
}

/// The codings that a route takes, and how they are told.
pub(crate) struct Codings {
    taken: &'static [Coding],
    accepted: &'static str,
}

/// The codings of bodies that are read as a whole.
pub(crate) const OF_WHOLE_BODIES: Codings = Codings {
    taken: &[Coding::Gzip, Coding::Deflate, Coding::Zstd],
    accepted: "gzip, deflate, zstd",
};

/// Those of bodies whose signature is checked, which is over what was signed: none.
pub(crate) const OF_NONE: Codings = Codings { taken: &[], accepted: "identity" };

/// Those of bodies that are read as they come: zstd would keep a window of megabytes for
/// as long as a stream lasts.
pub(crate) const OF_STREAMS: Codings =
    Codings { taken: &[Coding::Gzip, Coding::Deflate], accepted: "gzip, deflate" };

impl Coding {
    pub(super) fn name(self) -> &'static str {
        match self {
            Coding::Gzip => "gzip",
            Coding::Deflate => "deflate",
            Coding::Zstd => "zstd",
        }
    }

    fn named(name: &str) -> Option<Self> {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        match () {
            () if is("gzip") || is("x-gzip") => Some(Coding::Gzip),
            () if is("deflate") => Some(Coding::Deflate),
            () if is("zstd") => Some(Coding::Zstd),
            () => None,
        }
    }
}

impl Codings {
    /// The coding of a body; `None` when it comes as it is.
    ///
    /// # Errors
    ///
    /// 415 for one that is none of these, and for several.
    pub(crate) fn of(&self, headers: &HeaderMap) -> Result<Option<Coding>, Problem> {
        let values = headers.get_all(header::CONTENT_ENCODING).iter();
        let values: Vec<_> =
            values.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        let names = values.iter().flat_map(|value| value.split(',')).map(str::trim);
        let mut names = names.filter(|name| !name.is_empty() && !is_identity(name));
        let Some(name) = names.next() else { return Ok(None) };
        if names.next().is_some() {
            return Err(self.unsupported("A body has one content coding at most"));
        }
        let coding = Coding::named(name).filter(|coding| self.taken.contains(coding));
        coding.map(Some).ok_or_else(|| {
            let name = shortened(name, TOLD_BACK_BYTES_MAX);
            self.unsupported(&format!("The content coding {name} is not supported here"))
        })
    }

    fn unsupported(&self, why: &str) -> Problem {
        let accepted = self.accepted;
        let or_coded = match self.taken {
            [] => String::new(),
            _ => format!(" or in one of these: {accepted}"),
        };
        let detail = format!("{why}; send the body as it is{or_coded}.");
        Problem::new(Code::UnsupportedEncoding, detail)
            .with_header(header::ACCEPT_ENCODING, HeaderValue::from_static(accepted))
    }
}

fn is_identity(name: &str) -> bool {
    name.eq_ignore_ascii_case("identity")
}
