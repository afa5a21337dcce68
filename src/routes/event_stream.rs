//! `GET /events/stream`: events as they are stored, as server-sent events.
//!
//! The id of each event is its cursor, and nothing appears below what a reader
//! has read; so whoever resumes after the last id that it saw misses nothing and
//! sees nothing twice.

use std::rc::Rc;

use http::HeaderMap;

use super::reading::{self, FORMAT, PART_BYTES_MAX, TOPICS_MAX};
use crate::app::App;
use crate::event::Topic;
use crate::http::problem::Problem;
use crate::http::query::{self, Parameter, Takes};
use crate::http::reply::{Parts, Reply};
use crate::http::request::Request;
use crate::http::sse::{self, HeartbeatTimer};
use crate::store::{Cursor, Filter, PageLimit, StoreError, StoredEvent};

const TOPIC: Parameter = Parameter::new("topic", Takes::Topics { max: TOPICS_MAX });
const AFTER: Parameter = Parameter::new("after", Takes::CursorOrEnd);

pub(super) const PARAMETERS: [Parameter; 3] = [TOPIC, AFTER, FORMAT];

/// Most events in one part of a stream.
const PART_EVENTS_MAX: usize = 256;

const LAST_EVENT_ID: &str = "Last-Event-ID";

/// Where a reader wants to begin.
#[derive(Clone, Copy)]
enum After {
    Cursor(Cursor),
    /// With what comes next.
    End,
}

/// Answers one reader.
///
/// # Errors
///
/// 409 for a cursor ahead of every event, 422 for a parameter that cannot be
/// understood, 503 when the store does not answer.
pub(super) async fn stream(app: &Rc<App>, request: &Request<'_>) -> Result<Reply, Problem> {
    let events = LiveEvents::open(app, request).await?;
    Ok(sse::reply(events.into_stream(), request.caller.end(&app.platform)))
}

