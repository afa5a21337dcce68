//! A database on a libSQL server, in the place of a file.
//!
//! The platform has a client that sends each statement as an HTTP request. It reads
//! statements before it sends them and refuses most pragmas, which is how such a
//! database is known: by the very first statement of a connection. How commits are made
//! durable, the log and its checkpoints are the server's, so nothing of that is done
//! here. An answer may be lost on its way, and the server forgets a connection that
//! has asked nothing for a while.

use crate::store::model::{Fault, StoreError};

/// What the client says of a statement that it does not send.
const REFUSED: &str = "unsupported statement";

/// What all else begins with that the client or the server says.
const SAID: &str = "Hrana: `";

/// Whether a pragma failed because it is not for a client to set.
pub(super) fn is_refused(error: &StoreError) -> bool {
    error.message == REFUSED
}

/// What kind of fault it is that such a database has and a file has not; `None` if it
/// is SQLite that says it.
///
/// What came of a statement is known when SQLite says it, and when the statement cannot
/// have begun: nobody could be connected to, or the server does not know the connection
/// any more. In all other cases the answer was lost.
pub(super) fn fault_of(message: &str) -> Option<Fault> {
    let said = message.strip_prefix(SAID)?;
    if said.starts_with("cursor error: `error at step ") {
        return None;
    }
    if is_session_gone(message) {
        return Some(Fault::Busy);
    }
    let is_not_sent = said.starts_with("http error: `error trying to connect: ");
    Some(if is_not_sent || is_token_refused(said) {
        Fault::Unavailable
    } else {
        Fault::Indeterminate
    })
}

/// Whether the server has forgotten a connection; another one will do.
pub(super) fn is_session_gone(message: &str) -> bool {
    let refusal = message.strip_prefix(SAID).and_then(|said| said.strip_prefix("api error: `"));
    refusal.is_some_and(|words| words.contains("STREAM_EXPIRED") || words.contains(" baton"))
}

fn is_token_refused(said: &str) -> bool {
    let said = said.to_ascii_lowercase();
    said.starts_with("api error: `") && (said.contains("authoriz") || said.contains("jwt"))
}

#[cfg(test)]
mod tests;
