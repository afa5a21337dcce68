//! Progress on standard error: a bar on a terminal, lines elsewhere.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::console;

/// The time between two drawings of a bar that does not move, in milliseconds.
const TICK_MS: u64 = 200;

/// Starts showing progress towards so many bytes. `task` is what is being done;
/// on anything but a terminal it is all that is shown.
#[must_use]
pub(crate) fn bytes(task: &str, total: u64) -> ProgressBar {
    let template = "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes}, \
                    {binary_bytes_per_sec}, {eta} left";
    bar(task, total, template)
}

/// The same towards a place in a row whose members are not counted.
#[must_use]
pub(crate) fn place(task: &str, end: u64) -> ProgressBar {
    bar(task, end, "{msg} {wide_bar} {percent} %, {eta} left")
}

fn bar(task: &str, total: u64, template: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        console::note(task);
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(total).with_message(task.to_owned());
    // A template is a constant of ours; a wrong one costs the looks only.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(TICK_MS));
    bar
}

/// The time between two lines about a load where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// How far a load is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Total {
    /// So many deliveries.
    Events(u64),
    /// So long.
    Time(Duration),
    /// Until told to stop.
    Unknown,
}

/// The progress of a load: its rate, p99 and errors.
#[derive(Debug)]
pub(crate) struct LoadProgress {
    bar: Option<ProgressBar>,
    total: Total,
    clock: tokio::time::Interval,
}

impl LoadProgress {
    /// Starts to show a load.
    #[must_use]
    pub(crate) fn start(task: &str, total: Total) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let every = if terminal { Duration::from_millis(TICK_MS) } else { LINE_EVERY };
        if !terminal {
            console::note(task);
        }
        let bar = terminal.then(|| {
            let (bar, template) = match total {
                Total::Events(events) => {
                    (ProgressBar::new(events), "{wide_bar} {human_pos}/{human_len} events, {msg}")
                }
                Total::Time(time) => {
                    (ProgressBar::new(millis(time)), "{wide_bar} {elapsed_precise}, {msg}")
                }
                Total::Unknown => (ProgressBar::no_length(), "{spinner} {elapsed_precise}, {msg}"),
            };
            // A template is a constant of ours; a wrong one costs the looks only.
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar
        });
        let first = tokio::time::Instant::now() + every;
        Self { bar, total, clock: tokio::time::interval_at(first, every) }
    }

    /// Waits until it is time to show something.
    pub(crate) async fn tick(&mut self) {
        self.clock.tick().await;
    }

    /// Shows how it goes.
    pub(crate) fn show(&self, events: u64, elapsed: Duration, rate: f64, p99_ms: f64, errors: u64) {
        let figures = format!("{rate:.0} events/s, p99 {p99_ms:.1} ms, {errors} errors");
        let Some(bar) = &self.bar else {
            let seconds = elapsed.as_secs();
            console::note(format_args!("{seconds} s: {events} events, {figures}"));
            return;
        };
        bar.set_position(match self.total {
            Total::Time(_) => millis(elapsed),
            Total::Events(_) | Total::Unknown => events,
        });
        bar.set_message(figures);
    }
}

impl Drop for LoadProgress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
