use std::ops::{Deref, DerefMut};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use super::*;
use crate::event;
use crate::platform::chaining::Called;
use crate::platform::fake::{FakeLine, FakePlatform, all, busy, now, unavailable};
use crate::platform::sqlite::SqliteError;
use crate::store::frames::Answer;
use crate::store::sqlite::SqliteStore;
use crate::store::{Fault, Seq};

const WAIT_MAX: Duration = Duration::from_secs(5);

/// The commits of one instance, over SQLite.
struct Instance {
    platform: Rc<FakePlatform>,
    commits: GroupCommit,
}

impl Deref for Instance {
    type Target = FakePlatform;

    fn deref(&self) -> &FakePlatform {
        &self.platform
    }
}

fn instance() -> Instance {
    let platform = FakePlatform::new();
    let store = SqliteStore::new(platform.clone(), platform.clone(), platform.clone());
    now(store.probe()).unwrap();
    platform.statements.borrow_mut().clear();
    let commits = GroupCommit::new(Rc::new(store), platform.clone(), WAIT_MAX);
    Instance { platform, commits }
}

/// The commits of one instance that hands them over.
fn handing_over() -> Instance {
    let platform = FakePlatform::new();
    let store = SqliteStore::new(platform.clone(), platform.clone(), platform.clone())
        .handing_over(platform.clone(), WAIT_MAX);
    now(store.probe()).unwrap();
    let commits = GroupCommit::new(Rc::new(store), platform.clone(), WAIT_MAX);
    Instance { platform, commits }
}

impl Instance {
    /// The next call of the writer is answered with `line`.
    fn opens(&self, status: u16, line: FakeLine) {
        let called = Called { status, line: line.into() };
        self.calls.borrow_mut().push_back(called);
    }
}

fn answer(settled: Settled) -> Answer {
    let commit_took = Duration::ZERO;
    Answer { result: Some(settled), is_alone: false, commit_events: 9, commit_took }
}

fn events(ids: &[&str], payload: &str) -> Vec<Event> {
    ids.iter().map(|id| event::sample("t", id, payload)).collect()
}

fn many(prefix: &str, count: usize) -> Vec<Event> {
    let ids: Vec<String> = (0..count).map(|id| format!("{prefix}-{id}")).collect();
    events(&ids.iter().map(String::as_str).collect::<Vec<_>>(), "1")
}

async fn commit(
    instance: &Instance,
    events: &[Event],
    rejected: Vec<&'static str>,
) -> Result<Vec<Outcome>, StoreError> {
    let events: Vec<&Event> = events.iter().collect();
    instance.commits.commit(&events, rejected).await
}

fn commits(instance: &Instance, batches: &[Vec<Event>]) -> Vec<Settled> {
    all(batches.iter().map(|events| commit(instance, events, Vec::new())).collect())
}

/// Polls a request once; its answer, if it has one now.
fn poll_once<T>(request: &mut Pin<impl DerefMut<Target: Future<Output = T>>>) -> Option<T> {
    match request.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => Some(answer),
        Poll::Pending => None,
    }
}

fn accepted(settled: &Settled) -> usize {
    let outcomes = settled.as_ref().unwrap();
    outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Accepted { .. })).count()
}

#[test]
fn requests_that_wait_join_one_statement() {
    let instance = instance();
    let settled = commits(
        &instance,
        &[events(&["a", "b"], "1"), events(&["b", "c", "c"], "1"), events(&["a", "d"], "2")],
    );
    assert_eq!(instance.statements.borrow().len(), 1);
    let settled: Vec<_> = settled.into_iter().map(Result::unwrap).collect();
    let accepted = |seq| Outcome::Accepted { seq: Seq::new(seq) };
    assert_eq!(settled[0], [accepted(1), accepted(2)]);
    assert_eq!(settled[1], [Outcome::Duplicate, accepted(3), Outcome::Duplicate]);
    assert_eq!(settled[2], [Outcome::Conflict, accepted(4)]);
    assert_eq!(instance.commits.depth(), 0);
}

#[test]
fn waits_while_the_store_is_busy_and_no_longer_than_allowed() {
    let instance = instance();
    instance.faults.replace(vec![busy(); 5]);
    assert_eq!(now(commit(&instance, &[], vec!["topic"])).unwrap(), []);
    assert_eq!(instance.slept.get(), Duration::from_millis(5));

    instance.faults.replace(vec![busy(); 100_000]);
    let waited_before = instance.slept.get();
    let settled = commits(&instance, &[events(&["a"], "1"), events(&["b"], "1")]);
    for settled in settled {
        assert_eq!(settled.unwrap_err().fault, Fault::Busy);
    }
    assert!(instance.slept.get() - waited_before >= WAIT_MAX);
    assert_eq!(instance.commits.depth(), 0, "nothing waits on");

    instance.faults.replace(Vec::new());
    assert_eq!(
        accepted(&commits(&instance, &[events(&["a", "b"], "1")])[0]),
        2,
        "nothing was stored"
    );
}

