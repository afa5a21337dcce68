//! What becomes of what is published.

use std::io::Read as _;

use serde_json::{Value, json};

use super::{Cut, Fault, Lie, NAME_CHARS_MAX, Received, Reply, State, Stored, problem, reply};

impl State {
    pub(super) fn publish_or_fail(&mut self, received: &Received) -> Result<Reply, Cut> {
        let mut body = received.body.to_vec();
        if received.gzip {
            if !self.takes_gzip {
                return Ok(problem(415, "send it as it is"));
            }
            let mut decoded = Vec::new();
            if flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut decoded).is_err() {
                return Ok(problem(400, "not gzip"));
            }
            body = decoded;
        }
        let names_all = received.names_all;
        match self.faults.pop_front().unwrap_or(Fault::None) {
            Fault::None => Ok(self.publish(&body, names_all)),
            Fault::Status(status, retry_after) => {
                let mut reply = problem(status, "not now");
                if let Some(value) = retry_after {
                    reply.headers_mut().insert("retry-after", value.parse().unwrap());
                }
                Ok(reply)
            }
            Fault::StatusAfterCommit(status) => {
                self.publish(&body, names_all);
                Ok(problem(status, "who knows"))
            }
            Fault::CutAfterCommit => {
                self.publish(&body, names_all);
                Err(Cut)
            }
            Fault::CutBefore => Err(Cut),
        }
    }

    pub(super) fn publish(&mut self, body: &[u8], names_all: bool) -> Reply {
        if body.len() > self.body_bytes_max {
            return problem(413, "too many bytes");
        }
        let events = match serde_json::from_slice(body) {
            Ok(Value::Array(events)) => events,
            Ok(event @ Value::Object(_)) => vec![event],
            _ => return problem(422, "not JSON"),
        };
        if events.len() > self.events_max {
            return problem(413, "too many events");
        }
        let (mut accepted, mut duplicates, mut conflicts, mut rejected) = (0, 0, 0, 0);
        let mut results = Vec::new();
        let mut errors = Vec::new();
        for (index, event) in events.iter().enumerate() {
            let status = self.deliver(event);
            match status {
                "accepted" => accepted += 1,
                "rejected" => rejected += 1,
                _ => duplicates += 1,
            }
            conflicts += u64::from(status == "conflict");
            if status == "rejected" {
                errors.push(json!({"index": index, "field": "topic", "detail": "is refused"}));
            }
            if status != "accepted" {
                results.push(json!({"index": index, "topic": event["topic"],
                    "event_id": event["event_id"], "status": status, "detail": "is refused"}));
            }
        }
        if rejected > 0 && rejected == events.len() {
            return reply(422, &json!({"detail": "no valid event", "errors": errors}));
        }
        if self.lie == Lie::RepliesTooMany {
            accepted += 1;
        }
        let received = accepted + duplicates;
        let omitted = if names_all { 0 } else { results.len().saturating_sub(self.names_max) };
        results.truncate(results.len() - omitted);
        reply(
            200,
            &json!({"received": received, "accepted": accepted, "duplicates": duplicates,
            "conflicts": conflicts, "rejected": rejected, "message": "", "results": results,
            "results_omitted": omitted}),
        )
    }

    pub(super) fn deliver(&mut self, event: &Value) -> &'static str {
        let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
        let (topic, event_id, source) = (text("topic"), text("event_id"), text("source"));
        let payload = event["payload"].clone();
        // A message that the tests' services do not take.
        let refused = payload["message"].as_str().is_some_and(|m| m.contains("REFUSED"));
        let named = [&topic, &event_id, &source]
            .iter()
            .all(|name| (1..=NAME_CHARS_MAX).contains(&name.chars().count()));
        let timestamp = event["timestamp"].as_str().map(str::to_owned);
        let timed = event.get("timestamp").is_none_or(|timestamp| {
            timestamp.as_str().is_some_and(|text| text.parse::<jiff::Timestamp>().is_ok())
        });
        if refused || !named || !timed {
            self.rejected += 1;
            return "rejected";
        }
        let first_lie = !std::mem::replace(&mut self.lied, true);
        let number = self.ids.len() + 1;
        let counters = self.counters.entry(topic.clone()).or_default();
        if self.lie == Lie::DuplicateOfNothing && first_lie {
            counters.received += 1;
            counters.duplicates += 1;
            return "duplicate";
        }
        let identity = (topic.clone(), event_id.clone());
        match self.ids.get(&identity) {
            Some(first) if self.lie != Lie::StoresTwice => {
                counters.received += 1;
                counters.duplicates += 1;
                counters.conflicts += u64::from(self.lie == Lie::CountsConflicts);
                if *first == (source, payload) {
                    return "duplicate";
                }
                counters.conflicts += 1;
                "conflict"
            }
            _ if self.lie == Lie::LosesAcknowledged(number) => {
                self.lie = Lie::None;
                "accepted"
            }
            _ => {
                counters.received += 1;
                counters.unique += 1;
                self.ids.insert(identity, (source.clone(), payload.clone()));
                let event = Stored { seq: 0, topic, event_id, source, timestamp, payload };
                self.store(number, event);
                "accepted"
            }
        }
    }

    /// Stores the distinct event with this number, honestly or not.
    fn store(&mut self, number: usize, mut event: Stored) {
        self.last_seq += 1;
        event.seq = self.last_seq;
        match self.lie {
            Lie::LosesSilently(of) if of == number => {
                self.victim = Some(event.event_id);
                return;
            }
            Lie::ShowsTwice(of) if of == number => {
                self.victim = Some(event.event_id.clone());
                self.stored.push(event.clone());
                self.last_seq += 1;
                event.seq = self.last_seq;
            }
            Lie::ChangesPayload(of) if of == number => {
                self.victim = Some(event.event_id.clone());
                event.payload["changed"] = true.into();
            }
            Lie::ChangesSource(of) if of == number => {
                self.victim = Some(event.event_id.clone());
                event.source.push('!');
            }
            Lie::StoresUnsent(of, end) if of == number => {
                let mut other = event.clone();
                let (run, _) = other.event_id.split_once('-').unwrap();
                other.event_id = format!("{run}-{end}");
                self.victim = Some(other.event_id.clone());
                self.stored.push(other);
                self.last_seq += 1;
                event.seq = self.last_seq;
            }
            _ => {}
        }
        self.stored.push(event);
    }
}
