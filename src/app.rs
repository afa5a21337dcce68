//! The service as one instance has it: its platform, configuration and store,
//! and what it remembers from one request to the next.
//!
//! The platform runs many instances side by side and drops each after a while,
//! so nothing that is remembered may matter for correctness.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;

use crate::commit::GroupCommit;
use crate::commit::observed::{UNREADABLE_EVENTS, UNREADABLE_VALUES};
use crate::config::Config;
use crate::history::{History, Visit};
use crate::http::event_json::EventJson;
use crate::http::problem::Problem;
use crate::limits::Limits;
use crate::log::{self, Level, Line};
use crate::platform::{KeyValue, SharedPlatform};
use crate::pruner::{Pass, Pruner};
use crate::store::{
    self, Latest, RetryingStore, Seq, Store, StoreError, StoredEvent, Summary, Tail,
};

/// How often an instance that has nothing else to do tries again to add what it
/// observed of its commits to a busy store.
const OBSERVED_TRIES_MAX: u32 = 20;

/// Most events that an instance notes as unreadable.
const UNREADABLE_EVENTS_MAX: usize = 1000;

/// Sekali, in one instance.
pub(crate) struct App {
    /// What it asks of its platform.
    pub(crate) platform: SharedPlatform,
    /// How it was set up.
    pub(crate) config: Config,
    /// Its store, for reads and for writes that are no commits of events.
    pub(crate) store: RetryingStore,
    /// The way of events into the store.
    pub(crate) commits: GroupCommit,
    /// What the keys may still publish.
    pub(crate) limits: Limits,
    /// The end of the log, as it was last seen.
    pub(crate) tail: Tail,
    /// The counters, as they were last polled.
    pub(crate) summary: Latest<Rc<Summary>>,
    /// Service state beside the store.
    pub(crate) history: History,
    /// What is over a limit of retention goes by it.
    pub(crate) pruner: Pruner,
    engine: Rc<dyn Store>,
    /// Events that were reported as unreadable.
    unreadable: RefCell<BTreeSet<Seq>>,
    /// What the key-value store is to be visited for when a reply is made.
    wanted: Cell<Option<Visit>>,
    lingers: Cell<bool>,
}

impl App {
    /// Sets an instance up. Its store is opened by the first request that needs it.
    ///
    /// # Errors
    ///
    /// A sentence that names the variable that is missing or wrong.
    pub(crate) async fn load(platform: SharedPlatform) -> Result<Rc<Self>, String> {
        let config = Config::load(&*platform).await?;
        let (engine, key_value) = store::open(&platform, &config);
        let app = App::over(engine, key_value, config, platform);
        if app.config.keys.is_empty() {
            app.log(Level::Info, Line::new("there are no api_keys: open to everybody"));
        }
        if app.config.access_log.is_some() && app.config.log_level < Some(Level::Info) {
            let detail = "they are of the level info, which log_level leaves out";
            let line = Line::new("no lines of access are written");
            app.log(Level::Warn, Line { detail: Some(detail), ..line });
        }
        Ok(app)
    }

    /// An instance over `engine`, with `key_value` for what is kept beside it.
    pub(crate) fn over(
        engine: Rc<dyn Store>,
        key_value: Rc<dyn KeyValue>,
        config: Config,
        platform: SharedPlatform,
    ) -> Rc<Self> {
        let store =
            RetryingStore::new(Rc::clone(&engine), platform.clone(), config.commit_wait_max);
        Rc::new(App {
            commits: GroupCommit::new(
                Rc::clone(&engine),
                Rc::clone(&platform),
                config.commit_wait_max,
            ),
            limits: Limits::default(),
            tail: Tail::of(store.clone(), platform.clone()),
            summary: Latest::default(),
            history: History::new(platform.clone(), key_value, store.clone()),
            pruner: Pruner::new(platform.clone(), store.clone(), config.retention.clone()),
            engine,
            store,
            unreadable: RefCell::default(),
            wanted: Cell::default(),
            lingers: Cell::default(),
            config,
            platform,
        })
    }

    /// Asks the store for a request, and again while it is busy.
    ///
    /// # Errors
    ///
    /// A store that does not do its part is a 503.
    pub(crate) async fn ask<T>(
        &self,
        attempt: impl AsyncFn(&dyn Store) -> Result<T, StoreError>,
    ) -> Result<T, Problem> {
        self.store.ask(attempt).await.map_err(|error| self.unavailable(&error))
    }

    /// What a request is told of a store that does not do its part.
    pub(crate) fn unavailable(&self, error: &StoreError) -> Problem {
        Problem::store(error, self.config.retry_after_seconds)
    }

    /// Writes a line to the log, if it matters enough.
    pub(crate) fn log(&self, level: Level, line: Line<'_>) {
        log::write(self.config.log_level, level, || self.platform.now(), line);
    }

    /// Logs that a store failed at something whose message is `message`.
    pub(crate) fn log_fault(&self, level: Level, message: &'static str, error: &StoreError) {
        self.log(level, Line { cause: Some(&error.message), ..Line::new(message) });
    }

