//! The server that a test talks to: the host as a process of its own.

use std::cell::RefCell;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::thread::JoinHandle;

use libtest_mimic::Failed;
use rusqlite::Connection;
use tempfile::TempDir;

use super::{Client, TIMEOUT, TestResult, check, engine, process, root, wait_until};

/// The base address of a server that someone else runs, if the tests are to use it.
pub fn remote() -> Option<String> {
    std::env::var("SEKALI_URL").ok().map(|url| url.trim_end_matches('/').to_owned())
}

/// The server of a test that runs against any.
pub struct Target {
    pub url: String,
    /// Ended with the test, if it is the test's own.
    _server: Option<Server>,
}

impl Target {
    /// The server that someone else runs, or else a new one.
    pub fn new() -> Result<Self, Failed> {
        if let Some(url) = remote() {
            return Ok(Target { url, _server: None });
        }
        let server = Server::start()?;
        Ok(Target { url: server.url.clone(), _server: Some(server) })
    }

    pub fn client(&self) -> Client {
        Client::new(&self.url)
    }
}

/// How a host is started: with a state directory of its own and on a free port,
/// else as `cargo up` does it.
#[derive(Clone, Default)]
pub struct ServerOptions {
    state: Option<Arc<TempDir>>,
    state_path: Option<PathBuf>,
    listen: Option<String>,
    manifest: Option<PathBuf>,
    /// Whether it is another application than the service.
    is_other: bool,
    /// Where an edited manifest is.
    manifest_directory: Option<Arc<TempDir>>,
    wrapper: Option<String>,
    flags: Vec<String>,
}

impl ServerOptions {
    /// On a state directory that is there already.
    pub fn on(state: &Arc<TempDir>) -> Self {
        ServerOptions { state: Some(Arc::clone(state)), ..ServerOptions::default() }
    }

    /// With this path, whatever is there, in place of the state directory's.
    pub fn state_path(mut self, path: PathBuf) -> Self {
        self.state_path = Some(path);
        self
    }

    /// On this host and port.
    pub fn listen(mut self, address: &str) -> Self {
        self.listen = Some(address.to_owned());
        self
    }

    /// Run by this shell script, to which the host is `"$@"`.
    pub fn wrapper(mut self, script: String) -> Self {
        self.wrapper = Some(script);
        self
    }

    pub fn flags(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
        self
    }

    /// Sets a variable of the application, as in `log_level=debug`.
    pub fn variable(self, name_and_value: &str) -> Self {
        self.flags(&["--variable", name_and_value])
    }

    /// With another manifest than the checkout's.
    pub fn manifest(mut self, path: PathBuf) -> Self {
        self.manifest = Some(path);
        self
    }

    /// With the application that the tests of the host have: components that
    /// echo, or call each other.
    pub fn chained(self) -> Result<Self, Failed> {
        static BUILT: OnceLock<Result<(), String>> = OnceLock::new();
        let manifest = root().join(CHAINED).join(MANIFEST);
        build_once(&BUILT, &manifest)?;
        Ok(ServerOptions { is_other: true, ..self.manifest(manifest) })
    }

    /// With the application that the tests of the host have for databases and
    /// stores: it does with them what requests say.
    pub fn stores(self) -> Result<Self, Failed> {
        static BUILT: OnceLock<Result<(), String>> = OnceLock::new();
        let manifest = root().join(STORES).join(MANIFEST);
        build_once(&BUILT, &manifest)?;
        Ok(ServerOptions { is_other: true, ..self.manifest(manifest) })
    }

    /// With the component that is built without SQLite, and its manifest.
    pub fn without_sqlite(self) -> Result<Self, Failed> {
        static BUILT: OnceLock<Result<(), String>> = OnceLock::new();
        let manifest = root().join(POSTGRES_MANIFEST);
        build_once(&BUILT, &manifest)?;
        Ok(self.manifest(manifest))
    }

    /// As [`Self::stores`], with `from` replaced by `to` in the manifest.
    pub fn stores_with(self, from: &str, to: &str) -> Result<Self, Failed> {
        let manifest = root().join(STORES).join(MANIFEST);
        self.stores()?.edited(&manifest, STORES_COMPONENT, from, to)
    }

