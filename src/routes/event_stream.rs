//! `GET /events/stream`: events as they are stored, as server-sent events.
//!
//! The id of each event is its `seq`, which has no gaps and follows the order
//! of commits; so whoever resumes after the last id that it saw misses nothing
//! and sees nothing twice.

use http::HeaderMap;

use crate::commit;
use crate::config::Config;
use crate::event::Topic;
use crate::http::event_json as view;
use crate::http::problem::Problem;
use crate::http::query::Query;
use crate::http::reply::{Feed, Reply};
use crate::http::sse::{self, Silence};
use crate::platform::{Ports, StoreError};
use crate::routes::events;
use crate::store::sqlite::event_log::{self, Filter};
use crate::store::tail;

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
/// 409 for a cursor ahead of every event, 422 for a parameter that cannot be
/// understood, 503 when the store does not answer.
pub async fn stream(
    ports: &impl Ports,
    config: &Config,
    query: &Query<'_>,
    headers: &HeaderMap,
) -> Result<Reply, Problem> {
    let topics = distinct_topics(query.all("topic"))
        .map_err(|why| Problem::invalid_parameter("topic", why))?;
    // A browser that connects again sends both: the address that it was given
    // once, and the last id that it saw.
    let after = query.read("after", after)?.unwrap_or(After::Event(0));
    let after = last_event_id(headers)?.map_or(after, After::Event);
    let head = commit::ask(ports, config, async || event_log::head(ports).await).await?;
    let begin = match after {
        // It would skip what is yet to come: it is of another store.
        After::Event(seq) if seq > head => return Err(Problem::cursor_ahead(seq, head)),
        After::Event(seq) => seq,
        After::End => head,
    };
    Ok(sse::reply(Feed::Events(LiveEvents { topics, seen: begin, silence: None })))
}

