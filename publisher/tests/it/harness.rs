//! Running the program; waiting on conditions; real logs.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fake::Fake;

/// How long a condition may take to come true on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// A directory with files, and a registry of its own.
pub struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    pub fn append(&self, name: &str, content: impl AsRef<[u8]>) {
        use std::io::Write as _;
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.append(true).create(true).open(self.path(name)).unwrap();
        file.write_all(content.as_ref()).unwrap();
    }

    /// The program with its arguments, in this directory.
    pub fn publisher(&self, service: &Fake, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_publisher"));
        command
            .current_dir(self.directory.path())
            .args(args)
            .env("SEKALI_URL", &service.url)
            .env("XDG_STATE_HOME", self.path("state"))
            .env_remove("SEKALI_SHIP_STATE")
            .env_remove("SEKALI_USER")
            .env_remove("SEKALI_PASSWORD")
            .env_remove("HTTP_PROXY")
            .env_remove("http_proxy")
            .env_remove("ALL_PROXY")
            .env_remove("all_proxy")
            .env_remove("HTTPS_PROXY")
            .env_remove("https_proxy")
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs to the end, with `--json`.
    pub fn run(&self, service: &Fake, args: &[&str]) -> Done {
        let output = self.publisher(service, args).arg("--json").output().unwrap();
        Done::of(output)
    }

    /// A file that was written here.
    pub fn read_json(&self, name: &str) -> Value {
        serde_json::from_slice(&std::fs::read(self.path(name)).unwrap()).unwrap()
    }

    /// Runs to the end, for people.
    pub fn tell(&self, service: &Fake, args: &[&str]) -> Told {
        let output = self.publisher(service, args).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Told {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

/// A run that came to its end, and what it told people.
#[derive(Debug)]
pub struct Told {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// A run that came to its end.
#[derive(Debug)]
pub struct Done {
    pub code: Option<i32>,
    pub json: Value,
    pub stderr: String,
}

impl Done {
    pub fn of(output: Output) -> Self {
        let stderr = String::from_utf8(output.stderr).unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        let json = match stdout.is_empty() {
            true => Value::Null,
            false => serde_json::from_str(&stdout)
                .unwrap_or_else(|error| panic!("{error} in {stdout:?}; stderr: {stderr}")),
        };
        Self { code: output.status.code(), json, stderr }
    }

    /// The run must have ended well.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self
    }

    /// The run must have failed, and not have been refused for its arguments.
    #[track_caller]
    pub fn failed(self) -> Self {
        assert_eq!(self.code, Some(1), "{self:#?}");
        self
    }

    /// The run must have ended with this code.
    #[track_caller]
    pub fn ended(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    /// A number of the report, by its JSON pointer.
    #[track_caller]
    pub fn number(&self, pointer: &str) -> f64 {
        let number = self.json.pointer(pointer).and_then(Value::as_f64);
        number.unwrap_or_else(|| panic!("no number {pointer} in {self:#?}"))
    }

    /// Whole numbers of the report.
    #[track_caller]
    pub fn counts<const COUNT: usize>(&self, names: [&str; COUNT]) -> [u64; COUNT] {
        names.map(|name| {
            let count = self.json[name].as_u64();
            count.unwrap_or_else(|| panic!("no count {name} in {self:#?}"))
        })
    }

    /// The broken promises that the audit names.
    #[track_caller]
    pub fn violations(&self) -> Vec<&str> {
        let violations = self.json["check"]["violations"].as_array();
        let violations = violations.unwrap_or_else(|| panic!("no check in {self:#?}"));
        violations.iter().map(|text| text.as_str().unwrap()).collect()
    }

    /// The audit must have named this.
    #[track_caller]
    pub fn names(&self, part: &str) {
        assert!(self.violations().iter().any(|text| text.contains(part)), "{part}: {self:#?}");
    }

    /// The counters that the audit found wrong.
    #[track_caller]
    pub fn wrong_counters(&self) -> Vec<&str> {
        let rows = self.json["check"]["rows"].as_array().unwrap().iter();
        rows.filter(|row| row["ok"] == false).map(|row| row["counter"].as_str().unwrap()).collect()
    }

    /// Lines, accepted and duplicates of all files.
    #[track_caller]
    pub fn total(&self) -> (u64, u64, u64) {
        let count = |name: &str| {
            self.json["total"][name].as_u64().unwrap_or_else(|| panic!("no {name} in {self:#?}"))
        };
        (count("lines"), count("accepted"), count("duplicates"))
    }
}

/// A run that goes on until it is told to stop.
pub struct Running(Option<Child>);

impl Running {
    pub fn start(place: &Place, service: &Fake, args: &[&str]) -> Self {
        Self::of(place.publisher(service, args).arg("--json").spawn().unwrap())
    }

    pub fn of(child: Child) -> Self {
        Self(Some(child))
    }

    /// The process.
    pub fn id(&self) -> u32 {
        self.0.as_ref().unwrap().id()
    }

    /// Sends a signal and waits for the end.
    pub fn stop(mut self, signal: &str) -> Done {
        let child = self.0.take().unwrap();
        let pid = child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        Done::of(child.wait_with_output().unwrap())
    }
}

impl Running {
    /// Waits for the end.
    pub fn end(mut self) -> Done {
        Done::of(self.0.take().unwrap().wait_with_output().unwrap())
    }

    /// Ends it as a crash does, without a chance to tidy up.
    pub fn kill(self) {
        drop(self);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

/// Waits until what is looked at is as wanted.
#[track_caller]
pub fn wait_for<T: PartialEq + std::fmt::Debug>(wanted: &T, look: impl Fn() -> T) {
    let began = Instant::now();
    loop {
        let seen = look();
        if seen == *wanted {
            return;
        }
        assert!(began.elapsed() < DEADLINE, "waited for\n{wanted:#?}\nand see\n{seen:#?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A real log, where the machine has it.
pub fn real_log(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/loghub").join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("SKIPPED: {} is not there", path.display());
    None
}
