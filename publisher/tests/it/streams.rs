//! `ship --streams`: over streams where the service offers them.

use std::io::{BufRead as _, BufReader};

use serde_json::Value;

use crate::fake::{Fake, Streaming, Tunnel};
use crate::harness::{Done, Place, Running, wait_for};

/// Small batches, so that there are many ahead.
const SHIP: [&str; 6] = ["ship", "--topic", "t", "--batch", "10", "a.log"];
const LINES: usize = 1_000;

fn log(lines: usize) -> String {
    (1..=lines).map(|number| format!("line {number}\n")).collect()
}

fn streaming(streaming: Streaming) -> (Place, Fake) {
    let (place, service) = (Place::new(), Fake::start());
    service.state().streaming = streaming;
    place.write("a.log", log(LINES));
    (place, service)
}

/// Lines that came over streams, and requests beside them.
fn ways(service: &Fake) -> (usize, usize) {
    let state = service.state();
    (state.streams.iter().map(|stream| stream.lines).sum(), state.requests.len())
}

/// Lines over streams, and which of these were of HTTP/2.
fn streamed(service: &Fake) -> (usize, Vec<bool>) {
    let state = service.state();
    let lines = state.streams.iter().map(|stream| stream.lines).sum();
    (lines, state.streams.iter().map(|stream| stream.http2).collect())
}

#[track_caller]
fn stored_in_order(service: &Fake, lines: usize) {
    assert_eq!(service.messages("t"), log(lines).lines().collect::<Vec<_>>());
}

fn retries(done: &Done) -> &Value {
    &done.json["total"]["retries"]
}

#[test]
fn lines_go_over_a_stream_that_is_offered() {
    let (place, service) = streaming(Streaming::Yes);
    let lines = LINES as u64;
    let done = place.run(&service, &SHIP).ok();
    assert_eq!(done.total(), (lines, lines, 0));
    assert_eq!((retries(&done), &done.json["total"]["requests"]), (&0.into(), &100.into()));
    stored_in_order(&service, LINES);
    let (streamed, posted) = ways(&service);
    assert!(streamed > 0 && streamed + 10 * posted == LINES, "{streamed} {posted}");
    assert!(service.state().streams.iter().all(|stream| stream.has_ended), "it is broken off");
    assert!(!done.stderr.contains("stream"), "{}", done.stderr);
    // The ids are the same either way.
    service.state().streams.clear();
    let without = [&SHIP[..], &["--streams", "0"]].concat();
    let done = place.run(&service, &without).ok();
    assert_eq!((done.total(), service.state().streams.len()), ((lines, 0, lines), 0));
    assert_eq!(place.run(&service, &SHIP).ok().total(), (lines, 0, lines));
    assert!(ways(&service).0 > 0);
    stored_in_order(&service, LINES);
}

#[test]
fn lines_of_several_files_share_several_streams() {
    let (place, service) = streaming(Streaming::Yes);
    let names: Vec<String> = (0..9).map(|number| format!("{number}.log")).collect();
    for name in &names {
        place.write(name, log(200).replace("line", name));
    }
    let mut args = vec!["ship", "--streams", "3", "--batch", "7"];
    args.extend(names.iter().map(String::as_str));
    assert_eq!(place.run(&service, &args).ok().total(), (1_800, 1_800, 0));
    assert!(ways(&service).0 > 0);
    for name in &names {
        let expected = log(200).replace("line", name);
        let topic = name.trim_end_matches(".log");
        assert_eq!(service.messages(topic), expected.lines().collect::<Vec<_>>(), "{name}");
    }
}

#[test]
fn what_a_broken_stream_leaves_is_sent_again_in_order() {
    let (place, service) = streaming(Streaming::Yes);
    // More than are ahead, so that some are answered; then in the middle of a part, at
    // its end, at once, and of several that are ahead.
    service.state().stream_cuts = [100, 5, 10, 1, 37, 200].into();
    let done = place.run(&service, &SHIP).ok();
    let (lines, accepted, duplicates) = done.total();
    assert_eq!((lines, accepted + duplicates), (1_000, 1_000), "each is answered once");
    assert!(duplicates > 0, "what was stored and not told");
    assert_eq!(retries(&done), &6, "{done:#?}");
    stored_in_order(&service, LINES);
    assert!(ways(&service).1 >= 6);
}

