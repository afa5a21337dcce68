//! Ledgers that were written to their end, and others.

use super::*;
use crate::wire::{Counters, Outcome, Stats};

fn plan() -> Plan {
    Plan::new(7, Spec { batch: crate::workload::Range::exactly(2), ..Spec::DEFAULT }, Some(100))
        .unwrap()
}

fn address() -> Address {
    "http://127.0.0.1:1".parse().unwrap()
}

fn begin(directory: &Path) -> Ledger {
    let plan = plan();
    let baseline = Baseline::of(&plan, &Stats::default());
    Ledger::create(directory, &RunFile::new(&address(), &plan, 3, baseline)).unwrap()
}

fn sent(request: u64) -> Entry {
    Entry::Sent { request, deliveries: 2 }
}

fn settled(request: u64, outcomes: &[Outcome]) -> Entry {
    Entry::Settled { request, indeterminate: 0, answer: Answer::Outcomes(outcomes.to_vec()) }
}

/// Two requests, of which the second is not settled. The plan begins with two
/// new events.
fn two(directory: &Path) -> Ledger {
    let mut ledger = begin(directory);
    ledger.write_ahead(&sent(0)).unwrap();
    ledger.append(&settled(0, &[Outcome::Accepted; 2])).unwrap();
    ledger.write_ahead(&sent(1)).unwrap();
    ledger
}

#[test]
fn what_the_auditor_knew_is_read_back() {
    let directory = tempfile::tempdir().unwrap();
    let run = directory.path().join("a/b");
    let mut ledger = two(&run);
    let recorded = Recorded::read(&run).unwrap();
    assert_eq!((recorded.requests, recorded.auditor.tally().accepted), (2, 2));
    assert_eq!(recorded.auditor.unsettled(), plan().requests().skip(1).take(1).collect::<Vec<_>>());
    assert_eq!((recorded.run.concurrency, recorded.run.plan().unwrap()), (3, plan()));
    assert_eq!(recorded.run.baseline.own, Counters::default());

    // What settles a request waits for the next that is written ahead.
    ledger.append(&settled(1, &[Outcome::Accepted; 2])).unwrap();
    assert_eq!(Recorded::read(&run).unwrap().auditor.unsettled().len(), 1);
    ledger.flush().unwrap();
    assert!(Recorded::read(&run).unwrap().auditor.unsettled().is_empty());
}

#[test]
fn the_form_of_both_files_stays() {
    let directory = tempfile::tempdir().unwrap();
    drop(two(directory.path()));
    let run = std::fs::read_to_string(directory.path().join(RUN_FILE)).unwrap();
    let run: serde_json::Value = serde_json::from_str(&run).unwrap();
    let names: Vec<_> = run.as_object().unwrap().keys().collect();
    let expected = ["before", "concurrency", "deliveries", "seed", "url", "version", "workload"];
    assert_eq!(names, expected);
    let ledger = std::fs::read(directory.path().join(LEDGER_FILE)).unwrap();
    assert_eq!((ledger.len(), crc32fast::hash(&ledger)), GOLDEN_LEDGER);
}

const GOLDEN_LEDGER: (usize, u32) = (49, 2_748_187_312);

#[test]
fn a_torn_entry_is_left_out_and_written_over() {
    let directory = tempfile::tempdir().unwrap();
    drop(two(directory.path()));
    let file = directory.path().join(LEDGER_FILE);
    let whole = std::fs::read(&file).unwrap();
    let before_last = {
        let recorded = |bytes: &[u8]| {
            std::fs::write(&file, bytes).unwrap();
            Recorded::read(directory.path()).unwrap().requests
        };
        (0..whole.len()).rfind(|bytes| recorded(&whole[..*bytes]) < 2).unwrap()
    };
    assert_eq!(before_last, whole.len() - 1, "any missing byte is the last entry's end");
    for missing in 1..=10 {
        std::fs::write(&file, &whole[..whole.len() - missing]).unwrap();
        let recorded = Recorded::read(directory.path()).unwrap();
        assert_eq!(recorded.requests, 1, "{missing} bytes missing");
        recorded.ledger().unwrap().write_ahead(&sent(1)).unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), whole);
    }
}

#[test]
fn damage_is_found_and_named() {
    let directory = tempfile::tempdir().unwrap();
    drop(two(directory.path()));
    let file = directory.path().join(LEDGER_FILE);
    let whole = std::fs::read(&file).unwrap();
    // Every byte of the first frame.
    for index in 0..=FRAME_HEAD_BYTES {
        let mut damaged = whole.clone();
        damaged[index] ^= 0x40;
        std::fs::write(&file, damaged).unwrap();
        let error = format!("{:#}", Recorded::read(directory.path()).unwrap_err());
        assert!(error.contains("damaged at byte 0"), "{index}: {error}");
    }
}

#[test]
fn a_run_that_is_not_there_or_not_ours_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let read = || format!("{:#}", Recorded::read(directory.path()).unwrap_err());
    assert!(read().contains(RUN_FILE), "{}", read());
    drop(two(directory.path()));
    let again = Ledger::create(
        directory.path(),
        &RunFile::new(&address(), &plan(), 3, Baseline::default()),
    );
    assert!(format!("{:#}", again.unwrap_err()).contains("cannot start a ledger"));
    let file = directory.path().join(RUN_FILE);
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("\"version\": 1", "\"version\": 2")).unwrap();
    assert!(read().contains("version 2"), "{}", read());
    std::fs::write(&file, text.replace("\"min\": 2", "\"min\": 1")).unwrap();
    assert!(read().contains("not the plan's"), "{}", read());
}
