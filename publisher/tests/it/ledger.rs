//! `--ledger`, `verify` and `resume`: runs that were broken off.

use std::fs;
use std::time::Duration;

use crate::fake::{Fake, Lie};
use crate::harness::{Place, Running, wait_for};

const LOAD: [&str; 7] = ["load", "--seed", "5", "--ledger", "run", "--concurrency", "8"];

fn requests(service: &Fake) -> usize {
    service.state().requests.len()
}

/// A whole run with a ledger.
fn run(events: &str) -> (Place, Fake) {
    let (place, service) = (Place::new(), Fake::start());
    place.run(&service, &[&LOAD[..], &["--events", events]].concat()).ok();
    (place, service)
}

/// Longer than any test: such a pause ends by hand.
const PAUSE: Duration = Duration::from_secs(600);

#[test]
fn a_run_that_was_killed_is_verified_and_resumed() {
    let (place, service) = (Place::new(), Fake::start());
    // All that are under way are held, so that what is not settled is known.
    service.state().pause_at = Some((300, PAUSE));
    let load = [&LOAD[..], &["--events", "2000", "--workload", "retry"]].concat();
    let running = Running::start(&place, &service, &load);
    wait_for(&308, || requests(&service));
    running.kill();
    let done = place.run(&service, &["verify", "run"]).ok();
    assert_eq!(done.json["check"]["unsettled"], 8, "{done:#?}");
    assert_eq!(done.counts(["sent", "planned"]), [300, 2_000]);
    assert_eq!(done.json["check"]["events_read"], service.state().stored.len());
    assert_eq!(requests(&service), 308, "to verify is to send nothing");

    // Killed once more, with the same requests under way and with others.
    service.state().paused_until = None;
    service.state().pause_at = Some((700, PAUSE));
    let running = Running::start(&place, &service, &["resume", "run"]);
    wait_for(&708, || requests(&service));
    running.kill();
    let done = place.run(&service, &["verify", "run"]).ok();
    assert_eq!(done.json["check"]["unsettled"], 8, "{done:#?}");

    service.state().paused_until = None;
    let done = place.run(&service, &["resume", "run"]).ok();
    assert_eq!(done.counts(["sent", "planned", "unsent", "errors"]), [2_000, 2_000, 0, 0]);
    assert_eq!(done.counts(["distinct"]), [1_000]);
    assert_eq!(service.state().stored.len(), 1_000);
    let done = place.run(&service, &["verify", "run"]).ok();
    assert_eq!(done.json["check"]["unsettled"], 0);
    assert_eq!(done.counts(["sent", "distinct"]), [2_000, 1_000]);
}

#[test]
fn a_run_that_was_killed_at_its_first_requests_is_resumed() {
    let (place, service) = (Place::new(), Fake::start());
    service.state().pause_at = Some((0, PAUSE));
    let load = [&LOAD[..], &["--events", "100", "--batch", "7"]].concat();
    let running = Running::start(&place, &service, &load);
    wait_for(&8, || requests(&service));
    running.kill();
    let done = place.run(&service, &["verify", "run"]).ok();
    assert_eq!(done.json["check"]["unsettled"], 56, "{done:#?}");
    service.state().paused_until = None;
    place.run(&service, &["resume", "run", "--concurrency", "1"]).ok();
    assert_eq!(service.state().stored.len(), 80);
}

#[test]
fn a_run_that_was_killed_at_any_moment_is_resumed() {
    let (place, service) = (Place::new(), Fake::start());
    for (number, after) in [1, 50, 300].into_iter().enumerate() {
        let (seed, directory) = (number.to_string(), format!("run-{number}"));
        let args = ["load", "--seed", &seed, "--ledger", &directory, "--events", "4000"];
        let before = requests(&service);
        let running = Running::start(&place, &service, &args);
        wait_for(&true, || requests(&service) >= before + after);
        running.kill();
        let verified = place.run(&service, &["verify", &directory]).ok();
        assert!(verified.number("/check/unsettled") >= 0.0);
        let done = place.run(&service, &["resume", &directory]).ok();
        assert_eq!(done.counts(["sent", "distinct", "unsent"]), [4_000, 3_200, 0]);
        assert_eq!(done.json["check"]["events_read"], 3_200);
    }
}

#[test]
fn a_whole_run_has_nothing_to_resume() {
    let (place, service) = run("200");
    for command in ["verify", "resume", "verify"] {
        let done = place.run(&service, &[command, "run"]).ok();
        assert_eq!(done.counts(["sent", "distinct", "unsent"]), [200, 160, 0], "{command}");
        assert_eq!(done.json["check"]["unsettled"], 0, "{command}");
    }
    assert_eq!(requests(&service), 200);
}

#[test]
fn a_run_by_time_ends_where_it_was_broken_off() {
    let (place, service) = (Place::new(), Fake::start());
    service.state().pause_at = Some((100, PAUSE));
    let running = Running::start(&place, &service, &[&LOAD[..], &["--duration", "60s"]].concat());
    wait_for(&108, || requests(&service));
    running.kill();
    service.state().paused_until = None;
    let done = place.run(&service, &["resume", "run"]).ok();
    assert_eq!(done.counts(["sent", "unsent"]), [108, 0], "{done:#?}");
    assert!(done.json["planned"].is_null());
}

