//! Files that are alike, and those that are the same.

use super::super::family::Family;
use super::super::file::FileKey;
use super::super::identity::{HEAD_BYTES, Identity};
use super::super::window::WINDOW_BYTES;
use super::*;

fn scope() -> Scope {
    Scope { store: "2026".into(), topic: "t".into(), source: "s".into() }
}

fn content(text: &str) -> Window {
    let mut window = Window::default();
    window.push(text.as_bytes());
    window
}

/// A file that the system knows by `key`.
fn named(key: &str) -> Question {
    Question { key: Some(FileKey(key.to_owned())), ..Question::of(&scope()) }
}

/// One of two that are read as they grow.
fn followed(key: &str) -> Question {
    Question { followed: true, ..named(key) }
}

async fn ask(registry: &Registry, question: Question, text: &str) -> Answer {
    let window = content(text);
    registry.identify(question, Box::new(move || Ok(window))).await.unwrap()
}

async fn known(registry: &Registry, question: Question, text: &str) -> Known {
    match ask(registry, question, text).await {
        Answer::Known(known) => known,
        Answer::Undecided => panic!("undecided"),
    }
}

async fn identity(registry: &Registry, text: &str) -> Identity {
    known(registry, Question::of(&scope()), text).await.identity
}

fn no_complaint(text: String) {
    panic!("{text}");
}

/// Ships each in a run of its own and returns which of the earlier ones each
/// was taken for, by its salt.
async fn taken_for(contents: &[&str]) -> Vec<Option<usize>> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("deep/ship.db");
    let mut salts = Vec::<Option<String>>::new();
    let mut taken = Vec::new();
    for content in contents {
        let registry = Registry::at(path.clone(), &mut no_complaint).unwrap();
        let Identity { salt, .. } = identity(&registry, content).await;
        registry.close().await.unwrap();
        taken.push(salts.iter().position(|other| *other == salt));
        salts.push(salt);
    }
    taken
}

#[tokio::test]
async fn a_file_grown_is_itself() {
    let long = "x\n".repeat(2_000);
    assert_eq!(
        taken_for(&["a\nb", "a\nbcd\n", "a\nbcd\n", &format!("a\nbcd\n{long}")]).await,
        [None, Some(0), Some(0), Some(0)],
        "also past the head"
    );
    let more = format!("{long}y\n");
    assert_eq!(taken_for(&[&long, &more, &long, &more]).await, [None, Some(0), Some(0), Some(0)]);
}

#[tokio::test]
async fn the_beginning_of_a_file_is_that_file() {
    let lines = |count| (0..count).map(|number| format!("line {number}\n")).collect::<String>();
    for (all, parts) in [(10, [1, 5, 9]), (1_000, [1, 400, 999]), (20_000, [3, 9_000, 19_000])] {
        for part in parts {
            let taken = taken_for(&[&lines(all), &lines(part), &lines(all)]).await;
            assert_eq!(taken, [None, Some(0), Some(0)], "{part} of {all}");
        }
    }
    let cut = &lines(1_000)[..5_003];
    assert_eq!(taken_for(&[&lines(1_000), cut]).await, [None, Some(0)], "in the middle of a line");
}

#[tokio::test]
async fn files_that_begin_alike_are_told_apart() {
    assert_eq!(taken_for(&["a\nb\n", "a\nc\n", "a\nd\n"]).await, [None, None, None]);
    let banner = "banner\n".repeat(1_000);
    let files = ["one\n", "two\n", "three\n"].map(|end| format!("{banner}{end}"));
    let files = files.each_ref().map(String::as_str);
    assert_eq!(taken_for(&files).await, [None, None, None]);
    assert_eq!(
        taken_for(&[files[0], files[1], files[0], files[1]]).await,
        [None, None, Some(0), Some(1)],
        "and found again"
    );
}

#[tokio::test]
async fn a_file_that_went_on_otherwise_is_another() {
    assert_eq!(taken_for(&["a\n", "a\nb\n", "a\nc\n"]).await, [None, Some(0), None]);
}

#[tokio::test]
async fn a_part_of_a_line_binds_nobody() {
    // Whose line it begins is known only once it is complete.
    assert_eq!(taken_for(&["boot\n1\n", "bo", "boot\n2\n"]).await, [None, Some(0), None]);
    let registry = Registry::in_memory().unwrap();
    let first = known(&registry, named("a"), "boot\n1\n").await;
    known(&registry, named("b"), "bo").await;
    let second = known(&registry, named("b"), "boot\n2\n").await;
    assert_ne!(second.identity, first.identity);
}

