//! Where and when it was measured.

use serde::Serialize;

/// The machine, as far as it tells.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// The processor's model.
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// The system and its version.
    pub kernel: String,
}

impl Machine {
    /// This one.
    pub fn this() -> Self {
        let unknown = || "-".to_owned();
        let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpus.lines().find_map(|line| line.strip_prefix("model name"));
        let model = model.and_then(|line| line.split_once(':'));
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").ok();
        let release = release.as_deref().map_or("", str::trim);
        Machine {
            cpu: model.map_or_else(unknown, |(_, model)| model.trim().to_owned()),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: format!("{} {release}", std::env::consts::OS).trim().to_owned(),
        }
    }
}
