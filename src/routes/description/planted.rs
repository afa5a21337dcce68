//! That the checks notice: each is given something in which a fact is wrong, and
//! has to name it.

use serde_json::{Value, json};

use super::docs::{self, HTTP, OPERATING};
use super::limits::check_limits;
use super::operations::{check_parameters, check_routes};
use super::problems::check_problems;
use super::schemas::{check_published_event, check_types};
use super::{Description, Drifts};

/// Puts `value` at a place of the description; null removes what is there. The
/// drift that is `expected` has to be found then.
#[track_caller]
fn plant(check: fn(&Description, &mut Drifts), place: &str, value: Value, expected: &str) {
    let mut description = Description::read();
    let (parent, name) = place.rsplit_once('/').unwrap();
    let name = name.replace("~1", "/");
    match description.0.pointer_mut(parent) {
        Some(Value::Object(members)) if value.is_null() => drop(members.remove(&name).unwrap()),
        Some(Value::Object(members)) => drop(members.insert(name, value)),
        Some(Value::Array(elements)) => elements[name.parse::<usize>().unwrap()] = value,
        other => panic!("nothing can be at {place}: {other:?}"),
    }
    let mut drifts = Drifts::default();
    check(&description, &mut drifts);
    drifts.assert_has(expected);
}

/// The same for a text in which `from` is replaced.
#[track_caller]
fn replace(check: fn(&str, &mut Drifts), text: &str, from: &str, to: &str, expected: &str) {
    assert!(text.contains(from), "{from}");
    let mut drifts = Drifts::default();
    check(&text.replacen(from, to, 1), &mut drifts);
    drifts.assert_has(expected);
}

impl Drifts {
    #[track_caller]
    fn assert_has(&self, expected: &str) {
        let found = self.0.iter().any(|drift| drift == expected);
        assert!(found, "{expected}\nis not among\n{}", self.0.join("\n"));
    }
}

#[test]
fn a_wrong_route_is_named() {
    plant(
        check_routes,
        "/paths/~1healthz/get",
        json!(null),
        "routes: the code has GET /healthz, it is not said",
    );
    plant(
        check_routes,
        "/paths/~1healthz/put",
        json!({}),
        "routes: PUT /healthz is said, the code does not have it",
    );
    plant(
        check_routes,
        "/paths/~1publish/post/requestBody",
        json!(null),
        "requestBody of POST /publish: false is said, the code has true",
    );
}

#[test]
fn a_wrong_parameter_is_named() {
    let events = "/paths/~1events/parameters";
    plant(
        check_parameters,
        &format!("{events}/1/name"),
        json!("sources"),
        "query parameters of GET /events: sources is said, the code does not have it",
    );
    plant(
        check_parameters,
        &format!("{events}/1"),
        json!({"$ref": "#/components/parameters/Topic"}),
        "query parameters of GET /events: the code has source, it is not said",
    );
    plant(
        check_parameters,
        &format!("{events}/6/schema/enum"),
        json!(["asc", "desc", "random"]),
        "parameter order of GET /events: \
         {\"enum\":[\"asc\",\"desc\",\"random\"],\"type\":\"string\"} is said, \
         the code has {\"enum\":[\"asc\",\"desc\"],\"type\":\"string\"}",
    );
    plant(
        check_parameters,
        &format!("{events}/6/schema/default"),
        json!("desc"),
        "default of parameter order of GET /events: desc is said, the code does something else",
    );
    plant(
        check_parameters,
        "/components/parameters/Limit/schema/default",
        json!(50),
        "default of parameter limit of GET /events: 50 is said, the code does something else",
    );
    plant(
        check_parameters,
        "/components/parameters/Limit/schema/default",
        json!(null),
        "default of parameter limit of GET /events: is not said",
    );
    plant(
        check_parameters,
        "/paths/~1subscriptions~1{name}~1events/parameters/2/schema/default",
        json!(1),
        "default of parameter wait of GET /subscriptions/{name}/events: \
         1 is said, the code does something else",
    );
    plant(
        check_parameters,
        "/components/parameters/Topic/required",
        json!(true),
        "required parameter topic of GET /events: true is said, the code has false",
    );
    plant(
        check_parameters,
        "/components/parameters/SubscriptionName/in",
        json!("query"),
        "required path parameters of DELETE /subscriptions/{name}: \
         the code has name, it is not said",
    );
    plant(
        check_parameters,
        "/components/schemas/Switch/enum/3",
        json!("off"),
        "words of Switch: off is said, the code does not have it",
    );
    plant(
        check_parameters,
        "/components/schemas/Switch/default",
        json!("true"),
        "default of Switch: true is said, the code has false",
    );
}

