//! The report as JSON and its schema; thresholds.

use std::fs;
use std::path::Path;
use std::time::Duration;

use jsonschema::Validator;
use serde_json::{Value, json};

use crate::fake::{Fake, Fault, Lie};
use crate::harness::Place;

fn schema_text(place: &Place) -> String {
    let told = place.tell(&Fake::new(), &["schema"]);
    assert_eq!(told.code, Some(0), "{told:#?}");
    told.stdout
}

fn schema(place: &Place) -> (Value, Validator) {
    let schema = serde_json::from_str(&schema_text(place)).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    (schema, validator)
}

#[track_caller]
fn assert_valid(validator: &Validator, report: &Value) {
    let errors: Vec<_> = validator
        .iter_errors(report)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{errors:#?} in {report:#}");
}

#[test]
fn the_schema_is_the_one_that_was_published() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/report.schema.json");
    let published = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        schema_text(&Place::new()) == published,
        "the schema has changed. If it is meant to, and SCHEMA_VERSION is right, renew it:\n\
         cargo run -p publisher -- schema > {}",
        path.display()
    );
}

#[test]
fn every_report_is_valid() {
    let place = Place::new();
    let (_, validator) = schema(&place);
    let (good, bad) = (Fake::start(), Fake::start());
    bad.state().lie = Lie::LosesSilently(3);
    bad.state().faults.extend([Fault::StatusAfterCommit(503), Fault::Status(500, None)]);
    let open = ["load", "--rate", "1000", "--poisson", "--events", "50", "--workload", "mixed"];
    for (service, args) in [
        (&good, &["load", "--events", "50", "--ledger", "run"][..]),
        (&good, &["load", "--events", "0"]),
        (&good, &["load", "--duration", "100ms", "--workload", "burst"]),
        (&good, &[&open[..], &["--fail-if", "p99>0ms", "--fail-if", "errors>0"]].concat()),
        (&good, &["verify", "run"]),
        (&good, &["resume", "run"]),
        (&bad, &["load", "--events", "50", "--audit", "--concurrency", "1", "--keep-going"]),
    ] {
        let done = place.run(service, args);
        assert_valid(&validator, &done.json);
        assert_eq!(done.json["schema_version"], 1, "{args:?}");
    }
}

/// A report with something in each of its lists.
fn full_report(place: &Place) -> Value {
    let service = Fake::start();
    service.state().faults.push_back(Fault::Status(503, Some("0")));
    let args = ["load", "--rate", "1000", "--events", "50", "--ledger", "full", "--audit"];
    let args = [&args[..], &["--fail-if", "errors>0", "--workload", "burst"]].concat();
    place.run(&service, &args).ok().json
}

#[test]
fn the_schema_is_strict() {
    let place = Place::new();
    let (schema, validator) = schema(&place);
    let report = full_report(&place);
    assert_valid(&validator, &report);
    let mut unknown = report.clone();
    unknown["more"] = 1.into();
    assert!(!validator.is_valid(&unknown), "an unknown field");
    let mut other = report.clone();
    other["sent"] = "many".into();
    assert!(!validator.is_valid(&other), "a text for a number");
    // Whatever it has is described, and what it always has is required.
    let required = schema["required"].as_array().unwrap();
    for name in report.as_object().unwrap().keys() {
        assert!(schema["properties"].get(name).is_some(), "{name} is not described");
        let mut without = report.clone();
        without.as_object_mut().unwrap().remove(name);
        let is_required = required.contains(&json!(name));
        assert_eq!(validator.is_valid(&without), !is_required, "without {name}");
    }
    for name in ["schema_version", "seed", "sent", "latency_ms", "check", "thresholds", "ok"] {
        assert!(required.contains(&json!(name)), "{name} may be missing");
    }
}

#[test]
fn json_goes_to_a_file_and_people_get_their_table() {
    let (place, service) = (Place::new(), Fake::start());
    let (_, validator) = schema(&place);
    let told = place.tell(&service, &["load", "--events", "50", "--json", "report.json"]);
    assert_eq!(told.code, Some(0), "{told:#?}");
    for part in ["accepted", "latency, ms", "every check holds"] {
        assert!(told.stdout.contains(part), "{part:?} is not in\n{}", told.stdout);
    }
    let report = place.read_json("report.json");
    assert_valid(&validator, &report);
    assert_eq!((&report["sent"], &report["ok"]), (&50.into(), &true.into()));
    // And without a file nothing else is on standard output, wherever it stands.
    let told = place.tell(&service, &["load", "--json", "--events", "50"]);
    assert_valid(&validator, &serde_json::from_str(&told.stdout).unwrap());
    // A file that cannot be written is a failure, and is named.
    let told = place.tell(&service, &["load", "--events", "5", "--json", "none/report.json"]);
    assert_eq!(told.code, Some(1), "{told:#?}");
    assert!(told.stderr.contains("none/report.json"), "{}", told.stderr);
}

