//! Routes and their parameters.

use std::collections::BTreeMap;

use http::Method;
use serde_json::{Value, json};

use super::{Description, Drifts, entries, strings};
use crate::http::query::{Parameter, Query, Takes};
use crate::routes::reading::{LIMIT, PAGE_EVENTS_MAX};
use crate::routes::{OPERATIONS, Operation, find};
use crate::store::Cursor;
use crate::testing::TestService;

/// The paths that are not described: the files are of use to the pages alone, which
/// come with them, and others refuse whatever they are sent.
const UNDESCRIBED: [&str; 4] =
    ["/assets/{name}", "/v1/traces", "/v1/metrics", "/services/collector/ack"];

/// The operations of the code by their names, such as `HEAD /events`.
fn operations() -> BTreeMap<String, &'static Operation> {
    let mut found = BTreeMap::new();
    for path in OPERATIONS.iter().map(|operation| operation.path) {
        let route = find(path).unwrap();
        for method in route.allowed().split(", ") {
            let operation = route.operation(&Method::from_bytes(method.as_bytes()).unwrap());
            found.insert(format!("{method} {path}"), operation.unwrap());
        }
    }
    found
}

/// A described operation.
struct Described<'a> {
    /// Those of its path, too.
    parameters: Vec<&'a Value>,
    has_body: bool,
}

impl<'a> Described<'a> {
    /// Its parameters in the path, the query, or the headers.
    fn parameters(&self, place: &str) -> Vec<&'a Value> {
        self.parameters.iter().copied().filter(|one| one["in"] == place).collect()
    }
}

fn described(description: &Description) -> BTreeMap<String, Described<'_>> {
    let mut found = BTreeMap::new();
    for (path, item) in entries(description.at("/paths")) {
        for (method, operation) in entries(item).filter(|(name, _)| name != "parameters") {
            let parameters = [item, operation].into_iter();
            let parameters = parameters.filter_map(|holder| holder["parameters"].as_array());
            let described = Described {
                parameters: parameters.flatten().map(|one| description.resolve(one)).collect(),
                has_body: operation.get("requestBody").is_some(),
            };
            let name = format!("{} {}", method.to_uppercase(), path.replace("~1", "/"));
            found.insert(name, described);
        }
    }
    found
}

/// Every operation is described, and nothing else is.
pub(super) fn check_routes(description: &Description, drifts: &mut Drifts) {
    let code = operations();
    let said = described(description);
    let names = code.iter().filter(|(_, operation)| !UNDESCRIBED.contains(&operation.path));
    drifts.names("routes", said.keys(), names.map(|(name, _)| name));
    for (name, described) in &said {
        let Some(operation) = code.get(name) else { continue };
        let place = format!("requestBody of {name}");
        drifts.same(place, described.has_body, operation.reads_body);
    }
}

/// Every parameter is described as what the code takes it for.
pub(super) fn check_parameters(description: &Description, drifts: &mut Drifts) {
    let code = operations();
    for (name, described) in described(description) {
        let Some(operation) = code.get(&name) else { continue };
        let holes = operation
            .path
            .split('/')
            .filter_map(|step| step.strip_prefix('{').and_then(|step| step.strip_suffix('}')));
        let in_path = described.parameters("path");
        let needed = in_path.iter().filter(|one| one["required"] == true);
        let needed = needed.filter_map(|one| one["name"].as_str());
        drifts.names(format!("required path parameters of {name}"), needed, holes);

        let in_query = described.parameters("query");
        let names = in_query.iter().filter_map(|one| one["name"].as_str());
        let known = operation.parameters.iter().map(|one| one.name);
        drifts.names(format!("query parameters of {name}"), names, known);
        let place = format!("number of query parameters of {name}");
        drifts.same(place, in_query.len(), operation.parameters.len());
        for said in in_query {
            let known = operation.parameters.iter().find(|one| said["name"] == one.name);
            let Some(Parameter { name: parameter, takes }) = known else { continue };
            let mut schema = said["schema"].clone();
            let default = schema.as_object_mut().and_then(|schema| schema.remove("default"));
            let place = format!("parameter {parameter} of {name}");
            drifts.same(&place, &schema, &schema_of(description, takes));
            if let Some(default) = default {
                check_default(&name, parameter, &default, drifts);
            } else if *parameter == LIMIT.name {
                drifts.add(format!("default of {place}"), "is not said");
            }
            let required = said.get("required").is_some_and(|required| required == true);
            drifts.same(format!("required {place}"), required, false);
        }
    }
    check_switch(description, drifts);
    let cursor = format!("^([0-9]{{1,18}}|{})$", Cursor::END);
    let said = description.at("/components/schemas/CursorToGive/pattern");
    drifts.same("pattern of CursorToGive", said, &Value::from(cursor));
}

