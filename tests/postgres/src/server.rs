use std::fmt::Write as _;
use std::hash::{BuildHasher, RandomState};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, thread};

use postgres::{Config, NoTls};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::guard::Guard;
use crate::installed::{Binaries, User};
use crate::processes::{self, State};
use crate::{Database, ServerError};

/// How long a server may take until it takes connections.
const START_MAX: Duration = Duration::from_secs(60);

/// Pause before it is looked again whether something has come about.
const POLL: Duration = Duration::from_millis(10);

/// How long an attempt to connect may take.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// Ports below those that the system gives away by itself: between two starts of a
/// server on the same port nobody gets it by chance.
const PORTS: std::ops::Range<u16> = 16_384..32_768;

/// Ports that are tried before it is given up.
const PORTS_TRIED_MAX: u32 = 20;

/// How much of a log is shown at most, from its end, in lines.
const LOG_LINES_MAX: usize = 30;

/// Settings of every server. Time zone and formats are others than a program would
/// silently rely on, as those of a stranger's server may be; so is the collation,
/// which is not that of bytes (`en` of ICU).
const SETTINGS: [(&str, &str); 6] = [
    ("listen_addresses", "127.0.0.1"),
    ("unix_socket_directories", ""),
    ("lc_messages", "C"),
    ("timezone", "Asia/Kathmandu"),
    ("datestyle", "SQL, DMY"),
    ("bytea_output", "escape"),
];

/// The first version that can have a collation of ICU for a whole database.
const ICU_SINCE: u32 = 15;

/// How a server is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether a commit waits for the disk.
    pub fsync: bool,
    /// How many connections the server takes, with those for superusers alone.
    pub max_connections: u32,
    /// Further settings, as in `("deadlock_timeout", "10ms")`; a later one wins.
    pub settings: Vec<(String, String)>,
    /// Environment of the server's processes, as `LD_PRELOAD` with a library of
    /// which another user than root may have to read the file.
    pub environment: Vec<(String, String)>,
    /// Where the server's folder is made; by default where temporary files are. A
    /// user that is not root has to get there.
    pub directory: Option<PathBuf>,
}

impl Default for Options {
    /// Without fsync, and with room for all tests of a process.
    fn default() -> Self {
        Options {
            fsync: false,
            max_connections: 1000,
            settings: Vec::new(),
            environment: Vec::new(),
            directory: None,
        }
    }
}

/// Port and password of a server: both users have the same.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    pub(crate) port: u16,
    pub(crate) password: String,
}

impl Access {
    /// Whose the databases are.
    pub(crate) const USER: &str = "service";

    /// The database that is always there.
    pub(crate) fn as_superuser(&self) -> Config {
        let mut config = self.as_user();
        config.user("superuser").dbname("postgres");
        config
    }

    pub(crate) fn as_user(&self) -> Config {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.port).user(Self::USER).password(&self.password);
        config.connect_timeout(CONNECT_MAX);
        config
    }
}

/// A server. Dropped, it ends at once, and its folder goes.
#[derive(Debug)]
pub struct Server {
    folder: PathBuf,
    access: Access,
    databases: AtomicU32,
    running: Mutex<Running>,
}

#[derive(Debug)]
struct Running {
    guard: Guard,
    /// The process of the server, while it runs as far as we know.
    pid: Option<u32>,
}

