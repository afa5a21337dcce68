//! A stored event as a CloudEvent 1.0 in its JSON format.
//!
//! One that came as a CloudEvent is given back as it came; of any other its fields
//! become the attributes of one. Beside them stand Sekali's own.

use std::borrow::Cow;
use std::fmt;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::store::{Cursor, StoredEvent};
use crate::text::push_json;
use crate::time;

/// What a reference to a URI does not have.
const NOT_IN_A_URI: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// What would make two ids one, beside what is sent as it is.
const NOT_IN_A_TOPIC: &AsciiSet = &AsciiSet::EMPTY.add(b' ').add(b'%');

/// Adds an event to `text`: JSON on one line, with no line end.
pub(crate) fn write(text: &mut Vec<u8>, event: &StoredEvent) {
    let own = Own {
        sekalicursor: Cursor::after(event.seq).to_string(),
        sekalireceivedat: time::rfc3339(event.received_at),
    };
    let payload = event.payload.as_str();
    // Strings and checked JSON: writing them to memory cannot fail.
    if !is_cloud_event(payload) {
        push_json(text, &Made::of(event, own)).ok();
        return;
    }
    text.push(b'{');
    each_member(payload, |name, value| {
        if !Own::NAMES.contains(&name) {
            push_json(text, name).ok();
            text.push(b':');
            text.extend_from_slice(value.get().as_bytes());
            text.push(b',');
        }
    });
    let mut rest = Vec::new();
    push_json(&mut rest, &own).ok();
    text.extend_from_slice(&rest[1..]);
}

/// The attributes that tell what only Sekali knows.
#[derive(Serialize)]
struct Own {
    /// The cursor after it.
    sekalicursor: String,
    /// When it was received.
    sekalireceivedat: String,
}

impl Own {
    const NAMES: [&'static str; 2] = ["sekalicursor", "sekalireceivedat"];
}

/// A CloudEvent of an event that came as something else.
#[derive(Serialize)]
struct Made<'a> {
    specversion: &'static str,
    id: String,
    source: String,
    r#type: &'a str,
    time: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    datacontenttype: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(flatten)]
    own: Own,
}

impl<'a> Made<'a> {
    fn of(event: &'a StoredEvent, own: Own) -> Self {
        let data: Option<&RawValue> = serde_json::from_str(&event.payload).ok();
        let time = match event.timestamp.as_deref() {
            Some(given) if time::is_rfc3339(given) => Cow::Borrowed(given),
            Some(given) => {
                Cow::Owned(time::rfc3339(time::parse(given).unwrap_or(event.received_at)))
            }
            None => Cow::Owned(own.sekalireceivedat.clone()),
        };
        Made {
            specversion: "1.0",
            // Source and id together are a CloudEvent's identity, and topic and id ours.
            id: format!("{} {}", utf8_percent_encode(&event.topic, NOT_IN_A_TOPIC), event.event_id),
            source: utf8_percent_encode(&event.source, NOT_IN_A_URI).to_string(),
            r#type: &event.topic,
            time,
            datacontenttype: data.map(|_| "application/json"),
            data,
            own,
        }
    }
}

/// Whether a payload is itself a CloudEvent.
fn is_cloud_event(payload: &str) -> bool {
    let (mut is_version, mut named) = (false, [false; 3]);
    let is_object = payload.starts_with('{')
        && each_member(payload, |name, value| {
            let value = value.get();
            if name == "specversion" {
                is_version = value == "\"1.0\"";
            }
            if let Some(place) = ["id", "source", "type"].iter().position(|known| *known == name) {
                named[place] = value.starts_with('"') && value != "\"\"";
            }
        });
    is_object && is_version && named == [true; 3]
}

/// Hands on the members of an object one by one, however many there are. False when it
/// is none.
fn each_member(json: &str, take: impl FnMut(&str, &RawValue)) -> bool {
    struct Members<F>(F);

    impl<'de, F: FnMut(&str, &RawValue)> Visitor<'de> for Members<F> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
            while let Some((Name(name), value)) = map.next_entry::<_, &RawValue>()? {
                (self.0)(&name, value);
            }
            Ok(())
        }
    }

    #[derive(Deserialize)]
    struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

    serde_json::Deserializer::from_str(json).deserialize_map(Members(take)).is_ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::store::Seq;

    fn written(timestamp: Option<&str>, payload: &str) -> Value {
        let event = StoredEvent {
            seq: Seq::new(7),
            topic: "order created".to_owned(),
            event_id: "1".to_owned(),
            timestamp: timestamp.map(str::to_owned),
            source: "host 1".to_owned(),
            payload: payload.to_owned(),
            received_at: 1_761_213_600_678,
        };
        let mut text = Vec::new();
        write(&mut text, &event);
        serde_json::from_slice(&text).unwrap()
    }

    #[test]
    fn an_event_becomes_a_cloud_event() {
        assert_eq!(
            written(Some("2025-10-23 10:00:00"), r#"{"a":1.0}"#),
            json!({
                "specversion": "1.0",
                "id": "order%20created 1",
                "source": "host%201",
                "type": "order created",
                "time": "2025-10-23T10:00:00.000Z",
                "datacontenttype": "application/json",
                "data": {"a": 1.0},
                "sekalicursor": "7",
                "sekalireceivedat": "2025-10-23T10:00:00.678Z",
            })
        );
        let given = "2025-10-23T12:00:00.123456+02:00";
        assert_eq!(written(Some(given), "1")["time"], given);
        assert_eq!(written(None, "1")["time"], "2025-10-23T10:00:00.678Z");
        let damaged = written(None, "{");
        assert_eq!((damaged.get("data"), damaged.get("datacontenttype")), (None, None));
    }

    #[test]
    fn one_that_came_as_a_cloud_event_is_given_back() {
        let payload = json!({
            "specversion": "1.0", "id": "1", "source": "/a", "type": "t", "data_base64": "AA==",
            "sekalicursor": "of another",
        });
        let mut expected = payload.clone();
        expected["sekalicursor"] = json!("7");
        expected["sekalireceivedat"] = json!("2025-10-23T10:00:00.678Z");
        assert_eq!(written(None, &payload.to_string()), expected);
        for (name, value) in [("specversion", json!("0.3")), ("id", json!(1)), ("type", json!(""))]
        {
            let mut other = payload.clone();
            other[name] = value;
            assert_eq!(written(None, &other.to_string())["data"], other, "{name}");
        }
    }
}