/// The schema of what a parameter takes.
fn schema_of(description: &Description, takes: &Takes) -> Value {
    let component = |name: &str| json!({"$ref": format!("#/components/schemas/{name}")});
    match takes {
        Takes::Switch => component("Switch"),
        Takes::OneOf(words) => json!({"type": "string", "enum": words}),
        Takes::Integer { unit: _, min, max } => {
            json!({"type": "integer", "minimum": min, "maximum": max})
        }
        Takes::Topic | Takes::Source => component("Name"),
        Takes::Topics { max } => {
            json!({"type": "array", "maxItems": max, "items": component("Name")})
        }
        Takes::Cursor => component("CursorToGive"),
        Takes::CursorOrEnd => {
            let cursor = description.at("/components/schemas/CursorToGive/pattern");
            let either = cursor.as_str().map(|cursor| cursor.replacen('(', "(end|", 1));
            json!({"type": "string", "pattern": either})
        }
        Takes::Moment => json!({"type": "string", "format": "date-time"}),
        Takes::Text { chars_max } => {
            json!({"type": "string", "minLength": 1, "maxLength": chars_max})
        }
        Takes::Patterns { max, pattern, chars_max } => {
            let item = json!({"type": "string", "pattern": pattern, "maxLength": chars_max});
            json!({"type": "array", "maxItems": max, "items": item})
        }
        Takes::Pattern(pattern) => json!({"type": "string", "pattern": pattern}),
    }
}

/// A parameter that has its default does what is done without it.
fn check_default(operation: &str, parameter: &str, default: &Value, drifts: &mut Drifts) {
    let service = TestService::new();
    let events = (0..=PAGE_EVENTS_MAX)
        .map(|id| json!({"topic": "t", "event_id": id.to_string(), "source": "s"}));
    service.publish(&Value::from_iter(events).to_string());
    // To one everything is still to come, to the other nothing is.
    for (name, start) in [("all", "beginning"), ("none", "end")] {
        service.request(
            "PUT",
            &format!("/subscriptions/{name}"),
            &json!({"start": start}).to_string(),
        );
        let (method, path) = operation.split_once(' ').unwrap();
        let path = path.replace("{name}", name);
        let send = |path: &str| {
            let began = service.slept.get();
            (service.request(method, path, ""), service.slept.get() - began)
        };
        let value = default.as_str().map_or_else(|| default.to_string(), str::to_owned);
        if send(&path) != send(&format!("{path}?{parameter}={value}")) {
            let place = format!("default of parameter {parameter} of {operation}");
            return drifts
                .add(place, format_args!("{value} is said, the code does something else"));
        }
    }
}

/// The code takes the words of a switch, and no others that one could think of.
fn check_switch(description: &Description, drifts: &mut Drifts) {
    const SWITCH: Parameter = Parameter::new("on", Takes::Switch);
    let read = |query: &str| Query::parse(Some(query)).switch(&SWITCH).ok();
    let said = description.at("/components/schemas/Switch");
    let likely = ["", "true", "false", "1", "0", "yes", "no", "on", "off", "TRUE", "True", "t"];
    let words = strings(&said["enum"]).chain(likely);
    let taken = words.filter(|word| read(&format!("on={word}")).is_some());
    drifts.names("words of Switch", strings(&said["enum"]), taken);
    let default = said["default"].as_str().and_then(|default| read(&format!("on={default}")));
    drifts.same("default of Switch", default, read(""));
}

#[test]
fn every_route_is_described() {
    let mut drifts = Drifts::default();
    check_routes(&Description::read(), &mut drifts);
    drifts.assert_none();
}

#[test]
fn every_parameter_is_described() {
    let mut drifts = Drifts::default();
    check_parameters(&Description::read(), &mut drifts);
    drifts.assert_none();
}