#[test]
fn a_page_with_charts_needs_nothing_else() {
    let (place, service) = (Place::new(), Fake::start());
    service.state().delay = Duration::from_millis(1);
    let args = ["load", "--rate", "500", "--events", "100", "--seed", "9", "--html", "page.html"];
    place.run(&service, &args).ok();
    let page = fs::read_to_string(place.path("page.html")).unwrap();
    assert!(page.to_lowercase().starts_with("<!doctype html>"), "{page}");
    assert!(page.contains("<svg") && page.contains(&service.url), "{page}");
    for part in ["<script src", "href=\"http", "src=\"http", "url(http", "NaN"] {
        assert!(!page.contains(part), "{part:?} is in\n{page}");
    }
}

#[test]
fn a_threshold_that_is_crossed_is_an_exit_code_of_its_own() {
    let (place, service) = (Place::new(), Fake::start());
    let run = |conditions: &[&str]| {
        let mut args = vec!["load", "--events", "100"];
        for condition in conditions {
            args.extend(["--fail-if", condition]);
        }
        place.run(&service, &args)
    };
    let done = run(&["p99>0ms"]).ended(3);
    assert_eq!(done.json["thresholds"][0]["crossed"], true);
    assert_eq!(done.number("/thresholds/0/observed"), done.number("/latency_ms/raw/p99"));
    assert_eq!((&done.json["ok"], &done.json["check"]["ok"]), (&false.into(), &true.into()));

    let done = run(&["errors>0", "mismatches>0", "max>1000s", "rate<0.001"]).ok();
    let thresholds = done.json["thresholds"].as_array().unwrap();
    assert_eq!(thresholds.len(), 4);
    assert!(thresholds.iter().all(|threshold| threshold["crossed"] == false), "{done:#?}");
    assert_eq!(thresholds[0], json!({"fail_if": "errors>0", "observed": 0.0, "crossed": false}));

    // One of several is enough, and a closed loop has no corrected latency.
    run(&["errors>0", "rate>0"]).ended(3);
    let done = run(&["corrected.p99>1000s"]).ended(3);
    assert!(done.json["thresholds"][0]["observed"].is_null());

    for broken in ["p99", "p98>1ms", "p99>1", "errors=0", ""] {
        let sent = service.state().requests.len();
        let done = run(&[broken]).ended(2);
        assert!(done.stderr.contains("errors>0"), "how it is written: {}", done.stderr);
        assert_eq!(service.state().requests.len(), sent);
    }
}

#[test]
fn a_crossed_threshold_is_told_to_people() {
    let (place, service) = (Place::new(), Fake::start());
    let told = place.tell(&service, &["load", "--events", "20", "--fail-if", "p99>0ms"]);
    assert_eq!(told.code, Some(3));
    for part in ["THRESHOLD: --fail-if 'p99>0ms'", "every check holds"] {
        assert!(told.stdout.contains(part), "{part:?} is not in\n{}", told.stdout);
    }
}

#[test]
fn what_is_wrong_goes_before_a_threshold() {
    let (place, service) = (Place::new(), Fake::start());
    service.state().lie = Lie::LosesSilently(3);
    let args = ["load", "--events", "50", "--audit", "--concurrency", "1"];
    let judged = [&args[..], &["--fail-if", "p99>0ms", "--fail-if", "mismatches>0"]].concat();
    let done = place.run(&service, &judged).failed();
    let thresholds = done.json["thresholds"].as_array().unwrap();
    assert!(thresholds.iter().all(|threshold| threshold["crossed"] == true), "{done:#?}");
    assert_eq!(done.json["check"]["ok"], false);
    let done = Fake::start();
    done.state().faults.push_back(Fault::Status(500, None));
    place.run(&done, &["load", "--events", "50", "--fail-if", "errors>0"]).failed();
}
