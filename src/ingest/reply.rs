//! Sekali's own reply to a publish, and which of the events it names.

use http::StatusCode;
use serde::Serialize;

use super::format::{Entry, Format};
use crate::http::problem::{InvalidEvent, Listed, Problem};
use crate::http::query::{Parameter, Query, Takes};
use crate::http::reply::Reply;
use crate::http::room::Room;
use crate::store::{Outcome, Seq};
use crate::text;

pub(super) const RESULTS: Parameter = Parameter::new("results", Takes::OneOf(&["all", "none"]));
pub(super) const ATOMIC: Parameter = Parameter::new("atomic", Takes::Switch);
pub(super) const STRICT: Parameter = Parameter::new("strict", Takes::Switch);

/// Which events the reply names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Named {
    /// Those that were not accepted, as many as a short reply holds.
    Notable,
    All,
    None,
}

/// How a client wants its request to be answered.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    named: Named,
    /// A conflict makes the status 409.
    strict: bool,
    atomic: bool,
}

impl Wanted {
    /// What is done without parameters.
    pub(super) const USUAL: Wanted = Wanted { named: Named::Notable, strict: false, atomic: false };

    /// What the parameters say.
    ///
    /// # Errors
    ///
    /// 422 for one that cannot be understood.
    pub(super) fn read(query: &Query<'_>) -> Result<Self, Problem> {
        let named = query.choice(&RESULTS)?;
        let named = match named {
            Some("all") => Named::All,
            Some(_) => Named::None,
            None => Named::Notable,
        };
        Ok(Wanted { named, strict: query.switch(&STRICT)?, atomic: query.switch(&ATOMIC)? })
    }
}

/// A request whose events were all read, and that is answered in Sekali's own way.
pub(super) struct Events<'a> {
    wanted: Wanted,
    trace_id: Option<&'a str>,
    /// Until they are given.
    entries: Vec<Entry>,
    /// What the client is told of them.
    warnings: Vec<String>,
    /// What came of them.
    settled: Option<(Vec<Entry>, Option<Vec<Outcome>>)>,
}

impl<'a> Events<'a> {
    /// A request with these events.
    pub(super) fn new(
        wanted: Wanted,
        trace_id: Option<&'a str>,
        entries: Vec<Entry>,
        warnings: Vec<String>,
    ) -> Self {
        Events { wanted, trace_id, entries, warnings, settled: None }
    }
}

impl Format for Events<'_> {
    fn next(&mut self) -> Result<Vec<Entry>, Problem> {
        Ok(std::mem::take(&mut self.entries))
    }

    fn is_atomic(&self) -> bool {
        self.wanted.atomic
    }

    fn settle(
        &mut self,
        entries: Vec<Entry>,
        outcomes: Option<Vec<Outcome>>,
    ) -> Result<(), Problem> {
        self.settled = Some((entries, outcomes));
        Ok(())
    }

    fn reply(self: Box<Self>) -> Result<Reply, Problem> {
        let (entries, outcomes) = self.settled.unwrap_or((Vec::new(), Some(Vec::new())));
        let Some(outcomes) = outcomes else { return Err(self.wanted.refusal(&entries)) };
        let body = self.wanted.settle(&entries, &outcomes, self.trace_id, self.warnings)?;
        let status = match body.conflicts {
            1.. if self.wanted.strict => StatusCode::CONFLICT,
            _ => StatusCode::OK,
        };
        Ok(Reply::json(status, &body))
    }
}

/// What came of each entry, a line each; the first is that of the event at `index`.
///
/// # Errors
///
/// When the outcomes are not those of the entries.
pub(crate) fn tell_lines(
    entries: &[Entry],
    outcomes: &[Outcome],
    index: usize,
) -> Result<Vec<u8>, Problem> {
    /// About so long is a line, in bytes.
    const LINE_BYTES: usize = 128;
    let (_, told) = count(entries, outcomes)?;
    let mut lines = Vec::with_capacity(entries.len() * LINE_BYTES);
    for (place, (entry, told)) in entries.iter().zip(told).enumerate() {
        let result = EventResult::new(index + place, entry, told);
        text::push_json(&mut lines, &result)
            .map_err(|error| Problem::internal(error.to_string()))?;
        lines.push(b'\n');
    }
    Ok(lines)
}

/// What came of one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
enum Status {
    Accepted,
    Duplicate,
    Conflict,
    Rejected,
}

/// One event of the reply's `results`.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct EventResult<'a> {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<&'a str>,
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<Seq>,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

impl<'a> EventResult<'a> {
    /// What came of the entry at `index`.
    fn new(index: usize, entry: &'a Entry, (status, seq): (Status, Option<Seq>)) -> Self {
        let event = entry.as_ref().ok();
        let wrong = entry.as_ref().err().and_then(|errors| errors.first());
        EventResult {
            index,
            topic: event.map(|event| event.topic().as_str()),
            event_id: event.map(|event| event.event_id().as_str()),
            status,
            seq,
            field: wrong.map(|error| error.field),
            detail: wrong.map(ToString::to_string),
        }
    }
}

