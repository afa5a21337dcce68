//! What the tasks of a run share.

use std::sync::{Arc, Mutex};

use indicatif::ProgressBar;
use tokio::sync::Semaphore;

use super::options::Options;
use super::registry::Registry;
use crate::client::Client;
use crate::signal::Stop;

/// What the tasks of a run share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The service.
    pub client: Arc<Client>,
    /// How to ship.
    pub options: Options,
    /// What was shipped before.
    pub registry: Mutex<Registry>,
    /// The name of the service's store.
    pub store: String,
    /// Bounds the requests under way.
    pub requests: Semaphore,
    /// Counts bytes.
    pub progress: ProgressBar,
    /// When to end.
    pub stop: Stop,
}
