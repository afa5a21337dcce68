//! `GET /health`: would a publish succeed? `GET /healthz`: the same, told cheaply.

use std::rc::Rc;
use std::time::Duration;

use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::app::App;
use crate::config::Engine;
use crate::http::problem::Problem;
use crate::http::reply::Reply;
use crate::http::request::Request;
use crate::log::{Level, Line};
use crate::store::{Fault, StoreError};
use crate::time;

/// How long a check waits for a busy store.
const WAIT_MAX: Duration = Duration::from_millis(1_000);

/// How old the last commit of a check may be, in milliseconds.
const WRITTEN_MS_MAX: i64 = 10_000;

/// How long a commit that failed, other than for a busy store, tells more than one of
/// a check that succeeds: the latter is smaller.
const FAILURE_KEPT: Duration = Duration::from_secs(10);

/// The mark of the last commit of a check.
const WRITTEN_AT: &str = "health/written_at";

/// Whether the service does all that it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
enum Status {
    Healthy,
    Unhealthy,
}

/// What a store said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
enum Answer {
    Ok,
    Busy,
    Full,
    Unavailable,
}

impl Answer {
    fn of(answer: &Result<(), StoreError>) -> Self {
        match answer.as_ref().map_err(|error| error.fault) {
            Ok(()) => Answer::Ok,
            Err(Fault::Busy) => Answer::Busy,
            Err(Fault::Full) => Answer::Full,
            Err(Fault::Unavailable | Fault::Indeterminate) => Answer::Unavailable,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Answer::Ok => "ok",
            Answer::Busy => "busy",
            Answer::Full => "full",
            Answer::Unavailable => "unavailable",
        }
    }
}

/// The reply of `GET /health`.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct HealthJson<'a> {
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    queue_size: usize,
    timestamp: String,
    access: AccessTold,
    stores: StoresJson<'a>,
}

/// Who may call the service.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
enum AccessTold {
    /// Everybody.
    Open,
    /// Whoever has a key.
    Keys,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct StoresJson<'a> {
    /// The store of events, by the name of its engine: there is one of the two.
    #[serde(skip_serializing_if = "Option::is_none")]
    sqlite: Option<&'a Check>,
    #[serde(skip_serializing_if = "Option::is_none")]
    postgres: Option<&'a Check>,
    key_value: &'a Check,
}

impl<'a> StoresJson<'a> {
    fn of(engine: &Engine, events: &'a Check, key_value: &'a Check) -> Self {
        let (sqlite, postgres) = match engine {
            Engine::Sqlite => (Some(events), None),
            Engine::Postgres { .. } => (None, Some(events)),
        };
        StoresJson { sqlite, postgres, key_value }
    }
}

/// The reply of `GET /healthz`.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct HealthzJson {
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// What was asked of one store, and what it said.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Check {
    status: Answer,
    checked: &'static str,
    took_ms: f64,
}

impl Check {
    /// Waits for `answer`, and logs the reason when there is none.
    async fn of(
        app: &App,
        checked: &'static str,
        answer: impl Future<Output = Result<(), StoreError>>,
    ) -> Self {
        let began = app.platform.monotonic();
        let answer = answer.await;
        let took = app.platform.monotonic() - began;
        if let Err(error) = &answer {
            let message = "health check: a store does not answer";
            let line =
                Line { detail: Some(checked), cause: Some(&error.message), ..Line::new(message) };
            app.log(Level::Error, line);
        }
        Check { status: Answer::of(&answer), checked, took_ms: took.as_micros() as f64 / 1000.0 }
    }
}

