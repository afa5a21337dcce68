//! `POST /publish/stream`: events up, their outcomes down, on one connection and for
//! as long as the client likes.
//!
//! Each line of the body is an event, and each line of the reply the outcome of one,
//! in the same order and after its commit is on disk. What the connection brings
//! while a commit is under way goes with the next, so a client that does not wait
//! has few commits for many events, and still an answer for each.

use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use futures::future::{Either, FutureExt, LocalBoxFuture, select};
use futures::{Stream, StreamExt};

use super::publish::Publishing;
use crate::app::App;
use crate::event::Event;
use crate::http::authentication::Caller;
use crate::http::problem::Problem;
use crate::http::reply::{Parts, Reply};
use crate::http::request::{BodyStream, Request};
use crate::http::trace::Trace;
use crate::ingest::{self, Entry};
use crate::log::{Level, Line};
use crate::store::StoreError;

/// Most events of a stream in one commit.
pub(crate) const STREAM_COMMIT_EVENTS_MAX: usize = 1_000;

/// How much of a body is read ahead of the outcomes that the client has taken, in
/// bytes, unless one event is longer. What a client sends beyond waits in the
/// connection.
pub(crate) const STREAM_AHEAD_BYTES_MAX: usize = 256 * 1024;

/// After how long a stream ends that brings nothing, in seconds, or after up to twice
/// that: a client that is gone without a word would keep its instance for ever.
pub(crate) const STREAM_SILENCE_SECONDS_MAX: u64 = 300;

/// How long a stream waits at least, and at most at a time, that has brought more than its
/// key may publish.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Answers one stream.
///
/// # Errors
///
/// 415 for a content coding.
pub(super) async fn publish(app: &Rc<App>, request: &Request<'_>) -> Result<Reply, Problem> {
    let body = request.body_stream()?;
    let outcomes = Outcomes {
        app: Rc::clone(app),
        caller: request.caller.clone(),
        trace: request.trace.clone(),
        body: Some(body),
        read: Vec::new(),
        searched: 0,
        index: 0,
        broken: None,
        has_ended: false,
        silence: silence(app),
        key_end: request.caller.end(&app.platform),
        is_silent: false,
    };
    Ok(Reply::stream("application/x-ndjson", outcomes.into_stream()).passed_on_at_once())
}

fn silence(app: &App) -> LocalBoxFuture<'static, ()> {
    let platform = Rc::clone(&app.platform);
    let silence = Duration::from_secs(STREAM_SILENCE_SECONDS_MAX);
    async move { platform.sleep(silence).await }.boxed_local()
}

/// The outcomes of the events of one body.
struct Outcomes {
    app: Rc<App>,
    caller: Caller,
    trace: Trace,
    /// `None` after its end.
    body: Option<BodyStream>,
    /// What was read of it and not committed yet.
    read: Vec<u8>,
    /// No line ends in so many bytes of that.
    searched: usize,
    /// The place in the stream of the event that comes next.
    index: usize,
    /// Why the body ended too early, until it is told.
    broken: Option<Problem>,
    /// Nothing comes any more, not even of what was read.
    has_ended: bool,
    /// When it is looked again whether the client has gone silent.
    silence: LocalBoxFuture<'static, ()>,
    /// When the key ends.
    key_end: LocalBoxFuture<'static, ()>,
    /// Whether nothing came since it was last looked.
    is_silent: bool,
}

impl Parts for Outcomes {
    async fn next(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        while !self.has_ended {
            self.keep_to_rate().await;
            let lines = match self.lines().await {
                Ok(Some(lines)) => lines,
                Ok(None) => break,
                Err(problem) => return Ok(Some(self.end(problem))),
            };
            if let Some(problem) = self.ended() {
                return Ok(Some(self.end(problem)));
            }
            let mut entries: Vec<Entry> = ingest::read_lines(&lines);
            self.spend(lines.len());
            drop(lines);
            if !entries.is_empty() {
                // That none of these is of the key's topics ends no stream.
                self.publishing().refuse_topics(&mut entries).ok();
                return Ok(Some(self.commit(&entries).await));
            }
        }
        Ok(None)
    }
}