    /// With `from` replaced by `to` in the checkout's manifest.
    pub fn edit_manifest(self, from: &str, to: &str) -> Result<Self, Failed> {
        self.edited(&root().join(MANIFEST), COMPONENT, from, to)
    }

    /// As [`Self::chained`], with `from` replaced by `to` in the manifest.
    pub fn chained_with(self, from: &str, to: &str) -> Result<Self, Failed> {
        let manifest = root().join(CHAINED).join(MANIFEST);
        self.chained()?.edited(&manifest, CHAINED_COMPONENT, from, to)
    }

    fn edited(
        mut self,
        manifest: &Path,
        component: &str,
        from: &str,
        to: &str,
    ) -> Result<Self, Failed> {
        let text = fs::read_to_string(manifest)?;
        check(text.contains(from), || format!("no {from:?} in {}", manifest.display()))?;
        // A relative path is one below the manifest's directory.
        let directory = manifest.parent().unwrap_or(root());
        let absolute = directory.join(component).display().to_string();
        let text = text.replace(from, to).replace(component, &absolute);
        let directory = TempDir::new()?;
        let path = directory.path().join(MANIFEST);
        fs::write(&path, text)?;
        self.manifest_directory = Some(Arc::new(directory));
        Ok(self.manifest(path))
    }

    /// For an application that has none.
    pub fn without_key_value_store(self) -> Result<Self, Failed> {
        self.edit_manifest(r#"key_value_stores = ["default"]"#, "")
    }

    /// The host's command line, and the state directory that it uses.
    pub fn command(&self) -> Result<(Command, Arc<TempDir>), Failed> {
        build_component()?;
        let state = match &self.state {
            Some(state) => Arc::clone(state),
            None => Arc::new(TempDir::new()?),
        };
        let mut host = process::host();
        let manifest = self.manifest.clone().unwrap_or_else(|| root().join(MANIFEST));
        host.arg("--no-build").arg("--from").arg(manifest);
        host.arg("--listen").arg(self.listen.as_deref().unwrap_or("127.0.0.1:0"));
        host.arg("--state-dir").arg(self.state_path.as_deref().unwrap_or(state.path()));
        host.args(&self.flags);
        if !self.is_other {
            host.envs(engine::environment(&state)?);
        }
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

    /// Starts the host, and waits until it serves.
    pub fn start(&self) -> Result<Server, Failed> {
        let (mut command, state) = self.command()?;
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let log = Arc::new(Mutex::new(String::new()));
        let (found, address) = mpsc::channel();
        let stdout = child.stdout.take().map(|from| collect(from, Arc::clone(&log), Some(found)));
        let stderr = child.stderr.take().map(|from| collect(from, Arc::clone(&log), None));
        let collectors = stdout.into_iter().chain(stderr).collect();
        let mut server = Server { url: String::new(), child, log, collectors, state };
        let url = match address.recv_timeout(TIMEOUT) {
            Ok(url) => url,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                return Err(format!("the host does not start\n{}", server.log()).into());
            }
            // It has said all that it will say; that has to be read yet.
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                let status = server.wait()?;
                return Err(format!("the host does not start: {status}\n{}", server.log()).into());
            }
        };
        server.url = url;
        LOGS.with_borrow_mut(|logs| logs.push((server.url.clone(), Arc::clone(&server.log))));
        Ok(server)
    }
}

/// The file name of a manifest.
const MANIFEST: &str = "spin.toml";

/// That of the service on PostgreSQL alone.
const POSTGRES_MANIFEST: &str = "spin.postgres.toml";

/// The component as the checkout's manifest names it.
const COMPONENT: &str = "target/wasm32-wasip2/release/sekali.wasm";

/// The component of that application as its manifest names it.
const CHAINED_COMPONENT: &str = "../../../target/wasm32-wasip2/release/chained.wasm";

/// Where the application is that the tests of the host have.
const CHAINED: &str = "tests/components/chained";

