//! `POST /access_token`: a token for streams, for those who can set no header.

use std::rc::Rc;

use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::app::App;
use crate::http::access_token;
use crate::http::problem::{Code, Problem};
use crate::http::reply::Reply;
use crate::http::request::Request;

/// The reply, as OAuth has it.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct TokenJson {
    access_token: String,
    token_type: &'static str,
    expires_in: u32,
}

/// Answers one request.
///
/// # Errors
///
/// 404 where there is no key that a token could stand for.
pub(super) async fn make(app: &Rc<App>, request: &Request<'_>) -> Result<Reply, Problem> {
    let Some(key) = request.caller.key() else {
        let detail = "This service has no keys (api_keys), so nobody needs a token.";
        return Err(Problem::new(Code::NotFound, detail));
    };
    let body = TokenJson {
        access_token: access_token::new(key, app.platform.now()),
        token_type: "Bearer",
        expires_in: access_token::SECONDS,
    };
    Ok(Reply::json(StatusCode::OK, &body)
        .with_header(header::CACHE_CONTROL, HeaderValue::from_static("no-store")))
}
