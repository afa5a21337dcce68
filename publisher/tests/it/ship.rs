//! `ship`: every line once.

use std::io::Write as _;
use std::process::Stdio;

use crate::fake::Fake;
use crate::harness::{Done, Place, Running, real_log, wait_for};

/// A log that is longer than the head.
fn long_log(name: &str, lines: usize) -> String {
    (1..=lines).map(|number| format!("{name}: a line with the number {number}\n")).collect()
}

const SHIP: [&str; 4] = ["ship", "--topic", "t", "a.log"];

#[test]
fn a_file_shipped_twice_is_stored_once() {
    for content in ["a\nb\na\n\n\nlast".to_owned(), long_log("long", 5_000)] {
        let (place, service) = (Place::new(), Fake::start());
        place.write("a.log", &content);
        let lines = content.lines().count() as u64;
        assert_eq!(place.run(&service, &SHIP).ok().total(), (lines, lines, 0));
        assert_eq!(place.run(&service, &SHIP).ok().total(), (lines, 0, lines));
        assert_eq!(service.messages("t"), content.lines().collect::<Vec<_>>(), "in order");
        let events = service.state().stored.clone();
        let numbers: Vec<_> = events.iter().map(|e| e.payload["line"].as_u64().unwrap()).collect();
        assert_eq!(numbers, (1..=lines).collect::<Vec<_>>());
    }
}

#[test]
fn renamed_and_grown_adds_only_what_is_new() {
    // Short, from short to long, long; and with and without what is remembered.
    for lines in [3, 24, 1_000] {
        for state in [&[][..], &["--no-state"]] {
            if lines == 24 && !state.is_empty() {
                continue; // The limit that `--help` names; its test is below.
            }
            let (place, service) = (Place::new(), Fake::start());
            let content = long_log("app", lines);
            place.write("a.log", &content);
            let ship = |name| {
                let args = [&["ship", "--topic", "t", name], state].concat();
                place.run(&service, &args).ok().total()
            };
            let lines = lines as u64;
            assert_eq!(ship("a.log"), (lines, lines, 0));
            place.write("b.log", content + &long_log("more", 10));
            assert_eq!(ship("b.log"), (lines + 10, 10, lines), "{state:?}");
            assert_eq!(ship("b.log"), (lines + 10, 0, lines + 10), "{state:?}");
        }
    }
}

#[test]
fn without_memory_the_first_lines_are_rather_stored_twice_than_lost() {
    let (place, service) = (Place::new(), Fake::start());
    let ship = || place.run(&service, &[&SHIP[..], &["--no-state"]].concat()).ok().total();
    place.write("a.log", long_log("app", 24));
    assert_eq!(ship(), (24, 24, 0));
    place.append("a.log", long_log("more", 100));
    let (lines, accepted, duplicates) = ship();
    assert_eq!((lines, accepted + duplicates), (124, 124));
    assert!(accepted >= 100, "{accepted}");
    assert_eq!(ship(), (124, 0, 124));
}

#[test]
fn files_that_begin_alike_keep_all_their_lines() {
    let banner = "=== starting ===\nsettings read\n";
    for (count, state) in [(1, ""), (100, ""), (100, "--no-state"), (2_000, "")] {
        let (place, service) = (Place::new(), Fake::start());
        // Beyond the head, too, where there is a memory.
        let banner = if count == 2_000 { banner.repeat(500) } else { banner.to_owned() };
        let mut expected = Vec::new();
        for name in ["one", "two", "three"] {
            let content = format!("{banner}{}", long_log(name, count));
            expected.extend(content.lines().map(str::to_owned).collect::<Vec<_>>());
            place.write(name, content);
        }
        for again in [false, true] {
            for name in ["one", "two", "three"] {
                let mut args = vec!["ship", "--topic", "t", name];
                args.extend((!state.is_empty()).then_some(state));
                let (lines, accepted, _) = place.run(&service, &args).ok().total();
                assert_eq!(accepted, if again { 0 } else { lines }, "{name} {count} {state}");
            }
        }
        assert_eq!(service.messages("t"), expected, "{count} {state}");
    }
}

#[test]
fn files_that_begin_alike_may_be_shipped_together() {
    let (place, service) = (Place::new(), Fake::start());
    for name in ["one", "two", "three", "four", "five"] {
        place.write(name, format!("banner\n{name}\n"));
    }
    let args = ["ship", "--topic", "t", "one", "two", "three", "four", "five"];
    assert_eq!(place.run(&service, &args).ok().total(), (10, 10, 0));
    assert_eq!(place.run(&service, &args).ok().total(), (10, 0, 10));
}

