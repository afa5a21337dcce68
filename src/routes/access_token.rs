//! `POST /access_token`: a token for streams, for those who can set no header.

use std::rc::Rc;

use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::app::App;
use crate::http::access_token;
use crate::http::problem::Problem;
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

/// The token of a service without keys, which is not looked at: so a page need not know
/// whether there are any.
const OF_NOBODY: &str = "open";

/// Answers one request.
///
/// # Errors
///
/// None.
pub(super) async fn make(app: &Rc<App>, request: &Request<'_>) -> Result<Reply, Problem> {
    let body = TokenJson {
        access_token: match request.caller.key() {
            Some(key) => access_token::new(key, app.platform.now()),
            None => OF_NOBODY.to_owned(),
        },
        token_type: "Bearer",
        expires_in: access_token::SECONDS,
    };
    Ok(Reply::json(StatusCode::OK, &body)
        .with_header(header::CACHE_CONTROL, HeaderValue::from_static("no-store")))
}
