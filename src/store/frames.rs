//! What instances send each other: groups of deliveries to the one writer, and what
//! came of them back. Version 2, which is in the path that is called ([`PATH`]).
//!
//! A line carries frames both ways, one answer for each group and in their order.
//! Numbers are little-endian. A frame begins with the length of what follows it, in
//! bytes, as a `u32`.
//!
//! | group | is |
//! | --- | --- |
//! | `u32` | events |
//! | `u32` | requests that brought them |
//! | `u32` each | how long each of these has waited, in microseconds |
//! | `u32` | length of the next, in bytes |
//! | JSON | nothing, or an array of two objects: deliveries rejected, by field; increments of counters |
//! | bytes | the events, in the encoding of the engine |
//!
//! | answer | is |
//! | --- | --- |
//! | `u8` | a [`Kind`] |
//! | `u8` | 1 if only this line has brought anything of late |
//! | `u32` | events in the commit |
//! | `u32` | how long the commit took, in microseconds |
//! | `i64` each | of a commit: the seq of an event that was accepted, 0 for a duplicate, −1 for a conflict |
//! | text | of a fault: why |

use std::time::Duration;

use super::engine::Deliveries;
use super::model::{Fault, Increments, Outcome, Seq, StoreError};
use crate::platform::chaining::Receiver;

/// The path that is called for a line of this version.
pub(crate) const PATH: &str = "/lines/2";

/// Longest frame, in bytes: many times what a group has by default. A line with a
/// longer one ends, and its instance commits by itself.
const FRAME_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Bytes of the length of a frame.
const LENGTH_BYTES: usize = size_of::<u32>();

const DUPLICATE: i64 = 0;
const CONFLICT: i64 = -1;

/// How an answer begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Committed = 0,
    Busy = 1,
    Full = 2,
    Unavailable = 3,
    Indeterminate = 4,
    /// Not committed: another instance is the writer.
    Gone = 5,
}

/// What came of a group.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// What came of its commit; `None` if it was not committed, because another
    /// instance is the writer.
    pub(crate) result: Option<Result<Vec<Outcome>, StoreError>>,
    /// Whether only this line has brought anything of late.
    pub(crate) is_alone: bool,
    /// How many events were in the commit.
    pub(crate) commit_events: usize,
    /// How long it took.
    pub(crate) commit_took: Duration,
}

/// A group on its way to the writer, at a moment of this instance.
///
/// # Errors
///
/// None that a group can cause.
pub(crate) fn group(
    group: &[&Deliveries],
    increments: Option<&Increments>,
    now: Duration,
) -> Result<Vec<u8>, StoreError> {
    let mut rejected = Increments::new();
    for (field, count) in group.iter().flat_map(|one| &one.rejected) {
        *rejected.entry(field.clone()).or_default() += count;
    }
    let none = Increments::new();
    let counts = match (rejected.is_empty(), increments) {
        (true, None) => Vec::new(),
        (_, increments) => serde_json::to_vec(&(rejected, increments.unwrap_or(&none)))
            .map_err(StoreError::unexpected)?,
    };
    let bytes: usize = group.iter().map(|one| one.encoded.len()).sum();
    let mut frame = Vec::with_capacity((4 + group.len()) * LENGTH_BYTES + counts.len() + bytes);
    frame.extend([0; LENGTH_BYTES]);
    put(&mut frame, group.iter().map(|one| one.events).sum());
    put(&mut frame, group.iter().map(|one| one.waited.len()).sum());
    for waited in group.iter().flat_map(|one| one.waited_at(now)) {
        put(&mut frame, usize::try_from(waited.as_micros()).unwrap_or(usize::MAX));
    }
    put(&mut frame, counts.len());
    frame.extend(counts);
    for one in group {
        frame.extend_from_slice(&one.encoded);
    }
    Ok(with_length(frame))
}

/// The group in a frame, and its increments; `None` if it is none.
pub(crate) fn read_group(frame: &[u8]) -> Option<(Deliveries, Increments)> {
    let mut rest = frame;
    let (events, requests) = (take(&mut rest)?, take(&mut rest)?);
    let (waited, mut rest) = rest.split_at_checked(requests.checked_mul(LENGTH_BYTES)?)?;
    let (waited, _) = waited.as_chunks();
    let micros = |bytes: &[u8; LENGTH_BYTES]| u64::from(u32::from_le_bytes(*bytes));
    let waited = waited.iter().map(|bytes| Duration::from_micros(micros(bytes))).collect();
    let length = take(&mut rest)?;
    let (counts, encoded) = rest.split_at_checked(length)?;
    let (rejected, increments) = match counts.is_empty() {
        true => Default::default(),
        false => serde_json::from_slice(counts).ok()?,
    };
    let encoded = encoded.to_vec();
    let deliveries = Deliveries { encoded, events, rejected, waited, ..Deliveries::default() };
    Some((deliveries, increments))
}

