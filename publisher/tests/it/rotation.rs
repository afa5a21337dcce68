//! `ship --follow` through rotations, outages and restarts: nothing is lost.
#![cfg(unix)]

use std::fs;
use std::io::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::fake::{Fake, Fault};
use crate::harness::{Place, Running, wait_for};

const FOLLOW: [&str; 7] = ["ship", "--follow", "--poll", "10ms", "--topic", "t", "a.log"];

fn lines(range: std::ops::Range<usize>) -> String {
    range.map(|number| format!("line {number}\n")).collect()
}

/// Waits until exactly these lines are stored.
#[track_caller]
fn stored(service: &Fake, range: std::ops::Range<usize>) {
    let mut expected: Vec<_> = lines(range).lines().map(str::to_owned).collect();
    expected.sort_unstable();
    wait_for(&expected, || {
        let mut messages = service.messages("t");
        messages.sort_unstable();
        messages
    });
}

fn rename(place: &Place, from: &str, to: &str) {
    fs::rename(place.path(from), place.path(to)).unwrap();
}

#[test]
fn a_writer_may_go_on_long_after_its_file_was_renamed() {
    let (place, service) = (Place::new(), Fake::start());
    place.write("a.log", lines(0..3));
    let running = Running::start(&place, &service, &FOLLOW);
    stored(&service, 0..3);
    rename(&place, "a.log", "a.log.1");
    place.append("a.log.1", "line 3\nli");
    stored(&service, 0..4);
    // The new file is there, and read, and read again.
    place.write("a.log", lines(5..7));
    for number in 7..20 {
        place.append("a.log", lines(number..number + 1));
        let count = number;
        wait_for(&count, || service.messages("t").len());
    }
    place.append("a.log.1", "ne 4\n");
    stored(&service, 0..20);
    rename(&place, "a.log.1", "a.log.2");
    place.append("a.log.2", lines(20..22));
    stored(&service, 0..22);
    assert_eq!(running.stop("-TERM").ok().total(), (22, 22, 0));
}

#[test]
fn a_file_that_had_the_name_between_two_looks_is_shipped() {
    for outage in [false, true] {
        let (place, service) = (Place::new(), Fake::start());
        place.write("a.log", lines(0..3));
        let poll = if outage { "10ms" } else { "500ms" };
        let args = ["ship", "--follow", "--poll", poll, "--topic", "t", "a.log"];
        let running = Running::start(&place, &service, &args);
        stored(&service, 0..3);
        if outage {
            service.state().paused_until = Some(Instant::now() + Duration::from_millis(700));
            place.append("a.log", lines(3..4));
        } else {
            place.append("a.log", lines(3..4));
        }
        for number in 4..9 {
            for old in (1..number).rev() {
                let (from, to) = (format!("a.log.{old}"), format!("a.log.{}", old + 1));
                if place.path(&from).exists() {
                    rename(&place, &from, &to);
                }
            }
            rename(&place, "a.log", "a.log.1");
            place.write("a.log", lines(number..number + 1));
        }
        stored(&service, 0..9);
        assert_eq!(running.stop("-TERM").ok().total(), (9, 9, 0));
    }
}

#[test]
fn copied_and_emptied_and_then_renamed_while_a_request_waits() {
    // The second is more than is read at a time: the file is found to be emptied when
    // another one has its name already.
    for count in [4, 20_000] {
        let (place, service) = (Place::new(), Fake::start());
        place.write("a.log", lines(0..3));
        let running = Running::start(&place, &service, &FOLLOW);
        stored(&service, 0..3);
        service.state().paused_until = Some(Instant::now() + Duration::from_secs(600));
        place.append("a.log", lines(3..count));
        wait_for(&2, || service.state().requests.len());
        place.append("a.log", lines(count..count + 1));
        fs::copy(place.path("a.log"), place.path("a.log.2")).unwrap();
        place.write("a.log", lines(count + 1..count + 3));
        rename(&place, "a.log", "a.log.1");
        place.write("a.log", lines(count + 3..count + 5));
        let inode = fs::metadata(place.path("a.log")).unwrap();
        wait_for(&true, || is_open(running.id(), &inode));
        service.state().paused_until = None;
        stored(&service, 0..count + 5);
        assert_eq!(running.stop("-TERM").ok().total().1, count as u64 + 5);
    }
}

#[test]
fn a_file_that_was_emptied_goes_on_after_an_outage() {
    let (place, service) = (Place::new(), Fake::start());
    place.write("a.log", lines(0..3));
    let args = [&FOLLOW[..], &["--retry-for", "50ms"]].concat();
    let running = Running::start(&place, &service, &args);
    stored(&service, 0..3);
    place.write("a.log.1", lines(0..4));
    service.state().faults.extend([Fault::Status(503, None); 3]);
    place.write("a.log", "");
    // The rest of it, which is in the copy alone.
    stored(&service, 0..4);
    place.append("a.log", lines(4..6));
    stored(&service, 0..6);
    assert_eq!(running.stop("-TERM").ok().total(), (6, 6, 0));
}

