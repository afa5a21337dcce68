//! What is measured, and by which names.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// A read of the store, over one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// The counters.
    Stats,
    /// The first page of events.
    First,
    /// A page from the middle.
    Middle,
    /// A page of one topic, from the middle.
    Topic,
    /// The page of the newest.
    Newest,
}

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// One native writer.
    Native {
        /// Events in each commit.
        events: u64,
    },
    /// The component with nothing to do but to answer.
    Empty {
        /// Connections, each with one request at a time.
        connections: usize,
    },
    /// `POST /publish`.
    Publish {
        /// Events in each request.
        events: u64,
        /// Connections, each with one request at a time.
        connections: usize,
    },
    /// Single events that arrive at a constant rate, whatever the replies do.
    Open,
    /// `GET`, over one connection.
    Read(Read),
}

impl Case {
    /// What its rate is held against.
    pub fn native_reference(self) -> Option<Case> {
        match self {
            Case::Publish { events, .. } => Some(Case::Native { events }),
            Case::Native { .. } | Case::Empty { .. } | Case::Open | Case::Read(_) => None,
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Case::Native { events } => format!("native/{events}"),
            Case::Empty { connections } => format!("empty/{connections}"),
            Case::Publish { events: 1, connections } => format!("single/{connections}"),
            Case::Publish { events, connections } => format!("batch-{events}/{connections}"),
            Case::Open => "open/half".to_owned(),
            Case::Read(Read::Stats) => "read/stats".to_owned(),
            Case::Read(Read::First) => "read/first".to_owned(),
            Case::Read(Read::Middle) => "read/middle".to_owned(),
            Case::Read(Read::Topic) => "read/topic".to_owned(),
            Case::Read(Read::Newest) => "read/newest".to_owned(),
        };
        f.pad(&name)
    }
}

impl Serialize for Case {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Which measurements are wanted: with a `*` a pattern of names, with a `/` a
/// whole name, otherwise a part of names.
#[derive(Clone, Debug)]
pub struct Pattern(String);

impl Pattern {
    /// Whether the name of `case` is meant.
    pub fn matches(&self, case: Case) -> bool {
        let name = case.to_string();
        let mut parts = self.0.split('*');
        let (Some(first), Some(last)) = (parts.next(), parts.next_back()) else {
            return if self.0.contains('/') { name == self.0 } else { name.contains(&self.0) };
        };
        let Some(mut rest) = name.strip_prefix(first) else { return false };
        for part in parts {
            let Some((_, after)) = rest.split_once(part) else { return false };
            rest = after;
        }
        rest.ends_with(last)
    }
}

impl FromStr for Pattern {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Pattern(text.to_owned()))
    }
}
