//! Subscriptions, and pages of events.

use libtest_mimic::Failed;
use serde_json::{Value, json};

use super::{Client, Reply, check, check_eq, unique_topic};

/// A subscription as its consumers use it.
pub struct Subscription {
    pub client: Client,
    pub name: String,
}

impl Subscription {
    /// Defines a new one.
    pub fn define(client: &Client, topics: &[&str], start: &str) -> Result<Self, Failed> {
        let subscription =
            Subscription { client: client.clone(), name: unique_topic("subscription") };
        let reply = subscription.put(&json!({"topics": topics, "start": start}))?.expect(201)?;
        check_eq(topics_of(&reply.json()?), topics.to_vec(), "topics as they were given")?;
        Ok(subscription)
    }

    pub fn send(&self, method: &str, below: &str, body: &str) -> Result<Reply, Failed> {
        let path = format!("/subscriptions/{}{below}", self.name);
        Ok(self.client.send(method, &path, &[], body.as_bytes())?)
    }

    pub fn put(&self, definition: &Value) -> Result<Reply, Failed> {
        self.send("PUT", "", &definition.to_string())
    }

    pub fn show(&self) -> Result<Value, Failed> {
        self.send("GET", "", "")?.expect(200)?.json()
    }

    /// The next page, whose events are in order and go up to `next`.
    pub fn read(&self, query: &str) -> Result<Page, Failed> {
        let reply = self.send("GET", &format!("/events?{query}"), "")?.expect(200)?;
        Page::of(&reply.json()?).map_err(|failed| {
            format!("{} in {reply:#?}", failed.message().unwrap_or_default()).into()
        })
    }

    /// The position after this acknowledgement.
    pub fn acknowledge(&self, cursor: i64) -> Result<i64, Failed> {
        // Both ways to write it are understood.
        let cursor = if cursor % 2 == 0 { json!(cursor) } else { json!(cursor.to_string()) };
        let body = json!({ "cursor": cursor }).to_string();
        position(&self.send("POST", "/ack", &body)?.expect(200)?.json()?)
    }

    pub fn delete(self) -> Result<Value, Failed> {
        self.send("DELETE", "", "")?.expect(200)?.json()
    }
}

/// The position in a reply that shows a subscription.
pub fn position(shown: &Value) -> Result<i64, Failed> {
    cursor(&shown["cursor"])
}

/// A cursor, which is text that consumers give back as it is.
fn cursor(text: &Value) -> Result<i64, Failed> {
    let seq = text.as_str().and_then(|text| text.parse().ok());
    seq.ok_or_else(|| format!("{text} is no cursor").into())
}

pub fn topics_of(shown: &Value) -> Vec<&str> {
    shown["topics"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// A page of events, in order and up to its `next`.
#[derive(Debug, PartialEq)]
pub struct Page {
    pub events: Vec<Value>,
    pub next: i64,
}

impl Page {
    pub fn of(page: &Value) -> Result<Self, Failed> {
        let events = page["events"].as_array().ok_or("no events")?.clone();
        let next = cursor(&page["next"])?;
        check_eq(page["count"].as_u64(), Some(events.len() as u64), "count")?;
        let page = Page { events, next };
        let seqs: Vec<i64> = page.events.iter().filter_map(|event| event["seq"].as_i64()).collect();
        let in_order = seqs.is_sorted_by(|one, next| one < next);
        check(in_order && seqs.last().is_none_or(|last| *last == page.next), || {
            format!("seqs {seqs:?} before {next}")
        })?;
        Ok(page)
    }

    pub fn ids(&self) -> impl Iterator<Item = String> {
        let ids = self.events.iter().filter_map(|event| event["event_id"].as_str());
        ids.map(str::to_owned)
    }

    /// All events come after `position`.
    pub fn is_after(&self, position: i64) -> bool {
        self.next >= position
            && self.events.first().is_none_or(|first| first["seq"].as_i64() > Some(position))
    }
}
