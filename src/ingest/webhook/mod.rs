//! Webhooks: one event each, of a sender that signs.
//!
//! The signature is checked over the body as it came, before anything of it is looked
//! at. What a sender calls its delivery is the event's id, so that one that is sent again
//! is a duplicate.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName};
use serde_json::value::RawValue;

use super::format::{Entry, Format, Input};
use super::mapping::topic_in_path;
use super::raw::Record;
use super::record::{members, string, string_or_number};
use super::reply::{Events, Wanted};
use super::shapes::BYTE_ORDER_MARK;
use crate::config::{Scheme, WebhookKey, Webhooks};
use crate::event::{self, Event, Found, Payload};
use crate::http::problem::{Code, Problem};
use crate::http::{accept, coding, query};
use crate::time;

mod signature;

#[cfg(test)]
pub(crate) use signature::SIGNATURES_MAX;
pub(crate) use signature::{Reason, Unverified, Watch};

/// What an event of GitHub is, such as `push`. It is not in the body.
const X_GITHUB_EVENT: HeaderName = HeaderName::from_static("x-github-event");

/// Longest kind of event that is told in the source, in bytes.
const KIND_BYTES_MAX: usize = 64;

/// The topic of a webhook, and the keys of its senders.
pub(crate) struct Senders<'a> {
    topic: String,
    keys: Vec<(Scheme, &'a WebhookKey)>,
}

impl<'a> Senders<'a> {
    /// Those of the topic that the path names.
    ///
    /// # Errors
    ///
    /// 404 for a topic that has none, 422 for what is no topic.
    pub(crate) fn of(webhooks: &'a Webhooks, name: &str) -> Result<Self, Problem> {
        let topic = topic_in_path(name)?.unwrap_or_default();
        let keys = webhooks.of(&topic);
        if keys.is_empty() {
            let detail = "No webhooks of this topic are taken: the variable webhook_secrets has \
                          no entry for it.";
            return Err(Problem::new(Code::WebhookUnknown, detail));
        }
        Ok(Senders { topic, keys })
    }

    /// Checks the signature of a delivery.
    ///
    /// # Errors
    ///
    /// Why it is not believed.
    pub(crate) fn verify<'r>(
        self,
        input: &Input<'r>,
        watch: Watch,
    ) -> Result<Delivery<'r>, Unverified> {
        let signed = signature::verify(&self.keys, input.headers, input.body, watch)?;
        Ok(Delivery { topic: self.topic, signed, input: *input })
    }
}

/// A signature is over what is sent, and a coding would be something else.
///
/// # Errors
///
/// 415 for a content coding.
pub(crate) fn check_coding(headers: &HeaderMap) -> Result<(), Problem> {
    coding::OF_NONE.of(headers).map(drop)
}

/// What a sender signed.
pub(crate) struct Delivery<'a> {
    topic: String,
    signed: signature::Signed<'a>,
    input: Input<'a>,
}

impl<'a> Delivery<'a> {
    /// Its event.
    ///
    /// # Errors
    ///
    /// 422 for a body that is neither JSON nor text.
    pub(crate) fn open(self) -> Result<Box<dyn Format + 'a>, Problem> {
        let trace_id = self.input.trace_id;
        let entries = vec![self.event()?];
        Ok(Box::new(Events::new(Wanted::USUAL, trace_id, entries, Vec::new())))
    }

    fn event(self) -> Result<Entry, Problem> {
        let signature::Signed { scheme, id, timestamp } = self.signed;
        let headers = self.input.headers;
        let text = text(self.input.body, scheme, headers)?;
        let json = json(&text)?;
        let at = |seconds: &str| time::from_epoch(seconds).ok();
        let (source, event_id, timestamp) = match scheme {
            Scheme::Standard => ("standard-webhooks".to_owned(), given(id), timestamp.and_then(at)),
            Scheme::Github => (github_source(headers), given(id), None),
            Scheme::Stripe => {
                let [id, created] = members(&json, &["id", "created"]).unwrap_or_default();
                let id = id.ok_or_else(|| "is required: the body has no id".to_owned());
                let created = created.and_then(|created| string_or_number(created).ok());
                let created = created.as_deref().and_then(at);
                ("stripe".to_owned(), id.and_then(string), created.or(timestamp.and_then(at)))
            }
        };
        Ok(Event::build(event::Fields {
            topic: Ok(self.topic),
            event_id,
            source: Ok(source),
            timestamp: Ok(timestamp),
            payload: Payload::read(json.get()),
        }))
    }
}

fn given(id: Option<&str>) -> Found<String> {
    id.map(str::to_owned).ok_or_else(|| "is required".to_owned())
}

/// The text of a body; of a form of GitHub's that of its only field.
fn text<'a>(body: &'a [u8], scheme: Scheme, headers: &HeaderMap) -> Result<Cow<'a, str>, Problem> {
    let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    let not_text = |_| Problem::invalid_body("The body is neither JSON nor text in UTF-8.");
    let text = str::from_utf8(body).map_err(not_text)?;
    let is_form = accept::media_type(headers) == "application/x-www-form-urlencoded";
    let payload = text.strip_prefix("payload=").filter(|_| scheme == Scheme::Github && is_form);
    Ok(payload.and_then(query::decode).unwrap_or(Cow::Borrowed(text)))
}

/// A body as JSON; one that is none as a message.
fn json(text: &str) -> Result<Cow<'_, RawValue>, Problem> {
    match serde_json::from_str(text) {
        Ok(json) => Ok(Cow::Borrowed(json)),
        Err(_) => Record::Line(text.as_bytes())
            .into_json()
            .map_err(|error| Problem::invalid_body(format!("The body cannot be stored: {error}."))),
    }
}

/// GitHub, and what kind of event it tells.
fn github_source(headers: &HeaderMap) -> String {
    let kind = headers.get(X_GITHUB_EVENT).and_then(|kind| kind.to_str().ok());
    let is_name = |kind: &&str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        (1..=KIND_BYTES_MAX).contains(&kind.len()) && kind.bytes().all(is_plain)
    };
    match kind.filter(is_name) {
        Some(kind) => format!("github/{kind}"),
        None => "github".to_owned(),
    }
}

#[cfg(test)]
mod tests;