/// The topics that a reader names, each once.
///
/// # Errors
///
/// A phrase that says what is wrong with one of them, or that there are more
/// than [`TOPICS_MAX`].
pub fn distinct_topics(given: impl Iterator<Item: Into<String>>) -> Result<Vec<String>, String> {
    let mut topics: Vec<String> = Vec::new();
    for topic in given {
        let topic = Topic::parse(topic)?;
        if topics.iter().any(|other| other == topic.as_str()) {
            continue;
        }
        if topics.len() == TOPICS_MAX {
            return Err(format!("must not be more than {TOPICS_MAX} different ones"));
        }
        topics.push(topic.as_str().to_owned());
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
    /// Only of these topics; of all when there is none.
    topics: Vec<String>,
    /// What it is to get of the events up to this `seq` was sent.
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
        let part = match self.silence {
            None => {
                // With what is there already: a second small write would wait
                // for the client's delayed acknowledgement.
                let mut part = sse::opening(Some(self.seen));
                part.extend(self.news(ports, config).await?);
                part
            }
            Some(silence) => self.wait(ports, config, silence).await?,
        };
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
            let news = self.news(ports, config).await?;
            if !news.is_empty() {
                return Ok(news);
            }
            if silence.is_over(ports.monotonic()) {
                return Ok(sse::HEARTBEAT.to_vec());
            }
            tail::pause(ports).await;
        }
    }

    /// The frames of what has come since the last ones.
    async fn news(&mut self, ports: &impl Ports, config: &Config) -> Result<Vec<u8>, StoreError> {
        let mut part = Vec::new();
        loop {
            let head = tail::head(ports, config).await?;
            if head <= self.seen {
                return Ok(part);
            }
            match tail::recent(ports, config, self.seen, head).await? {
                Some((events, to)) => {
                    for event in events.iter().filter(|event| self.wants(&event.topic)) {
                        part.extend_from_slice(&event.frame);
                    }
                    self.seen = to;
                }
                None => self.read(ports, config, head, &mut part).await?,
            }
            if !part.is_empty() {
                return Ok(part);
            }
        }
    }

    fn wants(&self, topic: &str) -> bool {
        self.topics.is_empty() || self.topics.iter().any(|wanted| wanted == topic)
    }

    /// Reads what comes next for this subscriber alone.
    async fn read(
        &mut self,
        ports: &impl Ports,
        config: &Config,
        head: i64,
        part: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        let filter =
            Filter { topics: self.topics.clone(), above: Some(self.seen), ..Filter::default() };
        let events = commit::patiently(ports, config.commit_wait_max, async || {
            event_log::page(ports, &filter, PART_EVENTS_MAX, PART_BYTES_MAX).await
        })
        .await?;
        // The look came before the read, so up to it nothing was missed.
        self.seen = events.last().map_or(head, |last| last.seq);
        for event in &events {
            sse::frame(part, Some(event.seq), |text| view::write(event, text))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::fake::{Desk, config, now};

    fn live(desk: &Desk, query: &str) -> LiveEvents {
        let reply = now(stream(desk, &config(), &Query::parse(Some(query)), &HeaderMap::new()));
        match reply.unwrap().body {
            crate::http::reply::Body::Feed(Feed::Events(live)) => live,
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
        let first = part(&desk, &mut all);
        let begin = "retry: 1000\nid: 0\n\nid: 1\ndata: {\"seq\":1,\"topic\":\"a\",";
        assert!(first.starts_with(begin), "{first}");
        assert_eq!(ids(&first), ["0", "1", "2"]);
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
        assert_eq!(ids(&part(&desk, &mut resumed)), ["3", "4"]);
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
    fn what_one_reader_has_read_serves_the_others() {
        let desk = Desk::new();
        publish(&desk, "a", 0);
        let mut streams: Vec<LiveEvents> = ["", "&topic=a", "&topic=b", "&topic=b&topic=a", ""]
            .iter()
            .map(|topics| live(&desk, &format!("after=end{topics}")))
            .collect();
        for stream in &mut streams {
            part(&desk, stream);
        }
        for (topic, id) in [("a", 1), ("b", 2), ("c", 3)] {
            publish(&desk, topic, id);
        }
        desk.slept.set(desk.slept.get() + std::time::Duration::from_secs(1));
        desk.statements.borrow_mut().clear();
        let got: Vec<String> = streams.iter_mut().map(|stream| part(&desk, stream)).collect();
        let got: Vec<Vec<&str>> = got.iter().map(|part| ids(part)).collect();
        let all = vec!["2", "3", "4"];
        assert_eq!(got, [all.clone(), vec!["2"], vec!["3"], vec!["2", "3"], all]);
        assert_eq!(desk.statements.borrow().len(), 2, "a look and a read");
    }

    #[test]
    fn a_cursor_of_another_store_is_refused() {
        let desk = Desk::new();
        publish(&desk, "a", 1);
        let (status, reply) = desk.get("/events/stream?after=2");
        assert_eq!((status.as_u16(), reply["code"].as_str()), (409, Some("cursor_ahead")));
    }

    #[test]
    fn a_long_backlog_comes_in_parts() {
        let desk = Desk::new();
        let events: Vec<String> = (0..3000)
            .map(|id| format!(r#"{{"topic":"t{}","event_id":"{id}","source":"s"}}"#, id % 3))
            .collect();
        desk.publish(&format!("[{}]", events.join(",")));
        for (query, expected) in [("", 3000), ("topic=t0&topic=t2", 2000), ("topic=t1", 1000)] {
            let mut live = live(&desk, query);
            let mut seen: Vec<u32> = Vec::new();
            // The first id is that of the opening.
            while seen.len() < expected + 1 {
                let part = part(&desk, &mut live);
                assert!(ids(&part).len() <= 1001, "a part is bounded");
                seen.extend(ids(&part).iter().map(|id| id.parse::<u32>().unwrap()));
            }
            assert!(seen.is_sorted_by(|a, b| a < b));
            assert_eq!(seen.len(), expected + 1);
        }
    }
}
