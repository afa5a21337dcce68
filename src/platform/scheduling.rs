//! When a request yields to the host, how often, and why.
//!
//! An instance runs one task at a time; a task that yields is polled again after
//! the host and all that is ready in the instance have had their turn. The host
//! (Spin, by wasmtime's `ProxyHandler`) counts on such turns: it takes an instance
//! for free, hands a request over or sends a reply in one write only when the
//! instance's event loop has had nothing to do for a turn. A yield is not given
//! to the host when it has another answer ready for the same request, hence
//! always more than one. See `docs/platform-notes.md`.

use super::Scheduler;

/// Before a request does anything. Until an instance has had nothing to do for
/// two turns after a request came in, the host counts it as busy and starts
/// another for the next request. Instances contend for the one database, so the
/// fewer the better.
pub(crate) const YIELDS_BEFORE_WORK: usize = 2;

/// Between the last answer of the host and the reply. A reply that is returned
/// in the turn in which the host answered an asynchronous call (the end of a
/// body, a variable, the key-value store) leaves in two writes on Spin.
pub(crate) const YIELDS_BEFORE_REPLY: usize = 2;

/// Until a request that the host holds ready has come as far as the commit
/// group: the host hands requests over one by one.
pub(crate) const YIELDS_FOR_ARRIVALS: usize = 2;

/// Between the parts of a read that is long: one turn for a request that has come, and one
/// for a commit that is due.
pub(crate) const YIELDS_BETWEEN_PARTS: usize = 2;

/// Before the timer of an instance that lingers: a timer that runs beside a
/// reply which is about to leave makes it leave in two writes.
#[cfg(target_family = "wasm")]
pub(crate) const YIELDS_BEFORE_LINGERING: usize = 4;

/// Before the back-pressure of an instance that retires: one, one more for an
/// event that comes between, and one to spare.
#[cfg(target_family = "wasm")]
pub(crate) const YIELDS_BEFORE_RETIRING: usize = 3;

/// Yields so many times.
pub(crate) async fn yields(scheduler: &(impl Scheduler + ?Sized), count: usize) {
    for _ in 0..count {
        scheduler.yield_now().await;
    }
}