#[test]
fn a_service_without_streams_gets_requests() {
    for status in [400, 403, 404, 405, 411, 415, 426, 501] {
        let (place, service) = streaming(Streaming::Status(status));
        let done = place.run(&service, &SHIP).ok();
        assert_eq!(done.total(), (1_000, 1_000, 0));
        assert_eq!(retries(&done), &0);
        assert_eq!(service.state().streams.len(), 1, "{status} is not asked about again");
        assert_eq!(ways(&service), (0, 100));
        let said = done.stderr.matches("no stream to publish on").count();
        assert!(said == 1 && done.stderr.contains(&status.to_string()), "{}", done.stderr);
        stored_in_order(&service, LINES);
    }
}

#[test]
fn what_passes_is_asked_about_again_but_not_for_ever() {
    for status in [429, 500, 502, 503, 504] {
        let (place, service) = streaming(Streaming::Status(status));
        let done = place.run(&service, &SHIP).ok();
        assert_eq!((done.total(), retries(&done)), ((1_000, 1_000, 0), &0.into()));
        assert!(service.state().streams.len() <= 3, "{status}");
        assert_eq!(ways(&service), (0, 100));
    }
}

#[test]
fn a_gateway_that_collects_requests_does_not_hold_them_up() {
    let (place, service) = streaming(Streaming::CollectsRequests);
    let done = place.run(&service, &[&SHIP[..], &["--timeout", "10m"]].concat()).ok();
    assert_eq!((done.total(), retries(&done)), ((1_000, 1_000, 0), &0.into()));
    assert_eq!(ways(&service), (0, 100));
    stored_in_order(&service, LINES);
    // While it is followed, the limit passes, which is said.
    let args = ["ship", "--json", "--follow", "--timeout", "10m", "--topic", "u", "a.log"];
    let mut child = place.publisher(&service, &args).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
    let said = std::thread::spawn(move || {
        stderr.find_map(|line| line.ok().filter(|line| line.contains("no reply within 5 s")))
    });
    let running = Running::of(child);
    wait_for(&true, || {
        place.append("a.log", "one more\n");
        said.is_finished()
    });
    assert!(said.join().unwrap().is_some());
    assert_eq!(running.stop("-TERM").code, Some(0));
}

#[test]
fn a_gateway_that_collects_replies_is_given_up() {
    let (place, service) = streaming(Streaming::CollectsReplies);
    let done = place.run(&service, &[&SHIP[..], &["--timeout", "10m"]].concat()).ok();
    let (lines, accepted, duplicates) = done.total();
    assert_eq!((lines, accepted + duplicates), (1_000, 1_000));
    assert_eq!(retries(&done), &1, "{done:#?}");
    assert!(done.stderr.contains("no outcome within 10 s"), "{}", done.stderr);
    assert_eq!(service.state().streams.len(), 1);
    stored_in_order(&service, LINES);
}

#[test]
fn a_page_is_no_stream() {
    let (place, service) = streaming(Streaming::Page);
    let done = place.run(&service, &SHIP).ok();
    assert_eq!((done.total(), retries(&done)), ((1_000, 1_000, 0), &0.into()));
    assert!(done.stderr.contains("not a reply of the contract"), "{}", done.stderr);
    stored_in_order(&service, LINES);
}

#[test]
fn rejected_and_conflicting_lines_are_named() {
    let (place, service) = streaming(Streaming::Yes);
    place.write("a.log", "a\nREFUSED\nb\n");
    let done = place.run(&service, &SHIP).failed();
    assert_eq!((done.total(), &done.json["total"]["rejected"]), ((3, 2, 0), &1.into()));
    assert_eq!(done.json["files"][0]["problems"][0], "line 2 is rejected: topic: is refused");
    assert_eq!(service.messages("t"), ["a", "b"]);
    // Nothing but what is refused.
    place.write("a.log", "REFUSED\nREFUSED, too\n");
    let done = place.run(&service, &SHIP).failed();
    assert_eq!((done.total(), &done.json["total"]["rejected"]), ((2, 0, 0), &2.into()));
}

#[test]
fn a_line_that_ends_a_stream_is_named_and_the_others_are_stored() {
    let (place, service) = streaming(Streaming::Yes);
    service.state().body_bytes_max = 2_000;
    let (before, after) = (log(500), "another\n".repeat(500));
    place.write("a.log", format!("{before}{}\n{after}", "x".repeat(3_000)));
    let done = place.run(&service, &SHIP).failed();
    assert_eq!((done.json["total"]["rejected"].clone(), done.total().0), (1.into(), 1_001));
    let problems = done.json["files"][0]["problems"].as_array().unwrap();
    assert!(problems.len() == 1 && problems[0].as_str().unwrap().contains("line 501"));
    assert_eq!(service.messages("t"), format!("{before}{after}").lines().collect::<Vec<_>>());
    let state = service.state();
    assert!(state.streams.len() <= 3, "{} streams", state.streams.len());
}