#[test]
fn a_wrong_schema_is_named() {
    let schemas = "/components/schemas";
    for (place, value, expected) in [
        (
            "Event/properties/error",
            json!(null),
            "fields of Event: the code has error, it is not said",
        ),
        (
            "Stats/allOf/1/properties/queue",
            json!({"type": "integer"}),
            "fields of Stats: queue is said, the code does not have it",
        ),
        (
            "Counts/properties/conflicts",
            json!({"type": "string"}),
            "type of Counts.conflicts: \"string\" is said, the code has \"integer\"",
        ),
        (
            "Stats/allOf/1/properties/topics/items",
            json!({"type": "integer"}),
            "type of Stats.topics[]: \"integer\" is said, the code has \"string\"",
        ),
        (
            "Stats/allOf/1/properties/by_topic/additionalProperties",
            json!({"$ref": "#/components/schemas/Count"}),
            "type of Stats.by_topic.*: \"integer\" is said, the code has \"object\"",
        ),
        (
            "Subscription/properties/acked_at/anyOf/1",
            json!({"type": "string"}),
            "type of Subscription.acked_at: \"string\" is said, \
             the code has \"null or string\"",
        ),
        (
            "Page/required",
            json!(["count", "events", "next", "topic"]),
            "required Page.topic: true is said, the code has false",
        ),
        (
            "EventResult/oneOf/1/properties/status/enum/1",
            json!("clash"),
            "words of Published.results[].status: clash is said, the code does not have it",
        ),
        (
            "StoreHealth/properties/status/enum/3",
            json!("full"),
            "words of Health.stores.key_value.status: the code has unavailable, it is not said",
        ),
        (
            "Acknowledgement/additionalProperties",
            json!(null),
            "no other fields in Acknowledgement: false is said, the code has true",
        ),
        (
            "Extra",
            json!({"type": "object"}),
            "schema Extra: no type of the code is held against it",
        ),
    ] {
        plant(check_types, &format!("{schemas}/{place}"), value, expected);
    }
    for (place, value, expected) in [
        (
            "EventToPublish/properties/tags",
            json!({"type": "array"}),
            "fields of EventToPublish: tags is said, the code does not have it",
        ),
        (
            "EventToPublish/required/2",
            json!("payload"),
            "required fields of EventToPublish: payload is said, the code does not have it",
        ),
        (
            "EventToPublish/properties/timestamp/type",
            json!("string"),
            "types of EventToPublish.timestamp: the code has null, it is not said",
        ),
        ("Field/enum/0", json!("topic"), "words of Field: the code has event, it is not said"),
    ] {
        plant(check_published_event, &format!("{schemas}/{place}"), value, expected);
    }
}

#[test]
fn a_wrong_problem_is_named() {
    plant(
        check_problems,
        "/components/schemas/Problem/properties/code/enum/0",
        json!("not_found"),
        "codes of Problem: the code has incomplete_body, it is not said",
    );
    let too_large = "/components/responses/BodyTooLarge/content/application~1problem+json";
    plant(
        check_problems,
        &format!("{too_large}/schema/allOf/1/properties/status/enum/0"),
        json!(414),
        "status of body_too_large under /components/responses/414: 414 is said, the code has 413",
    );
    plant(
        check_problems,
        "/components/responses/SubscriptionNotFound/content",
        json!(null),
        "codes told in responses: the code has subscription_not_found, it is not said",
    );
    plant(
        check_problems,
        &format!("{too_large}/example/title"),
        json!("Too much"),
        &format!(
            "example of body_too_large at {too_large}/example: \
             [413,\"Too much\"] is said, the code has [413,\"The body is too large\"]"
        ),
    );
}

#[test]
fn a_wrong_limit_is_named() {
    for (place, value, what) in [
        ("/components/schemas/Name/maxLength", json!(256), "256 is said, the code has 255"),
        ("/components/schemas/Name/maxLength", json!(null), "null is said, the code has 255"),
        (
            "/components/schemas/SubscriptionName/pattern",
            json!("^.*$"),
            "\"^.*$\" is said, the code has \"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$\"",
        ),
        (
            "/components/schemas/Name/description",
            json!("1 to 256 characters"),
            "does not say \"1 to 255 characters\", as the code has it",
        ),
        (
            "/components/schemas/Published/properties/results/maxItems",
            json!(1000),
            "a limit that no constant is held against",
        ),
    ] {
        plant(check_limits, place, value, &format!("{place}: {what}"));
    }
}

#[test]
fn a_wrong_row_of_the_docs_is_named() {
    replace(
        docs::check_limits,
        HTTP,
        "| `topics_max` | 32 |",
        "| `topics_max` | 64 |",
        "limits in http.md, topics_max: \"64\" is said, the code has \"32\"",
    );
    replace(
        docs::check_limits,
        HTTP,
        "| `wait_seconds_max` | 20 | a longer `wait` is 422 |\n",
        "",
        "limits in http.md: the code has wait_seconds_max, it is not said",
    );
    replace(
        docs::check_limits,
        HTTP,
        "seconds, 0 to 20",
        "seconds, 0 to 30",
        "http.md: does not say \"`wait` are the seconds, 0 to 20\", as the code has it",
    );
    replace(
        docs::check_routes,
        HTTP,
        "| GET, HEAD, PUT, DELETE |",
        "| GET, HEAD, PUT |",
        "routes in http.md: GET, HEAD, PUT /subscriptions/{name} is said, \
         the code does not have it",
    );
    replace(
        docs::check_errors,
        HTTP,
        "| 415 | `unsupported_encoding` |",
        "| 415 | `unsupported_coding` |",
        "errors in http.md: 415 unsupported_coding is said, the code does not have it",
    );
    replace(
        docs::check_metrics,
        HTTP,
        "| `sekali_store_size_bytes` |",
        "| `sekali_store_bytes` |",
        "metrics in http.md: sekali_store_bytes is said, the code does not have it",
    );
    replace(
        docs::check_variables,
        OPERATING,
        "| `retry_after_seconds` | 1 |",
        "| `retry_after_seconds` | 2 |",
        "variables in operating.md, retry_after_seconds: \"2\" is said, the code has \"1\"",
    );
    replace(
        docs::check_variables,
        OPERATING,
        "| `cors_origins` |",
        "| `origins` |",
        "variables in operating.md: origins is said, the code does not have it",
    );
}
