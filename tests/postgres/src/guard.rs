//! The process between us and the server: a shell that waits for our end.
//!
//! A static is not dropped when a process ends, and nothing is when it is killed.
//! But the pipe between two processes is closed by the system whenever one of them
//! ends, so the shell at its other end surely learns of it.

use std::fmt::Display;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::str::FromStr;

use crate::ServerError;
use crate::installed::{Binaries, User};

const SCRIPT: &str = include_str!("guard.sh");

/// The shell. Dropped, it ends the server and removes the folder.
#[derive(Debug)]
pub(crate) struct Guard {
    shell: Child,
    /// `None` only while it is dropped.
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Guard {
    /// A guard over `folder`, whose server is run with `environment` and as `user`.
    pub(crate) fn start(
        folder: &Path,
        binaries: &Binaries,
        user: Option<User>,
        environment: &[(String, String)],
    ) -> Result<Self, ServerError> {
        let mut shell = Command::new("sh");
        shell.args(["-c", SCRIPT, "guard"]).arg(folder);
        shell.arg(&binaries.initdb).arg(&binaries.postgres);
        shell.args(environment.iter().map(|(name, value)| format!("{name}={value}")));
        // Whose folder we are in may be closed to that user.
        shell.current_dir("/");
        // What a terminal sends to us is not for it: it has to outlive us.
        shell.process_group(0);
        if let Some(User { uid, gid }) = user {
            shell.uid(uid).gid(gid);
        }
        for (name, _) in std::env::vars_os() {
            // A developer's settings must not change what is tested.
            let name_text = name.to_string_lossy();
            if name_text.starts_with("PG") || name_text.starts_with("LC_") || name_text == "LANG" {
                shell.env_remove(name);
            }
        }
        shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut shell = shell.spawn().map_err(ServerError::system("sh"))?;
        let missing = || ServerError::System("sh has no pipes".to_owned());
        let answers = BufReader::new(shell.stdout.take().ok_or_else(missing)?);
        let commands = Some(shell.stdin.take().ok_or_else(missing)?);
        Ok(Guard { shell, commands, answers })
    }

    /// The process that all of the server are children of.
    pub(crate) fn pid(&self) -> u32 {
        self.shell.id()
    }

    /// Fills the folder: the status of `initdb`, which is given `options` as well.
    pub(crate) fn init(&mut self, options: &str) -> Result<i32, ServerError> {
        self.ask(format_args!("init {options}"))
    }

    /// Starts the server: its process.
    pub(crate) fn start_server(&mut self) -> Result<u32, ServerError> {
        self.ask("start")
    }

    /// Waits until the server has ended by itself or by a signal: its status.
    pub(crate) fn wait(&mut self) -> Result<i32, ServerError> {
        self.ask("wait")
    }

    fn ask<T: FromStr>(&mut self, command: impl Display) -> Result<T, ServerError> {
        let failed = || ServerError::system(format!("the guard was told to {command}"));
        if let Some(commands) = &mut self.commands {
            writeln!(commands, "{command}").map_err(failed())?;
        }
        let mut answer = String::new();
        self.answers.read_line(&mut answer).map_err(failed())?;
        let no_answer = |_| ServerError::System(format!("the guard answers {answer:?}"));
        answer.trim().parse().map_err(no_answer)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.commands.take());
        // It ends by itself, and there is nobody to tell if it had ended before.
        self.shell.wait().ok();
    }
}