#[test]
fn who_asks_is_told_on_streams() {
    let (place, service) = streaming(Streaming::Yes);
    place.run(&service, &[&SHIP[..], &["--user", "someone:secret"]].concat()).ok();
    assert!(ways(&service).0 > 0);
    let asked_by: Vec<_> = service.state().asked_by.iter().cloned().collect();
    assert_eq!(asked_by, [Some("Basic c29tZW9uZTpzZWNyZXQ=".to_owned())]);
}

#[test]
#[cfg(unix)]
fn a_file_is_followed_over_streams() {
    let (place, service) = streaming(Streaming::Yes);
    let args = ["ship", "--follow", "--topic", "t", "--batch", "10", "a.log"];
    let running = Running::start(&place, &service, &args);
    wait_for(&LINES, || service.messages("t").len());
    // The stream that was open is gone, and the next one breaks.
    service.state().stream_cuts = [1].into();
    for number in LINES + 1..LINES + 50 {
        place.append("a.log", format!("line {number}\n"));
        wait_for(&number, || service.messages("t").len());
    }
    let done = running.stop("-TERM").ok();
    assert_eq!(done.total().0, LINES as u64 + 49);
    assert_eq!(done.json["total"]["unacknowledged"], 0);
    assert!(ways(&service).0 > 0);
    stored_in_order(&service, LINES + 49);
}

#[test]
fn streams_go_over_tls() {
    for (protocols, http2) in [(&["h2", "http/1.1"][..], true), (&["http/1.1"], false)] {
        let (place, service) = streaming(Streaming::Yes);
        let (url, certificate) = service.listen_with_tls(protocols);
        let certificate = place.write("ca.pem", certificate);
        let run = |args: &[&str]| {
            let args = [args, &["--json", "--url", &url, "--user", "a:b"]].concat();
            let mut command = place.publisher(&service, &args);
            Done::of(command.env("SSL_CERT_FILE", &certificate).output().unwrap())
        };
        // Of a stream that breaks nothing is lost here, either.
        service.state().stream_cuts = [100].into();
        let done = run(&SHIP).ok();
        let (lines, accepted, duplicates) = done.total();
        assert_eq!((lines, accepted + duplicates, retries(&done)), (1_000, 1_000, &1.into()));
        stored_in_order(&service, LINES);
        let (lines, versions) = streamed(&service);
        assert!(lines > 100 && versions.iter().all(|version| *version == http2), "{versions:?}");
        assert_eq!(service.state().asked_by.len(), 1, "who asks is told on all");
        let load = ["load", "--streams", "2", "--events", "500", "--audit", "--batch", "3"];
        let done = run(&load).ok();
        assert_eq!(done.counts(["sent", "accepted", "retries"]), [500, 400, 0]);
        assert_eq!(streamed(&service).0, lines + 500);
        // Whom nobody vouches for is told nothing.
        let refused = ["ship", "--wait-for", "0", "--url", &url, "a.log"];
        assert!(!place.publisher(&service, &refused).output().unwrap().status.success());
    }
}

#[test]
fn streams_go_through_proxies() {
    // One that is asked for all of an address.
    let (place, proxy) = streaming(Streaming::Yes);
    let args = [&SHIP[..], &["--json", "--url", "http://sekali.invalid"]].concat();
    let mut command = place.publisher(&proxy, &args);
    let command = command.env("HTTP_PROXY", &proxy.url).env("NO_PROXY", "");
    assert_eq!(Done::of(command.output().unwrap()).ok().total(), (1_000, 1_000, 0));
    assert!(ways(&proxy).0 > 0);
    stored_in_order(&proxy, LINES);

    // One that tunnels.
    let (place, service) = streaming(Streaming::Yes);
    let (url, certificate) = service.listen_with_tls(&["h2"]);
    let certificate = place.write("ca.pem", certificate);
    let tunnel = Tunnel::start();
    let args = [&SHIP[..], &["--json", "--url", &url]].concat();
    let mut command = place.publisher(&service, &args);
    command.env("SSL_CERT_FILE", &certificate);
    let command = command.env("HTTPS_PROXY", &tunnel.url).env("NO_PROXY", "");
    assert_eq!(Done::of(command.output().unwrap()).ok().total(), (1_000, 1_000, 0));
    assert!(ways(&service).0 > 0);
    assert!(tunnel.connections() > 0, "it went past the proxy");
    stored_in_order(&service, LINES);
}
