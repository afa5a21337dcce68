//! `ship --follow` against a writer that does what writers and rotation do, in
//! any order, while the follower is killed and the service stalls.
#![cfg(unix)]

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::time::{Duration, Instant};

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::fake::Fake;
use crate::harness::{Place, Running, wait_for};

/// Rounds, unless `SEKALI_FOLLOW_ROUNDS` says otherwise.
const ROUNDS: usize = 1_000;
/// Rotated files that are kept.
const KEPT: usize = 6;
/// What every generation begins with.
const BANNER: [&str; 2] = ["=== starting ===", "settings read"];
const NAME: &str = "app.log";
/// Where the followers say what they have to say.
const SAID: &str = "said";
/// The last lines of that, which are shown where the test fails.
const SAID_LINES_MAX: usize = 100;

struct Writer {
    place: Place,
    file: File,
    /// Until it opens the name again, it writes to what was renamed.
    reopens_in: usize,
    rng: ChaCha8Rng,
    lines: usize,
    in_line: bool,
    /// What has to be stored, and how often.
    written: BTreeMap<String, i64>,
    /// Files that had the name, and how many of them are there under others.
    generations: usize,
    rotated: usize,
    /// Files that were packed, by number.
    packed: HashSet<usize>,
    line: String,
}

impl Writer {
    fn new(rng: ChaCha8Rng) -> Self {
        let place = Place::new();
        let file = open(&place);
        let mut writer = Self {
            place,
            file,
            reopens_in: 0,
            rng,
            lines: 0,
            in_line: false,
            written: BTreeMap::new(),
            generations: 0,
            rotated: 0,
            packed: HashSet::new(),
            line: String::new(),
        };
        writer.begin();
        writer
    }

    /// Begins a generation as all begin, at once: where no more than that was
    /// seen of a file before it was packed, nothing can tell whose it is.
    fn begin(&mut self) {
        self.generations += 1;
        let own = format!("file {}", self.generations);
        let lines = [&BANNER[..], &[&own]].concat();
        self.write(&(lines.join("\n") + "\n"));
        for line in lines {
            self.done(line.to_owned());
        }
    }

    fn write(&mut self, text: &str) {
        self.file.write_all(text.as_bytes()).unwrap();
    }

    fn write_line(&mut self, line: String) {
        self.write(&format!("{line}\n"));
        self.done(line);
    }

    fn done(&mut self, line: String) {
        *self.written.entry(line).or_default() += 1;
    }

    fn next_line(&mut self) -> String {
        self.lines += 1;
        let padding = "x".repeat(self.rng.random_range(0..60));
        // Some lines are the same in all generations.
        match self.rng.random_range(0..8) {
            0 => "tick".to_owned(),
            _ => format!("line {} {padding}", self.lines),
        }
    }

    fn complete_line(&mut self) {
        if std::mem::take(&mut self.in_line) {
            self.write("\n");
            let line = std::mem::take(&mut self.line);
            self.done(line);
        }
    }

    fn append(&mut self) {
        self.complete_line();
        for _ in 0..self.rng.random_range(1..6) {
            let line = self.next_line();
            self.write_line(line);
        }
        if self.rng.random_bool(0.2) {
            self.line = self.next_line();
            let line = self.line.clone();
            self.write(&line);
            self.in_line = true;
        }
        self.reopen_when_due();
    }

    fn reopen_when_due(&mut self) {
        if self.reopens_in == 0 {
            return;
        }
        self.reopens_in -= 1;
        if self.reopens_in == 0 {
            self.complete_line();
            self.file = open(&self.place);
            self.begin();
        }
    }

    fn name(&self, number: usize) -> String {
        let packed = if self.packed.contains(&number) { ".gz" } else { "" };
        format!("{NAME}.{number}{packed}")
    }

    /// Makes `app.log.1` free.
    fn shift(&mut self) {
        for number in (1..=self.rotated).rev() {
            let from = self.name(number);
            if self.packed.remove(&number) {
                self.packed.insert(number + 1);
            }
            fs::rename(self.place.path(&from), self.place.path(&self.name(number + 1))).unwrap();
        }
    }

    fn rename(&mut self) {
        if self.reopens_in > 0 {
            return;
        }
        self.shift();
        fs::rename(self.place.path(NAME), self.place.path(&self.name(1))).unwrap();
        self.rotated += 1;
        self.reopens_in = self.rng.random_range(1..4);
        if self.rng.random_bool(0.5) {
            // At once, without a look in between.
            self.reopens_in = 1;
            self.reopen_when_due();
        }
    }

    fn copy_and_truncate(&mut self) {
        if self.reopens_in > 0 {
            return;
        }
        self.complete_line();
        self.shift();
        fs::copy(self.place.path(NAME), self.place.path(&self.name(1))).unwrap();
        self.rotated += 1;
        self.file.set_len(0).unwrap();
        self.begin();
    }