#[test]
fn a_ledger_whose_end_was_not_written_is_read_to_there() {
    let (place, service) = run("200");
    let ledger = fs::read(place.path("run/ledger")).unwrap();
    for cut in [1, 5, 13, 14, 100] {
        fs::write(place.path("run/ledger"), &ledger[..ledger.len() - cut]).unwrap();
        let done = place.run(&service, &["verify", "run"]).ok();
        assert!(done.number("/check/unsettled") >= 1.0, "{cut}: {done:#?}");
    }
    // What was cut off is sent again, and written where it was.
    place.run(&service, &["resume", "run"]).ok();
    assert_eq!(service.state().stored.len(), 160);
    let done = place.run(&service, &["verify", "run"]).ok();
    assert_eq!(done.json["check"]["unsettled"], 0, "{done:#?}");
    // Nothing at all was written but what is to be done.
    fs::write(place.path("run/ledger"), b"").unwrap();
    let done = place.run(&service, &["verify", "run"]).failed();
    done.names("was never sent");
}

/// Where a frame in the middle of a ledger begins, and where it ends: each is
/// the length of its entry, two checksums, and the entry.
fn middle_frame(ledger: &[u8]) -> std::ops::Range<usize> {
    let mut at = 0;
    loop {
        let length = u32::from_le_bytes(ledger[at..at + 4].try_into().unwrap());
        let end = at + 12 + length as usize;
        if end > ledger.len() / 2 {
            return at..end;
        }
        at = end;
    }
}

/// Flips a bit of each of these bytes in turn; every time it must be told.
fn damage(bytes: impl Fn(std::ops::Range<usize>) -> Vec<usize>) {
    let (place, service) = run("200");
    let ledger = fs::read(place.path("run/ledger")).unwrap();
    for at in bytes(middle_frame(&ledger)) {
        let mut damaged = ledger.clone();
        damaged[at] ^= 0x10;
        fs::write(place.path("run/ledger"), &damaged).unwrap();
        for command in ["verify", "resume"] {
            let told = place.tell(&service, &[command, "run"]);
            assert_eq!(told.code, Some(1), "byte {at}: {told:#?}");
            for part in ["run in run", "ledger is damaged at byte"] {
                assert!(told.stderr.contains(part), "{command}, byte {at}: {told:#?}");
            }
        }
        let now = fs::read(place.path("run/ledger")).unwrap();
        assert!(now == damaged, "byte {at}: the evidence is gone");
    }
    assert_eq!(requests(&service), 200, "nothing is sent for a damaged ledger");
}

#[test]
fn a_ledger_that_is_damaged_is_no_ledger() {
    damage(|frame| std::iter::once(frame.start).chain(frame.start + 4..frame.end).collect());
}

#[test]
fn a_length_that_is_damaged_is_not_taken_for_the_end() {
    damage(|frame| (frame.start + 1..frame.start + 4).collect());
}

#[test]
fn runs_that_are_none_are_named() {
    let (place, service) = run("10");
    fs::create_dir(place.path("empty")).unwrap();
    fs::create_dir(place.path("other")).unwrap();
    place.write("other/run.json", "{\"version\": 1}");
    for run in ["nowhere", "empty", "other"] {
        for command in ["verify", "resume"] {
            let told = place.tell(&service, &[command, run]);
            assert_eq!(told.code, Some(1), "{told:#?}");
            assert!(told.stderr.contains(run), "{}", told.stderr);
        }
    }
}

#[test]
fn a_directory_holds_one_run() {
    let (place, service) = run("200");
    let told = place.tell(&service, &[&LOAD[..], &["--events", "9"]].concat());
    assert_eq!(told.code, Some(1), "{told:#?}");
    assert!(told.stderr.contains("ledger in run"), "{}", told.stderr);
    assert_eq!(requests(&service), 200);
    place.run(&service, &["verify", "run"]).ok();
}

#[test]
fn an_event_that_vanishes_after_the_run_is_found() {
    let (place, service) = run("200");
    place.run(&service, &["verify", "run"]).ok();
    let event = service.state().stored.remove(77);
    let done = place.run(&service, &["verify", "run"]).failed();
    done.names(&format!("event {} was acknowledged and is not stored", event.event_id));
    // Put back, but not as it was.
    let mut changed = event.clone();
    changed.payload["number"] = (-1).into();
    service.state().stored.insert(77, changed);
    let done = place.run(&service, &["verify", "run"]).failed();
    done.names(&format!("event {} is stored with content", event.event_id));
    service.state().stored[77] = event;
    place.run(&service, &["verify", "run"]).ok();
}

#[test]
fn a_lie_that_was_told_while_the_run_was_broken_off_is_found() {
    let (place, service) = (Place::new(), Fake::start());
    service.state().lie = Lie::LosesSilently(40);
    service.state().pause_at = Some((200, PAUSE));
    let running = Running::start(&place, &service, &[&LOAD[..], &["--events", "500"]].concat());
    wait_for(&208, || requests(&service));
    running.kill();
    let id = service.state().victim.clone().unwrap();
    service.state().paused_until = None;
    for command in ["verify", "resume", "verify"] {
        place.run(&service, &[command, "run"]).failed().names(&id);
    }
}

#[test]
fn another_store_is_not_taken_for_the_runs() {
    let (place, _) = run("20");
    let other = Fake::start();
    place.run(&other, &["verify", "run"]).failed().names("not the one that the run was sent to");
}

#[test]
fn runs_have_a_usual_place_and_a_name() {
    let (place, service) = (Place::new(), Fake::start());
    let args = ["load", "--audit", "--seed", "255", "--events", "50"];
    for name in ["00000000000000ff", "00000000000000ff.2"] {
        let done = place.run(&service, &args).ok();
        let directory = place.path("state/sekali/runs").join(name);
        assert_eq!(done.json["ledger"].as_str(), directory.to_str());
        assert!(directory.join("ledger").exists());
        place.run(&service, &["verify", name]).ok();
    }
}