    /// A stored event as clients see it. One that cannot be shown whole is
    /// logged and counted, once by each instance, and stops nobody.
    pub(crate) fn show<'a>(&self, event: &'a StoredEvent) -> EventJson<'a> {
        let shown = EventJson::of(event);
        if shown.is_unreadable() {
            let mut known = self.unreadable.borrow_mut();
            if known.len() < UNREADABLE_EVENTS_MAX && known.insert(event.seq) {
                self.commits.observed.count(UNREADABLE_EVENTS);
                let detail = format!("the payload of seq {} is not JSON", event.seq);
                let line = Line {
                    detail: Some(&detail),
                    is_always_written: true,
                    ..Line::new("a stored event is damaged")
                };
                self.log(Level::Error, line);
            }
        }
        shown
    }

    /// Wants a snapshot, if no other instance is to keep that of this minute. Does not
    /// wait for a busy store. True if so.
    pub(crate) async fn claim_snapshot(&self) -> bool {
        let is_claimed = self.history.claim().await;
        if is_claimed {
            self.wanted.set(Some(Visit::Snapshot));
        }
        is_claimed
    }

    /// Whether the key-value store answers, as [`History::check`] has it.
    ///
    /// # Errors
    ///
    /// Those of [`History::check`].
    pub(crate) async fn check_key_value(&self) -> Result<(), StoreError> {
        let checked = self.history.check().await;
        self.report_unreadable_values();
        if checked.is_err() || checked == Ok(true) {
            self.wanted.set(Some(Visit::Look));
        }
        checked.map(drop)
    }

    /// The visit of the key-value store that a request wanted, if one did. To be
    /// asked by a request that closed the door of this instance, and made when its
    /// reply is out.
    pub(crate) fn take_wanted_visit(&self) -> Option<Visit> {
        self.wanted.take()
    }

    /// Visits the key-value store. Nobody waits for it, so what fails is logged, and
    /// that is all.
    pub(crate) async fn visit_key_value(&self, visit: Visit) {
        let (result, message) = match visit {
            Visit::Snapshot => {
                let message = "the snapshot of this minute could not be kept";
                (self.history.visit(visit).await, message)
            }
            Visit::Look => (self.history.look().await, "the key-value store does not answer"),
        };
        match result {
            Err(error) => self.log_fault(Level::Error, message, &error),
            Ok(()) if visit == Visit::Snapshot => {
                self.log(Level::Info, Line::new("a snapshot of the counters was kept"));
            }
            Ok(()) => {}
        }
        self.report_unreadable_values();
    }

    /// Logs and counts what could not be read of the key-value store.
    pub(crate) fn report_unreadable_values(&self) {
        for detail in self.history.take_unreadable() {
            self.commits.observed.count(UNREADABLE_VALUES);
            let message = "a value in the key-value store was damaged, and is replaced";
            self.log(Level::Error, Line { detail: Some(&detail), ..Line::new(message) });
        }
    }

    /// Prunes what is over a limit, if it is time. Nobody waits for it, so what fails is
    /// logged, and that is all.
    pub(crate) async fn prune(&self) {
        match self.pruner.pass_if_due().await {
            Ok(Some(pass)) => self.log_pass(pass),
            Ok(None) => {}
            Err(error) => self.log_fault(Level::Warn, "what is old could not be pruned", &error),
        }
    }

    /// Logs what was pruned, if anything was.
    pub(crate) fn log_pass(&self, pass: Pass) {
        let Pass { events, bytes, identities, .. } = pass;
        if events > 0 || identities > 0 {
            let detail = format!("{events} events of {bytes} bytes, {identities} identities");
            let message = "what is over a limit of retention was pruned";
            self.log(Level::Info, Line { detail: Some(&detail), ..Line::new(message) });
        }
    }

    /// Whether somebody is to call [`App::linger`] now that a reply is made.
    pub(crate) fn wants_to_linger(&self) -> bool {
        for detail in self.engine.take_notices() {
            let line = Line { detail: Some(&detail), ..Line::new("the clock was set back") };
            self.log(Level::Warn, line);
        }
        let has_reason = self.engine.wants_to_linger() || self.commits.observed.is_some();
        has_reason && !self.lingers.replace(true)
    }

    /// What an instance does when its requests are answered; it lives until this
    /// ends. The engine may want it to stay for a moment, and what it observed
    /// would be lost with it.
    pub(crate) async fn linger(&self) {
        let mut tries_left = OBSERVED_TRIES_MAX;
        loop {
            self.engine.linger().await;
            match self.commits.add_observed().await {
                Ok(false) => break,
                Ok(true) => {}
                Err(error) if error.is_busy() && tries_left > 0 => tries_left -= 1,
                Err(error) => {
                    let message = "what was observed of commits could not be stored";
                    self.log_fault(Level::Warn, message, &error);
                    break;
                }
            }
        }
        self.engine.rest();
        self.lingers.set(false);
    }
}

#[cfg(test)]
mod tests;
