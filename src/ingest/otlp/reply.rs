//! What clients of OTLP are told: `ExportLogsServiceResponse`, and
//! `google.rpc.Status` for a refusal.

use http::StatusCode;
use http::request::Parts;
use serde::Serialize;

use super::form::Form;
use crate::http::problem::Problem;
use crate::http::reply::Reply;
use crate::ingest::protobuf::{push_bytes, push_varint};
use crate::text;

/// The reply to a request of which everything was stored, or all but so many records
/// for the reason that is told.
pub(super) fn stored(form: Form, rejected: Option<(usize, &str)>) -> Reply {
    let body = match form {
        Form::Protobuf => {
            let mut response = Vec::new();
            if let Some((count, why)) = rejected {
                let mut partial_success = Vec::new();
                push_varint(&mut partial_success, 1, count as u64);
                push_bytes(&mut partial_success, 2, why.as_bytes());
                push_bytes(&mut response, 1, &partial_success);
            }
            response
        }
        Form::Json => json(&ResponseJson {
            partial_success: rejected.map(|(count, why)| PartialSuccessJson {
                rejected_log_records: count.to_string(),
                error_message: why,
            }),
        }),
    };
    Reply::whole(StatusCode::OK, content_type(form), body)
}

/// An `ExportLogsServiceResponse` as JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct ResponseJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    partial_success: Option<PartialSuccessJson<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct PartialSuccessJson<'a> {
    /// A number of 64 bits, which is a string in JSON.
    rejected_log_records: String,
    error_message: &'a str,
}

/// A `google.rpc.Status` as JSON.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct StatusJson<'a> {
    code: u8,
    message: &'a str,
}

/// Writes a refusal. The specification has 400 for what is wrong with a request, and
/// clients take no other status for it.
pub(crate) fn refuse(head: &Parts, problem: Problem) -> Reply {
    let form = Form::of(&head.headers).unwrap_or(Form::Json);
    let (code, message) = (rpc_code(problem.status()), problem.detail());
    let body = match form {
        Form::Protobuf => {
            let mut status = Vec::new();
            push_varint(&mut status, 1, code.into());
            push_bytes(&mut status, 2, message.as_bytes());
            status
        }
        Form::Json => json(&StatusJson { code, message }),
    };
    let status = match problem.status() {
        StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
        other => other,
    };
    problem.into_reply_as(status, content_type(form), body)
}

/// The code of gRPC that says the same as a status.
fn rpc_code(status: StatusCode) -> u8 {
    match status.as_u16() {
        401 => 16,       // UNAUTHENTICATED
        403 => 7,        // PERMISSION_DENIED
        404 | 405 => 12, // UNIMPLEMENTED
        413 | 429 => 8,  // RESOURCE_EXHAUSTED
        502..=504 => 14, // UNAVAILABLE
        500.. => 13,     // INTERNAL
        _ => 3,          // INVALID_ARGUMENT
    }
}

fn content_type(form: Form) -> &'static str {
    match form {
        Form::Protobuf => "application/x-protobuf",
        Form::Json => "application/json",
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    // Only a map with keys that are no strings is no JSON, and there is none.
    text::to_json(value).unwrap_or_default()
}
