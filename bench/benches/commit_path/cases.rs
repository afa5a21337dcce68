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

/// What takes events over HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Service {
    /// The component, in a host.
    Sekali,
    /// The native reference.
    Axum,
}

/// Where it keeps them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// In a file of its own.
    Sqlite,
    /// In a database on a server.
    Postgres,
}

/// In what form they are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A JSON array; an event alone as itself.
    Json,
    /// A line of JSON each.
    Ndjson,
    /// The same, compressed.
    GzipNdjson,
    /// Records of OTLP in protocol buffers, which have no ids.
    Otlp,
}

impl Form {
    /// What the names of its cases have before the number of events.
    fn prefix(self) -> &'static str {
        match self {
            Form::Json => "",
            Form::Ndjson => "ndjson-",
            Form::GzipNdjson => "gzip-ndjson-",
            Form::Otlp => "otlp-",
        }
    }
}

/// Under what it takes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// On the disk that there is, with ids that come in no order.
    Usual,
    /// On a disk that is slower to sync.
    SlowDisk,
    /// With ids that come nearly in order.
    OrderedIds,
}

impl Setting {
    /// What the names of its cases begin with.
    fn prefix(self) -> &'static str {
        match self {
            Setting::Usual => "",
            Setting::SlowDisk => "slow-",
            Setting::OrderedIds => "ordered-",
        }
    }
}

/// How many events of a stream wait for their outcomes at a time.
pub const STREAM_EVENTS_AHEAD: usize = 1_000;

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// One writer that runs the component's statement natively.
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
        /// To what.
        service: Service,
        /// Where that keeps them.
        engine: Engine,
        /// Under what.
        setting: Setting,
        /// In what form.
        form: Form,
        /// Events in each request.
        events: u64,
        /// Connections, each with one request at a time.
        connections: usize,
    },
    /// `POST /publish/stream` to Sekali: single events, each with its outcome.
    Stream {
        /// Under what.
        setting: Setting,
        /// Streams, each with [`STREAM_EVENTS_AHEAD`] events that wait for their
        /// outcomes.
        streams: usize,
    },
    /// Single events that arrive at a constant rate, whatever the replies do.
    Open,
    /// `GET`, over one connection.
    Read(Read),
}

impl Case {
    /// `POST /publish` to Sekali on SQLite: requests of so many events over so many
    /// connections.
    pub const fn publish(events: u64, connections: usize) -> Case {
        let (service, engine, setting) = (Service::Sekali, Engine::Sqlite, Setting::Usual);
        Case::Publish { service, engine, setting, form: Form::Json, events, connections }
    }

    /// The same to the native reference.
    pub const fn to_axum(mut self) -> Case {
        if let Case::Publish { service, .. } = &mut self {
            *service = Service::Axum;
        }
        self
    }

    /// The same on PostgreSQL.
    pub const fn on_postgres(mut self) -> Case {
        if let Case::Publish { engine, .. } = &mut self {
            *engine = Engine::Postgres;
        }
        self
    }

    /// The same under another setting.
    pub const fn with(mut self, other: Setting) -> Case {
        if let Case::Publish { setting, .. } = &mut self {
            *setting = other;
        }
        self
    }

    /// The same in another form.
    pub const fn sent_as(mut self, other: Form) -> Case {
        if let Case::Publish { form, .. } = &mut self {
            *form = other;
        }
        self
    }

    /// What is measured.
    pub fn service(self) -> Service {
        match self {
            Case::Publish { service, .. } => service,
            _ => Service::Sekali,
        }
    }

    /// Whether the component in a host is measured.
    pub fn is_of_a_host(self) -> bool {
        self.service() == Service::Sekali && !matches!(self, Case::Native { .. })
    }

    /// Where that keeps events.
    pub fn engine(self) -> Engine {
        match self {
            Case::Publish { engine, .. } => engine,
            _ => Engine::Sqlite,
        }
    }

    /// Under what.
    pub fn setting(self) -> Setting {
        match self {
            Case::Publish { setting, .. } | Case::Stream { setting, .. } => setting,
            _ => Setting::Usual,
        }
    }

    /// The component's statement, with as many events in a commit.
    pub fn native_statement(self) -> Option<Case> {
        match self {
            Case::Publish {
                service: Service::Sekali,
                engine: Engine::Sqlite,
                setting: Setting::Usual,
                form: Form::Json,
                events,
                ..
            } => Some(Case::Native { events }),
            _ => None,
        }
    }

    /// The same requests to the native reference, which keeps them in the same.
    pub fn axum(self) -> Option<Case> {
        match self {
            // It takes JSON alone: the same events in an array are what it is held
            // against, whatever their form here.
            Case::Publish { service: Service::Sekali, .. } => {
                Some(self.sent_as(Form::Json).to_axum())
            }
            // It has no streams: single events from 32 connections are what an
            // engineer would have.
            Case::Stream { setting, .. } => Some(Case::publish(1, 32).with(setting).to_axum()),
            _ => None,
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Case::Native { events } => format!("native-statement/{events}"),
            Case::Empty { connections } => format!("empty/{connections}"),
            Case::Publish { service, engine, setting, form, events, connections } => {
                let form = form.prefix();
                let setting = setting.prefix();
                let service = if *service == Service::Axum { "axum-" } else { "" };
                let engine = if *engine == Engine::Postgres { "postgres-" } else { "" };
                let events = match events {
                    1 => "single".to_owned(),
                    events => format!("batch-{events}"),
                };
                format!("{setting}{service}{engine}{form}{events}/{connections}")
            }
            Case::Stream { setting, streams } => format!("{}stream/{streams}", setting.prefix()),
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