fn after(value: &str) -> Result<After, String> {
    match value {
        "end" => Ok(After::End),
        _ => query::cursor(value).map(After::Cursor).map_err(|why| format!("{why} (or end)")),
    }
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<Cursor>, Problem> {
    let Some(value) = headers.get(LAST_EVENT_ID).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let cursor = value.to_str().ok().and_then(|value| value.parse().ok());
    cursor.map(Some).ok_or_else(|| {
        Problem::invalid_parameter(
            LAST_EVENT_ID,
            format!("must be the id of an event, is {value:?}"),
        )
    })
}

/// Events for one reader: those that are there, then those that come.
struct LiveEvents {
    app: Rc<App>,
    /// Only of these topics; of all when there is none.
    topics: Vec<Topic>,
    /// What it is to get of the events up to here was sent.
    seen: Cursor,
    /// Whether that was the end of the log. Then what comes is read once for all
    /// readers of the instance; until then each reads for itself, along the index
    /// of its topics.
    caught_up: bool,
    /// It gets CloudEvents, and reads them for itself.
    as_cloud_events: bool,
    /// Events before this place were pruned, and it is to be told so.
    pruned_before: Option<Cursor>,
    /// `None` before the stream was opened.
    heartbeat: Option<HeartbeatTimer>,
}

impl LiveEvents {
    async fn open(app: &Rc<App>, request: &Request<'_>) -> Result<Self, Problem> {
        let query = request.query();
        let topics = reading::topics(&query, &TOPIC)?;
        request.caller.check_topics(topics.iter().map(Topic::as_str))?;
        // A browser that connects again sends both: the address that it was given
        // once, and the last id that it saw.
        let after = query.read(&AFTER, after)?.unwrap_or(After::Cursor(Cursor::START));
        let after = last_event_id(request.headers())?.map_or(after, After::Cursor);
        let (head, seen) = match after {
            After::Cursor(cursor) => (reading::head_from(app, cursor).await?, cursor),
            After::End => {
                let head = reading::head_from(app, Cursor::START).await?;
                (head, head)
            }
        };
        let caught_up = seen == head;
        let as_cloud_events = query.choice(&FORMAT)?.is_some();
        let pruned_before = match caught_up {
            true => None,
            false => reading::pruned_before(app, &topics, seen, &[]).await?,
        };
        let app = Rc::clone(app);
        let heartbeat = None;
        Ok(LiveEvents { app, topics, seen, caught_up, as_cloud_events, pruned_before, heartbeat })
    }

    async fn wait(&mut self, heartbeat: HeartbeatTimer) -> Result<Vec<u8>, StoreError> {
        loop {
            let news = self.news().await?;
            if !news.is_empty() {
                return Ok(news);
            }
            if heartbeat.is_due(self.app.platform.monotonic()) {
                return Ok(sse::HEARTBEAT.to_vec());
            }
            self.app.tail.wait_for_poll().await;
        }
    }

    /// The frames of what has come since the last ones.
    async fn news(&mut self) -> Result<Vec<u8>, StoreError> {
        let app = Rc::clone(&self.app);
        let mut part = Vec::new();
        loop {
            let head = app.tail.head().await?;
            if head <= self.seen {
                self.caught_up = true;
                return Ok(part);
            }
            let shared = match self.caught_up && !self.as_cloud_events {
                true => app.tail.recent(self.seen, head, |event| frame(&app, event, false)).await?,
                false => None,
            };
            match shared {
                Some((events, to)) => {
                    for event in events.iter().filter(|event| self.wants(&event.topic)) {
                        part.extend_from_slice(&event.text);
                    }
                    self.seen = to;
                }
                None => part.extend(self.read_alone(head).await?),
            }
            self.caught_up = self.seen >= head;
            if !part.is_empty() {
                return Ok(part);
            }
        }
    }

    fn wants(&self, topic: &str) -> bool {
        self.topics.is_empty() || self.topics.iter().any(|wanted| wanted.as_str() == topic)
    }

    /// Reads what comes next for this reader alone: its frames.
    async fn read_alone(&mut self, head: Cursor) -> Result<Vec<u8>, StoreError> {
        let topics = self.topics.clone();
        let filter = Filter { topics, from: Some(self.seen), ..Filter::default() };
        let limit = PageLimit { events_max: PART_EVENTS_MAX, bytes_max: PART_BYTES_MAX };
        let events = self.app.store.ask(async |store| store.page(&filter, limit).await).await?;
        // The poll came before the read, so up to it nothing was missed.
        self.seen = events.last().map_or(head, |last| Cursor::after(last.seq));
        let frame = |event| frame(&self.app, event, self.as_cloud_events);
        Ok(events.iter().flat_map(frame).collect())
    }
}

impl Parts for LiveEvents {
    /// Whole frames. Waits for them as long as it takes.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        let part = match self.heartbeat {
            None => {
                // With what is there already: a second small write would wait
                // for the client's delayed acknowledgement.
                let mut part = sse::opening(Some(self.seen));
                if let Some(place) = self.pruned_before {
                    sse::named(&mut part, "pruned", &format!(r#"{{"pruned_before":"{place}"}}"#));
                }
                part.extend(self.news().await?);
                part
            }
            Some(heartbeat) => self.wait(heartbeat).await?,
        };
        self.heartbeat = Some(HeartbeatTimer::since(self.app.platform.monotonic()));
        Ok(Some(part))
    }
}

/// The frame of one event.
fn frame(app: &App, event: &StoredEvent, as_cloud_event: bool) -> Vec<u8> {
    let mut text = Vec::new();
    let id = Cursor::after(event.seq);
    sse::frame(&mut text, Some(id), |text| reading::write(app, event, as_cloud_event, text));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{TestService, TestStream};

    fn live(service: &TestService, query: &str) -> TestStream {
        service.stream(&format!("/events/stream?{query}"))
    }

    fn publish(service: &TestService, topic: &str, id: usize) {
        let event = format!(r#"{{"topic":"{topic}","event_id":"{id}","source":"s"}}"#);
        assert_eq!(service.publish(&event).0, 200);
    }

    fn ids(part: &str) -> Vec<&str> {
        part.lines().filter_map(|line| line.strip_prefix("id: ")).collect()
    }

    #[test]
    fn what_is_there_comes_first_and_then_what_comes() {
        let service = TestService::new();
        publish(&service, "a", 1);
        publish(&service, "b", 2);
        let mut all = live(&service, "");
        let first = all.part();
        let begin = "retry: 1000\nid: 0\n\nid: 1\ndata: {\"seq\":1,\"topic\":\"a\",";
        assert!(first.starts_with(begin), "{first}");
        assert_eq!(ids(&first), ["0", "1", "2"]);
        publish(&service, "a", 3);
        publish(&service, "a", 3);
        assert_eq!(ids(&all.part()), ["3"]);

        let mut end = live(&service, "after=end&topic=b&topic=c&topic=b");
        assert_eq!(end.part(), "retry: 1000\nid: 3\n\n");
        publish(&service, "a", 4);
        publish(&service, "c", 5);
        publish(&service, "b", 6);
        assert_eq!(ids(&end.part()), ["5", "6"]);
        let mut resumed = live(&service, "after=3&topic=a");
        assert_eq!(ids(&resumed.part()), ["3", "4"]);
    }

    #[test]
    fn a_silent_stream_beats_and_reads_no_rows() {
        let service = TestService::new();
        publish(&service, "a", 1);
        let mut live = live(&service, "after=end");
        live.part();
        service.statements.borrow_mut().clear();
        let began = service.slept.get();
        assert_eq!(live.part().as_bytes(), sse::HEARTBEAT);
        assert_eq!((service.slept.get() - began).as_secs(), 15);
        let polls = service.statements.borrow().len();
        assert!(polls <= 151, "{polls} polls in 15 s");
        assert!(service.statements.borrow().iter().all(|one| one.contains("max(seq)")));
    }

    #[test]
    fn what_one_reader_has_read_serves_the_others() {
        let service = TestService::new();
        publish(&service, "a", 0);
        let mut streams: Vec<TestStream> = ["", "&topic=a", "&topic=b", "&topic=b&topic=a", ""]
            .iter()
            .map(|topics| live(&service, &format!("after=end{topics}")))
            .collect();
        for stream in &mut streams {
            stream.part();
        }
        for (topic, id) in [("a", 1), ("b", 2), ("c", 3)] {
            publish(&service, topic, id);
        }
        service.advance(std::time::Duration::from_secs(1));
        service.statements.borrow_mut().clear();
        let got: Vec<String> = streams.iter_mut().map(|stream| stream.part()).collect();
        let got: Vec<Vec<&str>> = got.iter().map(|part| ids(part)).collect();
        let all = vec!["2", "3", "4"];
        assert_eq!(got, [all.clone(), vec!["2"], vec!["3"], vec!["2", "3"], all]);
        assert_eq!(service.statements.borrow().len(), 2, "a poll and a read");
    }

    #[test]
    fn a_cursor_of_another_store_is_refused() {
        let service = TestService::new();
        publish(&service, "a", 1);
        let (status, reply) = service.get("/events/stream?after=2");
        assert_eq!((status.as_u16(), reply["code"].as_str()), (409, Some("cursor_ahead")));
    }

    #[test]
    fn a_long_backlog_comes_in_parts() {
        let service = TestService::new();
        let events: Vec<String> = (0..3000)
            .map(|id| format!(r#"{{"topic":"t{}","event_id":"{id}","source":"s"}}"#, id % 3))
            .collect();
        service.publish(&format!("[{}]", events.join(",")));
        for (query, expected) in [("", 3000), ("topic=t0&topic=t2", 2000), ("topic=t1", 1000)] {
            let mut live = live(&service, query);
            let mut seen: Vec<u32> = Vec::new();
            // The first id is that of the opening.
            while seen.len() < expected + 1 {
                let part = live.part();
                assert!(ids(&part).len() <= 1001, "a part is bounded");
                seen.extend(ids(&part).iter().map(|id| id.parse::<u32>().unwrap()));
            }
            assert!(seen.is_sorted_by(|a, b| a < b));
            assert_eq!(seen.len(), expected + 1);
        }
    }
}
