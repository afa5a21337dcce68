use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;

use super::*;
use crate::event::{Event, sample};
use crate::platform::chaining::Line;
use crate::platform::fake::{FakeLine, FakePlatform, busy, now};
use crate::store::sqlite::SqliteStore;
use crate::store::{Fault, Seq, Store};

const WAIT_MAX: Duration = Duration::from_secs(5);

/// Longer than an instance ever does without a line.
const LONG: Duration = Duration::from_millis(3 * WITHOUT_MS_MAX);

/// What a line was told, in parts.
type Told = Rc<RefCell<Vec<Vec<u8>>>>;

/// An instance that may hand over what it commits.
struct Instance {
    platform: Rc<FakePlatform>,
    store: SqliteStore,
}

fn instance() -> Instance {
    let platform = FakePlatform::new();
    let store = SqliteStore::new(platform.clone(), platform.clone(), platform.clone())
        .handing_over(platform.clone(), WAIT_MAX);
    now(store.probe()).unwrap();
    Instance { platform, store }
}

fn accepted(seq: i64) -> Outcome {
    Outcome::Accepted { seq: Seq::new(seq) }
}

fn committed(outcomes: &[Outcome]) -> Answer {
    let (result, commit_took) = (Some(Ok(outcomes.to_vec())), Duration::ZERO);
    Answer { result, is_alone: false, commit_events: 1, commit_took }
}

fn failed(fault: Fault) -> Answer {
    let error = StoreError { fault, message: "planted".to_owned() };
    Answer { result: Some(Err(error)), ..committed(&[]) }
}

fn gone() -> Answer {
    Answer { result: None, ..committed(&[]) }
}

/// A line whose other side says something now and then.
#[derive(Clone, Default)]
struct PacedLine {
    says: Rc<RefCell<VecDeque<Vec<u8>>>>,
    told: Told,
}

#[async_trait(?Send)]
impl Sender for PacedLine {
    async fn send(&mut self, bytes: Vec<u8>) -> bool {
        self.told.borrow_mut().push(bytes);
        true
    }
}

#[async_trait(?Send)]
impl Receiver for PacedLine {
    async fn receive(&mut self, read: &mut Vec<u8>) -> bool {
        let part = poll_fn(|_| match self.says.borrow_mut().pop_front() {
            Some(part) => Poll::Ready(part),
            None => Poll::Pending,
        });
        read.extend(part.await);
        true
    }
}

impl Instance {
    fn opens_paced(&self, line: &PacedLine) -> Told {
        let (sender, receiver) = (Box::new(line.clone()), Box::new(line.clone()));
        let line_of_both = Line { sender, receiver };
        let called = Called { status: BUSY, line: line_of_both };
        self.platform.calls.borrow_mut().push_back(called);
        Rc::clone(&line.told)
    }

    /// The next call is answered `status`, with a line that says `answers`.
    fn answers(&self, status: u16, answers: impl IntoIterator<Item = Answer>) -> Told {
        self.says(status, answers.into_iter().map(Answer::into_frame))
    }

    fn says(&self, status: u16, parts: impl IntoIterator<Item = Vec<u8>>) -> Told {
        self.opens(status, FakeLine::saying(parts))
    }

    fn opens(&self, status: u16, line: FakeLine) -> Told {
        let told = line.told.clone();
        let called = Called { status, line: line.into() };
        self.platform.calls.borrow_mut().push_back(called);
        told
    }

    fn append(&self, ids: &[&str]) -> Result<Vec<Outcome>, StoreError> {
        let deliveries = self.deliveries(ids);
        now(self.store.append(&[&deliveries], None))
    }

    fn deliveries(&self, ids: &[&str]) -> Deliveries {
        let events: Vec<Event> = ids.iter().map(|id| sample("t", id, "1")).collect();
        let encoded = self.store.encode(&events.iter().collect::<Vec<_>>()).unwrap();
        Deliveries {
            encoded,
            events: ids.len(),
            // Of a group that is worth a line.
            waited: vec![Duration::ZERO; CALL_REQUESTS_MIN],
            ..Deliveries::default()
        }
    }

