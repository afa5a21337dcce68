//! Audits of honest services and of others.

use super::*;
use crate::workload::Spec;

const FIRST: Planned = Planned { event: 0, kind: Kind::New };
const AGAIN: Planned = Planned { event: 0, kind: Kind::Repeat };
const OTHER_CONTENT: Planned = Planned { event: 0, kind: Kind::Conflict };
const OTHER: Planned = Planned { event: 1, kind: Kind::New };
const INVALID: Planned = Planned { event: 0, kind: Kind::Invalid };

fn plan() -> Plan {
    let spec = Spec { topics: 1, conflicts: 0.01, ..Spec::DEFAULT };
    Plan::new(7, spec, None).unwrap()
}

fn stats(received: u64, unique: u64, conflicts: u64) -> Stats {
    let counters = Counters {
        received,
        unique_processed: unique,
        duplicate_dropped: received - unique,
        conflicts,
        pruned: 0,
    };
    let topic = plan().topics()[0].clone();
    let mut stats = Stats { total: counters, ..Stats::default() };
    if received > 0 {
        stats.by_topic.insert(topic, counters);
    }
    stats
}

/// An auditor, and a number for each request.
struct Tester {
    auditor: Auditor,
    requests: u64,
}

impl Tester {
    fn new(before: &Stats) -> Self {
        let plan = plan();
        let baseline = Baseline::of(&plan, before);
        Self { auditor: Auditor::new(plan, baseline), requests: 0 }
    }

    fn fresh() -> Self {
        Self::new(&stats(0, 0, 0))
    }

    fn sent(&mut self, deliveries: &[Planned]) -> u64 {
        let number = self.requests;
        self.requests += 1;
        self.auditor.sent(PlannedRequest { number, deliveries: deliveries.to_vec() });
        number
    }

    fn answered(&mut self, request: u64, outcomes: &[Outcome], indeterminate: u64) {
        self.auditor.settled(request, indeterminate, &Answer::Outcomes(outcomes.to_vec()));
    }

    fn both(&mut self, deliveries: &[Planned], outcomes: &[Outcome], indeterminate: u64) {
        let request = self.sent(deliveries);
        self.answered(request, outcomes, indeterminate);
    }

    fn check(self, after: &Stats) -> Check {
        self.auditor.check(after, false)
    }

    /// Shows an event with the content of a delivery as stored.
    fn stored(&mut self, planned: Planned) {
        let plan = plan();
        let event = self.event(planned);
        self.auditor.stored(&plan.topic_of(planned.event), &event);
    }

    fn event(&self, planned: Planned) -> StoredEvent {
        let plan = plan();
        StoredEvent {
            seq: 1,
            topic: plan.topic_of(planned.event),
            event_id: plan.event_id(planned.event),
            source: SOURCE.to_owned(),
            timestamp: None,
            received_at: None,
            payload: serde_json::from_str(&plan.payload(planned).unwrap()).unwrap(),
            error: None,
        }
    }

    #[track_caller]
    fn read_back(self, after: &Stats) {
        let check = self.auditor.check(after, true);
        assert!(check.ok, "{check:#?}");
    }

    #[track_caller]
    fn violated(self, after: &Stats, read_back: bool, text: &str) {
        let check = self.auditor.check(after, read_back);
        assert!(check.violations.iter().any(|line| line.contains(text)), "{check:#?}");
        assert!(!check.ok);
    }
}

/// The audit of three deliveries as they should be answered.
fn honest(before: &Stats) -> Tester {
    let mut tester = Tester::new(before);
    tester.both(&[FIRST], &[Outcome::Accepted], 0);
    tester.both(&[AGAIN, OTHER], &[Outcome::Duplicate, Outcome::Accepted], 0);
    tester
}

#[test]
fn an_honest_service_passes_and_every_wrong_counter_fails() {
    let none = stats(0, 0, 0);
    assert!(honest(&none).check(&stats(3, 2, 0)).ok);
    assert!(honest(&stats(2, 0, 0)).check(&stats(5, 2, 0)).ok, "a seed used before");
    for wrong in [stats(2, 1, 0), stats(3, 1, 0), stats(3, 3, 0), stats(4, 2, 0)] {
        assert!(!honest(&none).check(&wrong).ok, "{wrong:?}");
    }
    assert!(!honest(&none).check(&stats(3, 2, 1)).ok, "a conflict");
    assert!(!honest(&stats(5, 4, 0)).check(&stats(3, 2, 0)).ok, "counters ran backwards");
}

#[test]
fn sums_that_do_not_hold_in_one_snapshot_fail() {
    let none = stats(0, 0, 0);
    let mut after = stats(3, 2, 0);
    after.total.received += 1;
    after.total.duplicate_dropped += 1;
    assert!(!honest(&none).check(&after).ok);
    let mut after = stats(3, 2, 0);
    after.total.received += 1;
    assert!(!honest(&none).check(&after).ok);
}

