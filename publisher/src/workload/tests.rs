//! Shares, bytes and identities of plans.

use std::collections::{HashMap, HashSet};

use super::*;

fn plan(seed: u64, deliveries: u64, duplicates: f64, topics: u64) -> anyhow::Result<Plan> {
    Plan::new(seed, Spec { duplicates, topics, ..Spec::DEFAULT }, Some(deliveries))
}

/// Distinct events, and repeats of them.
fn count(plan: &Plan) -> (u64, u64) {
    let mut seen = HashSet::new();
    let mut repeated = 0;
    for planned in plan.schedule() {
        assert_eq!(seen.insert(planned.event), planned.kind == Kind::New, "{planned:?}");
        repeated += u64::from(planned.kind == Kind::Repeat);
    }
    (seen.len() as u64, repeated)
}

#[test]
fn the_classic_job_is_exact_for_every_seed() {
    for seed in 0..50 {
        let plan = plan(seed, 5_000, 0.2, 4).unwrap();
        assert_eq!(count(&plan), (4_000, 1_000), "seed {seed}");
    }
}

#[test]
fn shares_are_exact_at_the_edges() {
    for (deliveries, share, expected) in [
        (0, 0.2, (0, 0)),
        (1, 0.0, (1, 0)),
        (1, 0.4, (1, 0)),
        (2, 0.5, (1, 1)),
        (10, 0.9, (1, 9)),
        (100, 0.0, (100, 0)),
        (1_000, 0.333, (667, 333)),
    ] {
        for seed in 0..20 {
            let plan = plan(seed, deliveries, share, 3).unwrap();
            assert_eq!(count(&plan), expected, "{deliveries} × {share}, seed {seed}");
        }
    }
    assert!(plan(1, 10, 1.0, 1).is_err());
    assert!(plan(1, 1, 0.9, 1).is_err());
    assert!(plan(1, 10, 0.2, 0).is_err());
    assert!(plan(1, 10, f64::NAN, 1).is_err());
}

fn named(name: &str, deliveries: Option<u64>) -> Plan {
    Plan::new(7, Spec::named(name).unwrap(), deliveries).unwrap()
}

#[test]
fn every_kind_has_exactly_its_share() {
    let plan = named("mixed", Some(10_000));
    let mut counts = HashMap::new();
    for planned in plan.schedule() {
        *counts.entry(planned.kind).or_insert(0) += 1;
    }
    let expected =
        [(Kind::New, 7_700), (Kind::Repeat, 2_000), (Kind::Conflict, 200), (Kind::Invalid, 100)];
    assert_eq!(counts, HashMap::from(expected));
}

#[test]
fn without_an_end_shares_are_near() {
    let repeats = named("default", None).schedule().take(100_000);
    let repeats = repeats.filter(|planned| planned.kind == Kind::Repeat).count();
    assert!((19_000..21_000).contains(&repeats), "{repeats}");
}

#[test]
fn clients_that_retry_send_each_event_up_to_three_times_and_soon() {
    let mut sent: HashMap<u64, u64> = HashMap::new();
    let mut newest = 0;
    for planned in named("retry", Some(20_000)).schedule() {
        newest = newest.max(planned.event);
        assert!(planned.event + 32 > newest, "{planned:?} after {newest}");
        *sent.entry(planned.event).or_default() += 1;
    }
    assert_eq!(sent.values().max(), Some(&3));
    assert!((9_900..10_200).contains(&sent.len()), "{}", sent.len());
}

#[test]
fn batches_repeat_within_themselves() {
    let within = |request: &PlannedRequest| {
        let mut seen = HashSet::new();
        request.deliveries.iter().filter(|planned| !seen.insert(planned.event)).count()
    };
    let repeats: usize = named("batch", Some(5_000)).requests().map(|r| within(&r)).sum();
    assert!(repeats > 500, "{repeats} of 1,000");
}

#[test]
fn requests_hold_all_deliveries_in_order() {
    for name in ["default", "mixed", "poison"] {
        let plan = named(name, Some(2_345));
        let requests: Vec<_> = plan.requests().collect();
        let deliveries: Vec<_> = requests.iter().flat_map(|r| r.deliveries.clone()).collect();
        assert_eq!(deliveries, plan.schedule().collect::<Vec<_>>());
        assert!(requests.iter().enumerate().all(|(index, r)| r.number == index as u64));
    }
}