#[test]
fn what_is_deleted_during_an_outage_was_opened_before() {
    let (place, service) = (Place::new(), Fake::start());
    place.write("a.log", lines(0..3));
    let running = Running::start(&place, &service, &FOLLOW);
    stored(&service, 0..3);
    service.state().paused_until = Some(Instant::now() + Duration::from_secs(600));
    place.append("a.log", lines(3..4));
    for number in 4..8 {
        rename(&place, "a.log", "a.log.1");
        place.write("a.log", lines(number..number + 1));
        // Until it has been opened, which nothing but its table of files says.
        let pid = running.id();
        let inode = fs::metadata(place.path("a.log")).unwrap();
        wait_for(&true, || is_open(pid, &inode));
        fs::remove_file(place.path("a.log.1")).unwrap();
    }
    service.state().paused_until = None;
    stored(&service, 0..8);
    running.stop("-TERM").ok();
}

/// Whether a process has a file open; true where the system does not say.
fn is_open(pid: u32, file: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        std::thread::sleep(Duration::from_millis(200));
        return true;
    };
    open.flatten()
        .filter_map(|entry| fs::metadata(entry.path()).ok())
        .any(|open| (open.dev(), open.ino()) == (file.dev(), file.ino()))
}

#[test]
fn what_was_rotated_while_nobody_followed_is_shipped() {
    for packed in [false, true] {
        let (place, service) = (Place::new(), Fake::start());
        place.write("a.log", lines(0..3));
        let running = Running::start(&place, &service, &FOLLOW);
        stored(&service, 0..3);
        running.kill();
        // The rest of a known file, a whole one, and a new one.
        place.append("a.log", lines(3..5));
        rename(&place, "a.log", "a.log.1");
        place.write("a.log", lines(5..8));
        rename(&place, "a.log.1", "a.log.2");
        rename(&place, "a.log", "a.log-20260101");
        place.write("a.log", lines(8..10));
        if packed {
            for name in ["a.log.2", "a.log-20260101"] {
                assert!(Command::new("gzip").arg(place.path(name)).status().unwrap().success());
            }
        }
        let running = Running::start(&place, &service, &FOLLOW);
        stored(&service, 0..10);
        running.stop("-TERM").ok();
        // And never again.
        let running = Running::start(&place, &service, &FOLLOW);
        place.append("a.log", lines(10..11));
        stored(&service, 0..11);
        assert_eq!(running.stop("-TERM").ok().total(), (3, 1, 2));
    }
}

#[test]
fn what_was_copied_and_truncated_while_nobody_followed_is_shipped() {
    let (place, service) = (Place::new(), Fake::start());
    place.write("a.log", lines(0..3));
    let running = Running::start(&place, &service, &FOLLOW);
    stored(&service, 0..3);
    running.kill();
    place.append("a.log", lines(3..5));
    fs::copy(place.path("a.log"), place.path("a.log.1")).unwrap();
    place.write("a.log", lines(5..12));
    let running = Running::start(&place, &service, &FOLLOW);
    stored(&service, 0..12);
    running.stop("-TERM").ok();
}

#[test]
fn what_was_there_before_the_name_was_followed_is_left_alone() {
    let (place, service) = (Place::new(), Fake::start());
    for (number, name) in ["a.log.2", "a.log.1", "a.log"].into_iter().enumerate() {
        place.write(name, format!("{name} of old\n{}", lines(number..number + 1)));
    }
    let running = Running::start(&place, &service, &FOLLOW);
    wait_for(&vec!["a.log of old".to_owned(), "line 2".to_owned()], || service.messages("t"));
    running.stop("-TERM").ok();
    // Whatever becomes of them, they are nothing new.
    assert!(Command::new("gzip").arg(place.path("a.log.2")).status().unwrap().success());
    rename(&place, "a.log.1", "a.log-20260101");
    rename(&place, "a.log", "a.log.1");
    place.write("a.log", "new\n");
    let running = Running::start(&place, &service, &FOLLOW);
    wait_for(&3, || service.messages("t").len());
    assert_eq!(running.stop("-TERM").ok().total().1, 1);
    // But by name they can be shipped.
    let args = ["ship", "--topic", "t", "a.log-20260101", "a.log.2.gz"];
    assert_eq!(place.run(&service, &args).ok().total(), (4, 4, 0));
}