#[test]
fn other_clients_do_not_disturb() {
    let mut after = stats(3, 2, 0);
    let others = Counters { received: 9, unique_processed: 9, ..Counters::default() };
    after.by_topic.insert("theirs".into(), others);
    after.total += others;
    after.rejected = 3;
    let check = honest(&stats(0, 0, 0)).check(&after);
    assert!(check.ok, "{check:?}");
}

#[test]
fn another_store_is_a_loss() {
    let named = |name: &str, stats: Stats| Stats { started_at: Some(name.to_owned()), ..stats };
    let after = |name| named(name, stats(3, 2, 0));
    assert!(honest(&named("a", stats(0, 0, 0))).check(&after("a")).ok);
    honest(&named("a", stats(0, 0, 0))).violated(&after("b"), false, "the store is not the one");
}

#[test]
fn accepted_twice_is_found() {
    let mut tester = Tester::fresh();
    tester.both(&[FIRST, AGAIN], &[Outcome::Accepted; 2], 0);
    tester.violated(&stats(2, 2, 0), false, "accepted twice");
}

#[test]
fn a_duplicate_of_nothing_is_a_loss() {
    let mut tester = Tester::fresh();
    tester.both(&[FIRST, AGAIN], &[Outcome::Duplicate; 2], 0);
    tester.violated(&stats(2, 0, 0), false, "never stored");
    // Also where a later delivery made up for it, with every counter right.
    let mut tester = Tester::fresh();
    tester.both(&[FIRST], &[Outcome::Duplicate], 0);
    tester.both(&[AGAIN], &[Outcome::Accepted], 0);
    tester.violated(&stats(2, 1, 0), false, "duplicate of nothing");
}

#[test]
fn deliveries_under_way_together_may_overtake_each_other() {
    let mut tester = Tester::fresh();
    let [first, again] = [FIRST, AGAIN].map(|planned| tester.sent(&[planned]));
    tester.answered(first, &[Outcome::Duplicate], 0);
    tester.answered(again, &[Outcome::Accepted], 0);
    assert!(tester.check(&stats(2, 1, 0)).ok);
}

#[test]
fn a_conflict_needs_another_content() {
    let mut tester = Tester::fresh();
    tester.both(&[FIRST], &[Outcome::Accepted], 0);
    tester.both(&[OTHER_CONTENT], &[Outcome::Conflict], 0);
    tester.stored(FIRST);
    tester.read_back(&stats(2, 1, 1));

    let mut tester = Tester::fresh();
    tester.both(&[FIRST, AGAIN], &[Outcome::Accepted, Outcome::Conflict], 0);
    tester.violated(&stats(2, 1, 1), false, "with nothing that was sent");

    // The other way round when the other content overtakes.
    let mut tester = Tester::fresh();
    let [first, other] = [FIRST, OTHER_CONTENT].map(|planned| tester.sent(&[planned]));
    tester.answered(first, &[Outcome::Conflict], 0);
    tester.answered(other, &[Outcome::Accepted], 0);
    tester.stored(OTHER_CONTENT);
    tester.read_back(&stats(2, 1, 1));
}

#[test]
fn replies_that_agree_on_no_stored_content_are_found() {
    let mut tester = Tester::fresh();
    let requests = [FIRST, OTHER_CONTENT, AGAIN].map(|planned| tester.sent(&[planned]));
    tester.answered(requests[0], &[Outcome::Conflict], 0);
    tester.answered(requests[1], &[Outcome::Accepted], 0);
    tester.answered(requests[2], &[Outcome::Duplicate], 0);
    tester.violated(&stats(3, 1, 1), false, "duplicate of nothing");

    let mut tester = Tester::fresh();
    let requests = [FIRST, OTHER_CONTENT, AGAIN].map(|planned| tester.sent(&[planned]));
    tester.answered(requests[2], &[Outcome::Duplicate], 0);
    tester.answered(requests[1], &[Outcome::Accepted], 0);
    tester.answered(requests[0], &[Outcome::Conflict], 0);
    tester.violated(&stats(3, 1, 1), false, "contradict each other");
}

#[test]
fn an_invalid_event_must_be_rejected_and_is_counted() {
    let after = |rejected| Stats { rejected, ..stats(1, 1, 0) };
    let rejected = || {
        let mut tester = Tester::fresh();
        tester.both(&[FIRST, INVALID], &[Outcome::Accepted, Outcome::Rejected], 0);
        tester
    };
    assert!(rejected().check(&after(1)).ok);
    assert!(rejected().check(&after(5)).ok, "others send invalid events too");
    assert!(!rejected().check(&after(0)).ok);
    let mut tester = Tester::fresh();
    tester.both(&[FIRST, INVALID], &[Outcome::Accepted; 2], 0);
    tester.violated(&stats(2, 2, 0), false, "not rejected but Accepted");
    let mut tester = Tester::fresh();
    tester.both(&[FIRST], &[Outcome::Rejected], 0);
    tester.violated(&after(1), false, "valid but rejected");
}

