//! `GET /health` and `GET /healthz`: do the stores answer?

use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::commit;
use crate::config::Config;
use crate::event_log;
use crate::log::{self, Level, Line};
use crate::ports::{Fault, Ports, StoreError};
use crate::reply::Reply;
use crate::stats::STARTED_AT;
use crate::time;

#[derive(Serialize)]
struct Health {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    queue_size: usize,
    timestamp: String,
    stores: Stores,
}

#[derive(Serialize)]
struct Stores {
    sqlite: &'static str,
    key_value: &'static str,
}

#[derive(Serialize)]
struct Healthz {
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// What the stores said.
struct Checked {
    sqlite: Result<(), StoreError>,
    key_value: Result<(), StoreError>,
}

impl Checked {
    async fn now(ports: &impl Ports, config: &Config) -> Self {
        let probe = async || event_log::probe(ports).await;
        let sqlite = commit::patiently(ports, config.commit_wait_max, probe).await;
        let key_value = ports.get(STARTED_AT).await.map(drop);
        for (message, checked) in [
            ("health check: the SQL store does not answer", &sqlite),
            ("health check: the key-value store does not answer", &key_value),
        ] {
            if let Err(error) = checked {
                let line = Line { cause: Some(&error.message), ..Line::new(message) };
                log::write(config.log_level, Level::Error, ports.now(), line);
            }
        }
        Checked { sqlite, key_value }
    }

    /// Why the service is not healthy, if it is not.
    fn reason(&self) -> Option<String> {
        match (word(&self.sqlite), word(&self.key_value)) {
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
        match self {
            Checked { sqlite: Ok(()), key_value: Ok(()) } => Reply::json(StatusCode::OK, body),
            _ => Reply::json(StatusCode::SERVICE_UNAVAILABLE, body)
                .with_header(header::RETRY_AFTER, HeaderValue::from(config.retry_after_seconds)),
        }
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
        stores: Stores { sqlite: word(&checked.sqlite), key_value: word(&checked.key_value) },
    };
    checked.reply(config, &body)
}

/// Answers `GET /healthz`, the same for machines.
pub async fn healthz(ports: &impl Ports, config: &Config) -> Reply {
    let checked = Checked::now(ports, config).await;
    let reason = checked.reason();
    checked.reply(config, &Healthz { ok: reason.is_none(), reason })
}
