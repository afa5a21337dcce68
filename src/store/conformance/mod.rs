//! What every engine must pass, written against the trait alone.
//!
//! An engine implements [`Fixture`] in its tests and calls [`conformance!`]; each
//! function here becomes a test of that engine. Nothing here assumes that `seq`
//! has no gaps.

use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::{
    Claim, Claimed, Counters, Cursor, Definition, Deliveries, Fault, Filter, Increments, Order,
    Outcome, PageLimit, REJECTED_PREFIX, Seq, Start, Store, StoredEvent, Subscription,
    TopicCounters, TopicRange,
};
use crate::event::{self, Event, Topic};
use crate::platform::fake::{NOW, all, now};
use crate::time::UnixMillis;

mod commits;
mod counters;
mod reads;
mod retention;
mod subscriptions;

pub(crate) use commits::*;
pub(crate) use counters::*;
pub(crate) use reads::*;
pub(crate) use retention::*;
pub(crate) use subscriptions::*;

/// All topics of a test.
pub(crate) const TOPICS: TopicRange<'static> = TopicRange { after: "", topics_max: 100 };

/// An engine under test: data that is empty at first, and a clock.
pub(crate) trait Fixture {
    /// Empty data.
    fn empty() -> Self;
    /// One more instance of the store over the same data.
    fn instance(&self) -> Rc<dyn Store>;
    /// Turns the clock, which stands at [`NOW`] in the beginning.
    fn set_now(&self, now: UnixMillis);
    /// Whether there is what the engine needs. Else its tests are skipped.
    fn is_available() -> bool {
        true
    }
}

/// Makes the tests of an engine from its fixture.
macro_rules! conformance {
    ($fixture:ty: $($name:ident)*) => {
        $(#[test]
        fn $name() {
            if !<$fixture as crate::store::conformance::Fixture>::is_available() {
                return;
            }
            crate::store::conformance::$name::<$fixture>();
        })*
    };
    ($fixture:ty) => {
        crate::store::conformance::conformance! {
            $fixture:
            an_empty_store_is_empty
            each_identity_is_stored_once
            a_group_is_one_commit_with_outcomes_in_order
            a_repeated_delivery_is_idempotent
            instances_share_identities_and_order
            a_reader_that_goes_on_misses_nothing
            pages_hold_what_the_filter_says
            pages_are_bounded
            text_comes_back_as_it_was_given
            time_of_receipt_is_found
            a_clock_that_was_far_ahead_is_not_followed
            a_far_future_changes_no_outcome
            counters_balance
            topics_come_in_pages
            rejections_and_increments_are_added_up
            marks_are_kept_and_a_claim_is_held_by_one
            the_busiest_topics_are_summed_up
            topics_beyond_the_limit_are_one_series
            a_position_moves_forward_only
            the_lag_is_exact
            a_subscription_is_redefined_and_removed
            subscriptions_are_bounded
            identities_are_compared_exactly
            filters_hold_together
            a_timestamp_comes_back
            a_summary_counts_rejections
            a_position_is_kept_as_it_was_given
            a_subscription_remembers_its_times
            instances_share_subscriptions
            a_commit_is_seen_whole_or_not_at_all
            nothing_appears_below_the_head
            a_commit_that_nobody_waited_for_is_whole_or_not_there
            a_pruned_event_is_still_a_duplicate
            all_events_can_be_pruned
            pruning_keeps_to_what_it_was_asked_for
            pruning_in_steps_comes_to_an_end
            a_lag_counts_what_is_left
            pruning_ends_with_its_claim
            times_are_found_among_what_is_left
            identities_are_forgotten_when_they_may_be
        }
    };
}
pub(crate) use conformance;

const ALL: PageLimit = PageLimit { events_max: 1000, bytes_max: 1_000_000 };

fn encode(store: &dyn Store, events: &[Event], rejected: Vec<&'static str>) -> Deliveries {
    let encoded = store.encode(&events.iter().collect::<Vec<_>>()).unwrap();
    let mut by_field = Increments::new();
    for field in rejected {
        *by_field.entry(field.to_owned()).or_default() += 1;
    }
    Deliveries { encoded, events: events.len(), rejected: by_field, ..Deliveries::default() }
}

fn append(store: &dyn Store, events: &[Event]) -> Vec<Outcome> {
    now(store.append(&[&encode(store, events, Vec::new())], None)).unwrap()
}

fn publish(store: &dyn Store, topic: &str, event_id: impl ToString) -> Outcome {
    append(store, &[event::sample(topic, &event_id.to_string(), "1")])[0]
}

fn page(store: &dyn Store, filter: &Filter) -> Vec<StoredEvent> {
    now(store.page(filter, ALL)).unwrap()
}

fn ids(store: &dyn Store, filter: &Filter) -> Vec<String> {
    page(store, filter).into_iter().map(|event| event.event_id).collect()
}

fn topics(names: &[&str]) -> Vec<Topic> {
    names.iter().map(|name| Topic::parse(*name).unwrap()).collect()
}

fn seq_of(outcome: Outcome) -> Seq {
    match outcome {
        Outcome::Accepted { seq } => seq,
        other => panic!("{other:?}"),
    }
}

fn counters(unique_processed: i64, duplicate_dropped: i64, conflicts: i64) -> Counters {
    Counters { unique_processed, duplicate_dropped, conflicts, pruned: 0 }
}

/// An event of any source and timestamp.
fn event_of(topic: &str, event_id: &str, source: &str, timestamp: Option<&str>) -> Event {
    Event::build(event::Fields {
        topic: Ok(topic.to_owned()),
        event_id: Ok(event_id.to_owned()),
        source: Ok(source.to_owned()),
        timestamp: Ok(timestamp.map(str::to_owned)),
        payload: event::Payload::read("{}"),
    })
    .unwrap()
}

/// Polls `future` once.
fn poll<T>(future: std::pin::Pin<&mut (impl Future<Output = T> + ?Sized)>) -> Option<T> {
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => Some(result),
        Poll::Pending => None,
    }
}
