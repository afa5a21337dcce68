//! `GET /events/stream`: events as they are stored, as server-sent events.
//!
//! The id of each event is its `seq`, which has no gaps and follows the order
//! of commits; so whoever resumes after the last id that it saw misses nothing
//! and sees nothing twice.

use std::time::Duration;

use http::HeaderMap;

use crate::commit;
use crate::config::Config;
use crate::event::Topic;
use crate::event_log::{self, Filter};
use crate::events;
use crate::ports::{Ports, StoreError};
use crate::problem::Problem;
use crate::query::Query;
use crate::reply::{Feed, Reply};
use crate::sse::{self, Silence};
use crate::tail;
use crate::view;

/// Most topics that one reader names. Each is a look-up of its own.
pub const TOPICS_MAX: usize = 32;

/// Most events in one part of a stream.
const PART_EVENTS_MAX: usize = 256;

/// Bytes of stored text after which a part ends early.
const PART_BYTES_MAX: usize = 256 * 1024;

const LAST_EVENT_ID: &str = "Last-Event-ID";

/// Where a reader wants to begin.
#[derive(Clone, Copy)]
enum After {
    Event(i64),
    /// With what comes next.
    End,
}

/// Answers one subscriber.
///
/// # Errors
///
/// 422 for a parameter that cannot be understood, 503 when the store does not answer.
pub async fn stream(
    ports: &impl Ports,
    config: &Config,
    query: &Query<'_>,
    headers: &HeaderMap,
) -> Result<Reply, Problem> {
    let topics = topics(query)?;
    // A browser that connects again sends both: the address that it was given
    // once, and the last id that it saw.
    let after = query.read("after", after)?.unwrap_or(After::Event(0));
    let after = last_event_id(headers)?.map_or(after, After::Event);
    let head = tail::newest(ports, config)
        .await
        .map_err(|error| Problem::store(&error, config.retry_after_seconds))?;
    let begin = match after {
        After::Event(seq) => seq,
        After::End => head,
    };
    Ok(sse::reply(Feed::Events(LiveEvents {
        filter: Filter { topics, above: Some(begin), ..Filter::default() },
        seen: begin,
        silence: None,
    })))
}

fn topics(query: &Query<'_>) -> Result<Vec<String>, Problem> {
    let mut topics: Vec<String> = Vec::new();
    for topic in query.all("topic") {
        let topic = Topic::parse(topic).map_err(|why| Problem::invalid_parameter("topic", why))?;
        if !topics.iter().any(|other| other == topic.as_str()) {
            topics.push(topic.as_str().to_owned());
        }
    }
    if topics.len() > TOPICS_MAX {
        let why = format!("is given {} times, at most {TOPICS_MAX} are allowed", topics.len());
        return Err(Problem::invalid_parameter("topic", why));
    }
    Ok(topics)
}

