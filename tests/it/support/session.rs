//! Databases and stores of the host, used line by line.

use libtest_mimic::Failed;

use super::{Duplex, Server, TestResult, wait_until};

/// A request to the component for databases and stores, which does what each line
/// says when it comes.
pub struct Session(Duplex);

impl Session {
    /// At the component's `path`.
    pub fn open(server: &Server, path: &str) -> Result<Self, Failed> {
        let mut duplex = Duplex::open(&server.client(), path)?;
        duplex.head()?;
        Ok(Session(duplex))
    }

    /// What comes of each line of a script, by the component at `path`.
    pub fn run(server: &Server, path: &str, script: &str) -> Result<Vec<String>, Failed> {
        let mut session = Session::open(server, path)?;
        script.lines().map(|line| session.tell(line)).collect()
    }

    /// What comes of a line.
    pub fn tell(&mut self, line: &str) -> Result<String, Failed> {
        self.0.send(line)?;
        self.came()
    }

    /// Has the component begin with a line.
    pub fn begin(&mut self, server: &Server, line: &str) -> TestResult {
        let count = || server.log().lines().filter(|logged| *logged == line).count();
        let before = count();
        self.0.send(line)?;
        wait_until("the component has begun", || Ok((count() > before).then_some(())))
    }

    /// What comes of the line that it has begun with.
    pub fn came(&mut self) -> Result<String, Failed> {
        self.0.receive_body_line()
    }
}
