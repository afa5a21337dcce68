//! `export`: all events or no file; what it is checked by.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::fake::Fake;
use crate::harness::{Done, Place, Running, Told, wait_for};

/// So many events of topics in turn, numbered from there on.
pub fn events(topics: &[&str], from: usize, count: usize) -> Vec<Value> {
    let event = |number: usize| {
        let topic = topics[number % topics.len()];
        json!({"topic": topic, "event_id": format!("e{number}"), "source": "s",
            "timestamp": format!("2026-01-01T00:00:{:02}Z", number % 60),
            "payload": {"n": number, "text": "ü\n\"", "a": [null, {}]}})
    };
    (from..from + count).map(event).collect()
}

/// A service with so many events of two topics.
pub fn filled(count: usize) -> Fake {
    let service = Fake::start();
    service.take(&events(&["a", "b"], 0, count));
    service
}

/// What there is in a directory beside what was there before.
fn left(place: &Place) -> Vec<String> {
    let entries = std::fs::read_dir(place.path("")).unwrap();
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.unwrap().file_name().into_string().unwrap()
    };
    let mut names: Vec<String> = entries.map(name).collect();
    names.sort();
    names
}

/// The ids of a file's lines.
fn ids(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    let id = |line: &str| {
        serde_json::from_str::<Value>(line).unwrap()["event_id"].as_str().unwrap().to_owned()
    };
    text.lines().map(id).collect()
}

fn export(place: &Place, service: &Fake, more: &[&str]) -> Done {
    place.run(service, &[&["export", "-o", "all.ndjson"], more].concat())
}

#[test]
fn every_event_is_a_line_that_can_be_published() {
    let (place, service) = (Place::new(), filled(2_500));
    let done = export(&place, &service, &[]).ok();
    assert_eq!(done.counts(["events", "topics", "unreadable"]), [2_500, 2, 0]);
    assert_eq!(done.json["up_to"], json!({"seq": 2_500, "cursor": "2500"}));
    assert_eq!(left(&place), ["all.ndjson", "all.ndjson.manifest.json"]);
    let text = std::fs::read_to_string(place.path("all.ndjson")).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (number, (line, mut event)) in lines.iter().zip(events(&["a", "b"], 0, 2_500)).enumerate() {
        event["seq"] = (number + 1).into();
        event["received_at"] = "2026-01-01T00:00:00.000Z".into();
        assert_eq!(*line, event);
    }
    let manifest = place.read_json("all.ndjson.manifest.json");
    assert_eq!(manifest["events"], 2_500);
    assert_eq!(manifest["topics"]["a"]["events"], 1_250);
    assert_eq!(manifest["topics"]["b"]["sha256"].as_str().map(str::len), Some(64));
    assert_eq!(manifest["up_to"]["seq"], 2_500);
}

#[test]
fn an_empty_store_is_an_export_of_nothing() {
    let (place, service) = (Place::new(), Fake::start());
    let done = export(&place, &service, &[]).ok();
    assert_eq!(done.counts(["events", "topics", "unreadable"]), [0, 0, 0]);
    assert_eq!(std::fs::read(place.path("all.ndjson")).unwrap(), b"");
    place.run(&service, &["import", "all.ndjson"]).ok();
}

#[test]
fn lost_connections_cost_nothing() {
    let (place, service) = (Place::new(), filled(100));
    service.state().page_events_max = 9;
    let whole = export(&place, &service, &[]).ok();
    let first = std::fs::read(place.path("all.ndjson")).unwrap();
    for cuts in [1, 3] {
        service.state().read_cuts = cuts;
        let again = export(&place, &service, &[]).ok();
        assert_eq!(again.json["events"], whole.json["events"]);
        assert_eq!(std::fs::read(place.path("all.ndjson")).unwrap(), first);
    }
}

#[test]
fn what_is_not_whole_has_no_name() {
    let (place, service) = (Place::new(), filled(100));
    service.state().read_cuts = usize::MAX;
    let done = export(&place, &service, &["--retry-for", "0"]).failed();
    assert!(done.stderr.contains("newest event"), "{done:#?}");
    assert_eq!(left(&place), [""; 0]);

    service.state().read_cuts = 0;
    service.state().holds_reads = true;
    let before = service.state().reads;
    // The newest event is the first that is asked for.
    let running =
        Running::start(&place, &service, &["export", "-o", "all.ndjson", "--retry-for", "1"]);
    wait_for(&true, || service.state().reads > before);
    assert!(left(&place).iter().all(|name| name.ends_with(".part")));
    running.stop("-INT").ended(130);
    assert_eq!(left(&place), [""; 0]);
}

