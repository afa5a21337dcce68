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
    #[cfg(target_os = "linux")]
    {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        // The name, in parentheses, may hold anything; the fields after it are
        // numbers, of which user and system time are the 12th and 13th.
        let (_, fields) = stat.rsplit_once(')')?;
        let mut fields = fields.split_whitespace().skip(11);
        let user: u64 = fields.next()?.parse().ok()?;
        let system: u64 = fields.next()?.parse().ok()?;
        Some((user + system) as f64 / rustix::param::clock_ticks_per_second() as f64)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = process;
        None
    }
}
