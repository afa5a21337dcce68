//! Whether a service offers streams: what the first ones tell.
//!
//! The stream of one service may be refused (an older one has no such route), be kept
//! until it has ended (by a gateway that collects requests), or bring no outcomes (by
//! one that collects replies). So they are offered when a reply has begun, and it is
//! proven when an outcome has come.

use tokio::sync::watch;
use tokio::time::Instant;

use super::super::attempt::TransientError;
use super::end::End;

/// Streams that broke, or were refused for the moment, before any brought an outcome:
/// with so many in a row there are none.
const DOUBTS_MAX: u32 = 3;

/// What is known.
#[derive(Debug)]
pub(super) struct Offer(watch::Sender<Known>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Known {
    Unknown {
        doubts: u32,
        /// Whether a stream is being opened to find out.
        is_asked: bool,
    },
    /// A reply has begun, and no outcome has come.
    Begun { doubts: u32 },
    /// Outcomes have come.
    Proven,
    /// There are none from now on, and why.
    Refused(String),
}

/// How far a stream came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its reply has not begun.
    Opening,
    /// Its reply has begun.
    Begun,
    /// It has brought outcomes.
    Proven,
}

impl Default for Offer {
    fn default() -> Self {
        Self(watch::Sender::new(Known::Unknown { doubts: 0, is_asked: false }))
    }
}

impl Offer {
    /// Whether a stream is to be opened to find out.
    pub(super) fn begins_to_ask(&self) -> bool {
        self.0.send_if_modified(|known| match known {
            Known::Unknown { is_asked, .. } => !std::mem::replace(is_asked, true),
            _ => false,
        })
    }

    /// Whether streams are offered; waits for that until then.
    pub(super) async fn is_made(&self, until: Instant) -> bool {
        let mut known = self.0.subscribe();
        let known = known.wait_for(|known| !matches!(known, Known::Unknown { is_asked: true, .. }));
        match tokio::time::timeout_at(until, known).await {
            Ok(Ok(known)) => matches!(*known, Known::Begun { .. } | Known::Proven),
            _ => false,
        }
    }

    /// Whether an outcome has ever come.
    pub(super) fn is_proven(&self) -> bool {
        *self.0.borrow() == Known::Proven
    }

    /// Whether a reply has ever begun, and no stream was refused since.
    pub(super) fn has_begun(&self) -> bool {
        matches!(*self.0.borrow(), Known::Begun { .. } | Known::Proven)
    }

    /// Why there are none.
    pub(super) fn refused(&self) -> Option<String> {
        match &*self.0.borrow() {
            Known::Refused(why) => Some(why.clone()),
            _ => None,
        }
    }

    /// A reply has begun.
    pub(super) fn begun(&self) {
        self.0.send_if_modified(|known| match *known {
            Known::Unknown { doubts, .. } => {
                *known = Known::Begun { doubts };
                true
            }
            _ => false,
        });
    }

    /// An outcome has come.
    pub(super) fn prove(&self) {
        self.0.send_if_modified(|known| {
            let is_new = *known != Known::Proven;
            *known = Known::Proven;
            is_new
        });
    }

    /// A stream has ended.
    pub(super) fn learn(&self, phase: Phase, end: &End) {
        self.0.send_modify(|known| {
            if matches!(known, Known::Refused(_)) {
                return;
            }
            if let Known::Unknown { is_asked, .. } = known {
                *is_asked = false;
            }
            let is_refused = match end {
                End::Refused { .. } => phase == Phase::Opening,
                End::Protocol(_) | End::Lost { error: TransientError::Timeout, .. } => {
                    *known != Known::Proven
                }
                End::Lost { error: TransientError::Connect, .. } | End::Idle => false,
                End::Lost { .. } => known.doubt() >= DOUBTS_MAX,
            };
            if is_refused {
                *known = Known::Refused(end.to_string());
            }
        });
    }
}

impl Known {
    /// Adds a doubt, unless there can be none; how many there are.
    fn doubt(&mut self) -> u32 {
        match self {
            Known::Unknown { doubts, .. } | Known::Begun { doubts } => {
                *doubts += 1;
                *doubts
            }
            Known::Proven | Known::Refused(_) => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use hyper::StatusCode;

    use super::*;
    use crate::wire::Problem;

    fn lost(error: TransientError) -> End {
        End::Lost { error, why: "gone".to_owned(), indeterminate: true }
    }

    fn refused(status: u16) -> End {
        let status = StatusCode::from_u16(status).unwrap();
        End::Refused { status, problem: Problem::default() }
    }

    /// What is known after streams that came so far and ended so.
    fn after(proven: bool, ends: &[(Phase, End)]) -> bool {
        let offer = Offer::default();
        assert!(offer.begins_to_ask() && !offer.begins_to_ask(), "one asks");
        if proven {
            offer.begun();
            offer.prove();
        }
        for (phase, end) in ends {
            if *phase != Phase::Opening {
                offer.begun();
            }
            offer.learn(*phase, end);
        }
        offer.refused().is_none()
    }

    #[test]
    fn what_ends_a_stream_tells_whether_there_are_any() {
        use Phase::{Begun, Opening, Proven};
        for status in [400, 401, 403, 404, 405, 411, 415, 426, 501] {
            assert!(!after(false, &[(Opening, refused(status))]), "{status}");
            assert!(!after(true, &[(Opening, refused(status))]), "{status}, by another one");
            assert!(after(false, &[(Begun, refused(status))]), "{status} of a line");
        }
        let timeout = || lost(TransientError::Timeout);
        assert!(!after(false, &[(Opening, timeout())]), "a request is collected");
        assert!(!after(false, &[(Begun, timeout())]), "a reply is collected");
        assert!(after(true, &[(Opening, timeout()), (Begun, timeout()), (Proven, timeout())]));
        assert!(!after(false, &[(Begun, End::Protocol("<html>".to_owned()))]));
        assert!(after(true, &[(Begun, End::Protocol("<html>".to_owned()))]));
        for error in [TransientError::Broken, TransientError::Status(503)] {
            let ends = |count| (0..count).map(|_| (Opening, lost(error))).collect::<Vec<_>>();
            assert!(after(false, &ends(2)), "{error}");
            assert!(!after(false, &ends(3)), "{error}");
            assert!(after(true, &ends(9)), "{error}");
        }
        let ends: Vec<_> = (0..9).map(|_| (Opening, lost(TransientError::Connect))).collect();
        assert!(after(false, &ends), "nobody is there");
        assert!(after(false, &[(Begun, End::Idle), (Begun, End::Idle)]));
    }

    #[tokio::test]
    async fn it_is_waited_for_until_it_is_known() {
        let offer = std::sync::Arc::new(Offer::default());
        assert!(offer.begins_to_ask());
        assert!(!offer.is_made(Instant::now()).await, "not for ever");
        let long = Instant::now() + std::time::Duration::from_secs(600);
        let waiting = tokio::spawn({
            let offer = std::sync::Arc::clone(&offer);
            async move { offer.is_made(long).await }
        });
        offer.begun();
        assert!(waiting.await.unwrap());
        offer.learn(Phase::Opening, &refused(404));
        assert!(!offer.is_made(long).await);
    }
}
