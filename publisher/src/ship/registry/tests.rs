//! Files that are alike, and those that are the same.

use super::*;

fn scope() -> Scope {
    Scope { store: "2026".into(), topic: "t".into(), source: "s".into() }
}

fn identify(registry: &mut Registry, content: &str) -> Identity {
    let bytes = content.as_bytes();
    let head = &bytes[..bytes.len().min(HEAD_BYTES)];
    registry.identify(&scope(), head, &mut &*bytes, &[]).unwrap().identity
}

/// Ships each in turn and returns which of the earlier ones each was
/// taken for, by its salt.
fn taken_for(contents: &[&str]) -> Vec<Option<usize>> {
    let directory = tempfile::tempdir().unwrap();
    let mut memory = Registry::in_memory();
    let mut salts = Vec::<Option<String>>::new();
    let mut taken = Vec::new();
    for content in contents {
        let mut file = Registry::at(directory.path().join("deep/ship.json")).unwrap();
        let identity = identify(&mut memory, content);
        assert_eq!(identify(&mut file, content), identity, "in a file as in memory");
        taken.push(salts.iter().position(|salt| *salt == identity.salt));
        salts.push(identity.salt);
    }
    taken
}

#[test]
fn a_file_grown_is_itself() {
    let long = "x\n".repeat(2_000);
    assert_eq!(
        taken_for(&["a\nb", "a\nbcd\n", "a\nbcd\n", &format!("a\nbcd\n{long}")]),
        [None, Some(0), Some(0), Some(0)],
        "also past the head"
    );
    let more = format!("{long}y\n");
    assert_eq!(taken_for(&[&long, &more, &long, &more]), [None, Some(0), Some(0), Some(0)]);
}

#[test]
fn files_that_begin_alike_are_told_apart() {
    assert_eq!(taken_for(&["a\nb\n", "a\nc\n", "a\nd\n"]), [None, None, None]);
    let banner = "banner\n".repeat(1_000);
    let files = ["one\n", "two\n", "three\n"].map(|end| format!("{banner}{end}"));
    let files = files.each_ref().map(String::as_str);
    assert_eq!(taken_for(&files), [None, None, None]);
    assert_eq!(
        taken_for(&[files[0], files[1], files[0], files[1]]),
        [None, None, Some(0), Some(1)],
        "and found again"
    );
}

#[test]
fn a_file_that_went_on_otherwise_is_another() {
    assert_eq!(taken_for(&["a\n", "a\nb\n", "a\nc\n"]), [None, Some(0), None]);
}

#[test]
fn a_file_that_is_known_to_be_another_is_never_taken_for_one() {
    let mut registry = Registry::in_memory();
    let mut seen = Vec::new();
    let mut salts = std::collections::HashSet::new();
    for _ in 0..4 {
        let known = registry.identify(&scope(), b"a\n", &mut &b"a\n"[..], &seen).unwrap();
        assert!(salts.insert(known.identity.salt), "{registry:?}");
        seen.push(known.id);
    }
}

#[test]
fn files_that_share_no_beginning_need_no_salt() {
    let mut registry = Registry::in_memory();
    assert_eq!(identify(&mut registry, "a\n").salt, None);
    assert_eq!(identify(&mut registry, "b\n").salt, None);
}

#[test]
fn the_salt_reaches_as_far_as_files_could_be_alike() {
    let banner = "banner\n".repeat(1_000);
    let mut registry = Registry::in_memory();
    assert_eq!(identify(&mut registry, &format!("{banner}one\n")).zone_bytes, 1_024);
    assert_eq!(identify(&mut registry, &format!("{banner}two\n")).zone_bytes, 7_004);
}

#[test]
fn another_store_knows_nothing_of_it() {
    let mut registry = Registry::in_memory();
    assert_eq!(identify(&mut registry, "a\nb\n").salt, None);
    let other = Scope { store: "2027".into(), ..scope() };
    let known = registry.identify(&other, b"a\nc\n", &mut &b"a\nc\n"[..], &[]).unwrap();
    assert_eq!((known.identity.salt, known.seen), (None, false));
}

#[test]
fn the_oldest_are_forgotten() {
    let mut registry = Registry::in_memory();
    for number in 0..ENTRIES_MAX + 10 {
        identify(&mut registry, &format!("{number}\n"));
        identify(&mut registry, "seen all the time\n");
    }
    assert_eq!(registry.entries.len(), ENTRIES_MAX);
    assert_eq!(identify(&mut registry, "seen all the time, and then\n").salt, None);
}

#[test]
fn a_damaged_registry_is_an_error_and_stays_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ship.json");
    std::fs::write(&path, "{").unwrap();
    assert!(Registry::at(path.clone()).is_err());
    assert_eq!(std::fs::read(&path).unwrap(), b"{");
}

#[test]
fn the_default_path_is_absolute_or_none() {
    let with = |name: &'static str, value: &'static str| {
        Registry::default_path(move |asked| (asked == name).then(|| value.into()))
    };
    assert_eq!(with("XDG_STATE_HOME", "/s"), Some("/s/sekali/ship.json".into()));
    assert_eq!(with("HOME", "/h"), Some("/h/.local/state/sekali/ship.json".into()));
    assert_eq!(with("HOME", "h"), None);
}

#[test]
fn the_form_of_the_file_stays() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ship.json");
    identify(&mut Registry::at(path.clone()).unwrap(), "a\nb\n");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), GOLDEN_FILE);
}

const GOLDEN_FILE: &str = r#"{"format":1,"files":[{"id":1,"store":"2026","topic":"t","source":"s","salt":null,"zone_bytes":1024,"first_line":"1f086852c9385f01566f7cfcb43dc0af","fingerprint":null,"ends":[{"bytes":4,"digest":"911169ddaaf146aff539f58c26c489af3b892dff0fe283c1c264c65ae5aa59a2"}]}]}"#;
