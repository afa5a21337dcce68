//! A Redis server of a test's own: in a temporary folder, on a free port of 127.0.0.1,
//! with a password. It ends, and its folder goes, when the test drops it or the process of
//! the tests ends, however that does: as with PostgreSQL, a shell waits for that.

use std::env;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::str::FromStr;
use std::sync::Once;

use libtest_mimic::Failed;
use redis::{Client, Connection};
use tempfile::TempDir;

use super::{ServerOptions, TestResult, check, wait_until};

const PROGRAM: &str = "redis-server";

/// Ports below those that the system gives away by itself: between two starts of a server
/// on the same port nobody gets it by chance.
const PORTS: std::ops::Range<u16> = 16_384..32_768;

/// Ports that are tried before it is given up.
const PORTS_TRIED_MAX: u64 = 20;

/// Holds the server for us: see `tests/postgres/src/guard.rs`. Its arguments are the folder,
/// and those of the server.
const GUARD: &str = r#"
# The system sends it when we end while the server is stopped.
trap '' HUP
folder=$1
shift
server=
while read -r command; do
  case $command in
    start)
      redis-server "$@" </dev/null >>"$folder/log" 2>&1 &
      server=$!
      echo "$server"
      ;;
    wait)
      wait "$server"
      echo "$?"
      server=
      ;;
  esac
done
if [ -n "$server" ]; then
  kill -KILL "$server"
  wait "$server"
fi
rm -rf "$folder"
"#;

/// Whether a test that needs Redis can go on. Where it is not installed, one line on stderr
/// says that such tests are skipped; with `CI=true` they fail.
pub fn is_available_or_skip() -> Result<bool, Failed> {
    static SAID: Once = Once::new();
    let path = env::var_os("PATH").unwrap_or_default();
    if env::split_paths(&path).any(|folder| folder.join(PROGRAM).is_file()) {
        return Ok(true);
    }
    let error = format!(
        "Redis is not installed: no folder of PATH has {PROGRAM} \
         (on Debian: apt-get install redis-server)"
    );
    if env::var("CI").is_ok_and(|ci| ci == "true") {
        return Err(error.into());
    }
    // Past the capture of the test harness, which would keep it from being seen.
    SAID.call_once(|| writeln!(std::io::stderr(), "skipped, since {error}").unwrap_or_default());
    Ok(false)
}

/// A server. Dropped, it ends at once.
pub struct Redis {
    shell: Child,
    /// `None` only while it is dropped.
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    folder: PathBuf,
    port: u16,
    password: String,
    pid: u32,
}

impl Redis {
    /// Starts a server that keeps what it has acknowledged.
    pub fn start() -> Result<Self, Failed> {
        Self::start_with(|port| vec!["--port".to_owned(), port.to_string()])
    }

    /// One that listens as these arguments say.
    pub fn start_with(listens: impl Fn(u16) -> Vec<String>) -> Result<Self, Failed> {
        let random = RandomState::new();
        for attempt in 0..PORTS_TRIED_MAX {
            let offset = random.hash_one(attempt) % u64::from(PORTS.end - PORTS.start);
            let port = PORTS.start + u16::try_from(offset)?;
            let password = format!("{:016x}", random.hash_one("password"));
            if let Some(server) = Self::on_port(port, password, listens(port))? {
                return Ok(server);
            }
        }
        Err(format!("{PORTS_TRIED_MAX} ports that were tried are taken").into())
    }

    fn on_port(port: u16, password: String, listens: Vec<String>) -> Result<Option<Self>, Failed> {
        // From here on it is the shell that removes it.
        let folder = TempDir::with_prefix("temporary-redis-")?.keep();
        let mut shell = Command::new("sh");
        shell.args(["-c", GUARD, "guard"]).arg(&folder).args(listens);
        shell.args(["--bind", "127.0.0.1", "--requirepass", &password, "--save", ""]);
        shell.args(["--appendonly", "yes", "--appendfsync", "always", "--dir"]).arg(&folder);
        // What a terminal sends to us is not for it: it has to outlive us.
        shell.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut shell = shell.spawn()?;
        let commands = Some(shell.stdin.take().ok_or("no stdin")?);
        let answers = BufReader::new(shell.stdout.take().ok_or("no stdout")?);
        let mut server = Redis { shell, commands, answers, folder, port, password, pid: 0 };
        Ok(server.begin()?.then_some(server))
    }

    /// Starts the server: whether its port was free.
    fn begin(&mut self) -> Result<bool, Failed> {
        let log = self.folder.join("log");
        let logged = fs::metadata(&log).map_or(0, |log| log.len());
        self.pid = self.ask("start")?;
        wait_until("Redis takes connections", || {
            // The shell makes it.
            let log = fs::read(&log).unwrap_or_default();
            let told = String::from_utf8_lossy(log.get(usize::try_from(logged)?..).unwrap_or(&[]));
            let is_taken = told.contains("Address already in use");
            let is_ready = told.contains("Ready to accept connections");
            check(is_taken || is_ready || !told.contains("FATAL"), || told.clone().into_owned())?;
            Ok((is_taken || is_ready).then_some(is_ready))
        })
    }

    /// Kills the server (SIGKILL). Nothing of it runs when this returns.
    pub fn kill(&mut self) -> TestResult {
        self.signal("KILL")?;
        self.ask::<i32>("wait").map(drop)
    }

    /// Starts the server again, after it was killed, on the same port and with the same data.
    pub fn restart(&mut self) -> TestResult {
        let is_ready = self.begin()?;
        check(is_ready, || format!("port {} is taken", self.port))
    }

    /// Sends `signal`: a server that gets `STOP` is there and answers nobody, until `CONT`.
    pub fn signal(&self, signal: &str) -> TestResult {
        let status = Command::new("kill").args(["-s", signal, &self.pid.to_string()]).status()?;
        check(status.success(), || format!("kill -s {signal}: {status}"))
    }

    fn ask<T: FromStr>(&mut self, command: &str) -> Result<T, Failed> {
        writeln!(self.commands.as_mut().ok_or("no commands")?, "{command}")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        let no_answer = |_| format!("the guard was told to {command}, and answers {answer:?}");
        Ok(answer.trim().parse().map_err(no_answer)?)
    }

    /// As in `127.0.0.1:6379`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn password(&self) -> &str {
        &self.password
    }

    /// Of the database of that number.
    pub fn url(&self, database: u32) -> String {
        format!("redis://:{}@{}/{database}", self.password, self.address())
    }

    /// A connection to the first database.
    pub fn connect(&self) -> Result<Connection, Failed> {
        Ok(Client::open(self.url(0))?.get_connection()?)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        drop(self.commands.take());
        // It ends by itself, and there is nobody to tell if it had ended before.
        self.shell.wait().ok();
    }
}

/// A host with a runtime configuration that has the stores of these labels at these URLs,
/// and the directory that it is in.
pub fn configured(
    options: ServerOptions,
    stores: &[(&str, &str)],
) -> Result<(ServerOptions, TempDir), Failed> {
    let directory = TempDir::new()?;
    let file = directory.path().join("runtime.toml");
    let tables = stores.iter().map(|(label, url)| {
        format!("[key_value_store.{label}]\ntype = \"redis\"\nurl = \"{url}\"\n")
    });
    fs::write(&file, tables.collect::<String>())?;
    Ok((options.flags(&["--runtime-config-file", &file.display().to_string()]), directory))
}
