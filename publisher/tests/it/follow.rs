//! `ship --follow`: growth, rotation, the end.
#![cfg(unix)]

use std::fs;

use crate::fake::{Fake, Fault};
use crate::harness::{Place, Running, wait_for};

const FOLLOW: [&str; 7] = ["ship", "--follow", "--poll", "20ms", "--topic", "t", "a.log"];

fn lines(range: std::ops::Range<usize>) -> String {
    range.map(|number| format!("line {number}\n")).collect()
}

fn messages(range: std::ops::Range<usize>) -> Vec<String> {
    lines(range).lines().map(str::to_owned).collect()
}

/// Waits until exactly these lines are stored, in this order.
#[track_caller]
fn stored(service: &Fake, expected: &[String]) {
    wait_for(&expected.to_vec(), || service.messages("t"));
}

#[test]
fn a_file_that_grows() {
    let (place, service) = (Place::new(), Fake::start());
    place.write("a.log", lines(0..3));
    let running = Running::start(&place, &service, &FOLLOW);
    stored(&service, &messages(0..3));
    // Past the head while it is followed.
    place.append("a.log", lines(3..500));
    stored(&service, &messages(0..500));
    // Incomplete, until it is complete.
    place.append("a.log", "line 5");
    place.append("a.log", "00\nline 501\nline 502");
    stored(&service, &messages(0..502));
    let done = running.stop("-TERM").ok();
    // The end of the run is the end of the file.
    assert_eq!(service.messages("t"), messages(0..503));
    assert_eq!(done.total(), (503, 503, 0));
    // Shipped again, all of it is known.
    place.append("a.log", "\n");
    assert_eq!(place.run(&service, &["ship", "--topic", "t", "a.log"]).ok().total().1, 0);
}

/// Waits until exactly these lines are stored.
#[track_caller]
fn stored_in_any_order(service: &Fake, mut expected: Vec<String>) {
    expected.sort_unstable();
    wait_for(&expected, || {
        let mut messages = service.messages("t");
        messages.sort_unstable();
        messages
    });
}

#[test]
fn renamed_and_made_anew() {
    let (place, service) = (Place::new(), Fake::start());
    place.write("a.log", lines(0..3));
    let args = [&FOLLOW[..], &["--renamed-quiet", "300ms"]].concat();
    let running = Running::start(&place, &service, &args);
    stored(&service, &messages(0..3));
    fs::rename(place.path("a.log"), place.path("a.log.1")).unwrap();
    // Its writer goes on writing to it for a while.
    place.append("a.log.1", lines(3..5));
    stored(&service, &messages(0..5));
    place.append("a.log.1", "line 5\nline 6");
    place.write("a.log", lines(7..9));
    // The incomplete line comes once its file is done with.
    stored_in_any_order(&service, messages(0..9));
    fs::rename(place.path("a.log"), place.path("a.log.2")).unwrap();
    place.append("a.log.2", lines(9..10));
    place.write("a.log", lines(10..12));
    stored_in_any_order(&service, messages(0..12));
    assert_eq!(running.stop("-INT").ok().total(), (12, 12, 0));
}

#[test]
fn copied_and_truncated() {
    let (place, service) = (Place::new(), Fake::start());
    place.write("a.log", lines(0..100));
    let running = Running::start(&place, &service, &FOLLOW);
    stored(&service, &messages(0..100));
    // Written after the last look and then truncated: only the copy has it.
    place.write("a.log.1", lines(0..103));
    place.write("a.log", "");
    stored(&service, &messages(0..103));
    place.append("a.log", lines(103..110));
    stored(&service, &messages(0..110));
    // Truncated and written to beyond where it was, between two looks.
    fs::rename(place.path("a.log.1"), place.path("a.log.2")).unwrap();
    place.write("a.log.1", lines(103..110));
    place.write("a.log.new", lines(110..300));
    fs::write(place.path("a.log"), fs::read(place.path("a.log.new")).unwrap()).unwrap();
    stored(&service, &messages(0..300));
    let done = running.stop("-TERM").ok();
    assert_eq!(done.total(), (300, 300, 0));
}

#[test]
fn truncated_to_what_it_began_with() {
    let (place, service) = (Place::new(), Fake::start());
    place.write("a.log", lines(0..500));
    let running = Running::start(&place, &service, &FOLLOW);
    stored(&service, &messages(0..500));
    // Longer than what tells files apart, and the same as before: only its
    // length says that it is written anew.
    let file = fs::OpenOptions::new().write(true).open(place.path("a.log")).unwrap();
    file.set_len(lines(0..300).len() as u64).unwrap();
    let mut expected = messages(0..500);
    expected.extend(messages(0..300));
    stored(&service, &expected);
    running.stop("-TERM").ok();
}

#[test]
fn new_files_that_begin_like_the_old_ones() {
    for truncated in [false, true] {
        let (place, service) = (Place::new(), Fake::start());
        place.write("a.log", "banner\n");
        let running = Running::start(&place, &service, &FOLLOW);
        let mut expected = vec!["banner".to_owned()];
        stored(&service, &expected);
        for name in ["one", "two", "three"] {
            // The banner alone is seen first, and then what tells them apart.
            place.append("a.log", format!("{name}\n"));
            expected.push(name.to_owned());
            stored(&service, &expected);
            if truncated {
                place.write("a.log", "");
            } else {
                fs::rename(place.path("a.log"), place.path(name)).unwrap();
            }
            place.append("a.log", "banner\n");
            expected.push("banner".to_owned());
            stored(&service, &expected);
        }
        running.stop("-TERM").ok();
    }
}

#[test]
fn a_file_that_is_not_there_yet() {
    let (place, service) = (Place::new(), Fake::start());
    let running = Running::start(&place, &service, &FOLLOW);
    place.write("a.log", "now\n");
    stored(&service, &["now".to_owned()]);
    running.stop("-TERM").ok();
}

#[test]
fn several_files_at_once_past_a_service_that_is_busy() {
    let (place, service) = (Place::new(), Fake::start());
    let names = ["a", "b", "c", "d", "e", "f"];
    for name in names {
        place.write(name, format!("{name} 1\n"));
    }
    let args = [&["ship", "--follow", "--poll", "20ms", "--concurrency", "2"], &names[..]].concat();
    let running = Running::start(&place, &service, &args);
    for name in names {
        wait_for(&vec![format!("{name} 1")], || service.messages(name));
    }
    service.state().faults.extend([
        Fault::Status(503, Some("0")),
        Fault::CutAfterCommit,
        Fault::Status(429, None),
    ]);
    for name in names {
        place.append(name, format!("{name} 2\n"));
    }
    for name in names {
        wait_for(&vec![format!("{name} 1"), format!("{name} 2")], || service.messages(name));
    }
    let done = running.stop("-TERM").ok();
    assert_eq!(done.json["files"].as_array().unwrap().len(), 6);
    assert_eq!(done.json["total"]["lines"], 12);
}

#[test]
fn followed_again_only_what_is_new_is_stored() {
    let (place, service) = (Place::new(), Fake::start());
    place.write("a.log", lines(0..10));
    let running = Running::start(&place, &service, &FOLLOW);
    stored(&service, &messages(0..10));
    running.stop("-TERM").ok();
    place.append("a.log", lines(10..400));
    let running = Running::start(&place, &service, &FOLLOW);
    stored(&service, &messages(0..400));
    assert_eq!(running.stop("-TERM").ok().total(), (400, 390, 10));
}
