//! What a file is: alike ones, parts, pipes, packed ones, encodings.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::fake::Fake;
use crate::harness::{Done, Place, Running, wait_for};

const FOLLOW: [&str; 8] = ["ship", "--follow", "--poll", "10ms", "--topic", "t", "--source", "s"];
const SHIP: [&str; 5] = ["ship", "--topic", "t", "--source", "s"];

fn lines(name: &str, range: std::ops::Range<usize>) -> String {
    range.map(|number| format!("{name}: a line with the number {number}\n")).collect()
}

fn ship(place: &Place, service: &Fake, names: &[&str]) -> (u64, u64, u64) {
    place.run(service, &[&SHIP[..], names].concat()).ok().total()
}

/// What a pipe with this content adds.
fn ship_pipe(place: &Place, service: &Fake, content: &[u8]) -> Done {
    let mut command = place.publisher(service, &[&SHIP[..], &["--json", "-"]].concat());
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let (first, second) = content.split_at(content.len() / 3);
    stdin.write_all(first).unwrap();
    stdin.flush().unwrap();
    stdin.write_all(second).unwrap();
    drop(stdin);
    Done::of(child.wait_with_output().unwrap())
}

/// Waits until exactly these lines are stored.
#[track_caller]
fn stored(service: &Fake, expected: &[String]) {
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    wait_for(&expected, || {
        let mut messages = service.messages("t");
        messages.sort_unstable();
        messages
    });
}

/// What the design's small inputs are, where the machine has them.
fn case(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/cases/ship").join(name);
    path.exists().then_some(path)
}

#[test]
fn alike_files_that_are_followed_at_once_stay_two() {
    for banner in ["boot\n".to_owned(), "boot\nsettings read\n".repeat(5_000)] {
        for names in [&["a.log", "b.log"][..], &["c.log", "a.log", "b.log"]] {
            let (place, service) = (Place::new(), Fake::start());
            let mut expected = Vec::new();
            for name in names {
                place.write(name, &banner);
                expected.extend(banner.lines().map(str::to_owned));
            }
            let running = Running::start(&place, &service, &[&FOLLOW[..], names].concat());
            stored(&service, &expected);
            // Alike for a while, and then not.
            for (number, more) in ["ready\n".to_owned(), String::new()].iter().enumerate() {
                for name in names {
                    let more = if number == 0 { more.clone() } else { lines(name, 0..5) };
                    place.append(name, &more);
                    expected.extend(more.lines().map(str::to_owned));
                }
                stored(&service, &expected);
            }
            running.stop("-TERM").ok();
            for names in [names.to_vec(), names.iter().rev().copied().collect()] {
                let total = ship(&place, &service, &names);
                assert_eq!(total.1, 0, "{total:?} for {names:?} again");
            }
            let running = Running::start(&place, &service, &[&FOLLOW[..], names].concat());
            place.append("a.log", "last\n");
            expected.push("last".to_owned());
            stored(&service, &expected);
            running.kill();
        }
    }
}

#[test]
fn alike_files_that_are_shipped_at_once_are_two() {
    let (place, service) = (Place::new(), Fake::start());
    let names = ["a.log", "b.log", "c.log"];
    for name in names {
        place.write(name, "boot\n");
    }
    assert_eq!(ship(&place, &service, &names), (3, 3, 0));
    assert_eq!(ship(&place, &service, &names), (3, 0, 3));
    for name in names {
        place.append(name, lines(name, 0..40));
    }
    assert_eq!(ship(&place, &service, &names), (123, 120, 3));
}

#[test]
fn one_growing_file_may_be_shipped_by_many_at_once() {
    let (place, service) = (Place::new(), Fake::start());
    place.write("a.log", lines("a", 0..3));
    for round in 0..4 {
        let ships: Vec<_> = (0..4)
            .map(|_| Running::start(&place, &service, &[&SHIP[..], &["a.log"]].concat()))
            .collect();
        for number in 0..10 {
            place.append("a.log", lines("a", 10 * round + number + 3..10 * round + number + 4));
        }
        for ship in ships {
            ship.end().ok();
        }
    }
    ship(&place, &service, &["a.log"]);
    assert_eq!(service.messages("t"), lines("a", 0..43).lines().collect::<Vec<_>>());
}

#[test]
fn the_beginning_of_a_known_file_is_nothing_new() {
    for (all, parts) in [(10, [1, 5, 9]), (1_000, [10, 500, 999]), (30_000, [20, 2_000, 29_000])] {
        let (place, service) = (Place::new(), Fake::start());
        place.write("full.log", lines("x", 0..all));
        assert_eq!(ship(&place, &service, &["full.log"]).1, all as u64);
        for part in parts {
            place.write("part.log", lines("x", 0..part));
            assert_eq!(ship(&place, &service, &["part.log"]), (part as u64, 0, part as u64));
            // The file itself, cut by a crash, and written on.
            place.write("full.log", lines("x", 0..part));
            assert_eq!(ship(&place, &service, &["full.log"]).1, 0, "{part} of {all}");
            place.write("full.log", lines("x", 0..all));
            assert_eq!(ship(&place, &service, &["full.log"]).1, 0, "{part} of {all} and whole");
        }
    }
    let (Some(full), Some(half)) = (case("cut-full.log"), case("cut-half.log")) else { return };
    let (place, service) = (Place::new(), Fake::start());
    let names = [&full, &half].map(|path| path.to_str().unwrap());
    assert_eq!(ship(&place, &service, &[names[0]]), (1_000, 1_000, 0));
    assert_eq!(ship(&place, &service, &[names[1]]), (500, 0, 500));
}

