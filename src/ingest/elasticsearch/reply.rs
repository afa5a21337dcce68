//! What clients of Elasticsearch are told.

use std::borrow::Cow;

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::{Serialize, Serializer};

use super::actions::Verb;
use crate::http::accept::{self, ELASTICSEARCH_JSON};
use crate::http::problem::{Code, Problem};
use crate::http::reply::Reply;
use crate::store::Seq;
use crate::text;

/// Its clients go on only with a server that says so.
const PRODUCT: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-elastic-product"), HeaderValue::from_static("Elasticsearch"));

/// What the service says it is. The version is that whose clients it was tried with.
const INFO: &str = r#"{"name":"sekali","cluster_name":"sekali","cluster_uuid":"c2VrYWxpLXNla2FsaS1zZWth","version":{"number":"8.17.0","build_flavor":"default","build_type":"docker","build_hash":"unknown","build_date":"2024-12-11T12:08:05.663969764Z","build_snapshot":false,"lucene_version":"9.12.0","minimum_wire_compatibility_version":"7.17.0","minimum_index_compatibility_version":"7.0.0"},"tagline":"You Know, for Search"}"#;

/// The licence that Beats and Logstash want to see: that of what is free.
const LICENSE: &str = r#"{"license":{"status":"active","uid":"c2VrYWxpLXNla2FsaS1zZWth","type":"basic","mode":"basic","issued_to":"sekali","issuer":"sekali"}}"#;

/// The reply to a bulk. Fluent Bit, of a long one, looks for
/// `"errors":false,"items":[` as text.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct BulkJson<'a> {
    /// Milliseconds.
    pub(super) took: u64,
    pub(super) errors: bool,
    #[cfg_attr(
        test,
        schemars(with = "Vec<std::collections::BTreeMap<String, ResultJson<'static>>>")
    )]
    pub(super) items: Vec<ItemJson<'a>>,
}

/// What came of one action, under its name.
pub(super) struct ItemJson<'a> {
    pub(super) verb: Verb,
    pub(super) result: ResultJson<'a>,
}

impl Serialize for ItemJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map([(self.verb.as_str(), &self.result)])
    }
}

/// What came of one action.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct ResultJson<'a> {
    #[serde(rename = "_index")]
    index: &'a str,
    #[serde(rename = "_id", skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(rename = "_version", skip_serializing_if = "Option::is_none")]
    version: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'static str>,
    #[serde(rename = "_shards", skip_serializing_if = "Option::is_none")]
    shards: Option<ShardsJson>,
    #[serde(rename = "_seq_no", skip_serializing_if = "Option::is_none")]
    seq: Option<Seq>,
    #[serde(rename = "_primary_term", skip_serializing_if = "Option::is_none")]
    primary_term: Option<u8>,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<CauseJson<'a>>,
}

impl<'a> ResultJson<'a> {
    fn new(index: &'a str, id: Option<&'a str>, status: StatusCode) -> Self {
        ResultJson {
            index,
            id,
            version: None,
            result: None,
            shards: None,
            seq: None,
            primary_term: None,
            status: status.as_u16(),
            error: None,
        }
    }

    /// A document that is on disk now.
    pub(super) fn created(index: &'a str, id: &'a str, seq: Seq) -> Self {
        ResultJson {
            version: Some(1),
            result: Some("created"),
            shards: Some(ShardsJson { total: 1, successful: 1, failed: 0 }),
            seq: Some(seq),
            primary_term: Some(1),
            ..ResultJson::new(index, Some(id), StatusCode::CREATED)
        }
    }

    /// A document that was there before as it is.
    pub(super) fn noop(index: &'a str, id: &'a str) -> Self {
        ResultJson {
            version: Some(1),
            result: Some("noop"),
            shards: Some(ShardsJson { total: 0, successful: 0, failed: 0 }),
            primary_term: Some(1),
            ..ResultJson::new(index, Some(id), StatusCode::OK)
        }
    }

    /// Another document than the one that is there under its id.
    pub(super) fn conflict(index: &'a str, id: &'a str) -> Self {
        let reason = format!(
            "[{id}]: version conflict, document already exists with other content \
             (current version [1])"
        );
        let error =
            CauseJson { r#type: "version_conflict_engine_exception", reason: reason.into() };
        ResultJson { error: Some(error), ..ResultJson::new(index, Some(id), StatusCode::CONFLICT) }
    }

    /// Whether it is an error to the client.
    pub(super) fn is_error(&self) -> bool {
        self.error.is_some()
    }

    /// A document that cannot be stored.
    pub(super) fn refused(index: &'a str, id: Option<&'a str>, error: CauseJson<'a>) -> Self {
        ResultJson { error: Some(error), ..ResultJson::new(index, id, StatusCode::BAD_REQUEST) }
    }
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct ShardsJson {
    total: u8,
    successful: u8,
    failed: u8,
}

/// What is wrong.
#[derive(Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct CauseJson<'a> {
    pub(super) r#type: &'a str,
    pub(super) reason: Cow<'a, str>,
}

/// A refusal.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct RefusalJson<'a> {
    error: ErrorJson<'a>,
    status: u16,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct ErrorJson<'a> {
    root_cause: Vec<CauseJson<'a>>,
    r#type: &'a str,
    reason: &'a str,
}

