//! The processes of this machine: enough of them to end a server and all that it
//! has started.

use std::process::Command;
use std::{fs, io};

use rustix::process::{Pid, Signal, kill_process};

use crate::ServerError;

/// One process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) parent: u32,
    pub(crate) state: State,
}

/// What a process does, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It runs, or waits for something.
    Lives,
    /// By SIGSTOP.
    Stopped,
    /// It has ended, and its parent has not asked how.
    Ended,
}

impl State {
    /// Of the letter that the system has for it.
    fn of(letters: &str) -> Self {
        match letters.as_bytes().first() {
            Some(b'Z' | b'X' | b'x') => State::Ended,
            Some(b'T' | b't') => State::Stopped,
            _ => State::Lives,
        }
    }
}

/// The process of that number, if it has not ended.
pub(crate) fn alive(pid: u32) -> Result<Option<Process>, ServerError> {
    let is_it = |one: &Process| one.pid == pid && one.state != State::Ended;
    Ok(all()?.into_iter().find(is_it))
}

/// All processes.
pub(crate) fn all() -> Result<Vec<Process>, ServerError> {
    match fs::read_dir("/proc/self/task") {
        Ok(_) => of_proc().map_err(ServerError::system("/proc")),
        // As on macOS.
        Err(_) => of_ps(),
    }
}

fn of_proc() -> io::Result<Vec<Process>> {
    let mut processes = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        // It may have ended meanwhile.
        let Ok(stat) = fs::read(format!("/proc/{pid}/stat")) else { continue };
        processes.extend(parse_stat(pid, &String::from_utf8_lossy(&stat)));
    }
    Ok(processes)
}

/// Of text as in `12 (a (b) c) S 1 …`: the name can be anything, and ends last.
fn parse_stat(pid: u32, stat: &str) -> Option<Process> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    Some(Process { pid, parent, state: State::of(state) })
}

fn of_ps() -> Result<Vec<Process>, ServerError> {
    let output = Command::new("ps").args(["-A", "-o", "pid=,ppid=,stat="]).output();
    let output = output.map_err(ServerError::system("ps"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = |line: &str| {
        let mut fields = line.split_whitespace();
        let mut number = || fields.next()?.parse().ok();
        let (pid, parent) = (number()?, number()?);
        Some(Process { pid, parent, state: State::of(fields.next()?) })
    };
    Ok(text.lines().filter_map(line).collect())
}

/// Sends `signal`. That there is no such process any more is no error.
pub(crate) fn send(pid: u32, signal: Signal) -> Result<(), ServerError> {
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let raw = raw.ok_or_else(|| ServerError::System(format!("{pid} is no process")))?;
    match kill_process(raw, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(ServerError::System(format!("a signal to process {pid}: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_anything_in_it_is_read_over() {
        let process = parse_stat(12, "12 (a ) S 7 (b) Z 34 12 12 0");
        assert_eq!(process, Some(Process { pid: 12, parent: 34, state: State::Ended }));
        let process = parse_stat(1, "1 (init) S 0 1 1");
        assert_eq!(process, Some(Process { pid: 1, parent: 0, state: State::Lives }));
        assert_eq!(parse_stat(1, "nothing"), None);
    }

    #[test]
    fn this_process_and_a_child_that_has_ended_are_among_them() {
        let mut child = Command::new("true").spawn().unwrap();
        let of_child = || all().unwrap().into_iter().find(|one| one.pid == child.id());
        while of_child().expect("nobody has asked how it ended").state != State::Ended {
            std::thread::yield_now();
        }
        assert_eq!(of_child().map(|one| one.parent), Some(std::process::id()));
        let by_ps = of_ps().unwrap();
        assert!(by_ps.iter().any(|one| Some(one) == of_child().as_ref()), "{by_ps:?}");
        assert_eq!(alive(child.id()), Ok(None));
        child.wait().unwrap();
        assert_eq!(all().unwrap().iter().find(|one| one.pid == child.id()), None);
    }
}