    /// Ids that are stored in the database, which is not where the fake line's are.
    fn stored(&self) -> Vec<String> {
        let query = "SELECT event_id FROM event_log ORDER BY seq";
        let mut statement = self.platform.connection.prepare(query).unwrap();
        let rows = statement.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    }

    fn calls_made(&self) -> usize {
        self.platform.called.borrow().len()
    }
}

#[test]
fn one_that_meets_nobody_commits_by_itself_until_it_does() {
    let instance = instance();
    let told = instance.answers(QUIET, [committed(&[accepted(70)])]);
    for (id, seq) in [("a", 1), ("b", 2)] {
        assert_eq!(instance.append(&[id]), Ok(vec![accepted(seq)]));
    }
    assert!(told.borrow().is_empty() && !instance.store.has_handed_over());
    instance.platform.faults.replace(vec![busy()]);
    assert_eq!(instance.append(&["c"]).unwrap_err().fault, Fault::Busy);
    assert_eq!(instance.append(&["c"]), Ok(vec![accepted(70)]));
    assert!(instance.store.has_handed_over());
    assert_eq!(told.borrow().len(), 1);
    assert_eq!(instance.stored(), ["a", "b"], "the writer has it");
    assert_eq!(*instance.platform.called.borrow(), ["sekali-writer/lines/2"], "one line");
}

#[test]
fn one_that_met_others_before_it_has_a_line_hands_over_at_once() {
    let instance = instance();
    assert_eq!(instance.append(&["a"]), Ok(vec![accepted(1)]), "there is no writer");
    instance.platform.faults.replace(vec![busy()]);
    assert!(instance.append(&["b"]).unwrap_err().is_busy());
    instance.platform.advance(LONG);
    let told = instance.answers(QUIET, [committed(&[accepted(70)])]);
    assert_eq!(instance.append(&["b"]), Ok(vec![accepted(70)]));
    assert_eq!(told.borrow().len(), 1);
}

#[test]
fn a_writer_that_is_busy_is_handed_everything() {
    let instance = instance();
    let outcomes = [accepted(70), Outcome::Duplicate, Outcome::Conflict];
    let told = instance.answers(BUSY, [committed(&outcomes), committed(&[accepted(71)])]);
    let (one, two) = (instance.deliveries(&["a", "b"]), instance.deliveries(&["c"]));
    let increments = Increments::from([("n".to_owned(), 1)]);
    let result = now(instance.store.append(&[&one, &two], Some(&increments)));
    assert_eq!(result, Ok(outcomes.to_vec()));
    assert_eq!(instance.append(&["d"]), Ok(vec![accepted(71)]));
    let told: Vec<_> =
        told.take().iter().map(|frame| frames::read_group(&frame[4..]).unwrap()).collect();
    assert_eq!(told.len(), 2);
    assert_eq!(told[0].0.encoded, [one.encoded.clone(), two.encoded.clone()].concat());
    assert_eq!((told[0].0.events, told[0].0.waited.len()), (3, 4));
    assert_eq!(told[0].1, increments);
    assert!(told[1].1.is_empty());
    assert!(instance.stored().is_empty());
}

#[test]
fn without_a_line_it_commits_by_itself_and_asks_less_and_less() {
    type Prepare = fn(&Instance);
    let cases: [(&str, Prepare); 4] = [
        ("denied", |_| {}),
        ("others write", |instance| {
            for _ in 0..CALLS_MAX {
                instance.says(ANOTHER_WRITES, []);
            }
        }),
        ("a failure", |instance| drop(instance.says(500, []))),
        ("another service", |instance| drop(instance.says(404, []))),
    ];
    for (what, prepare) in cases {
        let instance = instance();
        prepare(&instance);
        assert_eq!(instance.append(&["a"]), Ok(vec![accepted(1)]), "{what}");
        let calls = instance.calls_made();
        instance.platform.calls.borrow_mut().clear();
        assert!(calls > 0);
        assert_eq!(instance.append(&["b"]), Ok(vec![accepted(2)]), "{what}");
        assert_eq!(instance.calls_made(), calls, "{what}: it is left alone for a moment");
        // It takes longer each time, up to a limit.
        for time in [2 * WITHOUT_MS_MIN, 8 * WITHOUT_MS_MIN, 32 * WITHOUT_MS_MIN] {
            let calls = instance.calls_made();
            instance.platform.advance(Duration::from_millis(time));
            instance.append(&["c"]).unwrap();
            assert_eq!(instance.calls_made(), calls + 1, "{what}, after {time} ms");
            instance.platform.advance(Duration::from_millis(time - 1));
            instance.append(&["c"]).unwrap();
            assert_eq!(instance.calls_made(), calls + 1, "{what}, soon after {time} ms");
        }
        instance.platform.advance(LONG);
        instance.answers(BUSY, [committed(&[accepted(70)])]);
        assert_eq!(instance.append(&["d"]), Ok(vec![accepted(70)]), "{what}: and it is back");
        assert_eq!(instance.stored(), ["a", "b", "c"], "{what}");
    }
}

