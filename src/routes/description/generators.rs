//! What generators of clients cannot make anything of. `tests/clients` runs two of
//! them; this is what they stumbled over, told without them.

use serde_json::{Value, json};

use super::{Description, Drifts, entries};

/// Keywords whose members are schemas, and those that are one themselves.
const OF_SCHEMAS: [&str; 4] = ["properties", "patternProperties", "$defs", "schemas"];
const SCHEMAS: [&str; 8] =
    ["schema", "items", "not", "if", "then", "else", "contains", "propertyNames"];
const LISTS_OF_SCHEMAS: [&str; 4] = ["allOf", "anyOf", "oneOf", "prefixItems"];

/// No schema is `true` or `false`, a reply that is no error has one type, and what
/// narrows a type narrows it with the same keyword.
pub(super) fn check_generators(description: &Description, drifts: &mut Drifts) {
    for (place, value) in description.values() {
        if value.get("default").is_some() && place.contains("/properties/") {
            drifts.add(&place, "a default, for which a field is taken to be always there");
        }
        if let Some((parent, keyword)) = place.rsplit_once('/') {
            let parent = parent.rsplit('/').next().unwrap_or_default();
            let is_schema = SCHEMAS.contains(&keyword) || OF_SCHEMAS.contains(&parent);
            if value.is_boolean() && (is_schema || LISTS_OF_SCHEMAS.contains(&parent)) {
                drifts.add(&place, "a schema that is true or false");
            }
        }
        if value.get("allOf").is_some() && value.get("properties").is_some() {
            drifts.add(&place, "properties beside allOf, which are left out");
        }
        let narrowed = value["allOf"].as_array().into_iter().flatten();
        for (name, one) in narrowed.flat_map(|part| entries(&part["properties"])) {
            if one.get("const").is_some() {
                drifts.add(
                    format!("{place}, {name}"),
                    "narrowed by const, which merges with nothing",
                );
            }
        }
        if !place.ends_with("/responses") || !place.starts_with("/paths") {
            continue;
        }
        for (status, response) in entries(value).filter(|(status, _)| status.starts_with('2')) {
            let content = entries(&description.resolve(response)["content"]);
            let types: Vec<&Value> = content.map(|(_, one)| &one["schema"]["type"]).collect();
            let is_text = types.iter().all(|of| **of == "string");
            if types.len() > 1 && !is_text {
                drifts.add(format!("{place}/{status}"), "several types for one status");
            }
        }
    }
}

#[test]
fn generators_can_make_something_of_it() {
    let mut drifts = Drifts::default();
    check_generators(&Description::read(), &mut drifts);
    drifts.assert_none();
}

#[test]
fn what_they_cannot_use_is_named() {
    let page = "/paths/~1events/get/responses/200";
    for (place, value, expected) in [
        (
            "/components/schemas/Page/properties",
            json!({"topic": true}),
            "/components/schemas/Page/properties/topic: a schema that is true or false",
        ),
        (
            "/components/schemas/WrappedBatch/not",
            json!(false),
            "/components/schemas/WrappedBatch/not: a schema that is true or false",
        ),
        (
            "/components/responses/CursorAhead/content/application~1problem+json/schema/allOf/1",
            json!({"properties": {"status": {"const": 409}}}),
            "/components/responses/CursorAhead/content/application~1problem+json/schema, status: \
             narrowed by const, which merges with nothing",
        ),
        (
            "/components/schemas/EventToPublish/properties/payload",
            json!({"default": {}}),
            "/components/schemas/EventToPublish/properties/payload: \
             a default, for which a field is taken to be always there",
        ),
        (
            "/components/schemas/Counts",
            json!({"allOf": [{"type": "object"}], "properties": {}}),
            "/components/schemas/Counts: properties beside allOf, which are left out",
        ),
        (
            &format!("{page}/content"),
            json!({"application/json": {"schema": {"type": "object"}},
                   "application/x-ndjson": {"schema": {"type": "array"}}}),
            &format!("{page}: several types for one status"),
        ),
    ] {
        let mut description = Description::read();
        *description.0.pointer_mut(place).unwrap_or(&mut Value::Null) = value;
        let mut drifts = Drifts::default();
        check_generators(&description, &mut drifts);
        assert_eq!(drifts.0, [expected], "{place}");
    }
}
