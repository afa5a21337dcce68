//! `import`: in order, once, and held against the file before and after.

use std::fs::File;
use std::io::Write as _;

use serde_json::{Value, json};

use crate::export::{events, filled};
use crate::fake::{Fake, Fault, Lie};
use crate::harness::{Place, Told};

/// What a service has stored, without its places.
fn stored(service: &Fake) -> Vec<(String, String, String, Option<String>, Value)> {
    let state = service.state();
    let of = |event: &crate::fake::Stored| {
        let event = event.clone();
        (event.topic, event.event_id, event.source, event.timestamp, event.payload)
    };
    state.stored.iter().map(of).collect()
}

/// An export of so many events under this name.
fn exported(place: &Place, name: &str, count: usize) -> Fake {
    let service = filled(count);
    place.run(&service, &["export", "-o", name]).ok();
    service
}

#[test]
fn an_export_comes_back_as_it_was_and_once() {
    for name in ["all.ndjson", "all.ndjson.gz", "all.zst"] {
        let (place, other) = (Place::new(), Fake::start());
        let service = exported(&place, name, 2_500);
        let done = place.run(&other, &["import", name]).ok();
        assert_eq!(done.counts(["events", "accepted", "duplicates"]), [2_500, 2_500, 0], "{name}");
        assert_eq!(done.json["read_back"]["same"], 2, "{done:#?}");
        assert_eq!(stored(&other), stored(&service), "{name}");

        let again = place.run(&other, &["import", name]).ok();
        assert_eq!(again.counts(["events", "accepted", "duplicates"]), [2_500, 0, 2_500]);
        assert_eq!(again.json["read_back"]["same"], 2, "{again:#?}");
        let told = place.tell(&other, &["import", name]);
        assert!(told.stdout.contains("nothing new"), "{told:#?}");
        assert_eq!(stored(&other), stored(&service), "{name}");

        place.run(&other, &["export", "-o", "back.ndjson"]).ok();
        assert_eq!(
            place.read_json("back.ndjson.manifest.json")["topics"],
            place.read_json(&format!("{name}.manifest.json"))["topics"]
        );
    }
}

#[test]
fn the_order_survives_what_is_lost_on_the_way() {
    let (place, other) = (Place::new(), Fake::start());
    let service = exported(&place, "all.ndjson", 200);
    other.state().faults.extend([
        Fault::CutBefore,
        Fault::None,
        Fault::CutAfterCommit,
        Fault::Status(503, Some("0")),
        Fault::StatusAfterCommit(502),
    ]);
    let done = place.run(&other, &["import", "all.ndjson", "--batch", "30"]).ok();
    assert_eq!(done.counts(["events", "retries"]), [200, 4]);
    assert_eq!(stored(&other), stored(&service));
}

#[test]
fn limits_of_the_service_are_kept_to() {
    let (place, other) = (Place::new(), Fake::start());
    let service = exported(&place, "all.ndjson", 100);
    (other.state().events_max, other.state().body_bytes_max) = (7, 600);
    let done = place.run(&other, &["import", "all.ndjson"]).ok();
    assert_eq!(done.counts(["events", "accepted", "rejected"]), [100, 100, 0]);
    assert_eq!(stored(&other), stored(&service));

    let small = Fake::start();
    small.state().body_bytes_max = 60;
    let done = place.run(&small, &["import", "all.ndjson"]).failed();
    assert_eq!(done.counts(["events", "accepted", "rejected"]), [100, 0, 100]);
}

#[test]
fn an_import_that_was_broken_off_goes_on() {
    let (place, other) = (Place::new(), Fake::start());
    let service = exported(&place, "all.ndjson", 100);
    other.state().faults.extend([Fault::None, Fault::Status(503, None)]);
    let args = ["import", "all.ndjson", "--batch", "30"];
    let cut = place.run(&other, &[&args[..], &["--retry-for", "0"]].concat()).failed();
    assert_eq!(cut.counts(["accepted", "unacknowledged"]), [30, 30]);
    assert!(cut.json["failure"].as_str().unwrap().contains("nothing is stored twice"), "{cut:#?}");
    let done = place.run(&other, &args).ok();
    assert_eq!(done.counts(["accepted", "duplicates"]), [70, 30]);
    assert_eq!(stored(&other), stored(&service));
}