#[test]
fn one_that_is_not_the_writer_is_called_again() {
    let instance = instance();
    instance.says(ANOTHER_WRITES, []);
    instance.answers(BUSY, [committed(&[accepted(70)])]);
    assert_eq!(instance.append(&["a"]), Ok(vec![accepted(70)]));
    assert_eq!(instance.calls_made(), 2);
}

#[test]
fn what_was_not_answered_it_commits_by_itself() {
    let frame = || committed(&[accepted(70), accepted(71)]).into_frame();
    let half = frame()[..9].to_vec();
    let few = committed(&[accepted(70)]).into_frame();
    let many = committed(&[accepted(70), accepted(71), accepted(72)]).into_frame();
    let mut malformed = frame();
    malformed[4] = 99;
    let silent = || FakeLine { stays: true, ..FakeLine::saying([]) };
    for (what, line) in [
        ("the line ends", FakeLine::saying([])),
        ("it ends within the answer", FakeLine::saying([half])),
        ("gone", FakeLine::saying([gone().into_frame()])),
        ("malformed", FakeLine::saying([malformed])),
        ("too few outcomes", FakeLine::saying([few])),
        ("too many outcomes", FakeLine::saying([many])),
        ("nothing comes", silent()),
    ] {
        let instance = instance();
        let told = instance.opens(BUSY, line);
        let began = instance.platform.slept.get();
        let outcomes = instance.append(&["a", "b"]);
        assert_eq!(outcomes, Ok(vec![accepted(1), accepted(2)]), "{what}");
        assert_eq!(told.borrow().len(), 1, "{what}: it was handed over before");
        assert!(!instance.store.has_handed_over(), "{what}");
        let waited = instance.platform.slept.get() - began;
        assert!(waited <= WAIT_MAX + Duration::from_millis(ANSWER_MS_MAX), "{what}");
        assert_eq!(instance.append(&["a"]), Ok(vec![Outcome::Duplicate]), "{what}");
        // What comes next has a line of its own, in a moment.
        assert_eq!(instance.calls_made(), 1, "{what}");
        instance.platform.advance(LONG);
        instance.answers(BUSY, [committed(&[accepted(80)])]);
        assert_eq!(instance.append(&["c"]), Ok(vec![accepted(80)]), "{what}");
        assert_eq!(instance.calls_made(), 2, "{what}");
        assert_eq!(instance.stored(), ["a", "b"], "{what}");
    }
}

/// It waits a little longer than the writer does, so that who waits for a busy store is
/// told so, and not committed by two at once.
#[test]
fn an_answer_is_waited_for_as_long_as_the_writer_may_take() {
    let instance = instance();
    instance.opens(BUSY, FakeLine { stays: true, ..FakeLine::saying([]) });
    instance.append(&["a"]).unwrap();
    assert_eq!(instance.platform.slept.get(), WAIT_MAX + Duration::from_millis(ANSWER_MS_MAX));
}

#[test]
fn the_faults_of_the_writer_are_those_of_the_store() {
    for fault in [Fault::Busy, Fault::Full, Fault::Unavailable] {
        let instance = instance();
        instance.answers(BUSY, [failed(fault), committed(&[accepted(70)])]);
        let error = instance.append(&["a"]).unwrap_err();
        assert_eq!((error.fault, error.message.as_str()), (fault, "planted"));
        assert!(instance.stored().is_empty(), "it is not committed unasked");
        assert_eq!(instance.append(&["a"]), Ok(vec![accepted(70)]), "the line is kept");
        assert_eq!(instance.calls_made(), 1);
    }
}

