//! What is stored in the end, against the file.
//!
//! Of a topic that the store knew nothing of, or that has as many events as in the file,
//! all is read back: it has to be the same sequence. Of another one the answers have told
//! already that each event is there, with this content.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::Context as _;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::exported::line;
use crate::exported::sums::{Summing, TopicSum, TopicSums, difference};
use crate::report::import::ReadBack;
use crate::ship::summary::Summary;
use crate::signal::Stop;

/// Topics that are read at a time.
const READERS: usize = 4;
/// Events of a page that is asked for.
const PAGE_EVENTS: u64 = 1_000;

/// How many events each topic had before.
pub(super) struct Before(BTreeMap<String, u64>);

/// A topic that is read back.
struct Topic {
    name: String,
    expected: TopicSum,
    /// Whether the store knew nothing of it.
    is_new: bool,
}

impl Before {
    /// Asks a service.
    ///
    /// # Errors
    ///
    /// If it does not answer.
    pub(super) async fn look(client: &Client) -> anyhow::Result<Self> {
        let stats = client.stats_of_all_topics().await.context("cannot read /stats")?;
        let of =
            |(topic, counters): (String, crate::wire::Counters)| (topic, counters.unique_processed);
        Ok(Self(stats.by_topic.into_iter().map(of).collect()))
    }

    fn events(&self, topic: &str) -> u64 {
        self.0.get(topic).copied().unwrap_or_default()
    }

    /// Reads back what is stored now, after events with these sums were sent. What is
    /// not as it should be is among the problems. It ends early at a signal.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub(super) async fn verify(
        &self,
        client: &Arc<Client>,
        sums: &TopicSums,
        stop: &Stop,
        summary: &mut Summary,
    ) -> anyhow::Result<ReadBack> {
        let began = Instant::now();
        let after = Self::look(client).await?;
        let mut topics = VecDeque::new();
        for (name, expected) in sums {
            let is_new = self.events(name) == 0;
            if is_new || after.events(name) == expected.events {
                topics.push_back(Topic { name: name.clone(), expected: expected.clone(), is_new });
            }
        }
        let others = (sums.len() - topics.len()) as u64;
        let mut read_back = ReadBack { topics: 0, same: 0, events: 0, others, seconds: 0.0 };
        let left = Arc::new(Mutex::new(topics));
        let mut readers = JoinSet::new();
        for _ in 0..READERS {
            let (client, left, stop) = (Arc::clone(client), Arc::clone(&left), stop.clone());
            readers.spawn(async move { read_topics(&client, &left, &stop).await });
        }
        while let Some(read) = readers.join_next().await {
            for (topic, found) in read.context("a reader died")?? {
                read_back.topics += 1;
                read_back.events += found.events;
                match difference(&topic.name, &topic.expected, &found) {
                    None => read_back.same += 1,
                    Some(text) if topic.is_new => summary.problem(format!("stored: {text}")),
                    // Stored earlier, by whomever.
                    Some(text) => summary.note(format!("stored: {text}, or other timestamps")),
                }
            }
        }
        read_back.seconds = began.elapsed().as_secs_f64();
        Ok(read_back)
    }
}

async fn read_topics(
    client: &Client,
    left: &Mutex<VecDeque<Topic>>,
    stop: &Stop,
) -> anyhow::Result<Vec<(Topic, TopicSum)>> {
    let pop = || left.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let mut read = Vec::new();
    while let Some(topic) = pop() {
        if stop.is_set() {
            break;
        }
        let found = read_topic(client, &topic.name).await;
        let found =
            found.with_context(|| format!("cannot read back the events of {}", topic.name))?;
        read.push((topic, found));
    }
    Ok(read)
}

async fn read_topic(client: &Client, topic: &str) -> anyhow::Result<TopicSum> {
    let mut summing = Summing::default();
    let mut cursor: Option<String> = None;
    loop {
        let page = client.events(topic, cursor.as_deref(), PAGE_EVENTS).await?;
        for event in &page.events {
            summing.add(topic, line::content(event)).map_err(anyhow::Error::msg)?;
        }
        if page.events.is_empty() || page.next.is_none() || page.next == cursor {
            let none = || TopicSum { events: 0, sha256: String::new() };
            return Ok(summing.finish().remove(topic).unwrap_or_else(none));
        }
        cursor = page.next;
    }
}