#[test]
fn what_cannot_be_shown_is_left_out_and_told() {
    let (place, service) = (Place::new(), filled(20));
    service.state().unreadable.extend([3, 20]);
    let done = export(&place, &service, &[]).failed();
    assert_eq!(done.counts(["events", "unreadable"]), [18, 2]);
    assert!(done.stderr.contains(r#"event "e2" of topic "a", seq 3"#), "{done:#?}");
    let ids = ids(&place.path("all.ndjson"));
    assert_eq!(ids.len(), 18);
    assert!(!ids.contains(&"e2".to_owned()) && !ids.contains(&"e19".to_owned()));
    assert_eq!(place.read_json("all.ndjson.manifest.json")["unreadable"], 2);
}

#[test]
fn topics_are_merged_in_their_order() {
    let (place, service) = (Place::new(), Fake::start());
    service.take(&events(&["a", "b", "c"], 0, 300));
    service.state().page_events_max = 7;
    let done = export(&place, &service, &["--topic", "a", "--topic", "c", "--topic", "a"]).ok();
    assert_eq!(done.counts(["events", "topics"]), [200, 2]);
    let expected = (0..300).filter(|number| number % 3 != 1).map(|number| format!("e{number}"));
    assert_eq!(ids(&place.path("all.ndjson")), expected.collect::<Vec<_>>());
    let manifest = place.read_json("all.ndjson.manifest.json");
    assert_eq!(manifest["only_topics"], json!(["a", "c"]));
}

#[test]
fn a_later_export_goes_on_from_the_cursor() {
    let (place, service) = (Place::new(), filled(30));
    let first = export(&place, &service, &[]).ok();
    service.take(&events(&["a", "b"], 30, 12));
    let cursor = first.json["up_to"]["cursor"].as_str().unwrap().to_owned();
    let second = export(&place, &service, &["--after", &cursor]).ok();
    assert_eq!(second.counts(["events"]), [12]);
    assert_eq!(ids(&place.path("all.ndjson"))[0], "e30");
}

#[test]
fn standard_output_has_the_events_and_nothing_else() {
    let (place, service) = (Place::new(), filled(30));
    let Told { code, stdout, stderr } = place.tell(&service, &["export", "--manifest", "m.json"]);
    assert_eq!((code, stdout.lines().count()), (Some(0), 30), "{stderr}");
    assert!(stderr.contains("30 events of 2 topics in standard output"), "{stderr}");
    assert_eq!(place.read_json("m.json")["events"], 30);
    place.write("m.ndjson", stdout);
    export(&place, &service, &[]).ok();
    assert_eq!(
        place.read_json("m.json")["topics"],
        place.read_json("all.ndjson.manifest.json")["topics"]
    );
}

#[test]
fn where_nothing_can_be_written_it_says_so() {
    let (place, service) = (Place::new(), filled(3));
    place.write("file", "");
    std::fs::create_dir(place.path("folder")).unwrap();
    for (args, code, expected) in [
        (&["-o", "no/such/folder/x.ndjson"][..], 1, "no/such/folder/x.ndjson"),
        (&["-o", "file/x.ndjson"], 1, "file/x.ndjson"),
        (&["-o", "folder"], 1, "folder is there and is not a file"),
        (&["-o", "x.ndjson.xz"], 1, "no file is written as .xz here"),
        (&["-o", "x", "--manifest", "x"], 2, "the same file"),
        (&["--topic", ""], 2, "1 to 255 characters"),
        #[cfg(unix)]
        (&["-o", "/dev/null"], 1, "/dev/null is there and is not a file"),
    ] {
        let told = place.tell(&service, &[&["export"], args].concat());
        assert_eq!(told.code, Some(code), "{told:#?}");
        assert!(told.stderr.contains(expected), "{expected}: {told:#?}");
    }
    let told = place.tell(&service, &["export", "--json"]);
    assert_eq!(told.code, Some(2), "{told:#?}");
    assert_eq!(left(&place), ["file", "folder"]);
}

#[test]
fn a_disk_that_is_full_leaves_no_file() {
    // A limit of the size of files is what a test can have of it.
    if !cfg!(unix) {
        return;
    }
    let (place, service) = (Place::new(), filled(3_000));
    let publisher = place.publisher(&service, &["export", "-o", "all.ndjson"]);
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -f 8; trap '' XFSZ; exec \"$0\" \"$@\""]);
    limited.arg(publisher.get_program()).args(publisher.get_args());
    limited.current_dir(place.path("")).env("SEKALI_URL", &service.url);
    let output = limited.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("cannot write all.ndjson"), "{stderr}");
    assert_eq!(left(&place), [""; 0]);
}
