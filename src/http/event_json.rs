//! A stored event as clients see it.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::http::problem::Problem;
use crate::platform::StoreError;
use crate::store::sqlite::event_log::StoredEvent;
use crate::time;

/// An event in a reply.
#[derive(Serialize)]
pub struct EventView<'a> {
    seq: i64,
    topic: &'a str,
    event_id: &'a str,
    timestamp: &'a str,
    source: &'a str,
    payload: &'a RawValue,
    received_at: &'a str,
}

/// What an event's view borrows from.
pub struct Shown<'a> {
    event: &'a StoredEvent,
    received_at: String,
}

impl<'a> Shown<'a> {
    /// Makes ready what `event` itself does not hold.
    pub fn of(event: &'a StoredEvent) -> Self {
        Shown { event, received_at: time::rfc3339(event.received_at) }
    }

    fn view(&self) -> Result<EventView<'_>, String> {
        let event = self.event;
        let payload = serde_json::from_str(&event.payload)
            .map_err(|error| format!("the payload of event {} is not JSON: {error}", event.seq))?;
        Ok(EventView {
            seq: event.seq,
            topic: &event.topic,
            event_id: &event.event_id,
            timestamp: event.timestamp.as_deref().unwrap_or(&self.received_at),
            source: &event.source,
            payload,
            received_at: &self.received_at,
        })
    }
}

/// The views of a page.
///
/// # Errors
///
/// 500 when the store holds what never went in.
pub fn all<'a>(shown: &'a [Shown<'_>]) -> Result<Vec<EventView<'a>>, Problem> {
    shown.iter().map(|shown| shown.view().map_err(Problem::internal)).collect()
}

/// Adds the view of one event to `text`: JSON on one line, with no line end.
///
/// # Errors
///
/// When the store holds what never went in.
pub fn write(event: &StoredEvent, text: &mut Vec<u8>) -> Result<(), StoreError> {
    let shown = Shown::of(event);
    let view = shown.view().map_err(StoreError::unavailable)?;
    serde_json::to_writer(text, &view).map_err(|error| StoreError::unavailable(error.to_string()))
}
