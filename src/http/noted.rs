//! What is noted of a request while it is answered, for those who look from outside:
//! where its time went, and what came by it.

use std::cell::{Cell, OnceCell};
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use crate::config::Key;
use crate::http::authentication::Caller;
use crate::http::reply::Reply;
use crate::platform::Clock;

/// The header by which a client is told where the time went.
pub(crate) const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// A part of the work whose time is told by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The body is read, for as long as the client takes to send it, and decoded.
    Body,
    /// Events are made of it.
    Parse,
    /// The events wait for their commit, and are committed.
    Commit,
}

impl Phase {
    const ALL: [Phase; 3] = [Phase::Body, Phase::Parse, Phase::Commit];

    fn name(self) -> &'static str {
        match self {
            Phase::Body => "body",
            Phase::Parse => "parse",
            Phase::Commit => "commit",
        }
    }
}

/// What is noted of one request.
#[derive(Default)]
pub(crate) struct Noted {
    /// When it began, on the monotonic clock, if its parts are timed: the clock is not
    /// asked otherwise.
    timed_since: Option<Duration>,
    /// When the part that is under way began.
    mark: Cell<Duration>,
    took: [Cell<Option<Duration>>; Phase::ALL.len()],
    events: Cell<Option<usize>>,
    caller: OnceCell<Caller>,
}

impl Noted {
    /// Of a request whose parts are timed if it is known when it began.
    pub(crate) fn since(began: Option<Duration>) -> Self {
        Noted { timed_since: began, ..Noted::default() }
    }

    /// What comes next is a part that is timed.
    pub(crate) fn begin(&self, clock: &(impl Clock + ?Sized)) {
        if self.timed_since.is_some() {
            self.mark.set(clock.monotonic());
        }
    }

    /// That was `phase`, or some more of it, and the next part begins.
    pub(crate) fn end(&self, phase: Phase, clock: &(impl Clock + ?Sized)) {
        if self.timed_since.is_none() {
            return;
        }
        let (now, took) = (clock.monotonic(), &self.took[phase as usize]);
        let more = now.saturating_sub(self.mark.replace(now));
        took.set(Some(took.get().unwrap_or_default() + more));
    }

    /// So many more events came.
    pub(crate) fn add_events(&self, events: usize) {
        self.events.set(Some(self.events.get().unwrap_or_default() + events));
    }

    /// It is of this caller.
    pub(crate) fn set_caller(&self, caller: &Caller) {
        self.caller.get_or_init(|| caller.clone());
    }

    /// How many events came, if any could.
    pub(crate) fn events(&self) -> Option<usize> {
        self.events.get()
    }

    /// By which key it came.
    pub(crate) fn key(&self) -> Option<&Key> {
        self.caller.get()?.key()
    }

    /// The reply that says where the time went, if it was noted.
    pub(crate) fn tell(&self, reply: Reply, clock: &(impl Clock + ?Sized)) -> Reply {
        let Some(began) = self.timed_since else { return reply };
        let parts = Phase::ALL.iter().zip(&self.took);
        let parts = parts.filter_map(|(phase, took)| Some((phase.name(), took.get()?)));
        let total = ("total", clock.monotonic().saturating_sub(began));
        let told = |(name, took): (&str, Duration)| format!("{name};dur={:.3}", millis(took));
        let told: Vec<String> = parts.chain([total]).map(told).collect();
        match HeaderValue::try_from(told.join(", ")) {
            Ok(value) => reply.with_header(SERVER_TIMING, value),
            // Names and numbers are always a header's value.
            Err(_) => reply,
        }
    }
}

/// Milliseconds, and microseconds as a fraction of them.
pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::platform::fake::FakePlatform;

    #[test]
    fn the_parts_of_a_request_are_told() {
        let clock = FakePlatform::new();
        let told = |noted: &Noted| {
            let reply = noted.tell(Reply::text(StatusCode::OK, ""), &*clock);
            reply.headers.get(SERVER_TIMING).map(|value| value.to_str().unwrap().to_owned())
        };
        let advance = |millis| clock.advance(Duration::from_micros(millis));
        let noted = Noted::since(Some(clock.monotonic()));
        assert_eq!(told(&noted).as_deref(), Some("total;dur=0.000"));
        advance(500);
        noted.begin(&*clock);
        advance(1_250);
        noted.end(Phase::Body, &*clock);
        for (parse, commit) in [(10, 2_000), (1, 3_000)] {
            advance(parse);
            noted.end(Phase::Parse, &*clock);
            advance(commit);
            noted.end(Phase::Commit, &*clock);
        }
        advance(39);
        let expected = "body;dur=1.250, parse;dur=0.011, commit;dur=5.000, total;dur=6.800";
        assert_eq!(told(&noted).as_deref(), Some(expected));

        let unasked = Noted::since(None);
        unasked.begin(&*clock);
        unasked.end(Phase::Body, &*clock);
        assert_eq!(told(&unasked), None);
    }
}
