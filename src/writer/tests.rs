use futures::FutureExt;
use futures::future::LocalBoxFuture;

use super::*;
use crate::event::sample;
use crate::platform::fake::{FakeLine, FakePlatform, all, busy, now};
use crate::store::{Deliveries, Fault, Increments, Outcome, Seq, Store};

/// What a line was told, in parts.
type Told = Rc<RefCell<Vec<Vec<u8>>>>;

/// A platform whose database is set up, where instances are writers.
fn platform() -> Rc<FakePlatform> {
    let platform = FakePlatform::new();
    platform.environment.borrow_mut().insert("SEKALI_ROLE".to_owned(), "writer".to_owned());
    platform.variables.borrow_mut().insert("log_level".to_owned(), "off".to_owned());
    now(app(&platform).store.once(async |store| store.probe().await)).unwrap();
    platform
}

fn app(platform: &Rc<FakePlatform>) -> Rc<App> {
    now(App::load(platform.clone())).unwrap()
}

/// An instance that writes for others.
struct Instance {
    platform: Rc<FakePlatform>,
    app: Rc<App>,
    writer: Rc<Writer>,
}

fn instance(platform: &Rc<FakePlatform>) -> Instance {
    Instance { platform: platform.clone(), app: app(platform), writer: Rc::default() }
}

impl Instance {
    fn take(&self) -> Option<Taken> {
        self.writer.take_line(&*self.platform)
    }

    /// Serves lines that bring `groups`, each line to its end, and what the instance does
    /// beside them; what each was answered.
    fn serve(&self, lines: Vec<(Taken, Vec<Vec<u8>>)>) -> Vec<Vec<Answer>> {
        self.serve_by(lines, |served| self.platform.beside_spawned(served))
    }

    /// The same, each line served by `run`.
    fn serve_by<'a>(
        &'a self,
        lines: Vec<(Taken, Vec<Vec<u8>>)>,
        run: impl FnOnce(Vec<LocalBoxFuture<'a, ()>>),
    ) -> Vec<Vec<Answer>> {
        let events = |frame: &Vec<u8>| frames::read_group(&frame[4..]).map_or(0, |of| of.0.events);
        let events: Vec<Vec<usize>> =
            lines.iter().map(|(_, groups)| groups.iter().map(events).collect()).collect();
        let (told, served): (Vec<Told>, Vec<_>) = lines
            .into_iter()
            .map(|(taken, groups)| {
                let line = FakeLine::saying(groups);
                let told = line.told.clone();
                let serve = self.writer.serve(&self.app, taken, line.into()).boxed_local();
                (told, serve)
            })
            .unzip();
        run(served);
        let answers = |(told, events): (Told, Vec<usize>)| {
            let answers = told.take().into_iter().zip(events);
            answers.map(|(answer, events)| Answer::read(&answer[4..], events).unwrap()).collect()
        };
        told.into_iter().zip(events).map(answers).collect()
    }

    /// How many commits of events there were.
    fn commits(&self) -> usize {
        let statements = self.platform.statements.borrow();
        statements.iter().filter(|statement| statement.contains("INTO incoming")).count()
    }
}

/// A group on its way to the writer.
fn group(app: &App, ids: &[&str], rejected: &[(&str, i64)], of: &[(&str, i64)]) -> Vec<u8> {
    let named = |counts: &[(&str, i64)]| -> Increments {
        counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    };
    let events: Vec<_> = ids.iter().map(|id| sample("t", id, "1")).collect();
    let events: Vec<_> = events.iter().collect();
    let encode = async |store: &dyn Store| store.encode(&events);
    let encoded = now(app.store.once(encode)).unwrap();
    let rejected = named(rejected);
    let requests = 1;
    let waited = vec![Duration::ZERO; requests];
    let deliveries =
        Deliveries { encoded, events: ids.len(), rejected, waited, ..Deliveries::default() };
    let increments = (!of.is_empty()).then(|| named(of));
    frames::group(&[&deliveries], increments.as_ref(), Duration::ZERO).unwrap()
}

fn accepted(seq: i64) -> Outcome {
    Outcome::Accepted { seq: Seq::new(seq) }
}

fn outcomes(answer: &Answer) -> &[Outcome] {
    answer.result.as_ref().unwrap().as_ref().unwrap()
}

#[test]
fn the_groups_of_several_lines_share_a_commit() {
    let instance = instance(&platform());
    let lines = ["a", "b", "c", "a"].map(|id| {
        let taken = instance.take().unwrap();
        (taken, vec![group(&instance.app, &[id, "shared"], &[("topic", 1)], &[])])
    });
    let answers = instance.serve(lines.into());
    let told: Vec<&[Outcome]> = answers.iter().map(|answers| outcomes(&answers[0])).collect();
    assert_eq!(
        told,
        [
            [accepted(1), accepted(2)],
            [accepted(3), Outcome::Duplicate],
            [accepted(4), Outcome::Duplicate],
            [Outcome::Duplicate, Outcome::Duplicate],
        ]
    );
    let sizes: Vec<_> = answers.iter().map(|answers| answers[0].commit_events).collect();
    assert_eq!(sizes, [8, 8, 8, 8]);
    let measures = now(instance.app.store.once(async |store| store.measures(9).await)).unwrap();
    assert_eq!((measures.rejected, measures.counted["rejected/topic"]), (4, 4));
}