    fn pack(&mut self) {
        // Not the newest: it may be written to yet.
        let plain: Vec<usize> =
            (2..=self.rotated).filter(|number| !self.packed.contains(number)).collect();
        let Some(number) = plain.first().copied() else { return };
        let plain = self.place.path(&self.name(number));
        let status = std::process::Command::new("gzip").arg(&plain).status().unwrap();
        assert!(status.success());
        self.packed.insert(number);
    }

    /// Removes what was rotated longest ago, if all that was written is stored.
    fn remove(&mut self, service: &Fake) {
        if self.rotated > KEPT && self.wrong(service).is_empty() {
            for number in KEPT + 1..=self.rotated {
                fs::remove_file(self.place.path(&self.name(number))).unwrap();
                self.packed.remove(&number);
            }
            self.rotated = KEPT;
        }
    }

    /// What is stored too rarely or too often, and how often it should be.
    fn wrong(&self, service: &Fake) -> BTreeMap<String, (i64, i64)> {
        let mut wrong: BTreeMap<String, (i64, i64)> = BTreeMap::new();
        for (line, count) in &self.written {
            wrong.entry(line.clone()).or_default().1 = *count;
        }
        for message in service.messages("app") {
            wrong.entry(message).or_default().0 += 1;
        }
        wrong.retain(|_, (stored, written)| stored != written);
        wrong
    }

    /// Makes the file unreadable, also for root.
    fn deny(&self) {
        let (path, away) = (self.place.path(NAME), self.place.path(".away"));
        if path.exists() {
            fs::rename(&path, away).unwrap();
            std::os::unix::fs::symlink(&path, &path).unwrap();
        }
    }

    fn allow(&self) {
        let (path, away) = (self.place.path(NAME), self.place.path(".away"));
        if away.exists() {
            fs::remove_file(&path).unwrap();
            fs::rename(away, path).unwrap();
        }
    }
}

fn open(place: &Place) -> File {
    OpenOptions::new().append(true).create(true).open(place.path(NAME)).unwrap()
}

impl Drop for Writer {
    /// Tells what the followers said last, should the test fail.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let said = fs::read_to_string(self.place.path(SAID)).unwrap_or_default();
            let last = said.lines().rev().take(SAID_LINES_MAX).collect::<Vec<_>>();
            eprintln!("{}", last.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
    }
}

fn follow(writer: &Writer, service: &Fake) -> Running {
    let args = ["ship", "--follow", "--poll", "5ms", "--retry-for", "50ms", "--source", "s", NAME];
    // Not a pipe, which nobody reads until the end.
    let said = OpenOptions::new().append(true).create(true).open(writer.place.path(SAID)).unwrap();
    let mut command = writer.place.publisher(service, &args);
    Running::of(command.arg("--json").stderr(said).spawn().unwrap())
}

#[test]
fn every_line_is_stored_once_whatever_happens() {
    let rounds = std::env::var("SEKALI_FOLLOW_ROUNDS").ok();
    let rounds = rounds.map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    let seed = std::env::var("SEKALI_FOLLOW_SEED")
        .ok()
        .map_or_else(rand::random, |seed| seed.parse().unwrap());
    eprintln!("SEKALI_FOLLOW_SEED={seed}");
    let service = Fake::start();
    let mut writer = Writer::new(ChaCha8Rng::seed_from_u64(seed));
    let mut running = Some(follow(&writer, &service));
    // What is beside a name before it is followed is not looked at.
    wait_for(&(BANNER.len() + 1), || service.messages("app").len());
    let mut counts = BTreeMap::<&str, usize>::new();
    for _ in 0..rounds {
        let act = match writer.rng.random_range(0..100) {
            0..50 => "append",
            50..58 => "rename",
            58..62 => "copy",
            62..68 => "pack",
            68..72 => "deny",
            72..80 => "kill",
            80..88 => "start",
            88..92 => "stall",
            _ => "wait",
        };
        *counts.entry(act).or_default() += 1;
        match act {
            "append" => writer.append(),
            "rename" => writer.rename(),
            // What is written between the copy and the truncation nobody can save;
            // here nothing is.
            "copy" => writer.copy_and_truncate(),
            "pack" => writer.pack(),
            "deny" => {
                writer.deny();
                std::thread::sleep(Duration::from_millis(writer.rng.random_range(0..20)));
                writer.allow();
            }
            "kill" => running.take().into_iter().for_each(Running::kill),
            "start" => drop(running.get_or_insert_with(|| follow(&writer, &service))),
            "stall" => {
                let stall = Duration::from_millis(writer.rng.random_range(1..150));
                service.state().paused_until = Some(Instant::now() + stall);
            }
            _ => std::thread::sleep(Duration::from_millis(writer.rng.random_range(0..30))),
        }
        writer.remove(&service);
        std::thread::sleep(Duration::from_millis(writer.rng.random_range(0..8)));
    }
    while writer.reopens_in > 0 {
        writer.reopen_when_due();
    }
    writer.complete_line();
    let running = running.unwrap_or_else(|| follow(&writer, &service));
    eprintln!("{counts:?}, {} lines, {} files", writer.lines, writer.generations);
    wait_for(&BTreeMap::new(), || writer.wrong(&service));
    running.stop("-TERM").ok();
}
