use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{JoinHandle, ScopedJoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use libtest_mimic::Failed;
use tempfile::TempDir;

use crate::client::Client;

/// What a test returns; its error is what the runner prints.
pub type Outcome = Result<(), Failed>;

const AS_HOST: &str = "--become-host";
const AS_PUBLISHER: &str = "--become-publisher";

/// How long anything that must happen may take before a test gives up on it,
/// in seconds. Generous: a test that waits this long has failed.
pub const PATIENCE_SECONDS: u64 = 120;

/// Becomes the host or the publisher when this binary was started as one.
pub fn become_process(args: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    let mut args = args.skip(1).peekable();
    let role = args.next()?;
    if role == AS_HOST {
        let name = OsString::from("sekali-host");
        return Some(sekali_host::main(std::iter::once(name).chain(args)));
    }
    if role == AS_PUBLISHER {
        let name = OsString::from("publisher");
        return Some(publisher::main(std::iter::once(name).chain(args)));
    }
    None
}

/// The base address of a server that someone else runs, if the tests are to use it.
pub fn remote() -> Option<String> {
    std::env::var("SEKALI_URL").ok().map(|url| url.trim_end_matches('/').to_owned())
}

/// The server that a test talks to.
pub struct Target {
    pub url: String,
    server: Option<Server>,
}

impl Target {
    /// The server that someone else runs, or else a new one of the test's own.
    pub fn new() -> Result<Self, Failed> {
        if let Some(url) = remote() {
            return Ok(Target { url, server: None });
        }
        let server = Server::start()?;
        Ok(Target { url: server.url.clone(), server: Some(server) })
    }

    pub fn client(&self) -> Client {
        Client::new(&self.url)
    }

    /// Adds what the server of its own said to a failure.
    pub fn explain(&self, failed: Failed) -> Failed {
        match &self.server {
            Some(server) => server.explain(failed),
            None => failed,
        }
    }
}

/// The root of the checkout.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Builds the component, once for all tests.
pub fn component() -> Result<(), Failed> {
    static BUILT: OnceLock<Result<(), String>> = OnceLock::new();
    BUILT
        .get_or_init(|| {
            sekali_host::build_application(&root().join("spin.toml"))
                .map_err(|error| format!("the component does not build: {error:#}"))
        })
        .clone()
        .map_err(Failed::from)
}

/// This binary as the host or the publisher, run at the root of the checkout.
fn command(role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap_or_else(|_| "it".into()));
    command.arg(role).current_dir(root()).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        // A developer's settings must not change what is tested.
        if name.to_string_lossy().starts_with("SPIN_") {
            command.env_remove(name);
        }
    }
    command.env_remove("SEKALI_URL");
    command
}

/// The publisher as a process.
pub fn publisher(url: &str, args: &[&str]) -> Command {
    let mut command = command(AS_PUBLISHER);
    command.args(["--url", url]).args(args).stderr(Stdio::piped()).stdout(Stdio::piped());
    command
}

/// All that a process said, for a failing test.
pub fn shown(output: &Output) -> String {
    format!(
        "{}\n--- stdout\n{}--- stderr\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// How a host is started. What is not said is as `cargo up` has it.
#[derive(Clone, Default)]
pub struct Start {
    /// The state directory; a new one when it is not said.
    pub state: Option<Arc<TempDir>>,
    /// A path that takes the place of the state directory's.
    pub state_path: Option<PathBuf>,
    /// Host and port; a free port of 127.0.0.1 when it is not said.
    pub listen: Option<String>,
    /// More flags.
    pub flags: Vec<String>,
    /// A shell script that runs the host as `"$@"`.
    pub wrapper: Option<String>,
    /// The manifest, when it is not the checkout's.
    pub manifest: Option<PathBuf>,
}

impl Start {
    pub fn on(state: &Arc<TempDir>) -> Self {
        Start { state: Some(Arc::clone(state)), ..Start::default() }
    }

    pub fn flags(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
        self
    }

    /// The host's command line, and the state directory that it uses.
    pub fn command(&self) -> Result<(Command, Arc<TempDir>), Failed> {
        component()?;
        let state = match &self.state {
            Some(state) => Arc::clone(state),
            None => Arc::new(TempDir::new()?),
        };
        let mut host = command(AS_HOST);
        let manifest = self.manifest.clone().unwrap_or_else(|| root().join("spin.toml"));
        host.arg("--no-build").arg("--from").arg(manifest);
        host.arg("--listen").arg(self.listen.as_deref().unwrap_or("127.0.0.1:0"));
        host.arg("--state-dir").arg(self.state_path.as_deref().unwrap_or(state.path()));
        host.args(&self.flags);
        let Some(wrapper) = &self.wrapper else { return Ok((host, state)) };
        let mut wrapped = Command::new("sh");
        wrapped.args(["-c", wrapper, "sh"]).arg(host.get_program()).args(host.get_args());
        wrapped.current_dir(root()).stdin(Stdio::null());
        for (name, value) in host.get_envs() {
            match value {
                Some(value) => wrapped.env(name, value),
                None => wrapped.env_remove(name),
            };
        }
        Ok((wrapped, state))
    }

    pub fn start(&self) -> Result<Server, Failed> {
        let (mut command, state) = self.command()?;
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let said = Arc::new(Mutex::new(String::new()));
        let (found, address) = mpsc::channel();
        let stdout = child.stdout.take().map(|from| listen(from, Arc::clone(&said), Some(found)));
        let stderr = child.stderr.take().map(|from| listen(from, Arc::clone(&said), None));
        let listeners = stdout.into_iter().chain(stderr).collect();
        let mut server = Server { url: String::new(), child, said, listeners, state };
        match address.recv_timeout(Duration::from_secs(PATIENCE_SECONDS)) {
            Ok(url) => server.url = url,
            Err(_) => {
                let ended = match server.child.try_wait()? {
                    Some(status) => format!("the host does not start: {status}"),
                    None => "the host does not start, and does not end".to_owned(),
                };
                return Err(server.explain(ended.into()));
            }
        }
        Ok(server)
    }

    /// Starts the host for `test` and adds what it said to a failure.
    pub fn serve(&self, test: impl FnOnce(&Server) -> Outcome) -> Outcome {
        let server = self.start()?;
        test(&server).map_err(|failed| server.explain(failed))
    }
}

/// Keeps what a process says, and passes on the address that it serves at.
fn listen(
    from: impl Read + Send + 'static,
    said: Arc<Mutex<String>>,
    found: Option<mpsc::Sender<String>>,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if let (Some(found), Some(url)) = (&found, line.trim().strip_prefix("Serving ")) {
                // The receiver is gone when the test has given up already.
                found.send(url.trim_end_matches('/').to_owned()).ok();
            }
            if let Ok(mut said) = said.lock() {
                said.push_str(&line);
                said.push('\n');
            }
        }
    })
}

