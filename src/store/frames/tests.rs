use super::*;
use crate::platform::fake::{FakeLine, now};

fn increments(of: &[(&str, i64)]) -> Increments {
    of.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

fn deliveries(encoded: &str, events: usize, rejected: &[(&str, i64)]) -> Deliveries {
    let rejected = increments(rejected);
    let (came, waited) = (Duration::from_micros(40), vec![Duration::from_micros(5)]);
    Deliveries { encoded: encoded.into(), events, rejected, came, waited }
}

/// When groups are sent: 100 µs after the deliveries came, so they have waited 105 µs.
const NOW: Duration = Duration::from_micros(140);

/// What follows the length of a frame, which is right.
fn inner(frame: &[u8]) -> &[u8] {
    let (length, inner) = frame.split_first_chunk().unwrap();
    assert_eq!(u32::from_le_bytes(*length) as usize, inner.len());
    inner
}

fn read(frame: &[u8]) -> (Deliveries, Increments) {
    read_group(inner(frame)).unwrap()
}

fn answer(result: Option<Result<Vec<Outcome>, StoreError>>) -> Answer {
    Answer { result, is_alone: false, commit_events: 7, commit_took: Duration::from_micros(8) }
}

fn all_outcomes() -> Vec<Outcome> {
    let accepted = |seq| Outcome::Accepted { seq: Seq::new(seq) };
    vec![accepted(1), Outcome::Duplicate, Outcome::Conflict, accepted(i64::MAX)]
}

#[test]
fn a_group_arrives_as_it_was_sent() {
    let (one, none, two) = (
        deliveries("[\"ü\"]", 1, &[("topic", 2)]),
        deliveries("", 0, &[("topic", 1), ("payload", 5)]),
        deliveries("[1],[2]", 2, &[]),
    );
    let observed = increments(&[("commit_events/sum", 9)]);
    let (group, came) = read(&group(&[&one, &none, &two], Some(&observed), NOW).unwrap());
    assert_eq!((group.waited, group.events), (vec![Duration::from_micros(105); 3], 3));
    assert_eq!(group.encoded, "[\"ü\"][1],[2]".as_bytes());
    assert_eq!(group.rejected, increments(&[("topic", 3), ("payload", 5)]));
    assert_eq!(came, observed);
}

#[test]
fn a_group_may_be_of_events_of_counts_or_of_nothing() {
    let events = deliveries("[1]", 1, &[]);
    let frame = group(&[&events], None, NOW).unwrap();
    assert_eq!(inner(&frame).len(), 4 * LENGTH_BYTES + "[1]".len(), "no JSON without counts");
    let (read_events, came) = read(&frame);
    assert_eq!((read_events.encoded.as_slice(), read_events.events), (&b"[1]"[..], 1));
    assert!(read_events.rejected.is_empty() && came.is_empty());

    let (rejected, came) = read(&group(&[&deliveries("", 0, &[("topic", 1)])], None, NOW).unwrap());
    assert_eq!((rejected.encoded.as_slice(), rejected.events), (&b""[..], 0));
    assert_eq!(rejected.rejected, increments(&[("topic", 1)]));
    assert!(came.is_empty());

    let observed = increments(&[("a", 1)]);
    let (nothing, came) = read(&group(&[], Some(&observed), NOW).unwrap());
    assert_eq!((nothing.waited.len(), nothing.events), (0, 0));
    assert!(nothing.encoded.is_empty() && nothing.rejected.is_empty());
    assert_eq!(came, observed);
}

#[test]
fn what_is_no_group_is_none() {
    let one = deliveries("[\"ü\"]", 1, &[("topic", 2)]);
    let frame = group(&[&one], Some(&increments(&[("a", 1)])), NOW).unwrap();
    let frame = inner(&frame);
    // Cut off in its numbers or in its JSON; the bytes after that are the engine's.
    for length in 0..frame.len() - one.encoded.len() {
        assert!(read_group(&frame[..length]).is_none(), "{length} bytes");
    }
    let mut wrong = frame.to_vec();
    wrong[4 * LENGTH_BYTES] = b'!';
    assert!(read_group(&wrong).is_none(), "no JSON");
    let mut wrong = frame.to_vec();
    wrong[3 * LENGTH_BYTES..4 * LENGTH_BYTES].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(read_group(&wrong).is_none(), "JSON longer than the frame");
    let mut wrong = frame.to_vec();
    wrong[LENGTH_BYTES..2 * LENGTH_BYTES].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(read_group(&wrong).is_none(), "more requests than the frame can hold");
}

#[test]
fn every_answer_arrives_as_it_was_sent() {
    let fault = |fault, message: &str| Some(Err(StoreError { fault, message: message.to_owned() }));
    for (result, events) in [
        (Some(Ok(all_outcomes())), 4),
        (Some(Ok(Vec::new())), 0),
        (fault(Fault::Busy, "database is locked"), 4),
        (fault(Fault::Full, "voll – ü"), 4),
        (fault(Fault::Unavailable, ""), 4),
        (None, 4),
    ] {
        for is_alone in [false, true] {
            let sent = || Answer { is_alone, ..answer(result.clone()) };
            let frame = sent().into_frame();
            assert_eq!(Answer::read(inner(&frame), events), Some(sent()));
        }
    }
}

#[test]
fn what_is_no_answer_is_none() {
    let frame = answer(Some(Ok(all_outcomes()))).into_frame();
    let frame = inner(&frame);
    assert!(Answer::read(frame, 4).is_some());
    for events in [0, 3, 5] {
        assert_eq!(Answer::read(frame, events), None, "four outcomes for {events} events");
    }
    for length in 0..frame.len() {
        assert_eq!(Answer::read(&frame[..length], 4), None, "{length} bytes");
    }
    assert_eq!(Answer::read(&[frame, &[0]].concat(), 4), None, "a byte too many");
    let mut below = frame.to_vec();
    let last = below.len() - size_of::<i64>();
    below[last..].copy_from_slice(&(CONFLICT - 1).to_le_bytes());
    assert_eq!(Answer::read(&below, 4), None, "a seq below all");
    let mut wrong = frame.to_vec();
    for kind in Kind::Gone as u8 + 1..=u8::MAX {
        wrong[0] = kind;
        assert_eq!(Answer::read(&wrong, 4), None, "an answer of kind {kind}");
    }
}

/// All frames of a line that says `parts`, up to its end.
fn frames(parts: impl IntoIterator<Item = Vec<u8>>) -> (Vec<Vec<u8>>, Vec<u8>) {
    let mut line = FakeLine::saying(parts);
    let (mut frames, mut unread) = (Vec::new(), Vec::new());
    while let Some(frame) = now(next(&mut line, &mut unread)) {
        frames.push(frame);
    }
    (frames, unread)
}

fn frame(of: &[u8]) -> Vec<u8> {
    with_length([&[0; LENGTH_BYTES], of].concat())
}

#[test]
fn frames_come_in_whatever_parts() {
    let contents = [b"one".to_vec(), Vec::new(), vec![0xff; 300], b"four".to_vec()];
    let bytes: Vec<u8> = contents.iter().flat_map(|content| frame(content)).collect();
    assert_eq!(frames([bytes.clone()]), (contents.to_vec(), Vec::new()), "all in one part");
    assert_eq!(frames(bytes.iter().map(|byte| vec![*byte])).0, contents, "byte by byte");
    for place in 0..=bytes.len() {
        let (begin, end) = bytes.split_at(place);
        let parts = [begin.to_vec(), end.to_vec()];
        assert_eq!(frames(parts).0, contents, "in two parts, after {place} bytes");
    }
}

#[test]
fn a_line_that_ends_within_a_frame_has_no_more() {
    let bytes = [frame(b"one"), frame(b"two")].concat();
    for length in 0..bytes.len() {
        let whole = usize::from(length >= frame(b"one").len());
        assert_eq!(frames([bytes[..length].to_vec()]).0.len(), whole, "{length} bytes");
    }
}

#[test]
fn a_frame_that_is_too_long_is_none() {
    let too_long = u32::try_from(FRAME_BYTES_MAX + 1).unwrap().to_le_bytes().to_vec();
    // It is not waited for: the line stays, and nothing more comes.
    let mut line = FakeLine { stays: true, ..FakeLine::saying([too_long]) };
    assert_eq!(now(next(&mut line, &mut Vec::new())), None);
}