#[test]
fn the_rest_of_a_file_that_was_shipped_before_is_shipped() {
    let (place, service) = (Place::new(), Fake::start());
    place.write("a.log", lines(0..3));
    assert_eq!(place.run(&service, &["ship", "--topic", "t", "a.log"]).ok().total().1, 3);
    place.append("a.log", lines(3..5));
    rename(&place, "a.log", "a.log.1");
    place.write("a.log", lines(5..7));
    let running = Running::start(&place, &service, &FOLLOW);
    stored(&service, 0..7);
    running.stop("-TERM").ok();
}

#[test]
fn a_file_that_cannot_be_read_for_a_while_is_not_given_up() {
    let (place, service) = (Place::new(), Fake::start());
    // A link to itself cannot be opened, not even by root.
    let deny = || std::os::unix::fs::symlink("a.log", place.path("a.log")).unwrap();
    deny();
    let running = Running::start(&place, &service, &[&FOLLOW[..], &["b.log"]].concat());
    place.write("b.log", lines(0..1));
    stored(&service, 0..1);
    fs::remove_file(place.path("a.log")).unwrap();
    place.write("a.log", lines(1..3));
    stored(&service, 0..3);
    rename(&place, "a.log", "away");
    deny();
    place.append("b.log", lines(3..4));
    stored(&service, 0..4);
    fs::remove_file(place.path("a.log")).unwrap();
    rename(&place, "away", "a.log");
    place.append("a.log", lines(4..6));
    stored(&service, 0..6);
    let done = running.stop("-TERM").ok();
    assert!(done.stderr.contains("a.log: cannot"), "{}", done.stderr);
    assert_eq!(done.total(), (6, 6, 0));
    // At the end it counts.
    fs::remove_file(place.path("a.log")).unwrap();
    deny();
    let running = Running::start(&place, &service, &[&FOLLOW[..], &["b.log"]].concat());
    place.append("b.log", lines(6..7));
    stored(&service, 0..7);
    let done = running.stop("-TERM").failed();
    assert_eq!(done.json["total"]["unread"], 1, "{done:#?}");
    let problem = done.json["files"][0]["problems"][0].as_str().unwrap().to_owned();
    assert!(problem.contains("a.log could not be read"), "{problem}");
}

#[test]
fn a_service_that_is_away_for_longer_than_retries_last_is_waited_for() {
    let (place, service) = (Place::new(), Fake::start());
    place.write("a.log", lines(0..3));
    let args = [&FOLLOW[..], &["--retry-for", "20ms", "--renamed-quiet", "20ms"]].concat();
    let running = Running::start(&place, &service, &args);
    stored(&service, 0..3);
    service.state().faults.extend([Fault::Status(503, Some("0")); 6]);
    service.state().faults.extend([Fault::CutAfterCommit]);
    place.append("a.log", lines(3..5));
    rename(&place, "a.log", "a.log.1");
    place.append("a.log.1", lines(5..6));
    place.write("a.log", lines(6..9));
    stored(&service, 0..9);
    let done = running.stop("-TERM").ok();
    assert!(done.stderr.contains("the service does not answer"), "{}", done.stderr);
    // Away at the end: what has no answer is counted.
    let running = Running::start(&place, &service, &args);
    place.append("a.log", lines(9..10));
    stored(&service, 0..10);
    service.state().faults.extend(std::iter::repeat_n(Fault::Status(503, Some("0")), 100_000));
    place.append("a.log", lines(10..12));
    let requests = service.state().requests.len();
    wait_for(&true, || service.state().requests.len() > requests);
    let done = running.stop("-TERM").failed();
    assert_eq!(done.json["total"]["unacknowledged"], 2, "{done:#?}");
}

#[test]
fn a_service_that_is_not_there_at_the_start_is_waited_for() {
    let (place, service) = (Place::new(), Fake::new());
    place.write("a.log", lines(0..3));
    let args = [&FOLLOW[..], &["--retry-for", "20ms"]].concat();
    let running = Running::start(&place, &service, &args);
    service.listen();
    stored(&service, 0..3);
    running.stop("-TERM").ok();
}

#[test]
fn a_damaged_packed_file_is_named_and_counted() {
    let (place, service) = (Place::new(), Fake::start());
    place.write("a.log", lines(0..3));
    let stderr = fs::File::create(place.path("stderr")).unwrap();
    let mut command = place.publisher(&service, &[&FOLLOW[..], &["--json"]].concat());
    let running = Running::of(command.stderr(stderr).spawn().unwrap());
    stored(&service, 0..3);
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(lines(3..500).as_bytes()).unwrap();
    let packed = packed.finish().unwrap();
    place.write("a.log.1.gz", &packed[..packed.len() - 4]);
    // Once it has been left alone for a while.
    let said = || fs::read_to_string(place.path("stderr")).unwrap().contains("cannot unpack it");
    wait_for(&true, said);
    let done = running.stop("-TERM").failed();
    assert_eq!(done.json["total"]["unread"], 1, "{done:#?}");
    assert_eq!(service.messages("t").len(), 3);
}
