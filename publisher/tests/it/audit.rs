//! `--audit`: each way in which a store can be wrong.

use crate::fake::{Fake, Fault, Lie};
use crate::harness::{Done, Place};

/// One after the other: what a service says of two deliveries that are under
/// way together can be true in either order.
const LOAD: [&str; 7] = ["load", "--seed", "1", "--events", "200", "--concurrency", "1"];

fn run(lie: Lie, more: &[&str]) -> (Done, Option<String>) {
    let (place, service) = (Place::new(), Fake::start());
    service.state().lie = lie;
    // More than one page of each topic.
    service.state().page_events_max = 7;
    let done = place.run(&service, &[&LOAD[..], more].concat());
    let victim = service.state().victim.clone();
    (done, victim)
}

#[test]
fn an_honest_service_passes() {
    for batch in ["1", "20"] {
        let done = run(Lie::None, &["--audit", "--batch", batch]).0.ok();
        assert_eq!(done.json["check"]["events_read"], 160);
        assert_eq!(done.json["check"]["unsettled"], 0);
    }
}

#[test]
fn an_event_that_is_not_as_it_was_sent_is_named() {
    for (lie, text) in [
        (Lie::LosesSilently(1), "was acknowledged and is not stored"),
        (Lie::LosesSilently(160), "was acknowledged and is not stored"),
        (Lie::ShowsTwice(80), "is stored twice"),
        (Lie::ChangesPayload(80), "is stored with content that was never sent"),
        (Lie::ChangesSource(80), "is stored with content that was never sent"),
        // Of the run's ids, and not.
        (Lie::StoresUnsent(80, "100000"), "but was never sent"),
        (Lie::StoresUnsent(80, "stranger"), "but was never sent"),
        (Lie::SkipsAtPageBorder, "was acknowledged and is not stored"),
        (Lie::RepeatsFirstPage, "comes after a later one"),
    ] {
        for shape in [["--batch", "20"], ["--topics", "1"]] {
            let (done, victim) = run(lie, &[&["--audit"], &shape[..]].concat());
            let done = done.failed();
            let id = victim.unwrap_or_default();
            let violations = done.violations();
            let found = violations.iter().any(|v| v.contains(&id) && v.contains(text));
            assert!(found, "{lie:?} of {id:?}: {violations:#?}");
        }
    }
}

#[test]
fn only_reading_back_finds_what_counters_and_replies_hide() {
    for lie in [
        Lie::LosesSilently(80),
        Lie::ShowsTwice(80),
        Lie::ChangesPayload(80),
        Lie::ChangesSource(80),
        Lie::StoresUnsent(80, "stranger"),
    ] {
        let (done, victim) = run(lie, &[]);
        assert!(victim.is_some(), "{lie:?} was never told");
        assert_eq!(done.ok().json["check"]["events_read"], serde_json::Value::Null, "{lie:?}");
    }
}

#[test]
fn a_counter_that_is_wrong_by_one_is_named() {
    for counter in ["unique_processed", "duplicate_dropped", "conflicts", "rejected"] {
        let workload = if counter == "rejected" { "poison" } else { "conflict" };
        let (done, _) = run(Lie::Miscounts(counter), &["--audit", "--workload", workload]);
        let done = done.failed();
        assert!(done.wrong_counters().contains(&counter), "{counter}: {done:#?}");
    }
    // And when the totals alone are wrong.
    run(Lie::CountsTooMany, &["--audit"]).0.failed().names("in /stats");
}

#[test]
fn people_are_told_which_event() {
    let (place, service) = (Place::new(), Fake::start());
    service.state().lie = Lie::LosesSilently(80);
    let told = place.tell(&service, &[&LOAD[..], &["--audit"]].concat());
    assert_eq!(told.code, Some(1));
    let id = service.state().victim.clone().unwrap();
    for part in [&format!("MISMATCH: event {id} was acknowledged"), "NOT as expected"] {
        assert!(told.stdout.contains(part), "{part:?} is not in\n{}", told.stdout);
    }
}

#[test]
fn lost_replies_raise_no_false_alarm() {
    for (seed, workload) in [("1", "mixed"), ("2", "conflict"), ("3", "retry"), ("4", "poison")] {
        let (place, service) = (Place::new(), Fake::start());
        service.state().faults.extend(
            [
                Fault::CutAfterCommit,
                Fault::None,
                Fault::StatusAfterCommit(503),
                Fault::CutBefore,
                Fault::Status(429, Some("0")),
                Fault::None,
            ]
            .repeat(3),
        );
        let args = ["load", "--audit", "--seed", seed, "--events", "600", "--workload", workload];
        let done = place.run(&service, &args).ok();
        assert!(done.json["retries"].as_u64().unwrap() >= 4, "{done:#?}");
    }
}

#[test]
fn a_second_run_with_the_same_seed_reads_back_what_the_first_stored() {
    let (place, service) = (Place::new(), Fake::start());
    let args = [&LOAD[..], &["--audit"]].concat();
    for accepted in [160, 0] {
        let done = place.run(&service, &args).ok();
        assert_eq!(done.counts(["sent", "accepted"]), [200, accepted]);
        assert_eq!(done.json["check"]["events_read"], 160);
    }
}