#[test]
fn what_cannot_be_told_apart_is_said() {
    let (place, service) = (Place::new(), Fake::start());
    place.write("a.log", "banner\none\n");
    place.write("b.log", "banner\ntwo\n");
    place.run(&service, &["ship", "--no-state", "--topic", "t", "a.log"]).ok();
    let done = place.run(&service, &["ship", "--no-state", "--topic", "t", "b.log"]).ok();
    assert_eq!(done.total(), (2, 1, 1));
    let note = done.json["files"][0]["notes"][0].as_str().unwrap_or_default();
    assert!(note.contains("begins alike") && note.contains("--topic"), "{done:#?}");
}

#[test]
fn an_incomplete_last_line_is_stored_whole_once_it_is_complete() {
    for state in [&[][..], &["--no-state"]] {
        let (place, service) = (Place::new(), Fake::start());
        let ship = || place.run(&service, &[&SHIP[..], state].concat()).ok().total();
        place.write("a.log", "a\nb");
        assert_eq!(ship(), (2, 2, 0));
        place.append("a.log", "cd\r");
        assert_eq!(ship(), (2, 1, 1));
        place.append("a.log", "\n");
        assert_eq!(ship(), (2, 0, 2), "a line end is not news");
        place.append("a.log", "e\r\n");
        assert_eq!(ship(), (3, 1, 2));
        assert_eq!(service.messages("t"), ["a", "b", "bcd", "e"]);
    }
}

#[test]
fn what_a_line_may_hold() {
    let (place, service) = (Place::new(), Fake::start());
    let long = "€".repeat(1 << 19);
    let mut content = b"nul \0 and \x01\r\nbad \xff\nbad \xfe\n\n\"quoted\\\"\n".to_vec();
    content.extend_from_slice(long.as_bytes());
    place.write("a.log", &content);
    let done = place.run(&service, &SHIP).ok();
    let tally = &done.json["total"];
    assert_eq!(tally["lines"], 6);
    assert_eq!(tally["events"], 7, "the last line is longer than 1 MiB");
    assert_eq!((&tally["accepted"], &tally["invalid_utf8"]), (&7.into(), &2.into()));
    assert_eq!(tally["bytes"], content.len());
    let messages = service.messages("t");
    assert_eq!(
        messages[..5],
        ["nul \0 and \x01", "bad \u{fffd}", "bad \u{fffd}", "", "\"quoted\\\""]
    );
    assert_eq!(messages[5..].concat(), long);
    assert_eq!(place.run(&service, &SHIP).ok().total().1, 0);
}

#[test]
fn lines_that_read_alike_in_utf8_are_two() {
    let (place, service) = (Place::new(), Fake::start());
    place.write("a.log", b"bad \xff\n");
    place.write("b.log", b"bad \xfe\n");
    let args = ["ship", "--no-state", "--topic", "t", "a.log", "b.log"];
    assert_eq!(place.run(&service, &args).ok().total(), (2, 2, 0));
}

#[test]
fn the_names_of_topic_and_source() {
    let (place, service) = (Place::new(), Fake::start());
    place.write("access.log", "x\n");
    place.write("access.log.1", "y\n");
    place.run(&service, &["ship", "access.log", "access.log.1"]).ok();
    assert_eq!(service.messages("access").len(), 2);
    let source = service.state().stored[0].source.clone();
    assert!(!source.is_empty());
    // The same file of another source is another event, and no conflict.
    let done = place.run(&service, &["ship", "--source", "elsewhere", "access.log"]).ok();
    assert_eq!(done.total(), (1, 1, 0));
}

#[test]
fn standard_input() {
    let (place, service) = (Place::new(), Fake::start());
    for content in ["a\nb\nlast".to_owned(), long_log("pipe", 3_000)] {
        let lines = content.lines().count() as u64;
        for expected in [(lines, lines, 0), (lines, 0, lines)] {
            let mut command = place.publisher(&service, &["ship", "--json", "-"]);
            let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
            let mut stdin = child.stdin.take().unwrap();
            // In two pieces, the first shorter than the head.
            stdin.write_all(&content.as_bytes()[..3]).unwrap();
            stdin.flush().unwrap();
            stdin.write_all(&content.as_bytes()[3..]).unwrap();
            drop(stdin);
            let done = Done::of(child.wait_with_output().unwrap()).ok();
            assert_eq!(done.total(), expected);
        }
    }
    assert_eq!(service.messages("stdin").len(), 3_003);
}

#[test]
#[cfg(unix)]
fn a_pipe_that_stays_open_is_shipped_as_it_comes() {
    for (follow, code) in [(None, 130), (Some("--follow"), 0)] {
        let (place, service) = (Place::new(), Fake::start());
        let mut command = place.publisher(&service, &["ship", "--json", "-"]);
        let mut child = command.args(follow).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let content = long_log("pipe", 100);
        stdin.write_all(content.as_bytes()).unwrap();
        stdin.write_all(b"incomplete").unwrap();
        wait_for(&100, || service.messages("stdin").len());
        let done = Running::of(child).stop("-TERM");
        assert_eq!(done.code, Some(code), "{done:#?}");
        assert_eq!(done.total(), (101, 101, 0));
        assert_eq!(service.messages("stdin")[100], "incomplete");
        drop(stdin);
    }
}

