//! What is delivered: a workload of the publisher's, by its seed.

use anyhow::Result;
use publisher::auditor::Baseline;
use publisher::load::Deliveries;
use publisher::workload::{Ids, Kind, Plan, Planned, Spec};

/// One delivery in five repeats an earlier one, chosen from all, and ids come
/// in no order, as random ones do: each new one changes a page of an index.
const SPEC: Spec = Spec { topics: 10, ids: Ids::Scattered, ..Spec::DEFAULT };

/// The deliveries of a seed, without end.
///
/// # Errors
///
/// None: there can be such a load.
pub fn plan(seed: u64) -> Result<Plan> {
    Plan::new(seed, SPEC, None)
}

/// The same with ids that come nearly in order, as those that begin with a time
/// or a counter do.
///
/// # Errors
///
/// None: there can be such a load.
pub fn plan_with_ordered_ids(seed: u64) -> Result<Plan> {
    Plan::new(seed, Spec { ids: Ids::Counting, ..SPEC }, None)
}

/// All deliveries of a plan, for a store that has none of its events.
pub fn all(plan: &Plan) -> Deliveries {
    Deliveries::of(plan, Baseline::default())
}

/// How many of these are the first of their event.
pub fn distinct(deliveries: &[Planned]) -> u64 {
    deliveries.iter().filter(|planned| planned.kind == Kind::New).count() as u64
}
