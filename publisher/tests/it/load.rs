//! `load`: exactness, and that a lying service is found out.

use std::time::Duration;

use crate::fake::{Fake, Fault, Lie};
use crate::harness::{Done, Place, Running, wait_for};

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
    assert!(first.iter().zip(second).all(|(a, b)| a.body == b.body));
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

/// A request that is stored late finds many of its events stored by those that were planned
/// after it, however few it repeats itself.
#[test]
fn requests_that_overtake_each_other_are_told_all_that_became_of_them() {
    let (place, service) = (Place::new(), Fake::start());
    service.state().pause_at = Some((0, Duration::from_millis(500)));
    service.state().names_max = 10;
    let args = ["load", "--events", "3200", "--batch", "100", "--duplicates", "0.08"];
    let done = place.run(&service, &[&args[..], &["--concurrency", "32"]].concat()).ok();
    assert_eq!(counts(&done), (3_200, 2_944, 256));
}

/// Nothing is stored before it is sent, so that short replies do.
#[test]
fn a_load_without_repeats_asks_for_short_replies() {
    let (place, service) = (Place::new(), Fake::start());
    service.state().names_max = 0;
    let args = ["load", "--events", "2000", "--batch", "100", "--duplicates", "0"];
    assert_eq!(counts(&place.run(&service, &args).ok()), (2_000, 2_000, 0));
    assert!(service.state().requests.iter().all(|request| !request.names_all));
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

#[test]
fn kept_going_the_run_delivers_what_can_be_delivered() {
    let (place, service) = (Place::new(), Fake::start());
    let failed = Fault::Status(500, None);
    service.state().faults.extend([Fault::None, failed, Fault::None, failed, failed]);
    let args = ["load", "--events", "200", "--batch", "5", "--keep-going", "--audit"];
    let done = place.run(&service, &args).failed();
    assert_eq!(done.json["errors_by_kind"], serde_json::json!({"500": 3}), "{done:#?}");
    assert_eq!(done.counts(["sent", "errors", "unsent", "requests"]), [200, 15, 0, 40]);
    assert_eq!(service.state().requests.len(), 40);
    assert_eq!(done.json["check"]["ok"], true, "{done:#?}");
    assert!(done.json["failure"].as_str().unwrap().contains("500"), "{done:#?}");
}

#[test]
fn when_time_is_up_what_is_under_way_is_settled() {
    for rate in [&[][..], &["--rate", "200"]] {
        let (place, service) = (Place::new(), Fake::start());
        // Over the end of the run, so that something is under way then.
        service.state().pause_at = Some((10, Duration::from_millis(700)));
        let args = ["load", "--duration", "500ms", "--concurrency", "4", "--audit"];
        let done = place.run(&service, &[&args[..], rate].concat()).ok();
        let [sent, received, unsent, errors] =
            done.counts(["sent", "received", "unsent", "errors"]);
        assert_eq!((unsent, errors), (0, 0), "{done:#?}");
        assert_eq!((sent, sent), (received, service.state().requests.len() as u64));
        assert!(sent >= 14, "{done:#?}");
        assert_eq!(done.json["check"]["unsettled"], 0);
        assert_eq!(done.json["interrupted"], false);
        assert!(done.json["planned"].is_null(), "{done:#?}");
    }
}

#[test]
fn events_and_a_duration_end_with_what_comes_first() {
    let (place, service) = (Place::new(), Fake::start());
    let done = place.run(&service, &["load", "--duration", "60s", "--events", "20"]).ok();
    assert_eq!(done.counts(["sent", "planned", "unsent"]), [20, 20, 0]);
}

#[test]
#[cfg(unix)]
fn interrupted_the_run_ends_early_and_is_audited() {
    let by_time = ["load", "--duration", "60s", "--audit"];
    let by_count = ["load", "--events", "10000000", "--audit"];
    let open = ["load", "--rate", "300", "--duration", "60s", "--audit"];
    for (args, planned) in [(&by_time[..], false), (&by_count, true), (&open, false)] {
        let (place, service) = (Place::new(), Fake::start());
        let running = Running::start(&place, &service, args);
        wait_for(&true, || service.state().requests.len() >= 50);
        let done = running.stop("-INT").ended(130);
        assert_eq!((&done.json["interrupted"], &done.json["ok"]), (&true.into(), &false.into()));
        assert_eq!((&done.json["check"]["ok"], &done.json["errors"]), (&true.into(), &0.into()));
        let [sent, unsent] = done.counts(["sent", "unsent"]);
        assert_eq!(sent, service.state().requests.len() as u64);
        assert_eq!(unsent, if planned { 10_000_000 - sent } else { 0 });
    }
}

#[test]
#[cfg(unix)]
fn an_interrupted_run_can_be_resumed() {
    let (place, service) = (Place::new(), Fake::start());
    service.state().delay = Duration::from_millis(2);
    let args = ["load", "--ledger", "run", "--events", "2000"];
    let running = Running::start(&place, &service, &args);
    wait_for(&true, || service.state().requests.len() >= 50);
    running.stop("-TERM").ended(130);
    place.run(&service, &["verify", "run"]).ok();
    let done = place.run(&service, &["resume", "run"]).ok();
    assert_eq!(done.counts(["sent", "distinct", "unsent"]), [2_000, 1_600, 0]);
    assert_eq!(service.state().requests.len(), 2_000, "each once");
}
