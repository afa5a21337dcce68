//! `GET /events`.

use serde_json::{Value, json};

use super::{Lie, Reply, State, problem, reply};

/// The most events of a page that may be asked for.
pub(super) const LIMIT_MAX: usize = 1_000;
/// The events of a page if nothing is asked for.
const LIMIT_DEFAULT: usize = 100;

/// The value of a parameter; none of the tests' has to be decoded.
fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
}

impl State {
    /// A page of `GET /events`.
    pub(super) fn events(&mut self, query: &str) -> Reply {
        let topic = parameter(query, "topic");
        let limit = parameter(query, "limit").map_or(Ok(LIMIT_DEFAULT), str::parse);
        let after = parameter(query, "after").map(str::parse::<u64>).transpose();
        let (Ok(limit @ 1..=LIMIT_MAX), Ok(after)) = (limit, after) else {
            return problem(422, "limit or after is no such number");
        };
        let from = if self.lie == Lie::RepeatsFirstPage { None } else { after };
        let of_topic = self.stored.iter().filter(|event| topic.is_none_or(|t| t == event.topic));
        let mut rest = of_topic.filter(|event| from.is_none_or(|from| event.seq > from)).peekable();
        if self.lie == Lie::SkipsAtPageBorder && after.is_some() && rest.peek().is_some() {
            self.lie = Lie::None;
            self.victim = rest.next().map(|event| event.event_id.clone());
        }
        let mut page: Vec<_> = rest.collect();
        if parameter(query, "order") == Some("desc") {
            page.reverse();
        }
        page.truncate(limit.min(self.page_events_max));
        let next = page.last().map_or(after.unwrap_or(0), |event| event.seq);
        let time = "2026-01-01T00:00:00.000Z";
        let events: Vec<_> = page
            .iter()
            .map(|event| {
                let timestamp = event.timestamp.as_deref().unwrap_or(time);
                let mut shown = json!({"seq": event.seq, "topic": event.topic,
                    "event_id": event.event_id, "timestamp": timestamp, "source": event.source,
                    "payload": event.payload, "received_at": time});
                if self.unreadable.contains(&event.seq) {
                    shown["payload"] = Value::Null;
                    shown["error"] = "the stored payload is not JSON".into();
                }
                shown
            })
            .collect();
        let count = events.len();
        let next = next.to_string();
        reply(200, &json!({"topic": topic, "count": count, "events": events, "next": next}))
    }
}