#[test]
fn a_copy_made_while_the_file_is_followed_is_nothing_new() {
    let (place, service) = (Place::new(), Fake::start());
    place.write("a.log", lines("a", 0..500));
    let running = Running::start(&place, &service, &[&FOLLOW[..], &["a.log"]].concat());
    let expected: Vec<_> = lines("a", 0..900).lines().map(str::to_owned).collect();
    stored(&service, &expected[..500]);
    place.write("copy.log", lines("a", 0..500));
    // The follower goes on, and so the copy is a part.
    place.append("a.log", lines("a", 500..900));
    stored(&service, &expected);
    assert_eq!(ship(&place, &service, &["copy.log"]).1, 0);
    running.stop("-TERM").ok();
    assert_eq!(ship(&place, &service, &["copy.log"]).1, 0);
}

#[test]
fn file_or_pipe_the_ids_are_the_same() {
    for count in [5, 60, 5_000] {
        let (place, service) = (Place::new(), Fake::start());
        // Of two that begin alike, and so have ids that not the content alone
        // makes.
        for name in ["a", "b"] {
            place.write(name, format!("{}{}", lines("banner", 0..40), lines(name, 0..count)));
            let total = ship(&place, &service, &[name]);
            assert_eq!(total.1, total.0);
        }
        for name in ["a", "b"] {
            let content = fs::read(place.path(name)).unwrap();
            let done = ship_pipe(&place, &service, &content).ok();
            assert_eq!(done.total().1, 0, "{count} lines, {name} as a pipe");
            let cut = content.iter().take(content.len() / 2).copied().collect::<Vec<_>>();
            let cut = &cut[..=cut.iter().rposition(|byte| *byte == b'\n').unwrap()];
            assert_eq!(ship_pipe(&place, &service, cut).ok().total().1, 0, "a part of {name}");
        }
        // And the other way round.
        let content = format!("{}{}", lines("banner", 0..40), lines("c", 0..count));
        let done = ship_pipe(&place, &service, content.as_bytes()).ok();
        assert_eq!(done.total().1, (count + 40) as u64);
        place.write("c", content);
        assert_eq!(ship(&place, &service, &["c"]).1, 0);
    }
}

#[test]
#[cfg(unix)]
fn packed_files_have_the_ids_of_the_plain_one() {
    for (tool, end) in [("gzip", "gz"), ("xz", "xz"), ("bzip2", "bz2"), ("zstd", "zst")] {
        for count in [3, 4_000] {
            let (place, service) = (Place::new(), Fake::start());
            place.write("app.log.1", lines("app", 0..count));
            let made = Command::new(tool).arg("-k").arg(place.path("app.log.1")).output();
            let Ok(made) = made else {
                eprintln!("SKIPPED: no {tool} here");
                continue;
            };
            assert!(made.status.success(), "{made:?}");
            let packed = format!("app.log.1.{end}");
            let count = count as u64;
            let total = |name: &str| place.run(&service, &["ship", name]).ok().total();
            assert_eq!(total(&packed), (count, count, 0), "{tool}");
            assert_eq!(total("app.log.1"), (count, 0, count), "the same topic, the same ids");
            let bytes = fs::read(place.path(&packed)).unwrap();
            let mut command = place.publisher(&service, &["ship", "--json", "--topic", "app", "-"]);
            let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
            child.stdin.take().unwrap().write_all(&bytes).unwrap();
            let done = Done::of(child.wait_with_output().unwrap()).ok();
            assert_eq!(done.total(), (count, 0, count), "{tool} through a pipe");
            // What is cut off is said, and what is there is stored.
            place.write("cut", &bytes[..bytes.len() - 6]);
            let done = place.run(&service, &["ship", "--topic", "cut", "cut"]).failed();
            let failure = done.json["files"][0]["failure"].as_str().unwrap().to_owned();
            assert!(failure.contains("unpack"), "{failure}");
        }
    }
    for end in ["bz2", "xz", "zst"] {
        let Some(path) = case(&format!("rotated.log.{end}")) else { continue };
        let (place, service) = (Place::new(), Fake::start());
        let done = place.run(&service, &["ship", path.to_str().unwrap()]).ok();
        assert!(done.total().1 > 1);
        let messages = service.messages("rotated");
        assert!(messages.iter().all(|text| !text.contains('\u{fffd}')), "{messages:?}");
    }
}

