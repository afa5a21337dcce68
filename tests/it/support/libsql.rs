//! A stand-in for a libSQL server: Hrana 3 over HTTP, as far as the client of Spin speaks
//! it, before a SQLite database in a temporary folder.
//!
//! Protocol: <https://github.com/tursodatabase/libsql/blob/main/docs/HRANA_3_SPEC.md>

mod http;
mod statement;

use std::collections::HashMap;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufReader};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use libtest_mimic::Failed;
use rusqlite::Connection;
use serde_json::{Value, json};
use tempfile::TempDir;

use self::http::{Answer, Request};
use super::{ServerOptions, TIMEOUT, TestResult};

/// What clients are known by.
pub const TOKEN: &str = "a-good-token";

/// Ports below those that the system gives away by itself: between two starts of a server
/// on the same port nobody gets it by chance.
const PORTS: std::ops::Range<u16> = 16_384..32_768;

/// Ports that are tried before it is given up.
const PORTS_TRIED_MAX: u64 = 20;

/// A server in threads of the test. It ends when it is dropped.
pub struct Libsql {
    /// Host and port, the same after each start.
    pub address: String,
    folder: TempDir,
    running: Option<Running>,
    starts: usize,
}

struct Running {
    sessions: Arc<Sessions>,
    accepting: JoinHandle<()>,
}

impl Libsql {
    pub fn start() -> Result<Self, Failed> {
        let random = RandomState::new();
        for attempt in 0..PORTS_TRIED_MAX {
            let offset = random.hash_one(attempt) % u64::from(PORTS.end - PORTS.start);
            let address = format!("127.0.0.1:{}", PORTS.start + u16::try_from(offset)?);
            let Ok(listener) = TcpListener::bind(&address) else { continue };
            let mut server = Libsql { address, folder: TempDir::new()?, running: None, starts: 0 };
            server.begin(listener)?;
            return Ok(server);
        }
        Err(format!("{PORTS_TRIED_MAX} ports that were tried are taken").into())
    }

    /// Ends all connections. What is being done is done to its end, and nobody is told.
    pub fn stop(&mut self) -> TestResult {
        let Some(Running { sessions, accepting }) = self.running.take() else { return Ok(()) };
        sessions.is_over.store(true, Ordering::SeqCst);
        // To have it look. It may have ended by itself.
        TcpStream::connect(&self.address).ok();
        accepting.join().map_err(|_| "the server panicked".into())
    }

    /// Starts again after [`Self::stop`], with the same data, and knows no connection.
    pub fn restart(&mut self) -> TestResult {
        self.stop()?;
        self.begin(TcpListener::bind(&self.address)?)
    }

    fn begin(&mut self, listener: TcpListener) -> TestResult {
        let database = self.file();
        Connection::open(&database)?.pragma_update(None, "journal_mode", "WAL")?;
        self.starts += 1;
        let sessions = Arc::new(Sessions {
            start: self.starts,
            database,
            is_over: AtomicBool::new(false),
            streams: Mutex::default(),
        });
        let shared = Arc::clone(&sessions);
        let accepting = thread::spawn(move || accept(&listener, &shared));
        self.running = Some(Running { sessions, accepting });
        Ok(())
    }

    /// Has it forget the streams that there are, as it does when nothing is asked on them
    /// for a while. How many it knew.
    pub fn forget_streams(&self) -> usize {
        let Some(running) = &self.running else { return 0 };
        let mut streams = running.sessions.streams();
        streams.values_mut().filter_map(Option::take).count()
    }

    /// A service on the database.
    pub fn service(&self, options: ServerOptions) -> Result<ServerOptions, Failed> {
        self.service_by(options, &self.address, TOKEN)
    }

    /// A service that comes to the database by this host and port, with this token.
    pub fn service_by(
        &self,
        options: ServerOptions,
        address: &str,
        token: &str,
    ) -> Result<ServerOptions, Failed> {
        let file = self.configuration(address, token)?;
        Ok(options.flags(&["--runtime-config-file", &file.display().to_string()]))
    }

    /// The runtime configuration of a host whose services come to the database by this
    /// host and port, with this token.
    pub fn configuration(&self, address: &str, token: &str) -> Result<PathBuf, Failed> {
        let file = self.folder.path().join(format!("{}.toml", address.replace(':', "-")));
        let text = format!(
            "[sqlite_database.default]\ntype = \"libsql\"\n\
             url = \"http://{address}\"\ntoken = \"{token}\"\n"
        );
        fs::write(&file, text)?;
        Ok(file)
    }

    /// The database behind the server.
    pub fn database(&self) -> rusqlite::Result<Connection> {
        Connection::open(self.file())
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("data.db")
    }
}