#[test]
fn the_groups_of_a_line_are_answered_in_their_order() {
    let instance = instance(&platform());
    let groups = ["a", "b", "a"].map(|id| group(&instance.app, &[id], &[], &[]));
    let answers = instance.serve(vec![(instance.take().unwrap(), groups.into())]);
    let told: Vec<&[Outcome]> = answers[0].iter().map(outcomes).collect();
    assert_eq!(told, [[accepted(1)], [accepted(2)], [Outcome::Duplicate]]);
    assert!(answers[0].iter().all(|answer| answer.is_alone), "no other line brought anything");
}

#[test]
fn groups_of_a_line_that_come_together_share_a_commit() {
    let instance = instance(&platform());
    let [a, b, none, c] = [&["a"][..], &["b", "a"], &[], &["c"]]
        .map(|ids| group(&instance.app, ids, &[], &[("seen", 1)]));
    let together = vec![[a, b, none].concat(), c];
    let line = FakeLine::saying(together);
    let told = line.told.clone();
    let served = instance.writer.serve(&instance.app, instance.take().unwrap(), line.into());
    instance.platform.beside_spawned(vec![served]);
    let told = told.take();
    let answers: Vec<_> = told
        .iter()
        .zip([1, 2, 0, 1])
        .map(|(frame, events)| Answer::read(&frame[4..], events).unwrap())
        .collect();
    let told: Vec<&[Outcome]> = answers.iter().map(outcomes).collect();
    assert_eq!(told, [&[accepted(1)][..], &[accepted(2), Outcome::Duplicate], &[], &[accepted(3)]]);
    assert_eq!(answers[3].commit_events, 4, "one commit");
}

#[test]
fn an_instance_that_is_gone_is_told_nothing_more() {
    let instance = instance(&platform());
    let together = ["a", "b", "c"].map(|id| group(&instance.app, &[id], &[], &[])).concat();
    let line = FakeLine { takes: 1, ..FakeLine::saying([together]) };
    let told = line.told.clone();
    let served = instance.writer.serve(&instance.app, instance.take().unwrap(), line.into());
    instance.platform.beside_spawned(vec![served]);
    assert_eq!(told.borrow().len(), 1);
    let stored = "SELECT count(*) FROM event_log";
    let connection = &instance.platform.connection;
    let stored: i64 = connection.query_row(stored, [], |row| row.get(0)).unwrap();
    assert_eq!(stored, 3, "it delivers again what it has no answer to");
}

#[test]
fn increments_alone_ride_along_with_a_commit() {
    let instance = instance(&platform());
    let counted = || {
        let measures = now(instance.app.store.once(async |store| store.measures(9).await));
        measures.unwrap().counted.get("seen").copied()
    };
    let only = group(&instance.app, &[], &[], &[("seen", 3)]);
    let before = instance.commits();
    let lines = vec![(instance.take().unwrap(), vec![only.clone(), only])];
    let answers = instance.serve_by(lines, |served| drop(all(served)));
    assert!(answers[0].iter().all(|answer| outcomes(answer).is_empty()));
    assert_eq!(instance.commits(), before, "no commit");
    assert_eq!(counted(), None);
    instance.platform.advance(Duration::from_secs(1));
    let event = group(&instance.app, &["a"], &[], &[("seen", 1)]);
    instance.serve(vec![(instance.take().unwrap(), vec![event])]);
    assert_eq!(counted(), Some(7));
}

#[test]
fn increments_that_no_commit_follows_are_added_all_the_same() {
    let instance = instance(&platform());
    let only = group(&instance.app, &[], &[], &[("seen", 3)]);
    instance.serve(vec![(instance.take().unwrap(), vec![only])]);
    let measures = now(instance.app.store.once(async |store| store.measures(9).await));
    assert_eq!(measures.unwrap().counted.get("seen"), Some(&3));
}

#[test]
fn what_is_no_group_is_a_fault_and_the_line_goes_on() {
    let instance = instance(&platform());
    let wrong = vec![3, 0, 0, 0, 1, 2, 3];
    let right = group(&instance.app, &["a"], &[], &[]);
    let answers = instance.serve(vec![(instance.take().unwrap(), vec![wrong, right])]);
    let failed = answers[0][0].result.as_ref().unwrap().as_ref().unwrap_err();
    assert_eq!(failed.fault, Fault::Unavailable);
    assert_eq!(outcomes(&answers[0][1]), [accepted(1)]);
}

