//! One-line messages on the host's own stderr.
//!
//! Unlike `eprintln!`, a stderr that has gone away does not end the process.

use std::fmt::Display;
use std::io::Write;

/// Writes `message` and a line end to stderr.
pub(crate) fn message(message: impl Display) {
    // When stderr is gone there is nowhere left to report that.
    writeln!(std::io::stderr().lock(), "{message}").ok();
}