impl Drop for Libsql {
    fn drop(&mut self) {
        // There is nobody to tell.
        self.stop().ok();
    }
}

/// Serves clients until it is over, and each of them to the end of what it has asked.
fn accept(listener: &TcpListener, sessions: &Sessions) {
    thread::scope(|scope| {
        let mut clients = Vec::new();
        while let Ok((client, _)) = listener.accept()
            && !sessions.is_over.load(Ordering::SeqCst)
        {
            let Ok(other) = client.try_clone() else { break };
            clients.push(other);
            scope.spawn(move || {
                // It may have gone at any time.
                serve(&client, sessions).ok();
                client.shutdown(Shutdown::Both).ok();
            });
        }
        for client in clients {
            // It may have gone before.
            client.shutdown(Shutdown::Both).ok();
        }
    });
}

fn serve(client: &TcpStream, sessions: &Sessions) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut requests = BufReader::new(client);
    while let Some(request) = Request::read(&mut requests)? {
        sessions.answer(&request, Answer { to: client })?;
    }
    Ok(())
}

/// What a server knows from its start to its end.
struct Sessions {
    start: usize,
    database: PathBuf,
    is_over: AtomicBool,
    /// `None` is one that was closed, or that it has forgotten.
    streams: Mutex<HashMap<String, Option<Stream>>>,
}

/// What clients have their statements run on, one after the other.
struct Stream {
    connection: Arc<Mutex<Connection>>,
    /// The only baton that may be shown next.
    baton: String,
}

impl Sessions {
    fn streams(&self) -> MutexGuard<'_, HashMap<String, Option<Stream>>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, request: &Request, answer: Answer<'_>) -> io::Result<()> {
        if request.authorization != format!("Bearer {TOKEN}") {
            return answer.whole(401, "{\"error\":\"Unauthorized: `The JWT is invalid`\"}");
        }
        let asked: Value = serde_json::from_slice(&request.body)?;
        let (connection, baton) = match self.take(asked["baton"].as_str()) {
            Ok(taken) => taken,
            Err(refusal) => return answer.whole(400, refusal),
        };
        match request.path.as_str() {
            "/v3/cursor" => {
                let mut lines = answer.lines()?;
                lines.send(&json!({"baton": baton, "base_url": null}))?;
                let connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
                // What is begun is done, whether somebody reads of it or not.
                let mut sent = Ok(());
                statement::run(&connection, &asked["batch"]["steps"][0]["stmt"], |entry| {
                    if sent.is_ok() {
                        sent = lines.send(&entry);
                    }
                });
                sent.and_then(|()| lines.end())
            }
            // The client asks for nothing else in this way.
            "/v3/pipeline" => {
                self.streams().insert(stream_of(&baton).to_owned(), None);
                let closed = json!({"type": "ok", "response": {"type": "close"}});
                let told = json!({"baton": null, "base_url": null, "results": [closed]});
                answer.whole(200, &told.to_string())
            }
            _ => answer.whole(404, "not found"),
        }
    }

    /// The connection of the stream that the baton is of, or of a new one, and the baton
    /// that is to be shown next; else why there is none.
    fn take(&self, baton: Option<&str>) -> Result<(Arc<Mutex<Connection>>, String), &'static str> {
        let mut streams = self.streams();
        let Some(baton) = baton else {
            let connection = self.connect().map_err(|_| "the database cannot be opened")?;
            let (name, connection) = (streams.len(), Arc::new(Mutex::new(connection)));
            let baton = format!("{}.{name}/0", self.start);
            let stream = Stream { connection: Arc::clone(&connection), baton: baton.clone() };
            streams.insert(stream_of(&baton).to_owned(), Some(stream));
            return Ok((connection, baton));
        };
        match streams.get_mut(stream_of(baton)) {
            None => Err("Received an invalid baton"),
            Some(None) => Err("{\"message\":\"The stream has expired due to inactivity\",\
                 \"code\":\"STREAM_EXPIRED\"}"),
            Some(Some(stream)) if stream.baton != baton => {
                Err("Received a baton that has already been used")
            }
            Some(Some(stream)) => {
                let (name, turn) = baton.split_once('/').unwrap_or_default();
                let turn: u64 = turn.parse().unwrap_or_default();
                stream.baton = format!("{name}/{}", turn + 1);
                Ok((Arc::clone(&stream.connection), stream.baton.clone()))
            }
        }
    }

    fn connect(&self) -> rusqlite::Result<Connection> {
        let connection = Connection::open(&self.database)?;
        connection.busy_timeout(TIMEOUT)?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        Ok(connection)
    }
}

/// The name of the stream that a baton is of.
fn stream_of(baton: &str) -> &str {
    baton.split_once('/').map_or(baton, |(name, _)| name)
}