/// Whether a publish would be committed. Once in [`WRITTEN_MS_MAX`], and whenever the
/// last commit failed, that is a commit: nothing else tells that the disk is full.
async fn can_commit(app: &App) -> Result<(), StoreError> {
    let store = app.store.within(WAIT_MAX);
    store.ask(async |store| store.try_commit().await).await?;
    let failure = app.commits.failure();
    if let Some((ago, error)) = &failure
        && !error.is_busy()
        && *ago < FAILURE_KEPT
    {
        return Err(error.clone());
    }
    let now = app.platform.now();
    let written_at = store.ask(async |store| store.marks().await).await?.at(WRITTEN_AT);
    let is_recent = (now - WRITTEN_MS_MAX..=now).contains(&written_at);
    if !is_recent || failure.is_some() {
        let marks = [(WRITTEN_AT, now)];
        store.ask(async |store| store.set_marks(&marks).await).await?;
        app.commits.forget_failure();
    }
    Ok(())
}

/// What the stores said.
struct Checked {
    store: Check,
    key_value: Check,
}

impl Checked {
    /// Tries all that a publish needs.
    async fn whole(app: &App) -> Self {
        Checked {
            store: Check::of(app, "a commit of events can be made", can_commit(app)).await,
            key_value: Self::key_value(app).await,
        }
    }

    /// Reads, and remembers.
    async fn quick(app: &App) -> Self {
        Checked { store: Self::quick_store(app).await, key_value: Self::key_value(app).await }
    }

    async fn quick_store(app: &App) -> Check {
        let store = async {
            app.store.within(WAIT_MAX).ask(async |store| store.probe().await).await?;
            app.commits.failure().map_or(Ok(()), |(_, error)| Err(error))
        };
        Check::of(app, "a row can be read, and the last commit did not fail", store).await
    }

    async fn key_value(app: &App) -> Check {
        let checked = "the last call succeeded, and none takes longer than 3000 ms";
        Check::of(app, checked, app.check_key_value()).await
    }

    /// Why the service is not healthy, if it is not.
    fn reason(&self) -> Option<String> {
        match (self.store.status, self.key_value.status) {
            (Answer::Ok, Answer::Ok) => None,
            (Answer::Ok, key_value) => Some(format!(
                "The key-value store is {}: publishing works, \
                 but the history of the counters is not kept.",
                key_value.as_str()
            )),
            (store, Answer::Ok) => {
                Some(format!("The SQL store is {}: publishing does not work.", store.as_str()))
            }
            (store, key_value) => Some(format!(
                "The SQL store is {} and the key-value store is {}: \
                 publishing does not work.",
                store.as_str(),
                key_value.as_str()
            )),
        }
    }

    fn reply(&self, app: &App, body: &impl Serialize) -> Reply {
        if self.store.status == Answer::Ok && self.key_value.status == Answer::Ok {
            return Reply::json(StatusCode::OK, body);
        }
        let retry_after = HeaderValue::from(app.config.retry_after_seconds);
        Reply::json(StatusCode::SERVICE_UNAVAILABLE, body)
            .with_header(header::RETRY_AFTER, retry_after)
    }
}

/// Answers `GET /health`, 503 with the reason when a store does not answer.
///
/// # Errors
///
/// None: what is wrong is in the reply.
pub(super) async fn health(app: &Rc<App>, _: &Request<'_>) -> Result<Reply, Problem> {
    let checked = Checked::whole(app).await;
    let reason = checked.reason();
    let body = HealthJson {
        status: if reason.is_none() { Status::Healthy } else { Status::Unhealthy },
        reason,
        queue_size: app.commits.depth(),
        timestamp: time::rfc3339(app.platform.now()),
        access: match app.config.keys.is_empty() {
            true => AccessTold::Open,
            false => AccessTold::Keys,
        },
        stores: StoresJson::of(&app.config.engine, &checked.store, &checked.key_value),
    };
    Ok(checked.reply(app, &body))
}

/// Answers `GET /healthz`, the same for machines, by a read and what this instance
/// remembers of its last commit.
///
/// # Errors
///
/// None: what is wrong is in the reply.
pub(super) async fn healthz(app: &Rc<App>, _: &Request<'_>) -> Result<Reply, Problem> {
    let checked = Checked::quick(app).await;
    let reason = checked.reason();
    Ok(checked.reply(app, &HealthzJson { ok: reason.is_none(), reason }))
}