/// The reply to a publish.
#[derive(Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Published<'a> {
    received: usize,
    accepted: usize,
    duplicates: usize,
    conflicts: usize,
    rejected: usize,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    results: Option<Vec<EventResult<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    results_omitted: Option<usize>,
}

/// What came of each event, in the order of the body.
type Told = Vec<(Status, Option<Seq>)>;

/// What matters most to a client, first.
const BY_WEIGHT: [Status; 3] = [Status::Rejected, Status::Conflict, Status::Duplicate];

impl Wanted {
    /// Puts each event and its outcome together.
    fn settle<'a>(
        &self,
        entries: &'a [Entry],
        outcomes: &[Outcome],
        trace_id: Option<&'a str>,
        warnings: Vec<String>,
    ) -> Result<Published<'a>, Problem> {
        let (mut reply, told) = count(entries, outcomes)?;
        reply.trace_id = trace_id;
        reply.warnings = warnings;
        let result = |(index, (entry, told))| EventResult::new(index, entry, told);
        match self.named {
            Named::None => {}
            Named::All => {
                let all = entries.iter().zip(told).enumerate();
                reply.results = Some(all.map(result).collect());
            }
            Named::Notable => {
                let (named, omitted) = notable(entries, &told, &reply);
                reply.results = Some(named);
                reply.results_omitted = (omitted > 0).then_some(omitted);
            }
        }
        Ok(reply)
    }

    fn refusal(&self, entries: &[Entry]) -> Problem {
        let wrong = || {
            let entries = entries.iter().enumerate();
            entries.filter_map(|(index, entry)| Some((index, entry.as_ref().err()?)))
        };
        let errors = wrong().flat_map(|(index, errors)| {
            errors.iter().map(move |error| InvalidEvent::new(index, error))
        });
        let kept = match self.atomic {
            true => "the request is atomic, so nothing was stored",
            false => "none was stored",
        };
        let listed = match self.named {
            Named::All => Listed::All,
            Named::Notable | Named::None => Listed::Fitting,
        };
        let (of, invalid) = (entries.len(), wrong().count());
        let detail = format!("Of {of} events {invalid} are not valid; {kept}.");
        Problem::invalid_events(detail, errors, listed)
    }
}

/// The reply without its list, and what came of each event.
fn count<'a>(entries: &[Entry], outcomes: &[Outcome]) -> Result<(Published<'a>, Told), Problem> {
    let mut reply = Published::default();
    let mut outcomes = outcomes.iter();
    let mut told = Vec::with_capacity(entries.len());
    for entry in entries {
        told.push(match entry {
            Err(_) => {
                reply.rejected += 1;
                (Status::Rejected, None)
            }
            Ok(_) => match outcomes.next() {
                Some(Outcome::Accepted { seq }) => {
                    reply.accepted += 1;
                    (Status::Accepted, Some(*seq))
                }
                Some(Outcome::Conflict) => {
                    reply.duplicates += 1;
                    reply.conflicts += 1;
                    (Status::Conflict, None)
                }
                Some(Outcome::Duplicate) => {
                    reply.duplicates += 1;
                    (Status::Duplicate, None)
                }
                None => return Err(Problem::internal("there are fewer outcomes than events")),
            },
        });
    }
    reply.received = reply.accepted + reply.duplicates;
    reply.message = format!(
        "Received {} events, accepted {}, rejected {} duplicates",
        reply.received, reply.accepted, reply.duplicates
    );
    Ok((reply, told))
}

/// The events that were not accepted, in the order of the body; when they are
/// too many for a short reply as many as it holds, the worst first. And how many
/// are left out.
fn notable<'a>(
    entries: &'a [Entry],
    told: &Told,
    reply: &Published<'a>,
) -> (Vec<EventResult<'a>>, usize) {
    let notable = || {
        let all = entries.iter().zip(told.iter().copied()).enumerate();
        all.filter(|(_, (_, (status, _)))| *status != Status::Accepted)
    };
    let result = |(index, (entry, told))| EventResult::new(index, entry, told);
    let count = notable().count();
    if count == 0 {
        return (Vec::new(), 0);
    }
    let mut room = Room::beside(reply);
    let whole: Vec<_> = notable().map(result).take_while(|one| room.takes(one)).collect();
    if whole.len() == count {
        return (whole, 0);
    }
    let mut room = Room::beside(reply);
    let of = |wanted: Status| notable().filter(move |(_, (_, (status, _)))| *status == wanted);
    let worst_first = BY_WEIGHT.into_iter().flat_map(of).map(result);
    let named: Vec<_> = worst_first.take_while(|one| room.takes(one)).collect();
    let omitted = count - named.len();
    (named, omitted)
}