#[test]
fn a_store_that_stays_busy_is_told_when_the_time_is_over() {
    let instance = instance(&platform());
    let (taken, frame) = (instance.take().unwrap(), group(&instance.app, &["a"], &[], &[]));
    instance.platform.faults.replace(vec![busy(); 100_000]);
    let answers = instance.serve(vec![(taken, vec![frame])]);
    let failed = answers[0][0].result.as_ref().unwrap().as_ref().unwrap_err();
    assert_eq!(failed.fault, Fault::Busy);
}

#[test]
fn one_of_two_takes_lines() {
    let platform = platform();
    let (one, two) = (instance(&platform), instance(&platform));
    let first = one.take().unwrap();
    assert!(first.is_first && !first.is_last && !first.is_busy);
    assert!(two.take().is_none());
    let second = one.take().unwrap();
    assert!(!second.is_first);
    assert!(two.take().is_none());
    // When it has ended, without a word.
    platform.now.set(platform.now.get() + Lease::MS);
    assert!(two.take().is_some_and(|taken| taken.is_first));
}

#[test]
fn on_a_store_that_is_not_set_up_nobody_takes_lines() {
    let fresh = FakePlatform::new();
    assert!(instance(&fresh).take().is_none());
}

#[test]
fn the_hundredth_line_is_the_last_and_gives_the_lease_up() {
    let platform = platform();
    let (old, new) = (instance(&platform), instance(&platform));
    let mut taken: Vec<Taken> = (0..LINES_MAX).map(|_| old.take().unwrap()).collect();
    assert_eq!(taken.iter().filter(|taken| taken.is_last).count(), 1);
    assert!(taken.last().unwrap().is_last);
    assert!(old.take().is_none());
    assert!(new.take().is_none(), "the lease is another's yet");
    let frame = group(&old.app, &["a"], &[], &[]);
    let answers = old.serve(vec![(taken.remove(50), vec![frame])]);
    assert_eq!(outcomes(&answers[0][0]), [accepted(1)]);
    platform.run_spawned();
    assert!(new.take().is_some(), "it is free at once");
    assert!(old.take().is_none());
    // The lines that it has are served on.
    let frame = group(&old.app, &["b"], &[], &[]);
    let answers = old.serve(vec![(taken.remove(50), vec![frame])]);
    assert_eq!(outcomes(&answers[0][0]), [accepted(2)]);
}

#[test]
fn the_lease_is_prolonged_as_long_as_groups_come() {
    let platform = platform();
    let (one, two) = (instance(&platform), instance(&platform));
    for id in ["a", "b", "c", "d", "e", "f"] {
        let frame = group(&one.app, &[id], &[], &[]);
        let answers = one.serve(vec![(one.take().unwrap(), vec![frame])]);
        assert!(answers[0][0].result.is_some());
        platform.run_spawned();
        assert!(two.take().is_none(), "{id}");
        platform.advance(Duration::from_millis(LEASE_RENEWAL_MS));
        platform.now.set(platform.now.get() + LEASE_RENEWAL_MS as i64);
    }
}

#[test]
fn after_another_has_the_lease_it_is_gone() {
    let platform = platform();
    let (old, new) = (instance(&platform), instance(&platform));
    let (served, waits) = (old.take().unwrap(), old.take().unwrap());
    platform.now.set(platform.now.get() + Lease::MS);
    assert!(new.take().is_some());
    platform.advance(Duration::from_millis(LEASE_RENEWAL_MS));
    let [a, b, c] = ["a", "b", "c"].map(|id| group(&old.app, &[id], &[], &[]));
    let answers = old.serve(vec![(served, vec![a])]);
    assert_eq!(outcomes(&answers[0][0]), [accepted(1)], "until it knows");
    platform.run_spawned();
    assert!(old.take().is_none());
    let answers = old.serve(vec![(waits, vec![b, c])]);
    assert_eq!(answers[0].len(), 1, "and the line ends");
    assert_eq!(answers[0][0].result, None);
    let stored = "SELECT count(*) FROM event_log";
    let stored: i64 = platform.connection.query_row(stored, [], |row| row.get(0)).unwrap();
    assert_eq!(stored, 1, "what is gone was not committed");
}

#[test]
fn a_line_is_alone_unless_others_brought_something_of_late() {
    let instance = instance(&platform());
    let (older, newer) = (instance.take().unwrap(), instance.take().unwrap());
    let frame = |id: &str| group(&instance.app, &[id], &[], &[]);
    let groups = |ids: [&str; 2]| ids.map(frame).to_vec();
    let first = instance.take().unwrap();
    let answers = instance.serve(vec![(first, groups(["e", "f"]))]);
    assert!(answers[0].iter().all(|answer| answer.is_alone));
    let answers = instance.serve(vec![(newer, groups(["a", "b"])), (older, groups(["c", "d"]))]);
    assert!(!answers[0][1].is_alone && !answers[1][1].is_alone);
    let next = instance.take().unwrap();
    assert!(next.is_busy);
    instance.platform.advance(Duration::from_millis(ALONE_MS + 1));
    assert!(!instance.take().unwrap().is_busy);
    let answers = instance.serve(vec![(next, vec![frame("e")])]);
    assert!(answers[0][0].is_alone);
}
