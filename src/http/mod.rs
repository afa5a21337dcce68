//! What of HTTP belongs to no route.

pub mod cors;
pub mod event_json;
pub mod exposition;
pub mod problem;
pub mod query;
pub mod reply;
pub mod sse;
