//! Books of honest services and of others.

use super::*;
use crate::wire::EventResult;

const FIRST: Planned = Planned { event: 0, repeated: false };
const AGAIN: Planned = Planned { event: 0, repeated: true };
const OTHER: Planned = Planned { event: 1, repeated: false };

fn reply(outcomes: &[Outcome]) -> PublishReply {
    let count = |wanted| outcomes.iter().filter(|o| **o == wanted).count() as u64;
    let rejected = count(Outcome::Rejected);
    let conflicts = count(Outcome::Conflict);
    let results = outcomes.iter().enumerate().filter(|(_, o)| **o != Outcome::Accepted);
    PublishReply {
        received: outcomes.len() as u64 - rejected,
        accepted: count(Outcome::Accepted),
        duplicates: count(Outcome::Duplicate) + conflicts,
        conflicts,
        rejected,
        results: results
            .map(|(index, status)| EventResult {
                index,
                status: *status,
                field: None,
                detail: None,
            })
            .collect(),
    }
}

fn stats(received: u64, unique: u64, conflicts: u64) -> Stats {
    let counters = Counters {
        received,
        unique_processed: unique,
        duplicate_dropped: received - unique,
        conflicts,
    };
    let topic = plan().topics()[0].clone();
    let mut stats = Stats { total: counters, ..Stats::default() };
    if received > 0 {
        stats.by_topic.insert(topic, counters);
    }
    stats
}

fn plan() -> Plan {
    Plan::new(7, 3, 0.4, 1).unwrap()
}

fn books(before: Stats) -> Ledger {
    Ledger::new(plan(), before)
}

fn answered(ledger: &mut Ledger, sent: &[Planned], outcomes: &[Outcome], ambiguous: u64) {
    ledger.sending(sent);
    ledger.answered(sent, &reply(outcomes), ambiguous, ambiguous);
}

/// The books of three deliveries as they should be answered.
fn honest(before: Stats) -> Ledger {
    let mut ledger = books(before);
    answered(&mut ledger, &[FIRST], &[Outcome::Accepted], 0);
    answered(&mut ledger, &[AGAIN, OTHER], &[Outcome::Duplicate, Outcome::Accepted], 0);
    ledger
}

#[test]
fn an_honest_service_passes_and_every_wrong_counter_fails() {
    let none = || stats(0, 0, 0);
    assert!(honest(none()).check(&stats(3, 2, 0)).ok);
    assert!(honest(stats(2, 0, 0)).check(&stats(5, 2, 0)).ok, "a seed used before");
    for wrong in [stats(2, 1, 0), stats(3, 1, 0), stats(3, 3, 0), stats(4, 2, 0)] {
        assert!(!honest(none()).check(&wrong).ok, "{wrong:?}");
    }
    assert!(!honest(none()).check(&stats(3, 2, 1)).ok, "a conflict");
    assert!(!honest(stats(5, 4, 0)).check(&stats(3, 2, 0)).ok, "counters ran backwards");
}

#[test]
fn sums_that_do_not_hold_in_one_snapshot_fail() {
    let mut after = stats(3, 2, 0);
    after.total.received += 1;
    after.total.duplicate_dropped += 1;
    assert!(!honest(stats(0, 0, 0)).check(&after).ok);
    let mut after = stats(3, 2, 0);
    after.total.received += 1;
    assert!(!honest(stats(0, 0, 0)).check(&after).ok);
}

#[test]
fn other_clients_do_not_disturb() {
    let mut after = stats(3, 2, 0);
    let others = Counters { received: 9, unique_processed: 9, ..Counters::default() };
    after.by_topic.insert("theirs".into(), others);
    after.total += others;
    let check = honest(stats(0, 0, 0)).check(&after);
    assert!(check.ok, "{check:?}");
}

#[track_caller]
fn violated(ledger: Ledger, after: &Stats, text: &str) {
    let check = ledger.check(after);
    assert!(check.violations.iter().any(|line| line.contains(text)), "{check:?}");
}

#[test]
fn accepted_twice_is_found() {
    let mut ledger = books(stats(0, 0, 0));
    answered(&mut ledger, &[FIRST, AGAIN], &[Outcome::Accepted; 2], 0);
    violated(ledger, &stats(2, 2, 0), "accepted twice");
}

#[test]
fn a_duplicate_of_nothing_is_a_loss() {
    let mut ledger = books(stats(0, 0, 0));
    answered(&mut ledger, &[FIRST, AGAIN], &[Outcome::Duplicate; 2], 0);
    violated(ledger, &stats(2, 0, 0), "never stored");
    // Also where a later delivery made up for it, with every counter right.
    let mut ledger = books(stats(0, 0, 0));
    answered(&mut ledger, &[FIRST], &[Outcome::Duplicate], 0);
    answered(&mut ledger, &[AGAIN], &[Outcome::Accepted], 0);
    violated(ledger, &stats(2, 1, 0), "duplicate of nothing");
}

#[test]
fn deliveries_under_way_together_may_overtake_each_other() {
    let mut ledger = books(stats(0, 0, 0));
    ledger.sending(&[FIRST]);
    ledger.sending(&[AGAIN]);
    ledger.answered(&[FIRST], &reply(&[Outcome::Duplicate]), 0, 0);
    ledger.answered(&[AGAIN], &reply(&[Outcome::Accepted]), 0, 0);
    assert!(ledger.check(&stats(2, 1, 0)).ok);
}

#[test]
fn a_lost_reply_widens_by_its_own_events_and_no_more() {
    // Stored by the attempt whose reply was lost, then found as duplicate.
    let lost = || {
        let mut ledger = books(stats(0, 0, 0));
        answered(&mut ledger, &[FIRST], &[Outcome::Duplicate], 1);
        ledger
    };
    let check = lost().check(&stats(2, 1, 0));
    assert!(check.ok, "{check:?}");
    // A lost attempt that stored nothing would have left it accepted.
    assert!(!lost().check(&stats(1, 0, 0)).ok);
    assert!(!lost().check(&stats(3, 1, 0)).ok);
}

#[test]
fn unanswered_deliveries_may_or_may_not_be_there() {
    let unanswered = || {
        let mut ledger = honest(stats(0, 0, 0));
        let last = [Planned { event: 2, repeated: false }];
        ledger.sending(&last);
        ledger.failed(&last, 0, 1);
        ledger
    };
    assert!(unanswered().check(&stats(3, 2, 0)).ok);
    assert!(unanswered().check(&stats(4, 3, 0)).ok);
    assert!(!unanswered().check(&stats(5, 4, 0)).ok);
}

#[test]
fn replies_that_do_not_add_up() {
    let good = reply(&[Outcome::Accepted, Outcome::Duplicate]);
    assert!(outcomes(2, &good).is_ok());
    assert!(outcomes(3, &good).is_err());
    assert!(outcomes(2, &PublishReply { accepted: 2, ..good.clone() }).is_err());
    assert!(outcomes(2, &PublishReply { results: Vec::new(), ..good.clone() }).is_err());
    assert!(outcomes(1, &good).is_err());
}
