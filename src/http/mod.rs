//! What of HTTP belongs to no route.
//!
//! | module | holds |
//! | --- | --- |
//! | `request` | a request as routes see it; its body, bounded and decoded |
//! | `coding` | bodies that come, and replies that go out, compressed |
//! | `query` | query parameters, each named when it is wrong |
//! | `access` | by which host, and on behalf of which page, a request may come |
//! | `authentication` | who asks, and whether they may |
//! | `access_token` | what those have who can set no header |
//! | `accept` | which media types and codings a client likes most |
//! | `reply` | status, headers and body on their way out |
//! | `trace` | what a request is called by: its id, and the trace that it is part of |
//! | `noted` | what is noted of a request while it is answered |
//! | `room` | how much of a list a short reply holds |
//! | `problem` | error → status, stable code, problem+json |
//! | `event_json` | a stored event as clients see it |
//! | `cloud_event_json` | the same as a CloudEvent |
//! | `cors` | which pages of other origins may call the service |
//! | `sse` | server-sent events: frames, heartbeat, headers |
//! | `exposition` | metrics as text |

pub(crate) mod accept;
pub(crate) mod access;
pub(crate) mod access_token;
pub(crate) mod authentication;
pub(crate) mod cloud_event_json;
pub(crate) mod coding;
pub(crate) mod cors;
pub(crate) mod event_json;
pub(crate) mod exposition;
pub(crate) mod noted;
pub(crate) mod problem;
pub(crate) mod query;
pub(crate) mod reply;
pub(crate) mod request;
pub(crate) mod room;
pub(crate) mod sse;
pub(crate) mod trace;