impl Outcomes {
    fn publishing(&self) -> Publishing<'_> {
        Publishing { app: &self.app, caller: &self.caller }
    }

    /// That the key has ended, if it has.
    fn ended(&self) -> Option<Problem> {
        self.caller.ended(|| self.app.platform.now())
    }

    fn spend(&self, bytes: usize) {
        if let Some(key) = self.caller.key() {
            self.app.limits.spend(key, self.app.platform.monotonic(), 0, bytes);
        }
    }

    /// Waits while the key has published more than it may. The client waits with it.
    async fn keep_to_rate(&self) {
        let platform = &self.app.platform;
        let Some(key) = self.caller.key() else { return };
        while let Some(pause) = self.app.limits.pause(key, platform.monotonic()) {
            platform.sleep(pause.clamp(PAUSE_MIN, PAUSE_MAX)).await;
        }
    }

    /// Whole lines of the body, as many as go into one commit; waits for the first.
    /// `None` at the end.
    async fn lines(&mut self) -> Result<Option<Vec<u8>>, Problem> {
        loop {
            if let Some(problem) = self.broken.take() {
                return Err(problem);
            }
            if let Some(end) = self.end_of_lines() {
                let rest = self.read.split_off(end);
                self.searched = 0;
                return Ok(Some(std::mem::replace(&mut self.read, rest)));
            }
            self.searched = self.read.len();
            let body_bytes_max = self.app.config.body_bytes_max;
            if self.read.len() > body_bytes_max {
                return Err(Problem::body_too_large(body_bytes_max));
            }
            let Some(body) = &mut self.body else {
                // The last line may have no end.
                let last = std::mem::take(&mut self.read);
                return Ok((!last.is_empty()).then_some(last));
            };
            let silence_or_end = select(&mut self.silence, &mut self.key_end);
            let part = match select(body.next(), silence_or_end).await {
                Either::Left((part, _)) => part,
                Either::Right((Either::Right(_), _)) => {
                    self.key_end = self.caller.end(&self.app.platform);
                    match self.ended() {
                        Some(problem) => return Err(problem),
                        // The clock was set back just now.
                        None => continue,
                    }
                }
                Either::Right(_) if self.is_silent => {
                    self.has_ended = true;
                    return Ok(None);
                }
                Either::Right(_) => {
                    self.silence = silence(&self.app);
                    self.is_silent = true;
                    continue;
                }
            };
            self.take(part);
        }
    }

    /// Where the lines end that are whole, of as many as go into one commit.
    fn end_of_lines(&self) -> Option<usize> {
        let new = self.read.iter().enumerate().skip(self.searched);
        let ends = new.filter(|(_, byte)| **byte == b'\n').map(|(place, _)| place + 1);
        ends.take(STREAM_COMMIT_EVENTS_MAX).last()
    }

    /// Commits events and tells what came of each; reads on meanwhile.
    async fn commit(&mut self, entries: &[Entry]) -> Vec<u8> {
        let app = Rc::clone(&self.app);
        let events: Vec<&Event> = entries.iter().filter_map(|entry| entry.as_ref().ok()).collect();
        let rejected = entries.iter().filter_map(ingest::reason).collect();
        let mut commit = pin!(app.commits.commit(&events, rejected));
        let committed = loop {
            let ahead = self.body.as_mut().filter(|_| self.read.len() < STREAM_AHEAD_BYTES_MAX);
            let Some(body) = ahead else { break commit.await };
            match select(commit.as_mut(), body.next()).await {
                Either::Left((committed, _)) => break committed,
                Either::Right((part, _)) => self.take(part),
            }
        };
        if let Ok(outcomes) = &committed {
            self.publishing().note(entries.len(), outcomes);
        }
        let told = match committed {
            Ok(outcomes) => ingest::tell_lines(entries, &outcomes, self.index),
            Err(error) => Err(app.unavailable(&error)),
        };
        self.index += entries.len();
        // Nothing else does before the stream ends: checkpoints are among it.
        if app.wants_to_linger() {
            let lingering = Rc::clone(&app);
            app.platform.spawn(async move { lingering.linger().await }.boxed_local());
        }
        told.unwrap_or_else(|problem| self.end(problem))
    }

    /// Takes the next part of the body, or its end. What is left of a body that ended
    /// too early may be the beginning of an event.
    fn take(&mut self, part: Option<<BodyStream as Stream>::Item>) {
        match part {
            Some(Ok(part)) => {
                self.is_silent = false;
                self.read.extend_from_slice(&part);
            }
            Some(Err(problem)) => {
                self.broken = Some(problem);
                self.body = None;
            }
            None => self.body = None,
        }
    }

    /// The last line: why no more outcomes come.
    fn end(&mut self, problem: Problem) -> Vec<u8> {
        self.has_ended = true;
        self.body = None;
        let status = problem.status();
        self.app.log(
            if status.is_server_error() { Level::Error } else { Level::Warn },
            Line {
                route: Some("/publish/stream"),
                status: Some(status.as_u16()),
                code: Some(problem.code().as_str()),
                detail: Some(problem.detail()),
                cause: problem.cause(),
                ..self.trace.line("a stream of events was ended")
            },
        );
        problem.of_request(&self.trace.request_id).into_line()
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use serde_json::{Value, json};
    use sha2::{Digest as _, Sha256};

    use super::{STREAM_AHEAD_BYTES_MAX, STREAM_COMMIT_EVENTS_MAX};
    use crate::http::reply::Body;
    use crate::platform::fake::{self, FakePlatform, now};
    use crate::testing::TestService;
    use crate::text::hex;

    fn event(id: usize) -> String {
        format!("{}\n", json!({"topic": "t", "event_id": id.to_string(), "source": "s"}))
    }

    fn outcomes(service: &TestService, parts: &[Option<&str>]) -> Vec<Value> {
        let parts: Vec<_> = parts.iter().map(|part| part.map(str::as_bytes)).collect();
        told(service, &parts)
    }

    fn told(service: &TestService, parts: &[Option<&[u8]>]) -> Vec<Value> {
        let text = service.publish_stream(parts).concat();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn statuses(outcomes: &[Value]) -> Vec<&str> {
        outcomes.iter().map(|one| one["status"].as_str().unwrap_or("problem")).collect()
    }

    #[test]
    fn each_line_has_its_outcome_in_order() {
        let service = TestService::new();
        let body = format!(
            "\u{feff}{}\r\n\n{}{{\"topic\":\"t\"}}\n1 2\n{}",
            event(1).trim_end(),
            event(1),
            event(1).replace("}\n", ",\"payload\":7}"),
        );
        // However it is cut into parts.
        for at in [1, 40, 60, 100, body.len() - 1] {
            let service = TestService::new();
            let (before, after) = body.as_bytes().split_at(at);
            let told = told(&service, &[Some(before), Some(after)]);
            let expected = ["accepted", "duplicate", "rejected", "rejected", "conflict"];
            assert_eq!(statuses(&told), expected, "cut at {at}");
            assert!((0..5).all(|place| told[place]["index"] == place), "{told:?}");
            assert_eq!((&told[0]["seq"], &told[0]["event_id"]), (&json!(1), &json!("1")));
            assert_eq!(told[2]["detail"], "event_id is required");
        }
        assert_eq!(outcomes(&service, &[]), [Value::Null; 0]);
        assert_eq!(service.get("/stats").1["received"], 0);
    }

    #[test]
    fn many_events_go_in_few_commits() {
        let service = TestService::new();
        let body: String = (0..2 * STREAM_COMMIT_EVENTS_MAX + 1).map(event).collect();
        let parts = service.publish_stream(&[Some(body.as_bytes())]);
        let events: Vec<_> = parts.iter().map(|part| part.lines().count()).collect();
        assert_eq!(events, [STREAM_COMMIT_EVENTS_MAX, STREAM_COMMIT_EVENTS_MAX, 1]);
    }

    #[test]
    fn what_was_broken_off_is_not_stored() {
        let service = TestService::new();
        let broken = format!("{}{}", event(1), event(2).trim_end());
        let told = outcomes(&service, &[Some(&broken), None]);
        assert_eq!(told[0]["status"], "accepted");
        assert_eq!(told[1]["code"], "incomplete_body");
        assert_eq!(service.get("/stats").1["unique_processed"], 1);
        // A last line without an end is one, when the body ends as it should.
        assert_eq!(statuses(&outcomes(&service, &[Some(&broken)])), ["duplicate", "accepted"]);
    }

    #[test]
    fn a_store_that_fails_ends_the_stream_with_the_reason() {
        let service = TestService::new();
        service.faults.replace(vec![fake::unavailable(); 100_000]);
        let told = outcomes(&service, &[Some(&event(1)), Some(&event(2))]);
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(
            (&told[0]["code"], &told[0]["status"]),
            (&json!("store_unavailable"), &json!(503))
        );
    }

    #[test]
    fn nothing_is_taken_once_the_key_has_ended() {
        let platform = FakePlatform::new();
        let digest = hex(&Sha256::digest("key"));
        let key = json!({"name": "shop", "sha256": digest, "scopes": ["publish"],
            "expires": "2026-01-02T03:05:00Z"});
        platform.variables.borrow_mut().insert("api_keys".to_owned(), key.to_string());
        let service = TestService::over(platform);
        let body: String = (0..2 * STREAM_COMMIT_EVENTS_MAX).map(event).collect();
        let reply = service.send("POST", "/publish/stream", &[("x-api-key", "key")], &body);
        let Body::Stream(mut parts) = reply.unwrap().body else { panic!("it is no stream") };
        let mut part = || now(parts.next()).map(|part| String::from_utf8(part.unwrap()).unwrap());
        assert_eq!(part().unwrap().lines().count(), STREAM_COMMIT_EVENTS_MAX);
        service.now.set(service.now.get() + 60_000);
        let last: Value = serde_json::from_str(&part().unwrap()).unwrap();
        assert_eq!((&last["code"], &last["status"]), (&json!("key_expired"), &json!(401)));
        assert_eq!(part(), None);
    }

    #[test]
    fn a_line_is_no_longer_than_a_body_may_be() {
        let service = TestService::new();
        let long = "x".repeat(STREAM_AHEAD_BYTES_MAX);
        let parts = vec![Some(long.as_str()); 10 * 1024 * 1024 / STREAM_AHEAD_BYTES_MAX + 1];
        assert_eq!(outcomes(&service, &parts)[0]["code"], "body_too_large");
    }
}
