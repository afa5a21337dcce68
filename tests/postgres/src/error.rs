use std::error::Error;
use std::fmt;
use std::io;

/// Why a server, or something of it, is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerError {
    /// There are no binaries of PostgreSQL: where it was looked for them.
    NotInstalled(String),
    /// We are root, as which PostgreSQL does not run, and there is nobody else.
    NoUser,
    /// The operating system refused something: what, and its words.
    System(String),
    /// The folder of the server could not be filled: the end of the log.
    Init(String),
    /// The server ended while it started: the end of its log.
    Ended(String),
    /// The server did not say in time that it takes connections: the end of its log.
    NotReady(String),
    /// The server is stopped, or was killed.
    NotRunning,
    /// A statement failed: which, and the server's words.
    Statement(String),
}

impl ServerError {
    /// The system refused to do `what`.
    pub(crate) fn system(what: impl fmt::Display) -> impl FnOnce(io::Error) -> Self {
        move |error| ServerError::System(format!("{what}: {error}"))
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServerError::NotInstalled(searched) => write!(
                f,
                "PostgreSQL is not installed: neither {searched} has initdb and postgres \
                 (on Debian: apt-get install postgresql)"
            ),
            ServerError::NoUser => f.write_str(
                "PostgreSQL does not run as root, and there is neither a user postgres nor nobody",
            ),
            ServerError::System(what) => f.write_str(what),
            ServerError::Init(log) => write!(f, "initdb failed:\n{log}"),
            ServerError::Ended(log) => write!(f, "PostgreSQL ended while it started:\n{log}"),
            ServerError::NotReady(why) => write!(f, "PostgreSQL takes no connections:\n{why}"),
            ServerError::NotRunning => f.write_str("this PostgreSQL server does not run"),
            ServerError::Statement(what) => f.write_str(what),
        }
    }
}

impl Error for ServerError {}