/// Whether a publish would succeed, as `GET /healthz` has it of the store of events.
pub(super) async fn takes_events(app: &App) -> bool {
    Checked::quick_store(app).await.status == Answer::Ok
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use crate::platform::fake::{busy, unavailable};
    use crate::platform::sqlite::SqliteError;
    use crate::testing::TestService;

    fn publish(service: &TestService, id: &str) -> u16 {
        let event = json!({"topic": "t", "event_id": id, "source": "s"});
        service.publish(&event.to_string()).0.as_u16()
    }

    fn status(service: &TestService, path: &str) -> u16 {
        service.get(path).0.as_u16()
    }

    #[test]
    fn a_check_stores_nothing_and_writes_seldom() {
        let service = TestService::new();
        for stored in [0, 1] {
            assert_eq!(status(&service, "/health"), 200, "{:?}", service.get("/health"));
            let write =
                |statement: &String| statement.contains("INSERT") && statement.contains("'mark/'");
            service.statements.borrow_mut().clear();
            assert_eq!(status(&service, "/health"), 200);
            assert_eq!(status(&service, "/healthz"), 200);
            assert!(!service.statements.borrow().iter().any(write));
            let (_, events) = service.get("/events");
            assert_eq!(events["count"], stored);
            let (_, stats) = service.get("/stats");
            assert_eq!((&stats["received"], &stats["rejected"]), (&stored.into(), &0.into()));
            publish(&service, "1");
        }
    }

    #[test]
    fn a_commit_that_failed_is_remembered_until_one_succeeds() {
        for (fault, word) in [(unavailable(), "unavailable"), (SqliteError::Full, "full")] {
            let service = TestService::new();
            assert_eq!(publish(&service, "1"), 200);
            service.faults.replace(vec![fault]);
            assert_eq!(publish(&service, "2"), 503);
            for _ in 0..2 {
                let (status, health) = service.get("/health");
                let sqlite = &health["stores"]["sqlite"]["status"];
                assert_eq!((status.as_u16(), sqlite), (503, &json!(word)));
                let reason = health["reason"].as_str().unwrap();
                assert!(reason.contains("publishing does not work"), "{reason}");
            }
            assert_eq!(status(&service, "/healthz"), 503);
            assert_eq!(publish(&service, "2"), 200);
            assert_eq!(status(&service, "/health"), 200);
            assert_eq!(status(&service, "/healthz"), 200);

            // Also when nobody publishes any more.
            service.faults.replace(vec![unavailable()]);
            assert_eq!(publish(&service, "3"), 503);
            service.advance(Duration::from_secs(10));
            assert_eq!(status(&service, "/health"), 200);
            assert_eq!(status(&service, "/healthz"), 200);
        }
    }

    #[test]
    fn a_busy_store_is_waited_for_for_a_second() {
        let service = TestService::new();
        assert_eq!(publish(&service, "1"), 200);
        let began = service.slept.get();
        service.faults.replace(vec![busy(); 100_000]);
        let (status, health) = service.get("/health");
        service.faults.replace(Vec::new());
        assert_eq!((status.as_u16(), &health["stores"]["sqlite"]["status"]), (503, &json!("busy")));
        assert!(service.slept.get() - began < Duration::from_secs(10));
        assert_eq!(service.get("/health").0, 200);
    }

    #[test]
    fn what_a_commit_cannot_change_shows() {
        for damage in [
            "DROP TRIGGER take_delivery",
            "DROP TRIGGER take_group",
            "DROP TABLE event_log",
            "PRAGMA query_only = 1",
            "CREATE TRIGGER full BEFORE INSERT ON event_log BEGIN SELECT RAISE(ABORT, 'no'); END",
        ] {
            let service = TestService::new();
            assert_eq!(publish(&service, "1"), 200);
            assert_eq!(status(&service, "/health"), 200);
            service.connection.execute_batch(damage).unwrap();
            assert_eq!(status(&service, "/health"), 503, "{damage}");
            assert_eq!(publish(&service, "2"), 503, "{damage}");
        }
    }
}
