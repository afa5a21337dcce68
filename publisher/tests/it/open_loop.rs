//! `--rate`: pauses are seen for what they are; warm-up.

use std::time::Duration;

use crate::fake::Fake;
use crate::harness::{Done, Place};

#[track_caller]
fn bars(done: &Done, which: &str) -> u64 {
    done.json["histogram"].as_array().unwrap().iter().map(|bar| bar[which].as_u64().unwrap()).sum()
}

#[test]
fn a_pause_of_the_service_is_in_the_corrected_latencies() {
    let (place, service) = (Place::new(), Fake::start());
    service.state().pause_at = Some((200, Duration::from_secs(1)));
    let args = ["load", "--rate", "500", "--events", "1500", "--concurrency", "8"];
    let done = place.run(&service, &args).ok();
    assert_eq!(done.counts(["sent", "requests", "unsent"]), [1_500, 1_500, 0]);
    // 8 of 1,500 wait in the pause, and 500 should have been sent in it.
    let raw = done.number("/latency_ms/raw/p99");
    let corrected = done.number("/latency_ms/corrected/p99");
    assert!(corrected > 300.0, "{corrected}: {done:#?}");
    assert!(raw < corrected / 2.0, "{raw} and {corrected}: {done:#?}");
    assert!(done.number("/latency_ms/raw/max") >= 900.0, "{done:#?}");
    assert!(done.number("/pace/late_requests") >= 100.0, "{done:#?}");
    assert_eq!(
        (&done.json["pace"]["held"], &done.json["arrivals"]),
        (&false.into(), &"constant".into())
    );
    assert_eq!((bars(&done, "raw"), bars(&done, "corrected")), (1_500, 1_500));
}

#[test]
fn a_closed_loop_has_no_corrected_latencies() {
    let (place, service) = (Place::new(), Fake::start());
    let done = place.run(&service, &["load", "--events", "50"]).ok();
    assert!(done.json["latency_ms"]["corrected"].is_null() && done.json["pace"].is_null());
    assert_eq!(done.number("/latency_ms/raw/count"), 50.0);
    assert_eq!((bars(&done, "raw"), bars(&done, "corrected")), (50, 0));
    assert_eq!(done.json["arrivals"], "closed");
}

#[test]
fn random_arrivals_deliver_the_same_and_are_audited() {
    let (place, service) = (Place::new(), Fake::start());
    let args = ["load", "--rate", "3000", "--poisson", "--workload", "mixed", "--events", "1000"];
    let done = place.run(&service, &[&args[..], &["--audit"]].concat()).ok();
    assert_eq!(done.counts(["sent", "rejected", "accepted"]), [1_000, 10, 770]);
    assert_eq!(done.json["arrivals"], "poisson");
    assert_eq!(done.json["pace"]["dropped_requests"], 0);
}

#[test]
fn a_rate_that_the_service_cannot_hold_is_not_held() {
    let (place, service) = (Place::new(), Fake::start());
    // 50 a second at the most.
    service.state().delay = Duration::from_millis(20);
    let args = ["load", "--rate", "500", "--duration", "1s", "--concurrency", "1", "--audit"];
    let judged = [&args[..], &["--fail-if", "dropped>0", "--json", "report.json"]].concat();
    let told = place.tell(&service, &judged);
    assert_eq!(told.code, Some(3), "{told:#?}");
    assert!(told.stdout.contains("NOT HELD"), "{}", told.stdout);
    let done = Done { code: told.code, json: place.read_json("report.json"), stderr: told.stderr };
    assert_eq!(done.json["pace"]["held"], false);
    let dropped = done.number("/pace/dropped_requests");
    // 500 were due, and each was sent or dropped.
    assert!(dropped > 0.0 && dropped + done.number("/sent") == 500.0, "{done:#?}");
    assert_eq!(done.number("/thresholds/0/observed"), dropped);
    assert_eq!(done.counts(["sent"])[0], service.state().requests.len() as u64);
}

#[test]
fn warm_up_is_counted_and_not_measured() {
    let (place, service) = (Place::new(), Fake::start());
    // By the time at which they are due, so on any machine half a second's.
    let args = ["load", "--rate", "300", "--events", "300", "--warm-up", "500ms"];
    let done = place.run(&service, &args).ok();
    let [requests, warm_up] = done.counts(["requests", "warm_up_requests"]);
    assert!((150..=151).contains(&warm_up), "{done:#?}");
    assert_eq!(requests, 300);
    for which in ["raw", "corrected"] {
        let count = done.number(&format!("/latency_ms/{which}/count"));
        assert_eq!(count, (300 - warm_up) as f64, "{which}");
    }
    assert_eq!(done.json["timeline"][0]["warm_up"], true);
}

#[test]
fn a_run_that_is_all_warm_up_measures_nothing() {
    let (place, service) = (Place::new(), Fake::start());
    let args = ["load", "--events", "50", "--warm-up", "60s"];
    let done = place.run(&service, &args).ok();
    assert_eq!(done.counts(["requests", "warm_up_requests", "sent"]), [50, 50, 50]);
    assert_eq!(done.number("/latency_ms/raw/count"), 0.0);
    // And what was not measured is not within a threshold.
    let done = place.run(&service, &[&args[..], &["--fail-if", "p99>50ms"]].concat()).ended(3);
    assert!(done.json["thresholds"][0]["observed"].is_null(), "{done:#?}");
}

#[test]
fn wrong_combinations_are_refused() {
    let (place, service) = (Place::new(), Fake::start());
    for (args, code) in [
        (&["--poisson"][..], 2),
        (&["--rate", "0"], 2),
        (&["--rate", "-1"], 2),
        (&["--rate", "nan"], 2),
        (&["--duration", "0"], 2),
        (&["--duration", "1s", "--warm-up", "1s"], 1),
    ] {
        let done = place.run(&service, &[&["load", "--events", "1"], args].concat());
        assert_eq!(done.code, Some(code), "{args:?}: {done:#?}");
    }
    assert!(service.state().requests.is_empty());
}

#[test]
fn the_program_measures_itself() {
    let (place, service) = (Place::new(), Fake::start());
    for args in [&["calibrate", "--duration", "300ms"][..], &["--http2"], &["--ledger", "run"]] {
        let args = match args[0] {
            "calibrate" => args.to_vec(),
            _ => [&["calibrate", "--duration", "300ms"], args].concat(),
        };
        let done = place.run(&service, &args).ok();
        assert!(done.number("/requests_per_second") > 0.0, "{done:#?}");
        assert_eq!(done.json["errors"], 0);
    }
}