#[test]
fn what_is_stored_otherwise_is_named() {
    let (place, other) = (Place::new(), Fake::start());
    exported(&place, "all.ndjson", 10);
    let mut own = events(&["a", "b"], 4, 1);
    own[0]["payload"] = json!({"other": true});
    other.take(&own);
    let done = place.run(&other, &["import", "all.ndjson"]).failed();
    assert_eq!(done.counts(["accepted", "duplicates", "conflicts"]), [9, 1, 1]);
    let problem = done.json["problems"][0].as_str().unwrap();
    assert!(problem.contains(r#"event "e4" of topic "a", line 5"#), "{problem}");
}

/// Other events in a topic keep it from being compared as a whole, and nothing else.
#[test]
fn a_topic_with_other_events_takes_those_of_the_file() {
    let (place, other) = (Place::new(), Fake::start());
    exported(&place, "all.ndjson", 10);
    other.take(&events(&["a"], 100, 3));
    let done = place.run(&other, &["import", "all.ndjson"]).ok();
    let read_back = &done.json["read_back"];
    assert_eq!((&read_back["same"], &read_back["others"]), (&json!(1), &json!(1)), "{done:#?}");
}

#[test]
fn a_store_that_loses_or_changes_is_found_out() {
    for (lie, expected) in [
        (Lie::LosesSilently(4), "4 events in place of 5"),
        (Lie::ShowsTwice(4), "6 events in place of 5"),
        (Lie::ChangesPayload(4), "not the same or not in the same order"),
        (Lie::ChangesSource(4), "not the same or not in the same order"),
    ] {
        let (place, other) = (Place::new(), Fake::start());
        exported(&place, "all.ndjson", 10);
        other.state().lie = lie;
        let done = place.run(&other, &["import", "all.ndjson"]).failed();
        let problem = done.json["problems"][0].as_str().unwrap();
        assert!(problem.contains(expected), "{lie:?}: {problem}");
        let unseen = place.run(&other, &["import", "all.ndjson", "--verify", "false"]).ok();
        assert_eq!(unseen.json["read_back"], Value::Null);
    }
}

#[test]
fn of_a_file_that_is_not_what_it_should_be_nothing_is_sent() {
    let (place, service) = (Place::new(), Fake::start());
    for name in ["all.ndjson", "all.ndjson.gz", "all.ndjson.zst"] {
        exported(&place, name, 100);
    }
    let spoil = |of: &str, name: &str, how: &dyn Fn(Vec<u8>) -> Vec<u8>| {
        place.write(name, how(std::fs::read(place.path(of)).unwrap()));
        let manifest = std::fs::read(place.path(&format!("{of}.manifest.json"))).unwrap();
        place.write(&format!("{name}.manifest.json"), manifest);
    };
    let plain = "all.ndjson";
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let half = |mut bytes: Vec<u8>| {
        bytes.truncate(bytes.len() / 2);
        bytes
    };
    let without_last = |bytes: Vec<u8>| {
        let text = text(bytes);
        let (rest, _) = text.trim_end().rsplit_once('\n').unwrap();
        format!("{rest}\n").into_bytes()
    };
    let lz4 = |bytes: Vec<u8>| [b"\x04\x22\x4d\x18", &bytes[..]].concat();
    spoil(plain, "half", &half);
    spoil(plain, "lacks", &without_last);
    spoil(plain, "changed", &|bytes| text(bytes).replace("\"n\":7,", "\"n\":7.0,").into_bytes());
    spoil(plain, "swapped", &|bytes| {
        let text = text(bytes);
        let mut lines: Vec<_> = text.lines().collect();
        lines.swap(10, 12);
        (lines.join("\n") + "\n").into_bytes()
    });
    spoil(plain, "no-json", &|bytes| [b"a log line\n", &bytes[..]].concat());
    spoil(plain, "lz4", &lz4);
    spoil(plain, "magic.gz", &|bytes| [b"\x1f\x8b\x08", &bytes[..]].concat());
    spoil("all.ndjson.gz", "half.gz", &half);
    spoil("all.ndjson.zst", "half.zst", &half);
    place.write("alone", b"{}\n");
    place.write("other", b"{}\n");
    place.write("other.manifest.json", b"{}\n");
    for (name, expected) in [
        ("half", "cut off"),
        ("lacks", "99 events, and 100 in the manifest"),
        ("changed", "topic \"b\": as many events, and not the same"),
        ("swapped", "not in the same order"),
        ("no-json", "line 1 is not an event of an export"),
        ("lz4", "compressed by lz4"),
        ("magic.gz", "in line 1"),
        ("half.gz", "cut off"),
        ("half.zst", "cut off"),
        ("alone", "there is no alone.manifest.json"),
        ("other", "other.manifest.json is not the manifest of an export"),
        ("nowhere", "cannot open nowhere"),
    ] {
        for more in [&[][..], &["--check-only"]] {
            let told = place.tell(&service, &[&["import", name], more].concat());
            assert_eq!(told.code, Some(1), "{name}: {told:#?}");
            assert!(told.stderr.contains(expected), "{name}, {expected}: {told:#?}");
        }
    }
    assert_eq!(service.state().requests.len(), 0);
    // The same value in other words is the same export.
    spoil(plain, "reworded", &|bytes| {
        let reworded = text(bytes).replace(",\"a\":[null", " , \"\\u0061\":[ null");
        reworded.replace("\\n", "\\u000a").into_bytes()
    });
    place.run(&service, &["import", "reworded", "--check-only"]).ok();
    place.run(&service, &["import", "reworded"]).ok();
}

#[test]
fn standard_input_is_checked_as_it_is_sent() {
    let (place, other) = (Place::new(), Fake::start());
    let service = exported(&place, "all.ndjson.zst", 50);
    let manifest = "all.ndjson.zst.manifest.json";
    let run = |args: &[&str], from: &str| {
        let mut command = place.publisher(&other, args);
        let output = command.stdin(File::open(place.path(from)).unwrap()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let code = output.status.code();
        Told { code, stdout: text(output.stdout), stderr: text(output.stderr) }
    };
    let told = run(&["import", "-"], "all.ndjson.zst");
    assert_eq!(told.code, Some(2), "{told:#?}");
    let told = run(&["import", "-", "--manifest", manifest], "all.ndjson.zst");
    assert_eq!(told.code, Some(0), "{told:#?}");
    assert_eq!(stored(&other), stored(&service));

    let mut lines = File::create(place.path("less")).unwrap();
    let event = r#"{"topic":"a","event_id":"e0","source":"s","payload":1}"#;
    writeln!(lines, "{event}").unwrap();
    let told = run(&["import", "-", "--manifest", manifest], "less");
    assert_eq!(told.code, Some(1), "{told:#?}");
    assert!(told.stdout.contains("and it was sent"), "{told:#?}");
}
