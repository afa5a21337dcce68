//! Progress on standard error: a bar on a terminal, a line elsewhere.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// The time between two drawings of a bar that does not move, in milliseconds.
const TICK_MS: u64 = 200;

/// What a bar counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Events.
    Events,
    /// Bytes of files.
    Bytes,
}

/// Starts showing progress towards `total`. `task` is what is being done; on
/// anything but a terminal it is all that is shown.
#[must_use]
pub fn start(task: &str, total: u64, unit: Unit) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        eprintln!("publisher: {task}");
        return ProgressBar::hidden();
    }
    let counts = match unit {
        Unit::Events => "{human_pos}/{human_len} events, {per_sec}",
        Unit::Bytes => "{binary_bytes}/{binary_total_bytes}, {binary_bytes_per_sec}",
    };
    let template = format!("{{msg}} {{wide_bar}} {counts}, {{eta}} left");
    let bar = ProgressBar::new(total).with_message(task.to_owned());
    // A template is a constant of ours; a wrong one costs the looks only.
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(TICK_MS));
    bar
}
