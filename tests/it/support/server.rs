//! The server that a test talks to.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use libtest_mimic::Failed;
use tempfile::TempDir;

use super::client::Client;
use super::process::{AS_HOST, command};
use super::{Outcome, PATIENCE_SECONDS, check, root, until};

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
