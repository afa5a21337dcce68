//! `load`: exactness, and that a lying service is found out.

use crate::fake::{Fake, Fault, Lie};
use crate::harness::{Done, Place};

#[track_caller]
fn counts(done: &Done) -> (u64, u64, u64) {
    let count = |name: &str| done.json[name].as_u64().unwrap();
    (count("sent"), count("accepted"), count("duplicates"))
}

#[test]
fn the_classic_job() {
    let (place, service) = (Place::new(), Fake::start());
    let done = place.run(&service, &["load"]).ok();
    assert_eq!(counts(&done), (5_000, 4_000, 1_000));
    assert_eq!(service.state().stored.len(), 4_000);
    assert_eq!(service.state().requests.len(), 5_000);
    assert_eq!((&done.json["retries"], &done.json["errors"]), (&0.into(), &0.into()));
    assert_eq!(done.json["ok"], true);
}

#[test]
fn a_seed_gives_the_same_bytes_and_a_second_run_finds_them() {
    let (place, service) = (Place::new(), Fake::start());
    let args = ["load", "--seed", "7", "--events", "300", "--batch", "7", "--concurrency", "1"];
    assert_eq!(counts(&place.run(&service, &args).ok()), (300, 240, 60));
    assert_eq!(counts(&place.run(&service, &args).ok()), (300, 0, 300));
    let state = service.state();
    let (first, second) = state.requests.split_at(state.requests.len() / 2);
    assert!(first.iter().zip(second).all(|(a, b)| a.1 == b.1));
}

#[test]
fn runs_without_a_seed_do_not_meet() {
    let (place, service) = (Place::new(), Fake::start());
    let args = ["load", "--events", "50", "--duplicates", "0"];
    for _ in 0..2 {
        assert_eq!(counts(&place.run(&service, &args).ok()), (50, 50, 0));
    }
}

#[test]
fn shares_batches_and_topics() {
    for (args, expected) in [
        (&["--events", "0"][..], (0, 0, 0)),
        (&["--events", "1", "--duplicates", "0"], (1, 1, 0)),
        (&["--events", "100", "--duplicates", "50%", "--batch", "100"], (100, 50, 50)),
        (&["--events", "100", "--duplicates", "0.9", "--topics", "1"], (100, 10, 90)),
        (&["--events", "101", "--batch", "10", "--topics", "50"], (101, 81, 20)),
    ] {
        let (place, service) = (Place::new(), Fake::start());
        let done = place.run(&service, &[&["load"], args].concat()).ok();
        assert_eq!(counts(&done), expected, "{args:?}");
    }
}

#[test]
fn lost_replies_are_allowed_for_and_nothing_else() {
    for batch in ["1", "10"] {
        let (place, service) = (Place::new(), Fake::start());
        service.state().faults.extend([
            Fault::CutAfterCommit,
            Fault::None,
            Fault::StatusAfterCommit(503),
            Fault::CutBefore,
            Fault::Status(429, Some("0")),
        ]);
        let done = place.run(&service, &["load", "--events", "200", "--batch", batch]).ok();
        assert_eq!(done.json["retries"], 4, "{done:#?}");
        assert_eq!(service.state().stored.len(), 160);
        let rows = done.json["check"]["rows"].as_array().unwrap();
        let unique = rows.iter().find(|row| row["counter"] == "unique_processed").unwrap();
        assert_eq!(unique["expected_min"], unique["expected_max"], "all is answered: no range");
    }
}

#[test]
fn a_service_that_lies_is_found_out() {
    for lie in [
        Lie::LosesAcknowledged(1),
        Lie::LosesAcknowledged(100),
        Lie::DuplicateOfNothing,
        Lie::StoresTwice,
        Lie::CountsTooMany,
        Lie::CountsConflicts,
        Lie::RepliesTooMany,
    ] {
        for batch in ["1", "20"] {
            let (place, service) = (Place::new(), Fake::start());
            service.state().lie = lie;
            // One after the other: what a service says of two deliveries that
            // are under way together can be true in either order.
            let args = ["load", "--seed", "1", "--events", "200", "--concurrency", "1"];
            let done = place.run(&service, &[&args[..], &["--batch", batch]].concat()).failed();
            assert_eq!(done.json["check"]["ok"], false, "{lie:?}: {done:#?}");
        }
    }
}

#[test]
fn a_mismatch_is_a_clear_line() {
    let (place, service) = (Place::new(), Fake::start());
    service.state().lie = Lie::DuplicateOfNothing;
    let args = ["load", "--events", "10", "--duplicates", "0"];
    let output = place.publisher(&service, &args).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    for part in ["MISMATCH: event", "duplicate of nothing", "unique_processed", "NOT as expected"] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn a_failure_ends_the_run_and_what_was_sent_is_checked() {
    let (place, service) = (Place::new(), Fake::start());
    service.state().faults.extend([Fault::None, Fault::None, Fault::Status(500, None)]);
    let done = place.run(&service, &["load", "--events", "100", "--concurrency", "1"]).failed();
    assert_eq!((&done.json["sent"], &done.json["errors"]), (&3.into(), &1.into()), "{done:#?}");
    assert_eq!(done.json["unsent"], 97);
    assert_eq!(done.json["check"]["ok"], true);
    assert!(done.json["failure"].as_str().unwrap().contains("500"), "{done:#?}");
}