fn after(value: &str) -> Result<After, String> {
    match value {
        "end" => Ok(After::End),
        _ => events::cursor(value).map(After::Event).map_err(|why| format!("{why} (or end)")),
    }
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<i64>, Problem> {
    let Some(value) = headers.get(LAST_EVENT_ID).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let seq = value.to_str().ok().and_then(events::digits);
    seq.map(Some).ok_or_else(|| {
        Problem::invalid_parameter(
            LAST_EVENT_ID,
            format!("must be the id of an event, is {value:?}"),
        )
    })
}

/// Events for one subscriber: those that are there, then those that come.
pub struct LiveEvents {
    /// The events that it is still to get.
    filter: Filter,
    /// No event up to this `seq` is still to be sent.
    seen: i64,
    /// `None` before the stream was opened.
    silence: Option<Silence>,
}

impl LiveEvents {
    /// The next part: whole frames. Waits for it as long as it takes.
    ///
    /// # Errors
    ///
    /// What the store says.
    pub async fn next(
        &mut self,
        ports: &impl Ports,
        config: &Config,
    ) -> Result<Vec<u8>, StoreError> {
        let Some(silence) = self.silence else {
            self.silence = Some(Silence::since(ports.monotonic()));
            return Ok(sse::opening(self.filter.above));
        };
        let part = self.wait(ports, config, silence).await?;
        self.silence = Some(Silence::since(ports.monotonic()));
        Ok(part)
    }

    async fn wait(
        &mut self,
        ports: &impl Ports,
        config: &Config,
        silence: Silence,
    ) -> Result<Vec<u8>, StoreError> {
        loop {
            let head = tail::head(ports, config).await?;
            if head > self.seen {
                let part = self.read(ports, config.commit_wait_max).await?;
                if !part.is_empty() {
                    return Ok(part);
                }
                // The look came before the read, so what is up to it is sent.
                self.seen = head;
            }
            if silence.is_over(ports.monotonic()) {
                return Ok(sse::HEARTBEAT.to_vec());
            }
            tail::pause(ports).await;
        }
    }

    async fn read(
        &mut self,
        ports: &impl Ports,
        wait_max: Duration,
    ) -> Result<Vec<u8>, StoreError> {
        let events = commit::patiently(ports, wait_max, async || {
            event_log::page(ports, &self.filter, PART_EVENTS_MAX, PART_BYTES_MAX).await
        })
        .await?;
        let mut part = Vec::new();
        for event in &events {
            sse::frame(&mut part, Some(event.seq), |text| view::write(event, text))?;
            self.filter.above = Some(event.seq);
        }
        Ok(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Desk, config, now};

    fn live(desk: &Desk, query: &str) -> LiveEvents {
        let reply = now(stream(desk, &config(), &Query::parse(Some(query)), &HeaderMap::new()));
        match reply.unwrap().body {
            crate::reply::Body::Feed(Feed::Events(live)) => live,
            _ => panic!("no stream"),
        }
    }

    fn part(desk: &Desk, live: &mut LiveEvents) -> String {
        String::from_utf8(now(live.next(desk, &config())).unwrap()).unwrap()
    }

    fn publish(desk: &Desk, topic: &str, id: usize) {
        let event = format!(r#"{{"topic":"{topic}","event_id":"{id}","source":"s"}}"#);
        assert_eq!(desk.publish(&event).0, 200);
    }

    fn ids(part: &str) -> Vec<&str> {
        part.lines().filter_map(|line| line.strip_prefix("id: ")).collect()
    }

    #[test]
    fn what_is_there_comes_first_and_then_what_comes() {
        let desk = Desk::new();
        publish(&desk, "a", 1);
        publish(&desk, "b", 2);
        let mut all = live(&desk, "");
        assert_eq!(part(&desk, &mut all), "retry: 1000\nid: 0\n\n");
        let first = part(&desk, &mut all);
        assert!(first.starts_with("id: 1\ndata: {\"seq\":1,\"topic\":\"a\","), "{first}");
        assert_eq!(ids(&first), ["1", "2"]);
        publish(&desk, "a", 3);
        publish(&desk, "a", 3);
        assert_eq!(ids(&part(&desk, &mut all)), ["3"]);

        let mut end = live(&desk, "after=end&topic=b&topic=c&topic=b");
        assert_eq!(part(&desk, &mut end), "retry: 1000\nid: 3\n\n");
        publish(&desk, "a", 4);
        publish(&desk, "c", 5);
        publish(&desk, "b", 6);
        assert_eq!(ids(&part(&desk, &mut end)), ["5", "6"]);
        let mut resumed = live(&desk, "after=3&topic=a");
        part(&desk, &mut resumed);
        assert_eq!(ids(&part(&desk, &mut resumed)), ["4"]);
    }

    #[test]
    fn a_silent_stream_beats_and_reads_no_rows() {
        let desk = Desk::new();
        publish(&desk, "a", 1);
        let mut live = live(&desk, "after=end");
        part(&desk, &mut live);
        desk.statements.borrow_mut().clear();
        let began = desk.slept.get();
        assert_eq!(part(&desk, &mut live).as_bytes(), sse::HEARTBEAT);
        assert_eq!((desk.slept.get() - began).as_secs(), 15);
        let looks = desk.statements.borrow().len();
        assert!(looks <= 151, "{looks} looks in 15 s");
        assert!(desk.statements.borrow().iter().all(|one| one.contains("max(seq)")));
    }

    #[test]
    fn a_long_backlog_comes_in_parts() {
        let desk = Desk::new();
        let events: Vec<String> = (0..600)
            .map(|id| format!(r#"{{"topic":"t{}","event_id":"{id}","source":"s"}}"#, id % 3))
            .collect();
        desk.publish(&format!("[{}]", events.join(",")));
        for (query, expected) in [("", 600), ("topic=t0&topic=t2", 400), ("topic=t1", 200)] {
            let mut live = live(&desk, query);
            part(&desk, &mut live);
            let mut seen: Vec<u32> = Vec::new();
            while seen.len() < expected {
                let part = part(&desk, &mut live);
                assert!(ids(&part).len() <= PART_EVENTS_MAX);
                seen.extend(ids(&part).iter().map(|id| id.parse::<u32>().unwrap()));
            }
            assert!(seen.is_sorted_by(|a, b| a < b));
        }
    }
}
