//! `--workload`: all that have a name, and files.

use crate::fake::Fake;
use crate::harness::Place;

/// The names as the program tells them, so that a new one is tested as well.
fn names(place: &Place, service: &Fake) -> Vec<String> {
    let told = place.tell(service, &["workloads"]);
    let lines = told.stdout.lines();
    lines.map(|line| line.split_whitespace().next().unwrap().to_owned()).collect()
}

#[test]
fn every_named_workload_passes_the_audit() {
    let (place, service) = (Place::new(), Fake::start());
    let names = names(&place, &service);
    assert!(names.len() >= 9, "{names:?}");
    for name in &names {
        for concurrency in ["1", "16"] {
            let service = Fake::start();
            let args = ["load", "--audit", "--events", "400", "--workload", name];
            let args = [&args[..], &["--concurrency", concurrency]].concat();
            let done = place.run(&service, &args).ok();
            let [sent, distinct, rejected] = done.counts(["sent", "distinct", "rejected"]);
            assert_eq!(sent, 400, "{name}");
            let state = service.state();
            assert_eq!(state.stored.len() as u64, distinct, "{name}");
            assert_eq!(done.json["check"]["events_read"], distinct, "{name}");
            assert_eq!(rejected > 0, name == "poison" || name == "mixed", "{name}");
        }
    }
}

#[test]
fn shares_come_out_exactly() {
    let (place, service) = (Place::new(), Fake::start());
    let counts = |args: &[&str]| {
        let args = [&["load", "--audit", "--events", "1000", "--concurrency", "1"], args].concat();
        let done = place.run(&service, &args).ok();
        done.counts(["accepted", "duplicates", "conflicts", "rejected"])
    };
    assert_eq!(counts(&["--workload", "conflict"])[0], 800);
    assert_eq!(counts(&["--workload", "conflict"]), [800, 200, 100, 0]);
    assert_eq!(counts(&["--workload", "poison"]), [700, 200, 0, 100]);
    // Each request of one event: those with an invalid one are refused whole.
    assert_eq!(counts(&["--workload", "poison", "--batch", "1"]), [700, 200, 0, 100]);
    assert_eq!(counts(&["--workload", "retry"]), [500, 500, 0, 0]);
    // Options of the command line go before the workload's.
    assert_eq!(counts(&["--workload", "retry", "--duplicates", "10%"]), [900, 100, 0, 0]);
}

#[test]
fn a_seed_gives_the_same_bytes_whatever_the_workload() {
    let place = Place::new();
    let bodies = |workload: &str, seed: &str| {
        let service = Fake::start();
        let args = ["load", "--events", "500", "--concurrency", "1", "--workload", workload];
        place.run(&service, &[&args[..], &["--seed", seed]].concat()).ok();
        let state = service.state();
        state.requests.iter().map(|request| request.body.clone()).collect::<Vec<_>>()
    };
    for workload in ["mixed", "poison"] {
        let first = bodies(workload, "42");
        assert!(first == bodies(workload, "42"), "{workload}: other bytes");
        assert!(first != bodies(workload, "43"), "{workload}: the same bytes");
    }
}

#[test]
fn a_file_says_what_the_load_looks_like() {
    let (place, service) = (Place::new(), Fake::start());
    place.write(
        "mine.toml",
        "topics = 2\nbatch = { min = 3, max = 3 }\nduplicates = 0.25\nconflicts = 0.05\n\
         payload_bytes = { min = 500, max = 500 }\n",
    );
    let args = ["load", "--audit", "--events", "300", "--workload", "mine.toml"];
    let done = place.run(&service, &[&args[..], &["--concurrency", "1"]].concat()).ok();
    assert_eq!(
        done.counts(["accepted", "duplicates", "conflicts", "requests"]),
        [210, 90, 15, 100]
    );
    assert_eq!(done.json["workload"]["payload_bytes"], serde_json::json!({"min": 500, "max": 500}));
    let state = service.state();
    assert!(state.stored.iter().all(|event| event.payload.to_string().len() == 500));
}

#[test]
fn a_named_workload_can_be_printed_and_read_again() {
    let (place, service) = (Place::new(), Fake::start());
    for name in names(&place, &service) {
        let told = place.tell(&service, &["workloads", &name]);
        assert_eq!(told.code, Some(0), "{told:#?}");
        place.write("copy.toml", told.stdout);
        let workload = |workload: &str| {
            let args = ["load", "--events", "0", "--workload", workload];
            place.run(&service, &args).ok().json["workload"].clone()
        };
        assert_eq!(workload("copy.toml"), workload(&name), "{name}");
    }
    assert_eq!(place.tell(&service, &["workloads", "other"]).code, Some(1));
}

#[test]
fn a_wrong_file_is_refused_and_the_field_named() {
    let (place, service) = (Place::new(), Fake::start());
    for (text, part) in [
        ("topics = 0", "topics"),
        ("topics = \"many\"", "topics"),
        ("topic = 3", "topic"),
        ("batch = { min = 3, max = 2 }", "batch"),
        ("batch = 7", "batch"),
        ("duplicates = 1.5", "duplicates"),
        ("deliveries_max = 3", "deliveries_max"),
        ("burst = { period_ms = 0, share = 0.5 }", "burst"),
        ("duplicates =", "wrong.toml"),
    ] {
        place.write("wrong.toml", text);
        let told = place.tell(&service, &["load", "--events", "9", "--workload", "wrong.toml"]);
        assert!(matches!(told.code, Some(1 | 2)), "{text}: {told:#?}");
        for part in [part, "wrong.toml"] {
            assert!(told.stderr.contains(part), "{text}: {}", told.stderr);
        }
    }
    // What is neither a name nor a file.
    let told = place.tell(&service, &["load", "--workload", "heavy"]);
    assert!(matches!(told.code, Some(1 | 2)), "{told:#?}");
    assert!(told.stderr.contains("heavy") && told.stderr.contains("poison"), "{}", told.stderr);
    assert!(service.state().requests.is_empty());
}