#[test]
fn what_comes_while_a_group_waits_joins_it() {
    let instance = instance();
    instance.faults.replace(vec![busy(); 3]);
    let batches: Vec<_> = (0..20).map(|id| many(&id.to_string(), 3)).collect();
    let settled = commits(&instance, &batches);
    assert!(settled.iter().all(|settled| accepted(settled) == 3));
    assert_eq!(instance.statements.borrow().len(), 4);
}

#[test]
fn does_not_wait_for_what_does_not_pass() {
    for (error, fault) in [(SqliteError::Full, Fault::Full), (unavailable(), Fault::Unavailable)] {
        let instance = instance();
        instance.faults.replace(vec![error]);
        let failed = now(commit(&instance, &[], vec!["topic"])).unwrap_err();
        assert_eq!(failed.fault, fault);
        assert_eq!(instance.slept.get(), Duration::ZERO);
    }
}

#[test]
fn the_fault_of_one_request_fails_no_other() {
    let instance = instance();
    // First the group fails, then the first of the three alone.
    instance.faults.replace(vec![unavailable(), SqliteError::Full]);
    let batches = [events(&["a"], "1"), events(&["b"], "1"), events(&["c"], "1")];
    let settled = commits(&instance, &batches);
    assert_eq!(settled[0].as_ref().unwrap_err().fault, Fault::Full);
    assert!(settled[1..].iter().all(|settled| accepted(settled) == 1));
}

#[test]
fn a_client_that_goes_away_takes_only_its_own() {
    let instance = instance();
    instance.faults.replace(vec![busy(); 2]);
    let (gone, stays) = (events(&["gone"], "1"), events(&["stays"], "1"));
    {
        let mut leader = pin!(commit(&instance, &gone, Vec::new()));
        let mut other = pin!(commit(&instance, &stays, Vec::new()));
        for _ in 0..2 {
            assert!(poll_once(&mut leader).is_none());
            assert!(poll_once(&mut other).is_none());
        }
        assert_eq!(instance.commits.depth(), 2);
    }
    assert_eq!(instance.commits.depth(), 0);
    assert_eq!(accepted(&commits(&instance, &[stays])[0]), 1);
    assert_eq!(accepted(&commits(&instance, &[gone])[0]), 1, "it was not stored unasked");
}

#[test]
fn a_leader_that_goes_away_is_followed_by_another() {
    // Whenever it is polled last: before its statement, in it, and after it.
    for polls in 0..8 {
        let instance = instance();
        let (gone, stays) = (events(&["gone"], "1"), events(&["stays"], "1"));
        let mut leader = Box::pin(commit(&instance, &gone, Vec::new()));
        let mut other = Box::pin(commit(&instance, &stays, Vec::new()));
        let mut answered = None;
        for _ in 0..polls {
            if poll_once(&mut leader).is_some() {
                break;
            }
            answered = answered.or_else(|| poll_once(&mut other));
        }
        drop(leader);
        let settled = answered.unwrap_or_else(|| now(other));
        assert_eq!(settled.unwrap().len(), 1, "after {polls} polls");
        assert_eq!(instance.commits.depth(), 0);
        let again = commits(&instance, &[stays]);
        assert_eq!(again[0].as_ref().unwrap(), &[Outcome::Duplicate]);
        assert_eq!(commits(&instance, &[gone])[0].as_ref().unwrap().len(), 1);
    }
}

#[test]
fn what_arrives_during_a_commit_goes_with_the_next() {
    let instance = instance();
    let batches: Vec<_> = (0..10).map(|id| many(&id.to_string(), 1)).collect();
    let mut first = Box::pin(commit(&instance, &batches[0], Vec::new()));
    while instance.commits.depth() > 0 || instance.commits.group.leaders.get() == 0 {
        assert!(poll_once(&mut first).is_none());
    }
    let mut settled = vec![first];
    settled
        .extend(batches[1..].iter().map(|events| Box::pin(commit(&instance, events, Vec::new()))));
    for (index, settled) in all(settled).iter().enumerate() {
        let seq = Seq::new(index as i64 + 1);
        assert_eq!(settled.as_ref().unwrap(), &[Outcome::Accepted { seq }]);
    }
    assert_eq!(instance.statements.borrow().len(), 2);
}

