//! What is said to people: notes on standard error, results on standard output.
//!
//! Nobody may be there to hear it. `eprintln!` and `println!` end the program
//! then; what is written here does not.

use std::fmt::Display;
use std::io::{ErrorKind, Write as _};

use anyhow::Context as _;

/// Writes a note to standard error, with the program's name.
pub(crate) fn note(text: impl Display) {
    line(format_args!("publisher: {text}"));
}

/// Writes a line to standard error.
pub(crate) fn line(text: impl Display) {
    let line = format!("{text}\n");
    // Where it cannot be written, there is no other place to say so.
    std::io::stderr().write_all(line.as_bytes()).ok();
}

/// Writes a result to standard output. A reader that has left (`| head`) wanted
/// no more of it, which is no error.
///
/// # Errors
///
/// If it cannot be written for another reason.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to standard output"),
    }
}
