//! `GET /stats/stream`: the counters as they change, as server-sent events.

use std::rc::Rc;
use std::time::Duration;

use serde::Serialize;

use super::stats::CountersJson;
use crate::app::App;
use crate::http::problem::Problem;
use crate::http::reply::{Parts, Reply};
use crate::http::request::Request;
use crate::http::sse::{self, HeartbeatTimer};
use crate::store::{StoreError, Summary};

/// Most topics in one frame: those with the most deliveries.
pub(super) const TOPICS_MAX: usize = 100;

/// How long a reader waits before it polls again, in milliseconds.
pub(super) const POLL_INTERVAL_MS: u64 = 500;

/// How old a poll of another reader may be to serve this one, in milliseconds.
const POLL_AGE_MS_MAX: u64 = 250;

/// The data of one frame.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct LiveStatsJson<'a> {
    #[serde(flatten)]
    counters: CountersJson,
    rejected: i64,
    topic_count: i64,
    topics: Vec<TopicCountersJson<'a>>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct TopicCountersJson<'a> {
    topic: &'a str,
    #[serde(flatten)]
    counters: CountersJson,
}

/// Answers one reader.
///
/// # Errors
///
/// 503 when the store does not answer.
pub(super) async fn stream(app: &Rc<App>, request: &Request<'_>) -> Result<Reply, Problem> {
    poll(app).await.map_err(|error| app.unavailable(&error))?;
    let counters = LiveStats { app: Rc::clone(app), shown: None, heartbeat: None };
    Ok(sse::reply(counters.into_stream(), request.caller.end(&app.platform)))
}

/// The counters as of at most [`POLL_AGE_MS_MAX`] ago.
async fn poll(app: &App) -> Result<Rc<Summary>, StoreError> {
    let now = app.platform.monotonic();
    if let Some(summary) = app.summary.get(now, Duration::from_millis(POLL_AGE_MS_MAX)) {
        return Ok(summary);
    }
    let summary = Rc::new(app.store.ask(async |store| store.summary(TOPICS_MAX).await).await?);
    app.summary.set(now, Rc::clone(&summary));
    Ok(summary)
}

/// Counters for one reader.
struct LiveStats {
    app: Rc<App>,
    /// What it was told last.
    shown: Option<Rc<Summary>>,
    /// `None` before the stream was opened.
    heartbeat: Option<HeartbeatTimer>,
}

impl LiveStats {
    async fn wait(&mut self, heartbeat: HeartbeatTimer) -> Result<Vec<u8>, StoreError> {
        loop {
            self.app.platform.sleep(Duration::from_millis(POLL_INTERVAL_MS)).await;
            if let Some(frame) = self.changed().await? {
                return Ok(frame);
            }
            if heartbeat.is_due(self.app.platform.monotonic()) {
                return Ok(sse::HEARTBEAT.to_vec());
            }
        }
    }

    /// The counters as a frame, if they are others than those shown.
    async fn changed(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        let summary = poll(&self.app).await?;
        if self.shown.as_ref() == Some(&summary) {
            return Ok(None);
        }
        let topics = summary.topics.iter().map(|one| TopicCountersJson {
            topic: &one.topic,
            counters: CountersJson::of(&one.counters),
        });
        let data = serde_json::to_vec(&LiveStatsJson {
            counters: CountersJson::of(&summary.all),
            rejected: summary.rejected,
            topic_count: summary.topic_count,
            topics: topics.collect(),
        })
        .map_err(StoreError::unexpected)?;
        let mut frame = Vec::new();
        sse::frame(&mut frame, None, |text| text.extend(data));
        self.shown = Some(summary);
        Ok(Some(frame))
    }
}

impl Parts for LiveStats {
    /// One frame. Waits until a counter has changed.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        let part = match self.heartbeat {
            None => {
                let mut part = sse::opening(None);
                part.extend(self.changed().await?.unwrap_or_default());
                part
            }
            Some(heartbeat) => self.wait(heartbeat).await?,
        };
        self.heartbeat = Some(HeartbeatTimer::since(self.app.platform.monotonic()));
        Ok(Some(part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestService;

    #[test]
    fn tells_what_changed_and_beats_when_nothing_does() {
        let service = TestService::new();
        let mut live = service.stream("/stats/stream");
        let mut part = || live.part();
        let empty = part();
        let zeros =
            r#""received":0,"unique_processed":0,"duplicate_dropped":0,"conflicts":0,"pruned":0"#;
        let expected = format!(
            "retry: 1000\n\ndata: {{{zeros},\"rejected\":0,\"topic_count\":0,\"topics\":[]}}\n\n"
        );
        assert_eq!(empty, expected);
        assert_eq!(part().as_bytes(), sse::HEARTBEAT);
        for (topic, id) in [("a", 1), ("b", 1), ("b", 1), ("b", 2)] {
            service.publish(&format!(r#"{{"topic":"{topic}","event_id":"{id}","source":"s"}}"#));
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
