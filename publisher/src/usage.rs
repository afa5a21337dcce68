//! What a process takes of the machine.

use std::time::Instant;

/// CPU time at a moment.
#[derive(Debug, Clone, Copy)]
pub struct CpuTime {
    at: Instant,
    seconds: f64,
}

impl CpuTime {
    /// That of this process so far, where the operating system counts it.
    #[must_use]
    pub fn now() -> Option<Self> {
        Self::of("self")
    }

    /// That of another process so far, by its id.
    #[must_use]
    pub fn of_process(id: u32) -> Option<Self> {
        Self::of(&id.to_string())
    }

    /// That of another process and of all that it has started so far, also of those
    /// that have ended.
    #[must_use]
    pub fn of_process_and_children(id: u32) -> Option<Self> {
        let at = Instant::now();
        let process = id.to_string();
        let mut seconds = cpu_seconds(&process)? + cpu_seconds_of_ended_children(&process)?;
        for child in children(id)? {
            // It may have ended since then.
            seconds += cpu_seconds(&child.to_string()).unwrap_or_default();
        }
        Some(Self { at, seconds })
    }

    fn of(process: &str) -> Option<Self> {
        Some(Self { at: Instant::now(), seconds: cpu_seconds(process)? })
    }

    /// Cores that were busy for this process since then, on average.
    #[must_use]
    pub fn cores_since(self) -> Option<f64> {
        self.cores_until(Self::now()?)
    }

    /// Cores that were busy for the same process until a later moment, on average.
    #[must_use]
    pub fn cores_until(self, later: Self) -> Option<f64> {
        let elapsed = later.at.saturating_duration_since(self.at).as_secs_f64();
        (elapsed > 0.0).then_some((later.seconds - self.seconds) / elapsed)
    }
}

/// User and system time of a process, from `/proc` of Linux.
fn cpu_seconds(process: &str) -> Option<f64> {
    times(process).map(|[user, system, ..]| user + system)
}

/// The same of those that it has started, and that have ended.
fn cpu_seconds_of_ended_children(process: &str) -> Option<f64> {
    times(process).map(|[_, _, user, system]| user + system)
}

/// User and system time of a process, and those of its children that have ended, in
/// seconds.
fn times(process: &str) -> Option<[f64; 4]> {
    #[cfg(target_os = "linux")]
    {
        let mut fields = stat(process)?.into_iter().skip(11);
        let mut times = [0.0; 4];
        for time in &mut times {
            let ticks: u64 = fields.next()?.parse().ok()?;
            *time = ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
        }
        Some(times)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = process;
        None
    }
}

/// The processes that one has started, and that have not ended.
fn children(of: u32) -> Option<Vec<u32>> {
    let parent = of.to_string();
    let is_one =
        |id: &u32| stat(&id.to_string()).is_some_and(|of_it| of_it.get(1) == Some(&parent));
    let entries = std::fs::read_dir("/proc").ok()?.flatten();
    let all = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Some(all.filter(is_one).collect())
}

/// What Linux tells of a process, after its name: state, parent and so on; see proc(5).
fn stat(process: &str) -> Option<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name, in parentheses, may hold anything; what comes after it does not.
    let (_, fields) = stat.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Command, Stdio};

    use super::*;

    /// A shell that burns CPU in a child that ends, then starts one that goes on, and
    /// says when the first has ended.
    #[test]
    fn children_are_counted_while_they_run_and_when_they_have_ended() {
        let script = r#"
            burn() { i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; }
            exec 3<&0
            read _; (burn); echo ended
            read _; (burn; echo running; read _ <&3) & wait
        "#;
        let mut shell = Command::new("sh")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = shell.stdin.take().unwrap();
        let mut lines = BufReader::new(shell.stdout.take().unwrap()).lines();
        let seconds = || CpuTime::of_process_and_children(shell.id()).unwrap().seconds;
        let mut before = seconds();
        for expected in ["ended", "running"] {
            writeln!(stdin).unwrap();
            assert_eq!(lines.next().unwrap().unwrap(), expected);
            let after = seconds();
            assert!(after > before, "{expected}: {before} s, then {after} s");
            before = after;
        }
        let alone = CpuTime::of_process(shell.id()).unwrap().seconds;
        assert!(alone < before / 2.0, "{alone} s of {before} s");
        drop(stdin);
        shell.wait().unwrap();
    }
}