#[test]
fn one_that_is_alone_commits_the_next_by_itself() {
    let instance = instance();
    let alone = Answer { is_alone: true, ..committed(&[accepted(70)]) };
    let told = instance.answers(BUSY, [alone, committed(&[accepted(71)])]);
    assert_eq!(instance.append(&["a"]), Ok(vec![accepted(70)]));
    assert_eq!(instance.append(&["b"]), Ok(vec![accepted(1)]));
    assert_eq!(instance.stored(), ["b"]);
    instance.platform.faults.replace(vec![busy()]);
    assert!(instance.append(&["c"]).unwrap_err().is_busy());
    assert_eq!(instance.append(&["c"]), Ok(vec![accepted(71)]), "on the line that it has");
    assert_eq!((told.borrow().len(), instance.calls_made()), (2, 1));
}

#[test]
fn a_request_by_itself_is_no_reason_to_call_for_a_line() {
    let instance = instance();
    instance.answers(BUSY, [committed(&[accepted(70)]), committed(&[accepted(71)])]);
    let lone = |id| Deliveries { waited: vec![Duration::ZERO], ..instance.deliveries(&[id]) };
    for (id, seq) in [("a", 1), ("b", 2)] {
        assert_eq!(now(instance.store.append(&[&lone(id)], None)), Ok(vec![accepted(seq)]));
    }
    assert_eq!(instance.calls_made(), 0);
    assert_eq!(instance.append(&["c"]), Ok(vec![accepted(70)]));
    let handed_over = now(instance.store.append(&[&lone("d")], None));
    assert_eq!(handed_over, Ok(vec![accepted(71)]), "on the line that it has");
}

/// The answer that it did not read would be taken for that of the next group.
#[test]
fn a_line_that_was_dropped_within_an_exchange_is_not_used_again() {
    let instance = instance();
    instance.opens(BUSY, FakeLine { stays: true, ..FakeLine::saying([]) });
    let told = instance.answers(BUSY, [committed(&[accepted(70)])]);
    let deliveries = instance.deliveries(&["a"]);
    {
        let group = [&deliveries];
        let mut request = pin!(instance.store.append(&group, None));
        let mut context = Context::from_waker(Waker::noop());
        assert!(request.as_mut().poll(&mut context).is_pending());
    }
    assert!(told.borrow().is_empty());
    assert_eq!(instance.append(&["a"]), Ok(vec![accepted(70)]));
    assert_eq!((told.borrow().len(), instance.calls_made()), (1, 2));
}

#[test]
fn an_instance_with_a_small_share_of_large_commits_leaves_its_requests_to_others() {
    let instance = instance();
    let answer = |commit_events| Answer { commit_events, ..committed(&[accepted(70)]) };
    let shares = [8, 8, 8, 8, 8, 7, 8, 8, 8, 8, 8, 8];
    instance.answers(BUSY, shares.map(answer));
    for (place, _) in shares.iter().enumerate() {
        instance.append(&["a"]).unwrap();
        now(instance.store.group_told());
        assert_eq!(instance.platform.retired.get(), place == shares.len() - 1, "after {place}");
    }
}

/// A commit of the writer, and how many milliseconds it took.
fn took(answer: Answer, ms: u64) -> Answer {
    Answer { commit_took: Duration::from_millis(ms), ..answer }
}

/// Polls a request once; its answer, if it has one now.
fn poll_once<T>(request: &mut Pin<Box<impl Future<Output = T>>>) -> Option<T> {
    match request.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => Some(answer),
        Poll::Pending => None,
    }
}

type Appended = Result<Vec<Outcome>, StoreError>;

/// Groups that went up and have no answer yet.
fn sent<'a>(
    instance: &'a Instance,
    groups: &'a [Deliveries],
) -> Vec<Pin<Box<impl Future<Output = Appended> + 'a>>> {
    let append = |one| Box::pin(async move { instance.store.append(&[one], None).await });
    let mut requests: Vec<_> = groups.iter().map(append).collect();
    for request in &mut requests {
        assert!(poll_once(request).is_none());
    }
    requests
}