#[test]
fn a_lost_reply_widens_by_its_own_events_and_no_more() {
    // Stored by the attempt whose reply was lost, then found as duplicate.
    let lost = || {
        let mut tester = Tester::fresh();
        tester.both(&[FIRST], &[Outcome::Duplicate], 1);
        tester
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
        let mut tester = honest(&stats(0, 0, 0));
        let last = tester.sent(&[Planned { event: 2, kind: Kind::New }]);
        tester.auditor.settled(last, 1, &Answer::None);
        tester
    };
    assert!(unanswered().check(&stats(3, 2, 0)).ok);
    assert!(unanswered().check(&stats(4, 3, 0)).ok);
    assert!(!unanswered().check(&stats(5, 4, 0)).ok);
}

#[test]
fn what_is_not_settled_may_be_there_once_for_each_attempt() {
    let unsettled = || {
        let mut tester = honest(&stats(0, 0, 0));
        let last = tester.sent(&[Planned { event: 2, kind: Kind::New }, INVALID]);
        tester.auditor.retried(last);
        tester
    };
    for after in [stats(3, 2, 0), stats(4, 3, 0), stats(5, 3, 0)] {
        let check = unsettled().check(&after);
        assert!(check.ok, "{check:?}");
        assert_eq!(check.unsettled, 2);
    }
    assert!(!unsettled().check(&stats(6, 3, 0)).ok);
}

#[test]
fn attempts_of_an_earlier_process_are_indeterminate() {
    let resumed = || {
        let mut tester = Tester::fresh();
        let request = tester.sent(&[FIRST]);
        tester.auditor.resumed(request);
        tester.answered(request, &[Outcome::Duplicate], 0);
        tester
    };
    assert!(resumed().check(&stats(2, 1, 0)).ok);
    assert!(!resumed().check(&stats(3, 1, 0)).ok);
}

#[test]
fn what_was_acknowledged_is_read_back_once_and_as_it_was() {
    let after = stats(3, 2, 0);
    let stored = |events: &[Planned]| {
        let mut tester = honest(&stats(0, 0, 0));
        for event in events {
            tester.stored(*event);
        }
        tester
    };
    stored(&[FIRST, OTHER]).read_back(&after);
    stored(&[FIRST]).violated(&after, true, "was acknowledged and is not stored");
    // As many as were pruned may be missing, and no more.
    let pruned = |pruned: u64| {
        let mut after = stats(3, 2, 0);
        after.total.pruned = pruned;
        after.by_topic.values_mut().for_each(|counters| counters.pruned = pruned);
        after
    };
    stored(&[FIRST]).read_back(&pruned(1));
    stored(&[]).read_back(&pruned(2));
    stored(&[]).violated(&pruned(1), true, "was acknowledged and is not stored");
    stored(&[FIRST, OTHER, FIRST]).violated(&after, true, "is stored twice");
    stored(&[OTHER_CONTENT, OTHER]).violated(&after, true, "content that was never sent");
    let unsent = Planned { event: 2, kind: Kind::New };
    stored(&[FIRST, OTHER, unsent]).violated(&after, true, "was never sent");
    // The counters are held against what is there.
    assert!(!stored(&[FIRST, OTHER]).auditor.check(&stats(3, 1, 0), true).ok);
}

#[test]
fn what_is_stored_in_another_way_is_found() {
    type Change = fn(&mut StoredEvent);
    let changes: [(&str, Change); 4] = [
        ("never sent", |event| event.source = "else".to_owned()),
        ("never sent", |event| event.payload = serde_json::from_str("{}").unwrap()),
        ("never sent", |event| event.event_id = "0000000000000007-00".to_owned()),
        ("never sent", |event| event.event_id = "mine".to_owned()),
    ];
    for (text, change) in changes {
        let mut tester = honest(&stats(0, 0, 0));
        let mut event = tester.event(FIRST);
        change(&mut event);
        tester.auditor.stored(&plan().topic_of(0), &event);
        tester.stored(OTHER);
        tester.violated(&stats(3, 2, 0), true, text);
    }
    // Other white space and order is the same JSON.
    let mut tester = honest(&stats(0, 0, 0));
    let mut event = tester.event(FIRST);
    let value: serde_json::Value = serde_json::from_str(event.payload.get()).unwrap();
    event.payload = serde_json::from_str(&format!("{value:#}")).unwrap();
    tester.auditor.stored(&plan().topic_of(0), &event);
    tester.stored(OTHER);
    tester.read_back(&stats(3, 2, 0));
}

#[test]
fn content_that_the_replies_rule_out_is_found() {
    let mut tester = Tester::fresh();
    tester.both(&[FIRST], &[Outcome::Accepted], 0);
    tester.both(&[OTHER_CONTENT], &[Outcome::Conflict], 0);
    tester.stored(OTHER_CONTENT);
    tester.violated(&stats(2, 1, 1), true, "its replies rule out");
}

#[test]
fn a_reply_that_does_not_add_up_is_told() {
    let mut tester = Tester::fresh();
    let request = tester.sent(&[FIRST]);
    tester.auditor.settled(request, 0, &Answer::Contradiction("1 is 2".to_owned()));
    tester.violated(&stats(1, 1, 0), false, "does not add up: 1 is 2");
}