/// The media type of a reply: the one that the client asks for, which names the version
/// that it can read.
pub(super) fn content_type(headers: &HeaderMap) -> &'static str {
    /// Those that its clients are written for.
    const VERSIONS: [(&str, &str); 3] = [
        ("compatible-with=7", "application/vnd.elasticsearch+json;compatible-with=7"),
        ("compatible-with=8", "application/vnd.elasticsearch+json;compatible-with=8"),
        ("compatible-with=9", "application/vnd.elasticsearch+json;compatible-with=9"),
    ];
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let accept = accept.filter(|accept| accept.contains(ELASTICSEARCH_JSON)).unwrap_or_default();
    let named = VERSIONS.iter().find(|(version, _)| accept.contains(version));
    named.map_or("application/json", |(_, media_type)| *media_type)
}

/// Whether a client would rather have JSON than a page or text.
pub(crate) fn prefers_json(headers: &HeaderMap) -> bool {
    let prefers = |usual| accept::prefers(headers, &accept::ELASTICSEARCH, usual);
    prefers(&accept::HTML) && prefers(&accept::TEXT)
}

/// Whether a client calls the body that it does not send JSON. Logstash and Fluentd do,
/// which do not say what they would have.
pub(crate) fn speaks_json(headers: &HeaderMap) -> bool {
    ["application/json", ELASTICSEARCH_JSON].contains(&&*accept::media_type(headers))
}

/// What the service says it is.
pub(crate) fn info(headers: &HeaderMap) -> Reply {
    reply(StatusCode::OK, content_type(headers), INFO.into())
}

/// Under which licence.
pub(crate) fn license(headers: &HeaderMap) -> Reply {
    reply(StatusCode::OK, content_type(headers), LICENSE.into())
}

/// Whether documents are taken. Some clients look at the colour, others at the status.
pub(crate) fn health(headers: &HeaderMap, is_healthy: bool, retry_after_seconds: u32) -> Reply {
    let (status, colour, shards) = match is_healthy {
        true => (StatusCode::OK, "green", 1),
        false => (StatusCode::SERVICE_UNAVAILABLE, "red", 0),
    };
    let body = format!(
        r#"{{"cluster_name":"sekali","status":"{colour}","timed_out":false,"number_of_nodes":1,"number_of_data_nodes":1,"active_primary_shards":{shards},"active_shards":{shards},"relocating_shards":0,"initializing_shards":0,"unassigned_shards":{}}}"#,
        1 - shards
    );
    let reply = reply(status, content_type(headers), body.into());
    match is_healthy {
        true => reply,
        false => reply.with_header(header::RETRY_AFTER, HeaderValue::from(retry_after_seconds)),
    }
}

/// A reply with the header without which no client goes on.
pub(super) fn reply(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Reply {
    let (name, value) = PRODUCT;
    Reply::whole(status, content_type, body).with_header(name, value)
}

/// Writes a refusal.
pub(crate) fn refuse(head: &Parts, problem: Problem) -> Reply {
    let (name, value) = PRODUCT;
    let (status, kind) = match problem.code() {
        // That is not of the protocol.
        Code::NotFound | Code::MethodNotAllowed | Code::HostRefused => {
            return problem.into_reply().with_header(name, value);
        }
        Code::InvalidBody | Code::IncompleteBody | Code::InvalidEvents | Code::InvalidParameter => {
            (StatusCode::BAD_REQUEST, "illegal_argument_exception")
        }
        Code::BodyTooLarge | Code::TooManyEvents => {
            (problem.status(), "content_too_long_exception")
        }
        Code::StoreBusy | Code::StoreFull | Code::StoreUnavailable | Code::Misconfigured => {
            (problem.status(), "unavailable_shards_exception")
        }
        Code::KeyRequired | Code::KeyUnknown | Code::KeyExpired => {
            (problem.status(), "security_exception")
        }
        Code::RateLimited => (problem.status(), "es_rejected_execution_exception"),
        other => (problem.status(), other.as_str()),
    };
    let reason = problem.detail();
    let cause = CauseJson { r#type: kind, reason: reason.into() };
    let error = ErrorJson { root_cause: vec![cause], r#type: kind, reason };
    // Only a map with keys that are no strings is no JSON, and there is none.
    let json = RefusalJson { error, status: status.as_u16() };
    let body = text::to_json(&json).unwrap_or_default();
    problem.into_reply_as(status, content_type(&head.headers), body).with_header(name, value)
}
