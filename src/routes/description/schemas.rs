//! Types of replies and requests, against the schemas of the description.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use super::shape::{Shape, type_of};
use super::{Description, Drifts, entries, every, strings};
use crate::event;
use crate::history::Snapshot;
use crate::http::event_json::EventJson;
use crate::http::problem::ProblemJson;
use crate::ingest::otlp::{ResponseJson, StatusJson};
use crate::ingest::{Published, elasticsearch, splunk};
use crate::routes::access_token::TokenJson;
use crate::routes::health::{HealthJson, HealthzJson};
use crate::routes::prune::PrunedJson;
use crate::routes::stats::{CountersJson, StatsJson};
use crate::routes::stats_stream::LiveStatsJson;
use crate::routes::{events, search, subscriptions};
use crate::testing::TestService;

const SCHEMAS: &str = "/components/schemas";

/// Schemas of objects that no type of the code is.
const WITHOUT_A_TYPE: [&str; 4] = [
    // Read field by field: see `check_published_event`.
    "EventToPublish",
    "WrappedBatch",
    // Frames of streams are text that clients take apart.
    "EventFrame",
    "StatsFrame",
];

/// The types of replies, by the names of their schemas.
fn replies() -> Vec<(&'static str, Value)> {
    vec![
        ("Published", schema::<Published<'static>>(Way::Out)),
        ("ExportLogsResponse", schema::<ResponseJson<'static>>(Way::Out)),
        ("RpcStatus", schema::<StatusJson<'static>>(Way::Out)),
        ("Event", schema::<EventJson<'static>>(Way::Out)),
        ("Page", schema::<events::PageJson<'static>>(Way::Out)),
        ("Searched", schema::<search::Searched>(Way::Out)),
        ("Counts", schema::<CountersJson>(Way::Out)),
        ("Pruned", schema::<PrunedJson>(Way::Out)),
        ("Stats", schema::<StatsJson<'static>>(Way::Out)),
        ("LiveStats", schema::<LiveStatsJson<'static>>(Way::Out)),
        ("Minute", schema::<Snapshot>(Way::Out)),
        ("Subscription", schema::<subscriptions::SubscriptionJson<'static>>(Way::Out)),
        ("Subscriptions", schema::<subscriptions::ListJson<'static>>(Way::Out)),
        ("SubscriptionPage", schema::<subscriptions::PageJson<'static>>(Way::Out)),
        ("AccessToken", schema::<TokenJson>(Way::Out)),
        ("Health", schema::<HealthJson<'static>>(Way::Out)),
        ("Healthz", schema::<HealthzJson>(Way::Out)),
        ("BulkReply", schema::<elasticsearch::BulkReply<'static>>(Way::Out)),
        ("BulkResult", schema::<elasticsearch::BulkResult<'static>>(Way::Out)),
        ("SearchRefusal", schema::<elasticsearch::RefusalJson<'static>>(Way::Out)),
        ("CollectorReply", schema::<splunk::AnswerJson<'static>>(Way::Out)),
        ("Problem", schema::<ProblemJson<'static>>(Way::Out)),
        ("MisconfiguredProblem", schema::<ProblemJson<'static>>(Way::Out)),
    ]
}

/// The types of requests, by the names of their schemas.
fn requests() -> Vec<(&'static str, Value)> {
    vec![
        ("SubscriptionToPut", schema::<subscriptions::DefinitionJson>(Way::In)),
        ("Acknowledgement", schema::<subscriptions::AcknowledgementJson>(Way::In)),
    ]
}

/// Whether a type is read or written: of what is written a field that is null is
/// there, of what is read it may be left out.
enum Way {
    In,
    Out,
}

/// The schema of a type, with no `$ref`.
fn schema<T: JsonSchema>(way: Way) -> Value {
    let settings =
        SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let settings = match way {
        Way::In => settings.for_deserialize(),
        Way::Out => settings.for_serialize(),
    };
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

/// Every type of a reply or a request has a schema that says the same, and there
/// are no other schemas of objects.
pub(super) fn check_types(description: &Description, drifts: &mut Drifts) {
    let said = |name: &str| Shape::of(description, description.at(&format!("{SCHEMAS}/{name}")));
    let mut held: BTreeSet<String> = WITHOUT_A_TYPE.map(str::to_owned).into();
    for (name, code) in replies() {
        let code = Shape::of(description, &code).with_absent_for_null();
        said(name).compare(&code, name, drifts);
        reach(description, name, &mut held);
    }
    for (name, code) in requests() {
        let (said, code) = (said(name), Shape::of(description, &code));
        said.compare(&code, name, drifts);
        drifts.same(format!("no other fields in {name}"), said.is_closed, code.is_closed);
        reach(description, name, &mut held);
    }
    let all = entries(description.at(SCHEMAS)).map(|(name, _)| name);
    let objects = all.filter(|name| {
        said(name).types.is_some_and(|types| types.contains("object"))
            || !said(name).fields.is_empty()
    });
    for name in objects.filter(|name| !held.contains(name)) {
        drifts.add(format!("schema {name}"), "no type of the code is held against it");
    }
}

/// Adds a schema and those that it leads to.
fn reach(description: &Description, name: &str, reached: &mut BTreeSet<String>) {
    if !reached.insert(name.to_owned()) {
        return;
    }
    let pointer = format!("{SCHEMAS}/{name}");
    let schema = Description(description.at(&pointer).clone());
    for (_, value) in schema.values() {
        let reference = value.get("$ref").and_then(Value::as_str).unwrap_or_default();
        if let Some(other) = reference.strip_prefix("#/components/schemas/") {
            reach(description, other, reached);
        }
    }
}

/// The fields of an event as it is published, which no type of the code lists
/// for a parser: what is done with each is seen by sending it.
pub(super) fn check_published_event(description: &Description, drifts: &mut Drifts) {
    use event::Fields;

    let service = TestService::new();
    let refused = |event: &Value| -> BTreeSet<String> {
        let (_, reply) = service.publish(&event.to_string());
        let errors = reply["errors"].as_array().cloned().unwrap_or_default();
        errors.iter().filter_map(|error| error["field"].as_str()).map(str::to_owned).collect()
    };
    let names = every!(fields of Fields: topic, event_id, source, timestamp, payload);
    let said = Shape::of(description, description.at(&format!("{SCHEMAS}/EventToPublish")));
    drifts.names("fields of EventToPublish", said.fields.keys(), names);
    let required = said.fields.iter().filter(|(_, field)| field.is_required);
    let required = required.map(|(name, _)| name);
    drifts.names("required fields of EventToPublish", required, refused(&json!({})));
    for (name, field) in &said.fields {
        let samples =
            [json!(null), json!(true), json!(7), json!("2026-01-02"), json!([]), json!({})];
        let taken = samples.iter().filter(|sample| {
            let mut event = json!({"topic": "t", "event_id": "e", "source": "s"});
            event[name] = (*sample).clone();
            refused(&event).is_empty()
        });
        let can_be = |sample: &&Value| {
            let kind = type_of(sample);
            field.shape.types.as_ref().is_none_or(|types| types.contains(kind))
        };
        let said = samples.iter().filter(can_be).map(type_of);
        drifts.names(format!("types of EventToPublish.{name}"), said, taken.map(type_of));
    }

    let fields = strings(description.at(&format!("{SCHEMAS}/Field/enum")));
    drifts.names("words of Field", fields, names.into_iter().chain(["event"]));
}

#[test]
fn every_type_is_described() {
    let mut drifts = Drifts::default();
    check_types(&Description::read(), &mut drifts);
    drifts.assert_none();
}

#[test]
fn an_event_to_publish_is_described() {
    let mut drifts = Drifts::default();
    check_published_event(&Description::read(), &mut drifts);
    drifts.assert_none();
}