impl Answer {
    /// As a frame.
    pub(crate) fn into_frame(self) -> Vec<u8> {
        let (kind, outcomes, why): (_, &[Outcome], _) = match &self.result {
            None => (Kind::Gone, &[], ""),
            Some(Ok(outcomes)) => (Kind::Committed, outcomes, ""),
            Some(Err(error)) => (kind_of(error.fault), &[], error.message.as_str()),
        };
        let mut frame =
            Vec::with_capacity(4 * LENGTH_BYTES + outcomes.len() * size_of::<i64>() + why.len());
        frame.extend([0; LENGTH_BYTES]);
        frame.extend([kind as u8, u8::from(self.is_alone)]);
        put(&mut frame, self.commit_events);
        put(&mut frame, usize::try_from(self.commit_took.as_micros()).unwrap_or(usize::MAX));
        for outcome in outcomes {
            let number = match outcome {
                Outcome::Accepted { seq } => seq.number(),
                Outcome::Duplicate => DUPLICATE,
                Outcome::Conflict => CONFLICT,
            };
            frame.extend(number.to_le_bytes());
        }
        frame.extend(why.as_bytes());
        with_length(frame)
    }

    /// The answer in a frame to a group of so many events; `None` if it is none.
    pub(crate) fn read(frame: &[u8], events: usize) -> Option<Self> {
        let ([kind, is_alone], mut rest) = frame.split_first_chunk()?;
        let commit_events = take(&mut rest)?;
        let commit_took = Duration::from_micros(u64::try_from(take(&mut rest)?).ok()?);
        let fault = |fault| {
            let message = String::from_utf8_lossy(rest).into_owned();
            Some(Err(StoreError { fault, message }))
        };
        let result = match *kind {
            kind if kind == Kind::Committed as u8 => {
                let (numbers, []) = rest.as_chunks() else { return None };
                if numbers.len() != events {
                    return None;
                }
                Some(Ok(numbers.iter().map(|number| outcome(*number)).collect::<Option<_>>()?))
            }
            kind if kind == Kind::Busy as u8 => fault(Fault::Busy),
            kind if kind == Kind::Full as u8 => fault(Fault::Full),
            kind if kind == Kind::Unavailable as u8 => fault(Fault::Unavailable),
            kind if kind == Kind::Indeterminate as u8 => fault(Fault::Indeterminate),
            kind if kind == Kind::Gone as u8 => None,
            _ => return None,
        };
        Some(Answer { result, is_alone: *is_alone == 1, commit_events, commit_took })
    }
}

fn outcome(number: [u8; size_of::<i64>()]) -> Option<Outcome> {
    match i64::from_le_bytes(number) {
        DUPLICATE => Some(Outcome::Duplicate),
        CONFLICT => Some(Outcome::Conflict),
        seq if seq > 0 => Some(Outcome::Accepted { seq: Seq::new(seq) }),
        _ => None,
    }
}

fn kind_of(fault: Fault) -> Kind {
    match fault {
        Fault::Busy => Kind::Busy,
        Fault::Full => Kind::Full,
        Fault::Unavailable => Kind::Unavailable,
        Fault::Indeterminate => Kind::Indeterminate,
    }
}

fn put(frame: &mut Vec<u8>, number: usize) {
    frame.extend(u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
}

fn take(rest: &mut &[u8]) -> Option<usize> {
    let (number, left) = rest.split_first_chunk()?;
    *rest = left;
    usize::try_from(u32::from_le_bytes(*number)).ok()
}

fn with_length(mut frame: Vec<u8>) -> Vec<u8> {
    let length = u32::try_from(frame.len() - LENGTH_BYTES).unwrap_or(u32::MAX);
    frame[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
    frame
}

/// The next frame of a line, without its length; `unread` holds what came after it.
/// `None` at the end, and for what is no frame.
pub(crate) async fn next(receiver: &mut dyn Receiver, unread: &mut Vec<u8>) -> Option<Vec<u8>> {
    loop {
        let mut rest = unread.as_slice();
        if let Some(length) = take(&mut rest) {
            if length > FRAME_BYTES_MAX {
                return None;
            }
            if rest.len() >= length {
                let after = unread.split_off(LENGTH_BYTES + length);
                let mut frame = std::mem::replace(unread, after);
                frame.drain(..LENGTH_BYTES);
                return Some(frame);
            }
        }
        if !receiver.receive(unread).await {
            return None;
        }
    }
}

#[cfg(test)]
mod tests;
