//! `GET /health` and `GET /healthz`: do the stores answer?

use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::commit;
use crate::config::Config;
use crate::http::reply::Reply;
use crate::log::{self, Level, Line};
use crate::platform::{Fault, Ports, StoreError};
use crate::routes::stats::STARTED_AT;
use crate::store::sqlite::event_log;
use crate::time;

#[derive(Serialize)]
struct Health<'a> {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    queue_size: usize,
    timestamp: String,
    stores: Stores<'a>,
}

#[derive(Serialize)]
struct Stores<'a> {
    sqlite: &'a Check,
    key_value: &'a Check,
}

#[derive(Serialize)]
struct Healthz {
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// What one store said.
#[derive(Serialize)]
struct Check {
    status: &'static str,
    checked: &'static str,
    took_ms: f64,
}

impl Check {
    /// Waits for `answer`, and logs the reason when there is none.
    async fn of(
        ports: &impl Ports,
        config: &Config,
        checked: &'static str,
        answer: impl Future<Output = Result<(), StoreError>>,
    ) -> Self {
        let began = ports.monotonic();
        let answer = answer.await;
        let took = ports.monotonic() - began;
        if let Err(error) = &answer {
            let message = "health check: a store does not answer";
            let line =
                Line { detail: Some(checked), cause: Some(&error.message), ..Line::new(message) };
            log::write(config.log_level, Level::Error, ports.now(), line);
        }
        Check { status: word(&answer), checked, took_ms: took.as_micros() as f64 / 1000.0 }
    }

    fn is_ok(&self) -> bool {
        self.status == "ok"
    }
}

/// What the stores said.
struct Checked {
    sqlite: Check,
    key_value: Check,
}

impl Checked {
    async fn now(ports: &impl Ports, config: &Config) -> Self {
        let probe = async || event_log::probe(ports).await;
        let probe = commit::patiently(ports, config.commit_wait_max, probe);
        let sqlite = "the schema is there and a row of it can be read";
        let key_value = "the time of first start can be read";
        Checked {
            sqlite: Check::of(ports, config, sqlite, probe).await,
            key_value: Check::of(ports, config, key_value, async {
                ports.get(STARTED_AT).await.map(drop)
            })
            .await,
        }
    }

    /// Why the service is not healthy, if it is not.
    fn reason(&self) -> Option<String> {
        match (self.sqlite.status, self.key_value.status) {
            ("ok", "ok") => None,
            ("ok", key_value) => Some(format!(
                "The key-value store is {key_value}: publishing works, \
                 but the history of the counters is not kept."
            )),
            (sqlite, "ok") => Some(format!("The SQL store is {sqlite}: publishing does not work.")),
            (sqlite, key_value) => Some(format!(
                "The SQL store is {sqlite} and the key-value store is {key_value}: \
                 publishing does not work."
            )),
        }
    }

    fn reply(&self, config: &Config, body: &impl Serialize) -> Reply {
        if self.sqlite.is_ok() && self.key_value.is_ok() {
            return Reply::json(StatusCode::OK, body);
        }
        Reply::json(StatusCode::SERVICE_UNAVAILABLE, body)
            .with_header(header::RETRY_AFTER, HeaderValue::from(config.retry_after_seconds))
    }
}

fn word(checked: &Result<(), StoreError>) -> &'static str {
    match checked.as_ref().map_err(|error| error.fault) {
        Ok(()) => "ok",
        Err(Fault::Busy) => "busy",
        Err(Fault::Full) => "full",
        Err(Fault::Unavailable) => "unavailable",
    }
}

/// Answers `GET /health`, 503 with the reason when a store does not answer.
pub async fn health(ports: &impl Ports, config: &Config) -> Reply {
    let checked = Checked::now(ports, config).await;
    let reason = checked.reason();
    let body = Health {
        status: if reason.is_none() { "healthy" } else { "unhealthy" },
        reason,
        queue_size: ports.instance().group.depth(),
        timestamp: time::rfc3339(ports.now()),
        stores: Stores { sqlite: &checked.sqlite, key_value: &checked.key_value },
    };
    checked.reply(config, &body)
}

/// Answers `GET /healthz`, the same for machines.
pub async fn healthz(ports: &impl Ports, config: &Config) -> Reply {
    let checked = Checked::now(ports, config).await;
    let reason = checked.reason();
    checked.reply(config, &Healthz { ok: reason.is_none(), reason })
}
