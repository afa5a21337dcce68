//! `GET /stats/stream`: the counters as they change, as server-sent events.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use serde::Serialize;

use crate::commit;
use crate::config::Config;
use crate::http::problem::Problem;
use crate::http::reply::{Feed, Reply};
use crate::http::sse::{self, Silence};
use crate::platform::{Ports, StoreError};
use crate::routes::stats::Counts;
use crate::store::sqlite::event_log::{self, Summary};

/// Most topics in one frame: those with the most deliveries.
const TOPICS_MAX: usize = 100;

/// How long a reader waits before it looks again, in milliseconds.
const LOOK_EVERY_MS: u64 = 500;

/// How old a look of another reader may be to serve this one, in milliseconds.
const LOOK_AGE_MS_MAX: u64 = 250;

/// What an instance last saw of the counters, and when.
pub type LastSummary = RefCell<Option<(Duration, Rc<Summary>)>>;

#[derive(Serialize)]
struct Frame<'a> {
    #[serde(flatten)]
    counts: Counts,
    rejected: i64,
    topic_count: i64,
    topics: Vec<TopicCounts<'a>>,
}

#[derive(Serialize)]
struct TopicCounts<'a> {
    topic: &'a str,
    #[serde(flatten)]
    counts: Counts,
}

/// Answers one watcher.
///
/// # Errors
///
/// 503 when the store does not answer.
pub async fn stream(ports: &impl Ports, config: &Config) -> Result<Reply, Problem> {
    look(ports, config)
        .await
        .map_err(|error| Problem::store(&error, config.retry_after_seconds))?;
    Ok(sse::reply(Feed::Stats(LiveStats { shown: None, silence: None })))
}

/// The counters as of at most [`LOOK_AGE_MS_MAX`] ago.
async fn look(ports: &impl Ports, config: &Config) -> Result<Rc<Summary>, StoreError> {
    let now = ports.monotonic();
    if let Some((at, summary)) = ports.instance().summary.borrow().as_ref()
        && now.saturating_sub(*at) <= Duration::from_millis(LOOK_AGE_MS_MAX)
    {
        return Ok(Rc::clone(summary));
    }
    let summary = commit::patiently(ports, config.commit_wait_max, async || {
        event_log::summary(ports, TOPICS_MAX).await
    });
    let summary = Rc::new(summary.await?);
    ports.instance().summary.replace(Some((now, Rc::clone(&summary))));
    Ok(summary)
}

/// Counters for one watcher.
pub struct LiveStats {
    /// What it was told last.
    shown: Option<Rc<Summary>>,
    /// `None` before the stream was opened.
    silence: Option<Silence>,
}

impl LiveStats {
    /// The next part: one frame. Waits until a counter has changed.
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
                let mut part = sse::opening(None);
                part.extend(self.changed(ports, config).await?.unwrap_or_default());
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
            ports.sleep(Duration::from_millis(LOOK_EVERY_MS)).await;
            if let Some(frame) = self.changed(ports, config).await? {
                return Ok(frame);
            }
            if silence.is_over(ports.monotonic()) {
                return Ok(sse::HEARTBEAT.to_vec());
            }
        }
    }

    /// The counters as a frame, if they are others than those shown.
    async fn changed(
        &mut self,
        ports: &impl Ports,
        config: &Config,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let summary = look(ports, config).await?;
        if self.shown.as_ref() == Some(&summary) {
            return Ok(None);
        }
        let frame = Frame {
            counts: Counts::of(&summary.all),
            rejected: summary.rejected,
            topic_count: summary.topic_count,
            topics: summary
                .topics
                .iter()
                .map(|topic| TopicCounts { topic: &topic.topic, counts: Counts::of(topic) })
                .collect(),
        };
        let mut text = Vec::new();
        sse::frame(&mut text, None, |text| serde_json::to_writer(text, &frame))
            .map_err(|error| StoreError::unavailable(error.to_string()))?;
        self.shown = Some(summary);
        Ok(Some(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::fake::{Desk, config, now};

    #[test]
    fn tells_what_changed_and_beats_when_nothing_does() {
        let desk = Desk::new();
        let reply = now(stream(&desk, &config())).unwrap();
        let crate::http::reply::Body::Feed(Feed::Stats(mut live)) = reply.body else {
            panic!("no stream");
        };
        let mut part = || String::from_utf8(now(live.next(&desk, &config())).unwrap()).unwrap();
        let empty = part();
        let zeros = r#""received":0,"unique_processed":0,"duplicate_dropped":0,"conflicts":0"#;
        let expected = format!(
            "retry: 1000\n\ndata: {{{zeros},\"rejected\":0,\"topic_count\":0,\"topics\":[]}}\n\n"
        );
        assert_eq!(empty, expected);
        assert_eq!(part().as_bytes(), sse::HEARTBEAT);
        for (topic, id) in [("a", 1), ("b", 1), ("b", 1), ("b", 2)] {
            desk.publish(&format!(r#"{{"topic":"{topic}","event_id":"{id}","source":"s"}}"#));
        }
        let text = part();
        let data = text.trim().strip_prefix("data: ").unwrap();
        let frame: serde_json::Value = serde_json::from_str(data).unwrap();
        assert_eq!((&frame["received"], &frame["topic_count"]), (&4.into(), &2.into()));
        assert_eq!(frame["topics"][0]["topic"], "b");
        assert_eq!(frame["topics"][0]["duplicate_dropped"], 1);
        assert_eq!(frame["topics"][1]["received"], 1);
    }
}