#[test]
fn requests_that_are_too_large_are_halved() {
    let (place, service) = (Place::new(), Fake::start());
    service.state().events_max = 150;
    service.state().body_bytes_max = 4_000;
    let content = long_log("app", 1_000);
    place.write("a.log", &content);
    assert_eq!(place.run(&service, &SHIP).ok().total(), (1_000, 1_000, 0));
    assert_eq!(service.messages("t"), content.lines().collect::<Vec<_>>());
}

#[test]
fn one_line_that_is_too_large_is_named_and_the_others_are_stored() {
    let (place, service) = (Place::new(), Fake::start());
    service.state().body_bytes_max = 2_000;
    place.write("a.log", format!("a\nb\n{}\nc\n", "x".repeat(3_000)));
    let done = place.run(&service, &SHIP).failed();
    assert_eq!(service.messages("t"), ["a", "b", "c"]);
    let problem = done.json["files"][0]["problems"][0].as_str().unwrap();
    assert!(problem.contains("line 3"), "{problem}");
}

#[test]
fn rejected_lines_are_named() {
    // Among others, and with none that is valid.
    for content in ["a\nREFUSED\nb\n", "REFUSED\n"] {
        let (place, service) = (Place::new(), Fake::start());
        place.write("a.log", content);
        let done = place.run(&service, &SHIP).failed();
        assert_eq!(done.json["total"]["rejected"], 1, "{done:#?}");
        assert_eq!(done.json["ok"], false);
        let problem = done.json["files"][0]["problems"][0].as_str().unwrap();
        assert!(problem.contains("line") && problem.contains("is refused"), "{problem}");
    }
}

#[test]
fn a_file_that_is_not_there_does_not_keep_the_others() {
    let (place, service) = (Place::new(), Fake::start());
    place.write("a.log", "a\n");
    place.write("z.gz", b"\x1f\x8b\x08\x00");
    let done = place.run(&service, &["ship", "missing.log", "z.gz", ".", "a.log"]).failed();
    assert_eq!(service.messages("a"), ["a"]);
    let failures: Vec<_> =
        done.json["files"].as_array().unwrap().iter().map(|file| file["failure"].clone()).collect();
    for (failure, text) in failures.iter().zip(["missing.log", "unpack", "directory"]) {
        assert!(failure.as_str().unwrap().contains(text), "{failure}");
    }
    assert!(failures[3].is_null());
}

#[test]
fn an_unusable_registry_is_said_and_shipping_goes_on() {
    let (place, service) = (Place::new(), Fake::start());
    place.write("a.log", "a\n");
    place.write("ship.json", "{");
    let done = place.run(&service, &[&SHIP[..], &["--state", "ship.json"]].concat()).ok();
    assert!(done.stderr.contains("ship.json is not a registry"), "{}", done.stderr);
    assert_eq!(service.messages("t"), ["a"]);
}

#[test]
fn nothing_to_ship() {
    let (place, service) = (Place::new(), Fake::start());
    place.write("a.log", "");
    assert_eq!(place.run(&service, &SHIP).ok().total(), (0, 0, 0));
    assert_eq!(place.run(&service, &["ship", "-"]).ok().total(), (0, 0, 0));
}

#[test]
fn the_table_for_people() {
    let (place, service) = (Place::new(), Fake::start());
    place.write("a.log", "a\nb\n");
    place.write("b.log", "a\nREFUSED\n");
    let output = place.publisher(&service, &["ship", "a.log", "b.log"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    for part in ["accepted", "| a.log", "| b.log", "| all", "PROBLEM: b.log: line 2 is rejected"] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn real_logs_to_the_line() {
    for name in ["Apache_2k.log", "HDFS_2k.log", "Linux_2k.log", "OpenSSH_2k.log"] {
        let Some(path) = real_log(name) else { continue };
        let (place, service) = (Place::new(), Fake::start());
        let content = std::fs::read(&path).unwrap();
        let path = path.to_str().unwrap();
        assert_eq!(place.run(&service, &["ship", path]).ok().total(), (2_000, 2_000, 0), "{name}");
        assert_eq!(place.run(&service, &["ship", path]).ok().total(), (2_000, 0, 2_000), "{name}");
        let topic = name.trim_end_matches(".log");
        let text = String::from_utf8(content.clone()).unwrap();
        assert_eq!(service.messages(topic), text.lines().collect::<Vec<_>>(), "{name}");
        // Some of them end without a line end: so the next line begins there.
        place.write("copy.log", [&content[..], &b"\nnew".repeat(10)].concat());
        let done = place.run(&service, &["ship", "--topic", topic, "copy.log"]).ok();
        assert_eq!(done.total().1, if content.ends_with(b"\n") { 11 } else { 10 }, "{name}");
    }
}
