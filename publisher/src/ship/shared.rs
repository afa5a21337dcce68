//! What the tasks of a run share.

use std::sync::{Arc, Once};

use indicatif::ProgressBar;
use tokio::sync::Semaphore;

use super::options::Options;
use super::registry::{Answer, Question, ReadWindow, Registry, Scope};
use super::summary::Summary;
use crate::client::Client;
use crate::console;
use crate::signal::Stop;

/// What the tasks of a run share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The service.
    pub client: Arc<Client>,
    /// How to ship.
    pub options: Options,
    /// What was shipped before.
    pub registry: Registry,
    /// The name of the service's store.
    pub store: String,
    /// Bounds the requests under way.
    pub requests: Arc<Semaphore>,
    /// Done when it was said that the service offers no streams.
    pub said_no_streams: Once,
    /// Counts bytes.
    pub progress: ProgressBar,
    /// When to end.
    pub stop: Stop,
}

impl Shared {
    /// Where the ids of a topic's events must not meet.
    #[must_use]
    pub(crate) fn scope(&self, topic: &str) -> Scope {
        let (store, source) = (self.store.clone(), self.options.source.clone());
        Scope { store, topic: topic.to_owned(), source }
    }

    /// Says, once, why lines do not go over a stream.
    pub(crate) fn say_if_there_are_no_streams(&self) {
        let Some(why) = self.client.why_no_lane() else { return };
        self.said_no_streams.call_once(|| {
            console::note(format_args!(
                "no stream to publish on ({why}): lines go as ordinary requests"
            ));
        });
    }

    /// Asks the registry. If it has no answer the content alone has to do, for
    /// that must not keep a line from being shipped.
    pub(crate) async fn identify(
        &self,
        question: Question,
        read: ReadWindow,
        summary: &mut Summary,
    ) -> Option<Answer> {
        match self.registry.identify(question, read).await {
            Ok(answer) => Some(answer),
            Err(error) => {
                summary.note(format!("identified by its content alone: {error:#}"));
                None
            }
        }
    }
}