#[tokio::test]
async fn alike_files_of_one_run_are_two_and_stay_two() {
    for (banner, question) in [
        ("boot\n".to_owned(), named as fn(&str) -> Question),
        ("boot\n".to_owned(), followed),
        ("a longer banner\n".repeat(1_000), followed),
        ("longer than what is compared\n".repeat(5_000), followed),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ship.db");
        let open = || Registry::at(path.clone(), &mut no_complaint).unwrap();
        let registry = open();
        let mut identities = Vec::new();
        for key in ["a", "b", "c"] {
            identities.push(known(&registry, question(key), &banner).await.identity);
        }
        assert_ne!(identities[0], identities[1]);
        assert_ne!(identities[1], identities[2]);
        assert_ne!(identities[0], identities[2]);
        registry.close().await.unwrap();
        drop(registry);
        // Alike still, and then grown into what they are, in another order.
        for end in ["", "more", "more lines\n"] {
            let registry = open();
            for (index, key) in ["a", "b", "c"].into_iter().enumerate().rev() {
                let text = match end {
                    "" => banner.clone(),
                    _ => format!("{banner}{key}\n{end}"),
                };
                let found = known(&registry, question(key), &text).await;
                assert_eq!(found.identity, identities[index], "{key} with {end:?}");
                assert!(found.seen);
            }
            registry.close().await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_copy_beside_a_file_is_that_file() {
    let family = |name: &str| Family::of(Path::new(name));
    for banner in ["boot\n".to_owned(), "a longer banner\n".repeat(1_000)] {
        let registry = Registry::in_memory().unwrap();
        let file = Question { family: family("/log/app.log"), ..followed("a") };
        let copy = Question { family: family("/log/app.log.1"), ..followed("b") };
        let first = known(&registry, file, &banner).await;
        assert_eq!(known(&registry, copy, &banner).await.identity, first.identity);
    }
    // And one that is shipped in the same run, if it is too long to be chance.
    let registry = Registry::in_memory().unwrap();
    let long = "2026-01-01 a line\n".repeat(HEAD_BYTES);
    let first = known(&registry, named("a"), &long).await;
    assert_eq!(known(&registry, named("b"), &long).await.identity, first.identity);
}

#[tokio::test]
async fn a_file_that_was_emptied_and_written_again_is_another() {
    let registry = Registry::in_memory().unwrap();
    let first = known(&registry, named("a"), "banner\n1\n2\n3\n").await;
    let again = known(&registry, named("a"), "banner\n4\n").await;
    assert_ne!(again.identity, first.identity);
    // But not one that lost its end and was written on.
    let lines = |range: std::ops::Range<u32>| {
        range.map(|number| format!("a line with the number {number}\n")).collect::<String>()
    };
    let first = known(&registry, named("b"), &lines(0..1_000)).await;
    let cut = lines(0..600) + &lines(2_000..2_100);
    let again = known(&registry, named("b"), &cut).await;
    assert_eq!(again.identity, first.identity);
    assert_eq!(again.shipped_bytes, 0, "its new end is not shipped");
    // And if another file begins like that, it is another.
    let other = known(&registry, named("c"), &(lines(0..700) + "other\n")).await;
    assert_ne!(other.identity, first.identity);
}

#[tokio::test]
async fn a_file_that_is_known_to_be_another_is_never_taken_for_one() {
    let registry = Registry::in_memory().unwrap();
    let mut not = Vec::new();
    let mut salts = std::collections::HashSet::new();
    for _ in 0..4 {
        let question = Question { not: not.clone(), ..named("a") };
        let known = known(&registry, question, "a\n").await;
        assert!(salts.insert(known.identity.salt));
        not.push(known.id);
    }
}

#[tokio::test]
async fn what_may_differ_yet_is_not_decided() {
    let registry = Registry::in_memory().unwrap();
    let long = "line\n".repeat(1_000);
    let first = identity(&registry, &format!("{long}end\n")).await;
    let pipe = |whole| Question::of(&scope()).whole(whole);
    assert_eq!(ask(&registry, pipe(false), &long).await, Answer::Undecided);
    assert_eq!(known(&registry, pipe(true), &long).await.identity, first);
    let other = known(&registry, pipe(false), &format!("{long}other\n")).await;
    assert_ne!(other.identity, first);
    assert!(matches!(ask(&registry, pipe(false), "unlike\n").await, Answer::Known(_)));
}

#[tokio::test]
async fn files_that_share_no_beginning_need_no_salt() {
    let registry = Registry::in_memory().unwrap();
    assert_eq!(identity(&registry, "a\n").await.salt, None);
    assert_eq!(identity(&registry, "b\n").await.salt, None);
}

#[tokio::test]
async fn the_salt_reaches_as_far_as_files_could_be_alike() {
    let banner = "banner\n".repeat(1_000);
    let registry = Registry::in_memory().unwrap();
    let zone = async |text: &str| identity(&registry, text).await.zone_bytes;
    assert_eq!(zone(&format!("{banner}one\n")).await, HEAD_BYTES as u64);
    assert_eq!(zone(&format!("{banner}two\n")).await, WINDOW_BYTES as u64);
    let alike = known(&registry, followed("a"), "a\n").await;
    assert_eq!(alike.identity.zone_bytes, HEAD_BYTES as u64);
    let alike = known(&registry, followed("b"), "a\n").await;
    assert_eq!(alike.identity.zone_bytes, Identity::ZONE_BYTES_MAX, "nobody knows how far");
}

#[tokio::test]
async fn another_store_knows_nothing_of_it() {
    let registry = Registry::in_memory().unwrap();
    assert_eq!(identity(&registry, "a\nb\n").await.salt, None);
    let other = Question::of(&Scope { store: "2027".into(), ..scope() });
    let known = known(&registry, other, "a\nc\n").await;
    assert_eq!((known.identity.salt, known.seen), (None, false));
}

#[tokio::test]
async fn how_far_a_file_was_shipped_is_remembered() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ship.db");
    let open = || Registry::at(path.clone(), &mut no_complaint).unwrap();
    let registry = open();
    let first = known(&registry, named("a"), "a\n").await;
    assert_eq!(first.shipped_bytes, 0);
    registry.record(first.id, content("a\nb\n"), 4);
    // Another process was slower.
    registry.record(first.id, content("a\n"), 2);
    registry.close().await.unwrap();
    let registry = open();
    let again = known(&registry, named("a"), "a\nb\nc\n").await;
    assert_eq!((again.id, again.shipped_bytes), (first.id, 4));
    assert!(!registry.was_followed(&scope(), Path::new("a.log")).await.unwrap());
    registry.set_followed(&scope(), Path::new("a.log"));
    assert!(registry.was_followed(&scope(), Path::new("a.log")).await.unwrap());
    assert!(!registry.was_followed(&scope(), Path::new("b.log")).await.unwrap());
}

#[tokio::test]
async fn a_registry_that_cannot_be_read_is_set_aside() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ship.db");
    let version = |version: u32| {
        let connection = rusqlite::Connection::open(&path).unwrap();
        connection.pragma_update(None, "user_version", version).unwrap();
    };
    let damages: [&dyn Fn(); 6] = [
        &|| std::fs::write(&path, "{").unwrap(),
        &|| std::fs::write(&path, r#"{"format":2,"files":[]}"#).unwrap(),
        &|| std::fs::write(&path, r#"{"format":1,"files":[{"id":1,"store":"20"#).unwrap(),
        &|| std::fs::write(&path, "something else").unwrap(),
        &|| std::fs::write(&path, b"SQLite format 3\0".repeat(1_000)).unwrap(),
        &|| version(99),
    ];
    for (number, damage) in damages.iter().enumerate() {
        damage();
        let before = std::fs::read(&path).unwrap();
        let mut said = Vec::new();
        let registry = Registry::at(path.clone(), &mut |text| said.push(text)).unwrap();
        identity(&registry, "a\n").await;
        registry.close().await.unwrap();
        drop(registry);
        let bad = match number {
            0 => "ship.db.bad".to_owned(),
            number => format!("ship.db.bad.{number}"),
        };
        assert!(said.len() == 1 && said[0].contains(&bad), "{said:?}");
        let after = std::fs::read(directory.path().join(bad)).unwrap();
        assert!(number == 5 || after == before, "{number}");
        Registry::at(path.clone(), &mut no_complaint).unwrap();
    }
}

#[tokio::test]
async fn files_of_the_old_form_keep_their_identity() {
    for (old, new) in [("ship.json", "ship.db"), ("state", "state")] {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at(old), OLD_FILE).unwrap();
        let registry = Registry::at(at(new), &mut no_complaint).unwrap();
        let first = known(&registry, named("a"), "a\nb\nc\n").await;
        assert_eq!((first.identity.salt.as_deref(), first.seen), (Some("kept"), true));
        assert_eq!(known(&registry, named("b"), "b\n").await.identity.salt, None);
    }
}

const OLD_FILE: &str = r#"{"format":1,"files":[{"id":1,"store":"2026","topic":"t","source":"s","salt":"kept","zone_bytes":1024,"first_line":"1f086852c9385f01566f7cfcb43dc0af","fingerprint":null,"ends":[{"bytes":4,"digest":"911169ddaaf146aff539f58c26c489af3b892dff0fe283c1c264c65ae5aa59a2"}]}]}"#;

#[test]
fn the_default_path_is_absolute_or_none() {
    let with = |name: &'static str, value: &'static str| {
        default_path(move |asked| (asked == name).then(|| value.into()))
    };
    assert_eq!(with("XDG_STATE_HOME", "/s"), Some("/s/sekali/ship.db".into()));
    assert_eq!(with("HOME", "/h"), Some("/h/.local/state/sekali/ship.db".into()));
    assert_eq!(with("HOME", "h"), None);
}

#[cfg(unix)]
#[tokio::test]
async fn it_is_for_the_users_eyes_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let registry = Registry::at(directory.path().join("ship.db"), &mut no_complaint).unwrap();
    identity(&registry, "a\n").await;
    let files = std::fs::read_dir(directory.path()).unwrap();
    let modes: Vec<_> =
        files.map(|file| file.unwrap().metadata().unwrap().permissions().mode() & 0o777).collect();
    assert!(modes.len() > 1 && modes.iter().all(|mode| *mode == 0o600), "{modes:?}");
}
