//! Pages of reports that were measured, and of others.

use super::chart::POINTS_MAX;
use super::*;
use crate::auditor::{Check, Row, Tally};
use crate::report::load::{Kill, Pacing, Threshold};
use crate::workload::Spec;

fn report() -> LoadReport {
    LoadReport {
        schema_version: 1,
        program: "publisher 0.1.0".to_owned(),
        started_at: "2025-01-01T00:00:00Z".to_owned(),
        url: "http://localhost".to_owned(),
        seed: 1,
        run: "run".to_owned(),
        workload: Spec::DEFAULT,
        arrivals: Arrivals::Closed,
        concurrency: 8,
        planned: None,
        distinct: 0,
        tally: Tally::default(),
        errors_by_kind: BTreeMap::new(),
        losses_by_kind: BTreeMap::new(),
        requests: 0,
        warm_up_requests: 0,
        bytes_sent: 0,
        bytes_received: 0,
        seconds: 0.0,
        events_per_second: 0.0,
        latency_ms: Latencies::default(),
        pace: None,
        tool_cpu_cores: None,
        timeline: Vec::new(),
        histogram: Vec::new(),
        thresholds: Vec::new(),
        kills: Vec::new(),
        check: Check {
            rows: Vec::new(),
            violations: Vec::new(),
            violations_total: 0,
            events_read: None,
            unsettled: 0,
            ok: true,
        },
        check_seconds: 0.0,
        ledger: None,
        unsent: 0,
        interrupted: false,
        failure: None,
        ok: true,
    }
}

fn part(second: u64) -> Interval {
    Interval {
        from_second: second as f64,
        seconds: 1.0,
        requests: second % 7,
        accepted: second % 5,
        errors: second % 3,
        p50_ms: 1.0,
        p99_ms: 2.0,
        max_ms: second as f64,
        ..Interval::default()
    }
}

fn measured() -> LoadReport {
    let mut report = report();
    report.latency_ms.raw = Latency { count: 2, p50: 0.05, max: 3_600_000.0, ..Latency::default() };
    report.timeline = vec![part(1)];
    report.histogram =
        [0.05, 3_600_000.0].map(|up_to_ms| Bucket { up_to_ms, raw: 1, corrected: 1 }).into();
    report
}

#[test]
fn what_comes_from_data_is_escaped() {
    let bad = || "<b>&\"'".to_owned();
    let mut report = measured();
    (report.url, report.run, report.program, report.started_at) = (bad(), bad(), bad(), bad());
    (report.ledger, report.failure) = (Some(bad()), Some(bad()));
    report.check.violations = vec![bad()];
    let counter = bad();
    report.check.rows =
        vec![Row { counter, expected_min: 1_000, expected_max: None, observed: -1_000, ok: false }];
    report.thresholds = vec![Threshold { fail_if: bad(), observed: None, crossed: true }];
    report.errors_by_kind.insert(bad(), 1);
    report.losses_by_kind.insert(bad(), 1);
    let html = page(&report).unwrap();
    assert!(!html.contains("<b>"));
    assert_eq!(html.matches("&lt;b&gt;&amp;&quot;&#39;").count(), 13);
    assert!(html.contains("<td>at least 1,000</td><td>-1,000</td>"));
}

#[test]
fn a_report_of_nothing_says_so() {
    let html = page(&report()).unwrap();
    assert_eq!(html.matches("nothing was measured").count(), 5);
    assert!(html.contains("every check holds") && !html.contains("<svg"));
    for not_finite in ["NaN", "inf "] {
        assert!(!html.contains(not_finite));
    }
}

#[test]
fn a_long_run_is_drawn_in_few_points() {
    let timeline: Vec<_> = (0..86_400).map(part).collect();
    let parts = merged(&timeline);
    assert_eq!(parts.len(), POINTS_MAX);
    let counts: [Of<u64>; 3] = [|part| part.requests, |part| part.accepted, |part| part.errors];
    for of in counts {
        let sum = |parts: &[Interval]| parts.iter().map(of).sum::<u64>();
        assert_eq!(sum(&parts), sum(&timeline));
    }
    assert_eq!(parts.iter().map(|part| part.seconds).sum::<f64>(), 86_400.0);
    let ends = parts.iter().map(|part| part.max_ms);
    assert!(ends.eq((1..=600).map(|part| f64::from(part * 144 - 1))));
    assert!(parts.iter().all(|part| (part.p50_ms - 1.0).abs() < 1e-9 && part.p99_ms == 2.0));

    let report = LoadReport { timeline, ..report() };
    let html = page(&report).unwrap();
    assert!(html.contains("Each point stands for 144 parts") && html.len() < 1_000_000);
}

#[test]
fn the_end_of_a_run_is_no_spike() {
    let parts = merged(&[part(1), Interval { seconds: 0.001, ..part(2) }]);
    assert_eq!((parts.len(), parts[0].accepted, parts[0].max_ms), (1, 3, 2.0));
}

#[test]
fn corrected_latency_is_shown_if_there_is_one() {
    let mut report = measured();
    assert!(!page(&report).unwrap().contains("orrected"));
    report.latency_ms.corrected = Some(report.latency_ms.raw);
    report.pace = Some(Pacing { rate: 12_345.0, ..Pacing::default() });
    let kill = Kill {
        process: 1,
        at_second: 1.5,
        up_ms: 1.0,
        acknowledged: 1,
        under_way: 1,
        down_ms: 1.0,
    };
    report.kills = vec![kill; 11];
    let html = page(&report).unwrap();
    assert!(html.contains("Latency, corrected") && html.contains("; corrected p50 0.05 ms"));
    assert!(html.contains("12,345 events/s") && html.contains("<summary>all 11</summary>"));
}

#[test]
fn numbers_are_easy_to_read() {
    let numbers = [0.0, 0.0512, 1.5, 9.999, 12.34, 99.96, 1_234_567.8].map(number);
    assert_eq!(numbers, ["0", "0.051", "1.5", "10", "12.3", "100", "1,234,568"]);
    assert_eq!([0.05, 999.7, 3.6e6].map(duration), ["0.05 ms", "1 s", "3,600 s"]);
    let shares = [0.0, 0.00001, 0.2, 0.99999, 1.0].map(percent);
    assert_eq!(shares, ["0%", "under 0.01%", "20%", "over 99.99%", "100%"]);
    assert_eq!([999, 13_400_233].map(bytes), ["999 B", "13.4 MB"]);
}
