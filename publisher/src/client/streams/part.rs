//! What is asked of a stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::super::attempt::Attempt;
use crate::wire::PublishReply;

/// What is asked of a stream.
pub(super) enum Ask {
    /// To be open.
    Open,
    Part(Part),
}

/// A request of the caller.
pub(super) struct Part {
    pub(super) lines: Bytes,
    pub(super) events: usize,
    pub(super) told: oneshot::Sender<Attempt<PublishReply>>,
    pub(super) since: Instant,
    /// Whether one that was to go before it has failed.
    pub(super) after: Option<Arc<AtomicBool>>,
}

impl Part {
    /// Whether one that was to go before it has failed.
    pub(super) fn is_late(&self) -> bool {
        self.after.as_ref().is_some_and(|after| after.load(Ordering::Relaxed))
    }
}