impl Server {
    /// Starts a server, and waits until it takes connections.
    ///
    /// # Errors
    ///
    /// What keeps it from starting, with the end of its log.
    pub fn start(options: Options) -> Result<Self, ServerError> {
        let binaries = Binaries::find()?;
        let user = User::for_server()?;
        let folder = make_folder(&options, user)?;
        let guard = Guard::start(folder.path(), &binaries, user, &options.environment)?;
        // From here on it is the guard that removes it.
        let folder = folder.keep();
        let mut running = Running { guard, pid: None };
        let random = RandomState::new();
        let password = format!("{:016x}{:016x}", random.hash_one("a"), random.hash_one("b"));
        write_file(&folder.join("password"), &password, user)?;

        let collation = match binaries.version()? {
            ICU_SINCE.. => "--locale=C --locale-provider=icu --icu-locale=en",
            _ => "--locale=C",
        };
        if running.guard.init(collation)? != 0 {
            return Err(ServerError::Init(end_of_log(&folder, 0)));
        }
        let defaults = fs::read_to_string(folder.join("data/postgresql.conf"))
            .map_err(ServerError::system("postgresql.conf"))?;
        let defaults = with_settings(defaults, &options)?;

        let first = random.hash_one(std::process::id());
        for attempt in 0..PORTS_TRIED_MAX {
            let ports = u64::from(PORTS.end - PORTS.start);
            let offset = (first.wrapping_add(u64::from(attempt)) % ports) as u16;
            let access = Access { port: PORTS.start + offset, password: password.clone() };
            let settings = format!("{defaults}port = {}\n", access.port);
            write_file(&folder.join("data/postgresql.conf"), &settings, user)?;
            match running.start(&folder) {
                Err(ServerError::Ended(log)) if log.contains("Address already in use") => {}
                started => {
                    started?;
                    let user = Access::USER;
                    let create = format!("CREATE ROLE {user} LOGIN PASSWORD '{password}'");
                    execute(&access.as_superuser(), &create)?;
                    let running = Mutex::new(running);
                    return Ok(Server { folder, access, databases: AtomicU32::new(0), running });
                }
            }
        }
        Err(ServerError::NotReady(format!("{PORTS_TRIED_MAX} ports that were tried are taken")))
    }

    /// Creates a database that nobody else has.
    ///
    /// # Errors
    ///
    /// What the server says.
    pub fn database(&self) -> Result<Database, ServerError> {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        Database::create(self.access.clone(), format!("of_test_{number}"))
    }

    /// Runs one statement as a superuser, in the database `postgres`.
    ///
    /// # Errors
    ///
    /// What the server says.
    pub fn execute(&self, statement: &str) -> Result<(), ServerError> {
        execute(&self.access.as_superuser(), statement)
    }

    /// The port of 127.0.0.1, which stays the same.
    pub fn port(&self) -> u16 {
        self.access.port
    }