#[test]
fn on_a_slow_disk_groups_go_up_before_the_last_is_answered() {
    for (ms, takes_another) in [(SLOW_COMMIT_MS_MIN - 1, false), (SLOW_COMMIT_MS_MIN, true)] {
        let instance = instance();
        let first = took(committed(&[accepted(70)]), ms);
        let stays = FakeLine { stays: true, ..FakeLine::saying([first.into_frame()]) };
        let told = instance.opens(BUSY, stays);
        assert!(!instance.store.takes_another(), "there is no line yet");
        instance.append(&["a"]).unwrap();
        assert_eq!(instance.store.takes_another(), takes_another, "{ms} ms");
        let groups = ["b", "c"].map(|id| instance.deliveries(&[id]));
        let _requests = sent(&instance, &groups);
        assert_eq!(told.borrow().len(), 3, "both went up");
    }
}

#[test]
fn each_group_that_went_up_gets_its_own_answer() {
    let instance = instance();
    let line = PacedLine::default();
    let (says, told) = (Rc::clone(&line.says), instance.opens_paced(&line));
    let groups = ["a", "b", "c"].map(|id| instance.deliveries(&[id]));
    let mut requests = sent(&instance, &groups);
    assert_eq!(told.borrow().len(), 3);
    let answer = |seq| committed(&[accepted(seq)]).into_frame();
    // The first two answers come at once, the third later.
    says.borrow_mut().push_back([answer(70), answer(71)].concat());
    assert_eq!(poll_once(&mut requests[0]), Some(Ok(vec![accepted(70)])));
    assert_eq!(poll_once(&mut requests[1]), Some(Ok(vec![accepted(71)])));
    says.borrow_mut().push_back(answer(72));
    assert_eq!(poll_once(&mut requests[2]), Some(Ok(vec![accepted(72)])));
    assert!(instance.stored().is_empty());
}

/// Its answer would be taken for that of the next: all that went up after it are
/// committed by this instance, and the one before it is not.
#[test]
fn a_request_that_is_dropped_within_an_exchange_breaks_the_line_for_those_after_it() {
    let instance = instance();
    let line = PacedLine::default();
    let says = Rc::clone(&line.says);
    instance.opens_paced(&line);
    let groups = ["a", "b", "c"].map(|id| instance.deliveries(&[id]));
    let mut requests = sent(&instance, &groups);
    drop(requests.remove(1));
    let answer = |seq| committed(&[accepted(seq)]).into_frame();
    says.borrow_mut().push_back([answer(70), answer(71), answer(72)].concat());
    assert_eq!(poll_once(&mut requests[0]), Some(Ok(vec![accepted(70)])));
    assert_eq!(now(requests.remove(1)), Ok(vec![accepted(1)]));
    assert_eq!(instance.stored(), ["c"]);
    instance.platform.advance(LONG);
    instance.answers(BUSY, [committed(&[accepted(80)])]);
    assert_eq!(instance.append(&["d"]), Ok(vec![accepted(80)]), "on a new line");
}

#[test]
fn a_line_that_takes_no_more_is_not_used_again() {
    let instance = instance();
    let first = committed(&[accepted(70)]).into_frame();
    instance.opens(BUSY, FakeLine { stays: true, takes: 1, ..FakeLine::saying([first]) });
    assert_eq!(instance.append(&["a"]), Ok(vec![accepted(70)]));
    let (b, c) = (instance.deliveries(&["b"]), instance.deliveries(&["c"]));
    let mut requests =
        [&b, &c].map(|one| Box::pin(async { instance.store.append(&[one], None).await }));
    instance.answers(BUSY, [committed(&[accepted(80)])]);
    // While the first waits for an answer yet, the second has a line of its own.
    assert!(poll_once(&mut requests[0]).is_none());
    assert_eq!(poll_once(&mut requests[1]), Some(Ok(vec![accepted(80)])));
    let [first, _] = requests;
    assert_eq!(now(first), Ok(vec![accepted(1)]), "no answer came");
}
