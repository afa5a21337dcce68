//! The codes of problems, and the statuses under which clients are told them.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Description, Drifts, entries, every, strings};
use crate::http::problem::{Code, Problem};
use crate::testing::json;

/// Every code with its status and its title.
pub(super) fn codes() -> BTreeMap<&'static str, (u64, String)> {
    let every = every!(variants of Code:
        InvalidBody, IncompleteBody, BodyTooLarge, TooManyEvents, InvalidEvents, InvalidParameter,
        UnsupportedEncoding, UnsupportedMediaType, OriginRefused, HostRefused, KeyRequired, KeyUnknown, KeyExpired, ScopeMissing, TopicRefused, RateLimited, NotFound, MethodNotAllowed, SubscriptionNotFound, WebhookRefused, WebhookUnknown, CursorAhead,
        TooManySubscriptions, StoreBusy, StoreFull, StoreUnavailable, Misconfigured, Internal);
    let shown = every.into_iter().map(|code| {
        let reply = json(Problem::new(code, "").into_reply());
        let title = reply["title"].as_str().unwrap().to_owned();
        (code.as_str(), (reply["status"].as_u64().unwrap(), title))
    });
    shown.collect()
}

/// What is narrower than any problem: a status, and the codes that come with it.
struct Told<'a> {
    status: u64,
    codes: Vec<&'a str>,
}

/// What a response tells, in its schemas and those that they lead to.
fn told<'a>(description: &'a Description, value: &'a Value, found: &mut Vec<Told<'a>>) {
    if let Some(reference) = value.get("$ref").and_then(Value::as_str) {
        told(description, description.at(reference.trim_start_matches('#')), found);
    }
    let (status, code) = (&value["properties"]["status"], &value["properties"]["code"]);
    let only = status["enum"].as_array().filter(|statuses| statuses.len() == 1);
    if let Some(status) = only.and_then(|statuses| statuses[0].as_u64()) {
        let codes = strings(&code["enum"]).collect();
        found.push(Told { status, codes });
    }
    let members = value.as_object().into_iter().flatten().map(|(_, member)| member);
    for child in members.chain(value.as_array().into_iter().flatten()) {
        told(description, child, found);
    }
}

/// Every code is described, and told in a response with its status.
pub(super) fn check_problems(description: &Description, drifts: &mut Drifts) {
    let code = codes();
    let said = description.at("/components/schemas/Problem/properties/code/enum");
    drifts.names("codes of Problem", strings(said), code.keys().copied());

    let mut all_told = Vec::new();
    for (place, responses) in description.values() {
        if !place.ends_with("/responses") && place != "/x-otherwise" {
            continue;
        }
        for (key, response) in entries(responses) {
            let mut found = Vec::new();
            told(description, response, &mut found);
            for Told { status, codes } in found {
                // The keys of components are names.
                let key = key.parse().unwrap_or(status);
                drifts.same(format!("status under {place}/{key}"), status, key);
                for told in codes {
                    let known = code.get(told).map(|(status, _)| *status);
                    let place = format!("status of {told} under {place}/{key}");
                    drifts.same(place, Some(status), known);
                    all_told.push(told);
                }
            }
        }
    }
    drifts.names("codes told in responses", all_told, code.keys().copied());

    for (place, value) in description.values() {
        let shown = value["code"].as_str().zip(value["title"].as_str());
        if let Some((shown, title)) = shown.filter(|_| value["status"].is_u64()) {
            let known = code.get(shown).map(|(status, title)| (*status, title.as_str()));
            let said = value["status"].as_u64().map(|status| (status, title));
            drifts.same(format!("example of {shown} at {place}"), said, known);
        }
    }
}

#[test]
fn every_problem_is_described() {
    let mut drifts = Drifts::default();
    check_problems(&Description::read(), &mut drifts);
    drifts.assert_none();
}