#[test]
fn popular_topics_are_popular() {
    let plan = named("topics", None);
    let mut counts: HashMap<String, u64> = HashMap::new();
    for event in 0..20_000 {
        *counts.entry(plan.topic_of(event)).or_default() += 1;
    }
    let of = |topic: usize| counts.get(&plan.topics()[topic]).copied().unwrap_or_default();
    // 1/1 and 1/10 of a weight of 7.5 in all.
    assert!((2_400..2_950).contains(&of(0)), "{}", of(0));
    assert!((200..340).contains(&of(9)), "{}", of(9));
}

#[test]
fn payloads_have_the_sizes_asked_for() {
    let plan = named("sizes", None);
    let mut small = 0;
    for event in 0..2_000 {
        let planned = Planned { event, kind: Kind::New };
        let bytes = plan.payload(planned).unwrap().len();
        assert!((100..=100_000).contains(&bytes), "{bytes}");
        small += u64::from(bytes < 3_200);
    }
    assert!((900..1_100).contains(&small), "{small} of 2,000 below the middle of the doublings");
}

#[test]
fn a_conflict_has_the_same_identity_and_other_content() {
    for name in ["conflict", "mixed"] {
        let plan = named(name, None);
        for event in 0..100 {
            let [first, other] = [Kind::New, Kind::Conflict].map(|kind| {
                let bytes = plan.event(Planned { event, kind }).unwrap();
                serde_json::from_slice::<serde_json::Value>(&bytes).unwrap()
            });
            assert_eq!(
                (&first["topic"], &first["event_id"]),
                (&other["topic"], &other["event_id"])
            );
            assert_ne!(first["payload"], other["payload"]);
        }
    }
}

#[test]
fn a_seed_means_the_same_bytes_for_ever() {
    let plan = plan(1, 8, 0.5, 2).unwrap();
    let order: Vec<u64> = plan.schedule().map(|planned| planned.event).collect();
    assert_eq!(order, GOLDEN_ORDER);
    let event = plan.event(Planned { event: 3, kind: Kind::New }).unwrap();
    assert_eq!(String::from_utf8(event).unwrap(), GOLDEN_EVENT);
    let plan = named("mixed", Some(1_000));
    let mut bytes = Vec::new();
    for request in plan.requests() {
        bytes.extend(plan.body(&request.deliveries).unwrap());
    }
    assert_eq!((bytes.len(), crc32fast::hash(&bytes)), GOLDEN_MIXED);
}

const GOLDEN_ORDER: [u64; 8] = [0, 0, 1, 0, 2, 0, 3, 1];
const GOLDEN_EVENT: &str = r#"{"topic":"load-0000000000000001-1","event_id":"0000000000000001-3","source":"publisher-load","payload":{"number":3,"user_id":"user-4138","action":"cart","amount_cents":802592,"token":"92e6cb938ae2fe7009adc576d5070117"}}"#;
const GOLDEN_MIXED: (usize, u32) = (1_447_884, 2_229_254_564);

#[test]
fn ids_are_read_back() {
    let plan = named("default", None);
    for event in [0, 17, u64::MAX] {
        assert_eq!(plan.event_of(&plan.event_id(event)), Some(event));
    }
    let run = plan.run_id();
    for id in [format!("{run}-017"), format!("{run}-"), format!("{run}-invalid-1"), "17".into()] {
        assert_eq!(plan.event_of(&id), None, "{id}");
    }
}

#[test]
fn scattered_ids_are_read_back_too() {
    let spec = Spec { ids: Ids::Scattered, ..Spec::DEFAULT };
    let plan = Plan::new(7, spec, None).unwrap();
    for event in [0, 17, u64::MAX] {
        assert_eq!(plan.event_of(&plan.event_id(event)), Some(event));
    }
    let (run, id) = (plan.run_id(), plan.event_id(3));
    assert_eq!(id, GOLDEN_SCATTERED_ID);
    for id in [format!("{run}-17"), format!("{run}-"), id.to_uppercase(), "17".into()] {
        assert_eq!(plan.event_of(&id), None, "{id}");
    }
}

const GOLDEN_SCATTERED_ID: &str = "0000000000000007-b7a4712c74562914";

#[test]
fn other_seeds_share_no_identity() {
    let plans = [plan(1, 9, 0.0, 1).unwrap(), plan(2, 9, 0.0, 1).unwrap()];
    assert_ne!(plans[0].topics(), plans[1].topics());
    assert_ne!(plans[0].event_id(0), plans[1].event_id(0));
}