#[test]
fn each_request_waits_as_long_as_it_may_itself() {
    let instance = instance();
    instance.faults.replace(vec![busy(); 100_000]);
    let (early, late) = (events(&["early"], "1"), events(&["late"], "1"));
    let mut first = Box::pin(commit(&instance, &early, Vec::new()));
    while instance.slept.get() < WAIT_MAX / 2 {
        assert!(poll_once(&mut first).is_none());
    }
    let mut second = Box::pin(commit(&instance, &late, Vec::new()));
    let failed = loop {
        assert!(poll_once(&mut second).is_none());
        if let Some(settled) = poll_once(&mut first) {
            break settled.unwrap_err();
        }
    };
    assert_eq!(failed.fault, Fault::Busy);
    assert!(failed.message.starts_with("planted"), "{failed}");
    assert!(instance.slept.get() < WAIT_MAX * 5 / 4);
    instance.faults.replace(Vec::new());
    assert_eq!(accepted(&now(second)), 1, "it leads now, and its time is not over");
}

#[test]
fn alone_after_a_group_that_failed_it_still_waits_for_a_busy_store() {
    let instance = instance();
    instance.faults.replace(vec![unavailable(), busy(), busy()]);
    let settled = commits(&instance, &[events(&["a"], "1"), events(&["b"], "1")]);
    assert!(settled.iter().all(|settled| accepted(settled) == 1));
}

#[test]
fn an_instance_that_others_crowd_out_retires() {
    let instance = instance();
    let publish = |ids: &[&str], is_busy: bool, takes_ms: u64| {
        instance.faults.replace(if is_busy { vec![busy()] } else { Vec::new() });
        instance.commits_take.set(Duration::from_millis(takes_ms));
        commits(&instance, &ids.iter().map(|id| events(&[id], "1")).collect::<Vec<_>>());
        instance.retired.get()
    };
    for id in ["slow", "slow too", "slow again"] {
        assert!(!publish(&[id], false, 9), "alone it is not one too many");
    }
    assert!(!publish(&["1", "2", "3"], true, 9), "a group that is worth its commit");
    assert!(!publish(&["4"], false, 9));
    assert!(!publish(&["5"], false, 0), "nobody was in its way");
    assert!(!publish(&["6", "7"], true, 9));
    assert!(publish(&["8"], false, 9), "twice in a row");
}

#[test]
fn a_stream_of_large_batches_starves_no_single_event() {
    let instance = instance();
    let mut batches: Vec<_> = (0..8).map(|id| many(&id.to_string(), 1000)).collect();
    batches.insert(3, events(&["single"], "1"));
    let settled = commits(&instance, &batches);
    // First come, first served: two large ones to a statement, the single in the second.
    assert_eq!(settled[3].as_ref().unwrap(), &[Outcome::Accepted { seq: Seq::new(3001) }]);
    assert!(settled.iter().all(|settled| accepted(settled) >= 1));
    assert!(instance.statements.borrow().len() >= 4, "a statement is bounded");
}

#[test]
fn more_than_may_wait_is_refused_at_once() {
    let instance = instance();
    let batches: Vec<_> = (0..6).map(|id| many(&id.to_string(), 9_000)).collect();
    let settled = commits(&instance, &batches);
    let refused = settled.iter().filter(|settled| settled.is_err()).count();
    assert_eq!(refused, 1, "9,000 are in the statement, of 45,000 more 40,000 may wait");
    let faults = settled.iter().filter_map(|settled| settled.as_ref().err());
    assert!(faults.into_iter().all(|error| error.fault == Fault::Busy));
}

/// The writer observes the commit, with all that came together there, and is told how
/// long they have waited.
#[test]
fn a_commit_that_was_handed_over_is_observed_once() {
    let instance = handing_over();
    let known = |count: usize| answer(Ok(vec![Outcome::Duplicate; count])).into_frame();
    instance.opens(200, FakeLine::saying([known(3), known(1)]));
    commits(&instance, &[events(&["a", "b"], "1"), events(&["c"], "1")]);
    commits(&instance, &[events(&["d"], "1")]);
    assert_eq!(instance.commits.observed.take(), None);
    // The line has ended, so it commits the next by itself.
    commits(&instance, &[events(&["e", "f"], "1")]);
    let observed = instance.commits.observed.take().unwrap();
    assert_eq!(observed["commit_requests/sum"], 1);
    assert_eq!(observed["commit_events/sum"], 2);
}

/// The writer's side: it observes the commit, and how long all have waited for it.
#[test]
fn a_commit_for_others_is_observed_with_all_its_requests() {
    let instance = instance();
    let all_events = events(&["a", "b", "c"], "1");
    let encoded = instance.commits.store.encode(&all_events.iter().collect::<Vec<_>>()).unwrap();
    let waited = vec![Duration::from_micros(300), Duration::from_micros(900)];
    let group = Deliveries { encoded, events: 3, waited, ..Deliveries::default() };
    let told = Rc::new(RefCell::new(None));
    let its_told = Rc::clone(&told);
    let tell = Box::new(move |settled| drop(its_told.replace(Some(settled))));
    instance.commits.take_over(group, Increments::new(), tell);
    assert_eq!(*told.borrow(), None);
    let told_after = RefCell::new(None);
    now(instance.commits.commit_handed_over(async || {
        told_after.replace(told.borrow().clone());
    }));
    assert_eq!(told_after.take().unwrap().unwrap().len(), 3);
    assert_eq!(instance.commits.last().events, 3);
    let observed = instance.commits.observed.take().unwrap();
    assert_eq!((observed["commit_requests/sum"], observed["commit_events/sum"]), (2, 3));
    let waited = observed.iter().filter(|(name, _)| name.starts_with("commit_seconds/le/"));
    assert_eq!(waited.map(|(_, count)| count).sum::<i64>(), 2, "{observed:?}");
}

