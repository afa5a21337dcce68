//! Sekali's own format, and records that become events by the parameters of the
//! request.

use super::format::{Entry, Format, Input};
use super::mapping::{Mapper, Mapping};
use super::raw;
use super::reply::{Events, Wanted};
use super::shapes::{self, Framing};
use crate::event::FieldError;
use crate::http::problem::Problem;
use crate::http::query::Query;

/// The events of a request: it takes all.
///
/// # Errors
///
/// 413 for too many events, 422 for a parameter that cannot be understood and for a
/// body that is none of the shapes.
pub(super) fn candidate<'a>(
    query: &Query<'_>,
    input: &Input<'a>,
) -> Result<Option<Box<dyn Format + 'a>>, Problem> {
    let wanted = Wanted::read(query)?;
    let mapping = Mapping::read(query, input)?;
    let max = input.batch_events_max;
    let is_native = mapping == Mapping::NATIVE;
    let wrapper = mapping.wrapper();
    let mut mapper = Mapper::new(mapping);
    let entries = if is_native {
        let framing = Framing::of(input.headers);
        let elements = shapes::split(input.body, framing, wrapper, max)
            .map_err(|error| error.into_problem(max))?;
        elements.into_iter().map(|element| mapper.next(element)).collect()
    } else {
        let records = raw::split(input.body, input.headers, wrapper, max)
            .map_err(|error| error.into_problem(max))?;
        let read = |record: raw::Record<'_>| {
            let json = record.into_json();
            mapper.next(json.as_deref().map_err(FieldError::clone))
        };
        records.into_iter().map(read).collect()
    };
    Ok(Some(Box::new(Events::new(wanted, input.trace_id, entries, mapper.warnings()))))
}

/// The events of `lines`, each of which is one; empty ones are none.
pub(crate) fn read_lines(lines: &[u8]) -> Vec<Entry> {
    let mut mapper = Mapper::new(Mapping::NATIVE);
    shapes::each_line(lines).map(|element| mapper.next(element)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Entry {
        Mapper::new(Mapping::NATIVE).next(Ok(serde_json::from_str(json).unwrap()))
    }

    fn fields(json: &str) -> Vec<&'static str> {
        parse(json).unwrap_err().into_iter().map(|error| error.field).collect()
    }

    #[test]
    fn takes_a_whole_event_as_given() {
        let event = parse(
            r#"{"topic":" t ","event_id":"\u0065","source":"s","timestamp":"2025-10-23 10:00",
                "payload":{"a": 1.0},"extra":[1]}"#,
        )
        .unwrap();
        assert_eq!(event.topic().as_str(), " t ");
        assert_eq!(event.event_id().as_str(), "e");
        assert_eq!(event.timestamp(), Some("2025-10-23 10:00"));
        assert_eq!(event.payload(), r#"{"a":1.0}"#);
    }

    #[test]
    fn names_every_wrong_field() {
        assert_eq!(fields("{}"), ["topic", "event_id", "source"]);
        assert_eq!(fields("7"), ["event"]);
        assert_eq!(
            fields(
                r#"{"topic":"","event_id":null,"source":"\u0000","timestamp":5,"payload":"\udc00"}"#
            ),
            ["topic", "event_id", "source", "timestamp", "payload"]
        );
    }

    #[test]
    fn of_a_field_given_twice_the_last_counts() {
        let event = parse(r#"{"topic":5,"topic":"t","event_id":"e","source":"s"}"#).unwrap();
        assert_eq!(event.topic().as_str(), "t");
    }
}
