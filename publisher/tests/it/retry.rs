//! What is tried again, and what is not.

use std::time::Duration;

use crate::fake::{Fake, Fault};
use crate::harness::Place;

const SHIP: [&str; 4] = ["ship", "--topic", "t", "a.log"];

/// Ships two lines past some faults; both must be stored, once.
#[track_caller]
fn past(faults: &[Fault]) -> Fake {
    let (place, service) = (Place::new(), Fake::start());
    place.write("a.log", "a\nb\n");
    service.state().faults.extend(faults.iter().copied());
    let done = place.run(&service, &SHIP).ok();
    assert_eq!(service.messages("t"), ["a", "b"], "{done:#?}");
    assert_eq!(done.json["total"]["retries"], faults.len(), "{done:#?}");
    {
        let state = service.state();
        assert!(state.requests.iter().all(|request| request.body == state.requests[0].body));
    }
    service
}

#[test]
fn statuses_that_pass() {
    for status in [408, 429, 502, 503, 504] {
        past(&[Fault::Status(status, None), Fault::Status(status, Some("0"))]);
    }
}

#[test]
fn connections_that_are_cut() {
    past(&[Fault::CutBefore]);
    past(&[Fault::CutAfterCommit]);
    past(&[Fault::CutAfterCommit, Fault::StatusAfterCommit(503), Fault::CutBefore]);
}

#[test]
fn the_service_is_not_asked_again_before_the_time_it_names() {
    let service = past(&[Fault::Status(503, Some("1"))]);
    let state = service.state();
    let waited = state.requests[1].at - state.requests[0].at;
    assert!(waited >= Duration::from_secs(1), "{waited:?}");
}

#[test]
fn a_wait_beyond_the_limit_is_not_begun() {
    let (place, service) = (Place::new(), Fake::start());
    place.write("a.log", "a\nb\n");
    service.state().faults.push_back(Fault::Status(503, Some("86400")));
    let done = place.run(&service, &SHIP).failed();
    assert_eq!(service.state().requests.len(), 1);
    assert_eq!(done.json["total"]["unacknowledged"], 2, "{done:#?}");
    let failure = done.json["files"][0]["failure"].as_str().unwrap();
    assert!(failure.contains("503") && failure.contains("86400 s"), "{failure}");
}

#[test]
fn zero_means_no_retry() {
    let (place, service) = (Place::new(), Fake::start());
    place.write("a.log", "a\n");
    service.state().faults.push_back(Fault::Status(503, Some("0")));
    place.run(&service, &[&SHIP[..], &["--retry-for", "0"]].concat()).failed();
    assert_eq!(service.state().requests.len(), 1);
}

#[test]
fn answers_are_not_asked_for_again() {
    for status in [307, 400, 401, 404, 405, 415, 500] {
        let (place, service) = (Place::new(), Fake::start());
        place.write("a.log", "a\n");
        service.state().faults.push_back(Fault::Status(status, None));
        let done = place.run(&service, &SHIP).failed();
        assert_eq!(service.state().requests.len(), 1, "{status}");
        let failure = done.json["files"][0]["failure"].as_str().unwrap();
        assert!(failure.contains(&status.to_string()) && failure.contains("not now"), "{failure}");
    }
}

#[test]
fn the_service_is_waited_for() {
    let (place, service) = (Place::new(), Fake::start());
    place.write("a.log", "a\n");
    service.state().unhealthy = 5;
    place.run(&service, &SHIP).ok();
    assert_eq!(service.state().unhealthy, 0);
}

#[test]
fn a_service_that_does_not_wake_is_named() {
    let (place, service) = (Place::new(), Fake::start());
    place.write("a.log", "a\n");
    service.state().unhealthy = usize::MAX;
    let done = place.run(&service, &[&SHIP[..], &["--wait-for", "100ms"]].concat()).failed();
    assert!(done.stderr.contains(&service.url), "{}", done.stderr);
    assert!(done.stderr.contains("still waking up"), "{}", done.stderr);

    // Nobody listens on a port that was just given back.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let done = place.run(&service, &[&SHIP[..], &["--wait-for", "0", "--url", &url]].concat());
    let done = done.failed();
    assert!(done.stderr.contains(&url) && done.stderr.contains("--url"), "{}", done.stderr);
}

#[test]
fn wrong_arguments_are_refused_at_once() {
    let (place, service) = (Place::new(), Fake::start());
    for args in [
        &["ship"][..],
        &["ship", "--topic", "", "a.log"],
        &["load", "--duplicates", "1"],
        &["load", "--concurrency", "0"],
        &["--url", "localhost:3000", "load"],
        &["fly"],
    ] {
        assert_eq!(place.run(&service, args).code, Some(2), "{args:?}");
    }
    let help = place.publisher(&service, &["ship", "--help"]).output().unwrap();
    assert_eq!(help.status.code(), Some(0));
    let help = String::from_utf8(help.stdout).unwrap();
    let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("is taken for that one grown"), "the limit is named in\n{help}");
}