#[test]
fn a_writer_that_stays_busy_fails_a_request_when_its_time_is_over() {
    let instance = handing_over();
    let answers = (0..10_000).map(|_| answer(Err(StoreError::busy("planted"))).into_frame());
    instance.opens(200, FakeLine::saying(answers));
    let settled = commits(&instance, &[events(&["a"], "1"), events(&["b"], "1")]);
    assert_eq!(settled[0].as_ref().unwrap_err().fault, Fault::Busy);
    assert!(instance.slept.get() >= WAIT_MAX && instance.slept.get() < WAIT_MAX * 5 / 4);
}

/// Increments go to the writer while the instance runs a commit of its own.
#[test]
fn what_is_handed_over_beside_it_hides_no_commit() {
    let instance = handing_over();
    instance.statements.borrow_mut().clear();
    let one = events(&["a"], "1");
    let mut own = Box::pin(commit(&instance, &one, Vec::new()));
    while instance.statements.borrow().is_empty() {
        assert!(poll_once(&mut own).is_none());
    }
    instance.advance(WAIT_MAX);
    instance.opens(200, FakeLine::saying([answer(Ok(Vec::new())).into_frame()]));
    let increments = Increments::from([("seen".to_owned(), 1)]);
    let rejected = Deliveries { waited: vec![Duration::ZERO; 2], ..Deliveries::default() };
    let group = [&rejected];
    let handed_over = instance.commits.store.append(&group, Some(&increments));
    assert_eq!(now(handed_over), Ok(Vec::new()));
    assert!(instance.commits.store.has_handed_over());
    assert_eq!(accepted(&now(own)), 1);
    let observed = instance.commits.observed.take().unwrap();
    assert_eq!(observed.get("commit_requests/sum"), Some(&1), "{observed:?}");
}

#[test]
fn on_a_slow_disk_a_commit_waits_for_those_who_come_again() {
    let instance = instance();
    instance.commits_take.set(Duration::from_millis(SLOW_COMMIT_MS_MIN));
    commits(&instance, &[many("a", 1), many("b", 1), many("c", 1)]);
    instance.statements.borrow_mut().clear();
    let (a, b, c) = (many("d", 1), many("e", 1), many("f", 1));
    let mut first = Box::pin(commit(&instance, &a, Vec::new()));
    while instance.commits.group.awaited.borrow().is_none() {
        assert!(poll_once(&mut first).is_none());
    }
    let others = [&b, &c].map(|events| Box::pin(commit(&instance, events, Vec::new())));
    let everybody = others.into_iter().chain([first]).collect();
    assert!(all(everybody).iter().all(|settled| accepted(settled) == 1));
    assert_eq!(instance.statements.borrow().len(), 1);
}

#[test]
fn on_a_fast_disk_and_alone_a_commit_waits_for_nobody() {
    for (clients, ms) in [(3, SLOW_COMMIT_MS_MIN - 1), (1, 10)] {
        let instance = instance();
        instance.commits_take.set(Duration::from_millis(ms));
        let batches = |round: usize| {
            let ids = 0..clients;
            ids.map(|client| many(&format!("{client}-{round}"), 1)).collect::<Vec<_>>()
        };
        commits(&instance, &batches(0));
        for round in 1..20 {
            commits(&instance, &batches(round)[..1]);
        }
        assert_eq!(instance.slept.get(), Duration::from_millis(20 * ms));
    }
}

#[test]
fn where_nobody_comes_again_it_is_waited_for_now_and_then() {
    let instance = instance();
    instance.commits_take.set(Duration::from_millis(8));
    let pair = |id: usize| [events(&[&format!("{id}")], "1"), events(&[&format!("{id}b")], "1")];
    let mut waited = 0;
    for id in 0..2 * (GATHERS_LEFT_OUT as usize + 1) {
        // A pair, and then one that is alone: the other does not come again.
        commits(&instance, &pair(id));
        let before = instance.slept.get();
        commits(&instance, &[events(&[&format!("{id}c")], "1")]);
        waited += usize::from(instance.slept.get() - before > Duration::from_millis(8));
    }
    assert!(waited > 0 && waited <= 3, "{waited} times");
}