#[test]
fn encodings_and_marks() {
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
    let cases: [(&str, Vec<u8>, &[&str]); 6] = [
        ("utf-16 with a mark", [b"\xff\xfe".to_vec(), utf16("hello\r\ncafé\r\n")].concat(), &[]),
        ("utf-8 with a mark", "\u{feff}hello\ncafé\n".into(), &[]),
        ("utf-16 by name", utf16("hello\r\ncafé\r\n"), &["--encoding", "utf-16le"]),
        ("latin1", b"hello\ncaf\xe9\n".to_vec(), &["--encoding", "latin1"]),
        ("a hole", [&[0; 5_000][..], "hello\ncafé\n".as_bytes()].concat(), &[]),
        ("a hole in the middle", [b"hello", &[0; 70_000][..], "café\n".as_bytes()].concat(), &[]),
    ];
    for (name, content, args) in cases {
        let (place, service) = (Place::new(), Fake::start());
        place.write("a.log", &content);
        let done = place.run(&service, &[&SHIP[..], args, &["a.log"]].concat()).ok();
        assert_eq!(service.messages("t"), ["hello", "café"], "{name}");
        assert_eq!(done.total(), (2, 2, 0), "{name}");
        assert_eq!(done.json["total"]["bytes"], content.len(), "{name}");
        let holes = content.iter().filter(|byte| **byte == 0).count();
        let holes = if name.contains("hole") { holes } else { 0 };
        assert_eq!(done.json["total"]["hole_bytes"], holes, "{name}");
    }
}

#[test]
fn what_is_no_text_is_refused_with_advice() {
    let (place, service) = (Place::new(), Fake::start());
    let binary: Vec<u8> =
        (0_u32..4_096).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for (name, content, advice) in [
        ("a.lz4", &b"\x04\x22\x4d\x18rest of it"[..], "lz4cat"),
        ("a.zip", b"PK\x03\x04rest of it", "unzip -p"),
        ("a.bin", &binary, "binary"),
        ("a.log", b"h\0e\0l\0l\0o\0\n\0", "--encoding UTF-16LE"),
    ] {
        place.write(name, content);
        let done = place.run(&service, &["ship", name]).failed();
        let failure = done.json["files"][0]["failure"].as_str().unwrap().to_owned();
        assert!(failure.contains(advice), "{name}: {failure}");
        let done = ship_pipe(&place, &service, content).failed();
        assert!(done.json["files"][0]["failure"].as_str().unwrap().contains(advice), "{name}");
    }
    assert!(service.state().stored.is_empty());
}

#[test]
fn a_registry_that_cannot_be_read_is_set_aside_and_works_again() {
    for (name, content) in [
        ("newer.json", &br#"{"format":2,"files":[]}"#[..]),
        ("cut.json", br#"{"format":1,"files":[{"id":1,"store":"20"#),
        ("ship.db", b"no registry at all"),
    ] {
        let (place, service) = (Place::new(), Fake::start());
        place.write(name, content);
        place.write("a.log", lines("a", 0..10));
        let args = [&SHIP[..], &["--state", name, "a.log"]].concat();
        let done = place.run(&service, &args).ok();
        assert!(done.stderr.contains(&format!("{name}.bad")), "{}", done.stderr);
        assert_eq!(fs::read(place.path(&format!("{name}.bad"))).unwrap(), content);
        place.append("a.log", lines("a", 10..100));
        let done = place.run(&service, &args).ok();
        assert_eq!((done.total(), done.stderr.contains("bad")), ((100, 90, 10), false));
    }
}

#[test]
fn many_small_files() {
    const FILES: usize = 2_000;
    let (place, service) = (Place::new(), Fake::start());
    let names: Vec<_> = (0..FILES).map(|number| format!("{number}.log")).collect();
    for (number, name) in names.iter().enumerate() {
        place.write(name, format!("begin\nof file {number}\n"));
    }
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let lines = 2 * FILES as u64;
    assert_eq!(ship(&place, &service, &names), (lines, lines, 0));
    assert_eq!(ship(&place, &service, &names), (lines, 0, lines));
}

#[test]
#[cfg(unix)]
fn a_named_pipe_is_read_through_all_its_writers() {
    let (place, service) = (Place::new(), Fake::start());
    let pipe = place.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let running = Running::start(&place, &service, &[&FOLLOW[..], &["pipe"]].concat());
    let mut expected = Vec::new();
    // Writers that say the same, the last without a line end.
    for text in ["hello\n", "hello\nagain\n", "hello"] {
        fs::write(&pipe, text).unwrap();
        expected.extend(text.lines().map(str::to_owned));
        stored(&service, &expected);
    }
    // And another pipe of that name.
    fs::remove_file(&pipe).unwrap();
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    fs::write(&pipe, "new\n").unwrap();
    expected.push("new".to_owned());
    stored(&service, &expected);
    running.stop("-TERM").ok();
}
