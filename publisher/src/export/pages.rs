//! The events of a service in their order, from pages.
//!
//! A page is of one topic or of all, so of several topics each has pages of its own,
//! whose events are merged. While the events of a page are taken, the next is on its
//! way; a page that does not come is asked for again, from the same cursor.

use std::collections::VecDeque;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use tokio::task::JoinHandle;

use crate::client::{Client, Failure};
use crate::exported::manifest::Selection;
use crate::wire::{Page, StoredEvent};

/// Events of a page that is asked for.
const PAGE_EVENTS: u64 = 1_000;

/// The events that are selected, up to an end.
pub(super) struct Pages {
    rows: Vec<Row>,
}

impl Pages {
    /// Those of a selection up to this `seq`.
    pub(super) fn new(client: Arc<Client>, selection: &Selection, end: u64) -> Self {
        let topics = match &selection.only_topics[..] {
            [] => vec![None],
            some => some.iter().cloned().map(Some).collect(),
        };
        let row = |topic: Option<String>| {
            let mut query = vec![("limit", PAGE_EVENTS.to_string())];
            query.extend(topic.map(|topic| ("topic", topic)));
            query.extend(selection.since.clone().map(|since| ("since", since)));
            query.extend(selection.until.clone().map(|until| ("until", until)));
            Row {
                client: Arc::clone(&client),
                query,
                cursor: selection.after.clone(),
                end,
                ready: VecDeque::new(),
                under_way: None,
                last_seq: None,
                is_over: end == 0,
            }
        };
        Self { rows: topics.into_iter().map(row).collect() }
    }

    /// The next event.
    ///
    /// # Errors
    ///
    /// If a page cannot be read, or is none of the contract.
    pub(super) async fn next(&mut self) -> anyhow::Result<Option<StoredEvent>> {
        for row in &mut self.rows {
            row.fill().await?;
        }
        let rows = self.rows.iter_mut().filter(|row| !row.ready.is_empty());
        let first = rows.min_by_key(|row| row.ready.front().map(|event| event.seq));
        Ok(first.and_then(|row| row.ready.pop_front()))
    }
}

/// The events of one topic, or of all.
struct Row {
    client: Arc<Client>,
    query: Vec<(&'static str, String)>,
    cursor: Option<String>,
    end: u64,
    ready: VecDeque<StoredEvent>,
    under_way: Option<JoinHandle<Result<Page, Failure>>>,
    last_seq: Option<u64>,
    is_over: bool,
}

impl Row {
    /// Reads until an event is ready, or there are no more.
    async fn fill(&mut self) -> anyhow::Result<()> {
        while self.ready.is_empty() && !self.is_over {
            let asked = self.under_way.take().unwrap_or_else(|| self.ask());
            let page = asked.await.context("a reader died")?.context("cannot read /events")?;
            self.take(page)?;
            if !self.is_over {
                self.under_way = Some(self.ask());
            }
        }
        Ok(())
    }

    /// Asks for the page after the cursor.
    fn ask(&self) -> JoinHandle<Result<Page, Failure>> {
        let (client, mut query) = (Arc::clone(&self.client), self.query.clone());
        query.extend(self.cursor.clone().map(|cursor| ("after", cursor)));
        tokio::spawn(async move {
            let query: Vec<_> = query.iter().map(|(name, value)| (*name, &**value)).collect();
            client.page(&query).await
        })
    }

    fn take(&mut self, page: Page) -> anyhow::Result<()> {
        // Only an empty page is the end.
        self.is_over = page.events.is_empty() || page.next.is_none();
        self.cursor = page.next;
        for event in page.events {
            let seq = event.seq;
            if self.last_seq.is_some_and(|last| seq <= last) {
                bail!("event {:?}, seq {seq}, comes after a later one", event.event_id);
            }
            self.last_seq = Some(seq);
            self.is_over |= seq >= self.end;
            if seq <= self.end {
                self.ready.push_back(event);
            }
        }
        Ok(())
    }
}