    /// The server's process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.running().pid
    }

    /// Where the server has its files: `data/`, and `log`.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// All that the server has logged.
    ///
    /// # Errors
    ///
    /// That the file cannot be read.
    pub fn log(&self) -> Result<String, ServerError> {
        let log = fs::read(self.folder.join("log")).map_err(ServerError::system("the log"))?;
        Ok(String::from_utf8_lossy(&log).into_owned())
    }

    /// Stops the server in order, though it waits for no client. Nothing of it runs
    /// when this returns.
    ///
    /// # Errors
    ///
    /// That it does not run.
    pub fn stop(&self) -> Result<(), ServerError> {
        let mut running = self.running();
        processes::send(running.alive()?, Signal::INT)?;
        running.wait()
    }

    /// Kills the server and all its processes (SIGKILL), as a power failure would, but
    /// for what the system has not written yet. Nothing of it runs when this returns.
    ///
    /// # Errors
    ///
    /// That it does not run.
    pub fn kill(&self) -> Result<(), ServerError> {
        let mut running = self.running();
        let pid = running.alive()?;
        // Once it is stopped it starts no more of them.
        processes::send(pid, Signal::STOP)?;
        while processes::alive(pid)?.is_some_and(|one| one.state != State::Stopped) {
            thread::sleep(POLL);
        }
        let mut children = processes::all()?;
        children.retain(|one| one.parent == pid);
        processes::send(pid, Signal::KILL)?;
        for child in &children {
            processes::send(child.pid, Signal::KILL)?;
        }
        running.wait()?;
        for child in &children {
            // Another parent has it by now.
            while processes::alive(child.pid)?.is_some() {
                thread::sleep(POLL);
            }
        }
        Ok(())
    }

    /// Starts the server again, on the same port and with the same data, and waits until it
    /// takes connections. One that runs is stopped before.
    ///
    /// # Errors
    ///
    /// What keeps it from starting, with the end of its log.
    pub fn restart(&self) -> Result<(), ServerError> {
        match self.stop() {
            Ok(()) | Err(ServerError::NotRunning) => {}
            Err(error) => return Err(error),
        }
        self.running().start(&self.folder)
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        // What it holds is as right after a panic as before it.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    /// Starts the server, and waits until it takes connections.
    fn start(&mut self, folder: &Path) -> Result<(), ServerError> {
        let logged = fs::metadata(folder.join("log")).map_or(0, |log| log.len());
        let pid = self.guard.start_server()?;
        self.pid = Some(pid);
        let deadline = Instant::now() + START_MAX;
        while !is_ready(folder, pid) {
            if self.alive() == Err(ServerError::NotRunning) {
                self.wait()?;
                return Err(ServerError::Ended(end_of_log(folder, logged)));
            }
            if Instant::now() > deadline {
                return Err(ServerError::NotReady(end_of_log(folder, logged)));
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// The process of the server, if it has not ended.
    fn alive(&self) -> Result<u32, ServerError> {
        let pid = self.pid.ok_or(ServerError::NotRunning)?;
        let found = processes::alive(pid)?;
        // A process of that number may be another by now.
        let is_it = found.is_some_and(|one| one.parent == self.guard.pid());
        if is_it { Ok(pid) } else { Err(ServerError::NotRunning) }
    }

    fn wait(&mut self) -> Result<(), ServerError> {
        self.guard.wait()?;
        self.pid = None;
        Ok(())
    }
}

/// Whether the server that is this process takes connections, as it says by itself. To
/// try could be to wait for a stranger at its port, for ever.
fn is_ready(folder: &Path, pid: u32) -> bool {
    let told = fs::read_to_string(folder.join("data/postmaster.pid")).unwrap_or_default();
    let lines: Vec<&str> = told.lines().map(str::trim).collect();
    lines.first() == Some(&pid.to_string().as_str()) && lines.get(7) == Some(&"ready")
}

/// A folder that is `user`'s.
fn make_folder(options: &Options, user: Option<User>) -> Result<TempDir, ServerError> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("temporary-postgres-");
    let folder = match &options.directory {
        Some(directory) => builder.tempdir_in(directory),
        None => builder.tempdir(),
    };
    let folder = folder.map_err(ServerError::system("a temporary folder"))?;
    own(folder.path(), user)?;
    Ok(folder)
}

fn own(path: &Path, user: Option<User>) -> Result<(), ServerError> {
    let Some(User { uid, gid }) = user else { return Ok(()) };
    chown(path, Some(uid), Some(gid)).map_err(ServerError::system(path.display()))
}

fn write_file(path: &Path, text: &str, user: Option<User>) -> Result<(), ServerError> {
    fs::write(path, text).map_err(ServerError::system(path.display()))?;
    own(path, user)
}

/// The configuration with all settings but the port.
fn with_settings(mut configuration: String, options: &Options) -> Result<String, ServerError> {
    let fsync = if options.fsync { "on" } else { "off" };
    let max_connections = options.max_connections.to_string();
    let own = [("fsync", fsync), ("max_connections", max_connections.as_str())];
    let further = options.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    configuration.push('\n');
    for (name, value) in SETTINGS.into_iter().chain(own).chain(further) {
        let value = value.replace('\\', r"\\").replace('\'', "''");
        writeln!(configuration, "{name} = '{value}'")
            .map_err(|error| ServerError::System(error.to_string()))?;
    }
    Ok(configuration)
}

/// The last lines that were logged from a place in the log on.
fn end_of_log(folder: &Path, from: u64) -> String {
    let log = match fs::read(folder.join("log")) {
        Ok(log) => log,
        Err(error) => return format!("(no log: {error})"),
    };
    let from = usize::try_from(from).unwrap_or(usize::MAX).min(log.len());
    let log = String::from_utf8_lossy(&log[from..]).into_owned();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES_MAX)..].join("\n")
}

/// Runs one statement on a connection of its own. In a thread of its own too, since
/// the client may not be used within an asynchronous runtime, and a test may be in one.
pub(crate) fn execute(config: &Config, statement: &str) -> Result<(), ServerError> {
    let run = || config.connect(NoTls)?.batch_execute(statement);
    let failed = |error: postgres::Error| {
        // It says what it is about, and its source what that is.
        let words = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        ServerError::Statement(format!("{statement}: {error}: {words}"))
    };
    let result = thread::scope(|scope| scope.spawn(run).join());
    match result {
        Ok(result) => result.map_err(failed),
        Err(_) => Err(ServerError::Statement(format!("{statement}: the client panicked"))),
    }
}

#[cfg(test)]
mod tests;
