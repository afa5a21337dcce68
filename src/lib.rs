//! Sekali stores events exactly once: a Spin HTTP component.
//!
//! | module | holds |
//! | --- | --- |
//! | `component` | \[wasm\] entry point: bounded body read, router called, reply written in one go |
//! | `spin` | \[wasm\] the ports over `spin_sdk`: SQLite, key-value, clock, variables |
//! | [`ports`] | the seam: what the component asks of its platform |
//! | [`config`] | the Spin variables, read once per instance |
//! | [`router`] | (method, path) → feature; 404, 405, HEAD |
//! | [`publish`] | `POST /publish`: outcome of each event, reply |
//! | [`body`] | the shapes of a request body → one raw text per event |
//! | [`event`] | topic, event id, source, event: invalid values cannot be built |
//! | [`payload`] | one pass over a payload: compact text, and a digest of its value |
//! | [`commit`] | the way to the disk: requests that wait share a statement, up to a deadline |
//! | [`event_log`] | all SQL: set-up, append, page, totals, positions |
//! | [`counts`] | what is counted by the way, and rides along with a commit |
//! | [`events`] | `GET /events`: filters, page, reply |
//! | [`stream`] | `GET /events/stream`: events as they are stored |
//! | [`subscriptions`] | `/subscriptions`: named readers, whose positions are kept |
//! | [`tail`] | the end of the event log, watched by all readers of an instance together |
//! | [`view`] | a stored event as clients see it |
//! | [`stats`] | `GET /stats` and `GET /stats/history`, the snapshot of each minute |
//! | [`stats_stream`] | `GET /stats/stream`: the counters as they change |
//! | [`sse`] | server-sent events: frames, heartbeat, headers |
//! | [`metrics`] | `GET /metrics`, written by [`exposition`] |
//! | [`health`] | `GET /health` and `GET /healthz` |
//! | [`web`] | `GET /`, `/docs`, `/openapi.json`: the files of `web/` |
//! | [`cors`] | which pages of other origins may call the service |
//! | [`query`] | query parameters, each named when it is wrong |
//! | [`reply`] | status, headers and body on their way out |
//! | [`problem`] | error → status, stable code, problem+json |
//! | [`log`] | structured lines on stderr |
//! | [`time`] | moments as they arrive and as they are shown |

pub mod commit;
pub mod config;
pub mod event;
pub mod http;
pub mod ingest;
pub mod log;
pub mod platform;
pub mod routes;
pub mod store;
pub mod time;

#[cfg(target_family = "wasm")]
mod component;