/// A host as a process of its own; killed when it is dropped.
pub struct Server {
    pub url: String,
    pub child: Child,
    said: Arc<Mutex<String>>,
    listeners: Vec<JoinHandle<()>>,
    pub state: Arc<TempDir>,
}

impl Server {
    pub fn start() -> Result<Self, Failed> {
        Start::default().start()
    }

    pub fn client(&self) -> Client {
        Client::new(&self.url)
    }

    /// SIGKILL: nothing of the process runs any more when this returns.
    pub fn kill(mut self) -> Result<Arc<TempDir>, Failed> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(Arc::clone(&self.state))
    }

    /// Sends `signal`, such as `TERM`.
    pub fn signal(&self, signal: &str) -> Outcome {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", signal, &pid]).status()?;
        check(status.success(), || format!("kill -s {signal} {pid}: {status}"))
    }

    /// Waits until the process has ended by itself, and has been heard out.
    pub fn wait(&mut self) -> Result<std::process::ExitStatus, Failed> {
        let status = until("the host ends", || Ok(self.child.try_wait()?))?;
        for listener in self.listeners.drain(..) {
            listener.join().map_err(|_| "a listener panicked")?;
        }
        Ok(status)
    }

    /// All that the process said so far.
    pub fn said(&self) -> String {
        self.said.lock().map(|said| said.clone()).unwrap_or_default()
    }

    /// Adds what the host said to a failure.
    pub fn explain(&self, failed: Failed) -> Failed {
        let why = failed.message().unwrap_or("failed").to_owned();
        format!("{why}\n--- the host said\n{}", self.said()).into()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already, which is what this is for.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Asks again and again until there is an answer.
pub fn until<T>(
    what: &str,
    mut ask: impl FnMut() -> Result<Option<T>, Failed>,
) -> Result<T, Failed> {
    let deadline = Instant::now() + Duration::from_secs(PATIENCE_SECONDS);
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if Instant::now() > deadline {
            return Err(format!("waited {PATIENCE_SECONDS} s in vain until {what}").into());
        }
        std::thread::yield_now();
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

pub fn join<T>(thread: ScopedJoinHandle<'_, Result<T, Failed>>) -> Result<T, Failed> {
    thread.join().unwrap_or_else(|_| Err("a client panicked".into()))
}

/// Does `work` in `count` threads at once, which are numbered from 0.
pub fn at_once<T: Send>(
    count: usize,
    work: impl Fn(usize) -> Result<T, Failed> + Sync,
) -> Result<Vec<T>, Failed> {
    let work = &work;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|number| scope.spawn(move || work(number))).collect();
        threads.into_iter().map(join).collect()
    })
}

/// Does `work` while `readers` threads look again and again, and once more at
/// the end.
pub fn watched<T>(
    readers: usize,
    look: impl Fn() -> Outcome + Sync,
    work: impl FnOnce() -> Result<T, Failed>,
) -> Result<T, Failed> {
    let done = AtomicBool::new(false);
    let watch = || {
        loop {
            let last_look = done.load(Ordering::Acquire);
            look()?;
            if last_look {
                return Ok(());
            }
        }
    };
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..readers).map(|_| scope.spawn(watch)).collect();
        let worked = work();
        done.store(true, Ordering::Release);
        let looked: Outcome = readers.into_iter().try_for_each(join);
        looked.and(worked)
    })
}

pub fn check(holds: bool, why: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(why().into()) }
}

pub fn check_eq<T: PartialEq + std::fmt::Debug>(got: T, expected: T, of: &str) -> Outcome {
    check(got == expected, || format!("{of}: expected {expected:?}, got {got:?}"))
}

/// A topic that no other test, and no earlier run against the same server, has.
pub fn unique_topic(of: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let process = std::process::id();
    format!("it-{of}-{:x}-{process:x}-{}", now.as_nanos(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// One event as JSON text.
pub fn event(topic: &str, event_id: &str) -> String {
    format!(
        r#"{{"topic":"{topic}","event_id":"{event_id}","source":"it","payload":{{"of":"{event_id}"}}}}"#
    )
}

/// Events with these ids as a JSON array.
pub fn batch(topic: &str, ids: &[String]) -> String {
    let events: Vec<String> = ids.iter().map(|id| event(topic, id)).collect();
    format!("[{}]", events.join(","))
}

/// Numbers that are spread well and the same in each run (SplitMix64).
pub struct Spread(pub u64);

impl Spread {
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

/// Text of a file below the root.
pub fn read(path: &str) -> Result<String, Failed> {
    fs::read_to_string(root().join(path)).map_err(|error| format!("{path}: {error}").into())
}
