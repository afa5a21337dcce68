//! Reads back what is stored and shows it to the [auditor](crate::auditor).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use tokio::task::JoinSet;

use crate::auditor::Auditor;
use crate::client::Client;

/// Topics that are read at a time.
const READERS: usize = 4;
/// Events of a page that is asked for.
const PAGE_EVENTS: u64 = 1_000;

/// What the readers share.
struct Shared {
    client: Arc<Client>,
    auditor: Mutex<Auditor>,
    topics: Mutex<VecDeque<String>>,
}

/// Reads every event of the run's topics, in pages.
///
/// # Errors
///
/// If a page cannot be read.
pub async fn read_back(client: &Arc<Client>, auditor: Auditor) -> anyhow::Result<Auditor> {
    let topics = auditor.plan().topics();
    let shared = Arc::new(Shared {
        client: Arc::clone(client),
        auditor: Mutex::new(auditor),
        topics: Mutex::new(topics.into()),
    });
    let mut readers = JoinSet::new();
    for _ in 0..READERS {
        let shared = Arc::clone(&shared);
        readers.spawn(async move {
            while let Some(topic) = pop(&shared.topics) {
                let read = read_topic(&shared, &topic).await;
                read.with_context(|| format!("cannot read back the events of {topic}"))?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(reader) = readers.join_next().await {
        reader.context("a reader died")??;
    }
    let shared = Arc::into_inner(shared).context("a reader is still at work")?;
    Ok(shared.auditor.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn pop(topics: &Mutex<VecDeque<String>>) -> Option<String> {
    topics.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
}

async fn read_topic(shared: &Shared, topic: &str) -> anyhow::Result<()> {
    let mut cursor: Option<String> = None;
    let mut last_seq = None;
    loop {
        let page = shared.client.events(topic, cursor.as_deref(), PAGE_EVENTS).await?;
        let mut auditor = shared.auditor.lock().unwrap_or_else(PoisonError::into_inner);
        for event in &page.events {
            if event.topic != topic {
                let (id, other) = (&event.event_id, &event.topic);
                auditor.violation(format!("a page of {topic} holds event {id} of topic {other}"));
            }
            if last_seq.is_some_and(|last| event.seq <= last) {
                let (id, seq) = (&event.event_id, event.seq);
                auditor.violation(format!("event {id}, seq {seq}, comes after a later one"));
                // What goes round in circles has no end.
                return Ok(());
            }
            last_seq = Some(event.seq);
            auditor.stored(topic, event);
        }
        if page.events.is_empty() || page.next.is_none() {
            return Ok(());
        }
        cursor = page.next;
    }
}