/// The component of that for databases and stores.
const STORES_COMPONENT: &str = "../../../target/wasm32-wasip2/release/stores.wasm";

/// Where that application is.
const STORES: &str = "tests/components/stores";

/// Builds the component, once for all tests.
fn build_component() -> TestResult {
    static BUILT: OnceLock<Result<(), String>> = OnceLock::new();
    build_once(&BUILT, &root().join(MANIFEST))
}

fn build_once(built: &OnceLock<Result<(), String>>, manifest: &Path) -> TestResult {
    built
        .get_or_init(|| {
            sekali_host::build_application(manifest)
                .map_err(|error| format!("the component does not build: {error:#}"))
        })
        .clone()
        .map_err(Failed::from)
}

type Log = Arc<Mutex<String>>;

thread_local! {
    /// Address and log of each server that the test of this thread has started.
    static LOGS: RefCell<Vec<(String, Log)>> = const { RefCell::new(Vec::new()) };
}

/// What the servers logged that this thread has started since it was asked last.
pub fn take_logs() -> String {
    let logs = LOGS.take();
    let shown =
        logs.iter().map(|(url, log)| format!("--- the host at {url} logged\n{}", read(log)));
    shown.collect()
}

fn read(log: &Log) -> String {
    log.lock().map(|log| log.clone()).unwrap_or_default()
}

/// Keeps what a process writes, and passes on the address that it serves at.
fn collect(
    from: impl Read + Send + 'static,
    log: Log,
    found: Option<mpsc::Sender<String>>,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if let (Some(found), Some(url)) = (&found, line.trim().strip_prefix("Serving ")) {
                // The receiver is gone when the test has given up already.
                found.send(url.trim_end_matches('/').to_owned()).ok();
            }
            if let Ok(mut log) = log.lock() {
                log.push_str(&line);
                log.push('\n');
            }
        }
    })
}

/// A host as a process of its own; killed when it is dropped.
pub struct Server {
    pub url: String,
    pub child: Child,
    log: Log,
    collectors: Vec<JoinHandle<()>>,
    pub state: Arc<TempDir>,
}

impl Server {
    pub fn start() -> Result<Self, Failed> {
        ServerOptions::default().start()
    }

    pub fn client(&self) -> Client {
        Client::new(&self.url)
    }

    /// The service's SQLite database, while the host runs.
    pub fn database(&self) -> Result<Connection, Failed> {
        database(&self.state)
    }

    /// The most memory that the host ever had, in bytes.
    #[cfg(target_os = "linux")]
    pub fn peak_bytes(&self) -> Result<u64, Failed> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = peak.and_then(|peak| peak.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kib.map(|kib| kib * 1024).ok_or_else(|| "no VmHWM".into())
    }

    /// SIGKILL: nothing of the process runs any more when this returns.
    pub fn kill(mut self) -> Result<Arc<TempDir>, Failed> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(Arc::clone(&self.state))
    }

    /// Sends `signal`, such as `TERM`.
    pub fn signal(&self, signal: &str) -> TestResult {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", signal, &pid]).status()?;
        check(status.success(), || format!("kill -s {signal} {pid}: {status}"))
    }

    /// Waits until the process has ended by itself and its log is whole.
    pub fn wait(&mut self) -> Result<ExitStatus, Failed> {
        let status = wait_until("the host ends", || Ok(self.child.try_wait()?))?;
        for collector in self.collectors.drain(..) {
            collector.join().map_err(|_| "a collector panicked")?;
        }
        Ok(status)
    }

    /// All that the process has written so far.
    pub fn log(&self) -> String {
        read(&self.log)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already, which is what this is for.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The SQLite database in a state directory, whether a host runs on it or not.
pub fn database(state: &TempDir) -> Result<Connection, Failed> {
    Ok(Connection::open(state.path().join("sqlite_db.db"))?)
}

/// The database of the key-value store.
pub fn key_value_database(state: &TempDir) -> Result<Connection, Failed> {
    Ok(Connection::open(state.path().join("sqlite_key_value.db"))?)
}
