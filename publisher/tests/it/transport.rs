//! `--gzip` and `--http2`.

use std::io::Read as _;

use crate::fake::{Fake, Received};
use crate::harness::Place;

const LOAD: [&str; 9] =
    ["load", "--seed", "3", "--events", "200", "--batch", "10", "--concurrency", "1"];

fn decoded(request: &Received) -> Vec<u8> {
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(&request.body[..]).read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn bodies_are_compressed_for_a_service_that_takes_it() {
    let (place, plain, service) = (Place::new(), Fake::start(), Fake::start());
    service.state().takes_gzip = true;
    place.run(&plain, &LOAD).ok();
    let done = place.run(&service, &[&LOAD[..], &["--gzip", "--audit"]].concat()).ok();
    assert_eq!(done.counts(["sent", "accepted", "retries"]), [200, 160, 0]);
    let state = service.state();
    // The first asks whether it may be, with a batch of nothing.
    let (probe, sent) = state.requests.split_first().unwrap();
    assert_eq!(decoded(probe), b"[]");
    assert!(sent.iter().all(|request| request.gzip));
    let expected: Vec<_> = plain.state().requests.iter().map(|r| r.body.to_vec()).collect();
    assert!(sent.iter().map(decoded).collect::<Vec<_>>() == expected, "other bytes");
    let bytes = sent.iter().map(|request| request.body.len() as u64).sum::<u64>();
    assert_eq!(done.counts(["bytes_sent"]), [bytes]);
    assert!(bytes < expected.iter().map(|body| body.len() as u64).sum());
}

#[test]
fn a_service_that_takes_no_gzip_gets_bodies_as_they_are() {
    let (place, service) = (Place::new(), Fake::start());
    let done = place.run(&service, &[&LOAD[..], &["--gzip", "--audit"]].concat()).ok();
    assert!(done.stderr.contains("415") && done.stderr.contains("as they are"), "{}", done.stderr);
    assert_eq!(done.counts(["sent", "accepted", "errors", "retries"]), [200, 160, 0, 0]);
    let state = service.state();
    assert_eq!(state.requests.iter().filter(|request| request.gzip).count(), 1, "the question");
}

#[test]
fn http2_is_spoken_over_one_connection() {
    let (place, service) = (Place::new(), Fake::start());
    let args = ["load", "--http2", "--audit", "--events", "500", "--concurrency", "16"];
    let done = place.run(&service, &args).ok();
    assert_eq!(done.counts(["sent", "accepted", "retries"]), [500, 400, 0]);
    let state = service.state();
    assert!(state.requests.iter().all(|request| request.http2));
    assert_eq!(state.connections, 1);
}

#[test]
fn there_are_no_more_connections_than_requests_under_way() {
    let (place, service) = (Place::new(), Fake::start());
    service.state().delay = std::time::Duration::from_millis(1);
    let done = place.run(&service, &["load", "--events", "500", "--concurrency", "16"]).ok();
    assert_eq!(done.counts(["sent", "accepted", "retries"]), [500, 400, 0]);
    assert!(service.state().connections <= 16, "{}", service.state().connections);
}
