//! A component for the tests of the host, for several roles in one manifest.
//!
//! | path | response |
//! | --- | --- |
//! | `…/via/NAME/PATH` | that of component NAME for `/PATH`; 502 with the error code if there is none |
//! | `…/hold/NAME` | 200, once a request to component NAME is answered whose body never ends |
//! | any other | the body of the request, part by part, and each of its headers with `seen-` before its name |
//!
//! Bodies are handed on as they come, in both directions at the same time. Each
//! request is a line on stdout: the variable `ROLE` and the path.
#![cfg(target_family = "wasm")]

use spin_sdk::wasip3::exports::http::handler::Guest;
use spin_sdk::wasip3::http::types::{
    ErrorCode, Fields, Method, Request, Response, Scheme, Trailers,
};
use spin_sdk::wasip3::http::{client, service};
use spin_sdk::wasip3::{wit_future, wit_stream};
use spin_sdk::wit_bindgen::{FutureReader, StreamReader, StreamResult, spawn};

/// Bytes read at once.
const READ_BYTES_MAX: usize = 64 * 1024;

struct Component;
service::export!(Component);

type TrailersReader = FutureReader<Result<Option<Trailers>, ErrorCode>>;

impl Guest for Component {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let path = request.get_path_with_query().unwrap_or_default();
        println!("{} {path}", std::env::var("ROLE").unwrap_or_default());
        if let Some((_, component)) = path.split_once("/hold/") {
            return hold(component).await;
        }
        match path.split_once("/via/").and_then(|(_, rest)| rest.split_once('/')) {
            Some((component, path)) => via(request, component, path).await,
            None => echo(request),
        }
    }
}

fn echo(request: Request) -> Result<Response, ErrorCode> {
    let seen = Fields::new();
    for (name, value) in request.get_headers().copy_all() {
        if seen.append(&format!("seen-{name}"), &value).is_err() {
            return Err(ErrorCode::InternalError(Some(name)));
        }
    }
    let (body, trailers) = handed_on(consume_request(request));
    Ok(Response::new(seen, Some(body), trailers).0)
}

async fn via(request: Request, component: &str, path: &str) -> Result<Response, ErrorCode> {
    let headers = Fields::new();
    for (name, value) in request.get_headers().copy_all() {
        // Those that a component may not set are left out.
        let _ = headers.append(&name, &value);
    }
    let body = handed_on(consume_request(request));
    let response = match send(headers, body, component, path).await {
        Ok(response) => response,
        Err(code) => return Ok(bad_gateway(&code)),
    };
    let (status, headers) = (response.get_status_code(), response.get_headers().copy_all());
    let (_, result) = wit_future::new(|| Ok(()));
    let (body, trailers) = handed_on(Response::consume_body(response, result));
    let headers = Fields::from_list(&headers)
        .map_err(|error| ErrorCode::InternalError(Some(error.to_string())))?;
    let (response, _) = Response::new(headers, Some(body), trailers);
    response.set_status_code(status).map_err(|()| ErrorCode::InternalError(None))?;
    Ok(response)
}

/// Keeps a request under way for as long as the instance lives.
async fn hold(component: &str) -> Result<Response, ErrorCode> {
    let (mut writer, body) = wit_stream::new::<u8>();
    let (trailers_writer, trailers) = wit_future::new(|| Ok(None));
    let response = send(Fields::new(), (body, trailers), component, "held").await?;
    let (_, result) = wit_future::new(|| Ok(()));
    let (mut reader, _) = Response::consume_body(response, result);
    spawn(async move {
        let _trailers_writer = trailers_writer;
        writer.write_all(vec![0]).await;
        loop {
            let (result, _) = reader.read(Vec::with_capacity(READ_BYTES_MAX)).await;
            if !matches!(result, StreamResult::Complete(_)) {
                break;
            }
        }
    });
    let (_, trailers) = wit_future::new(|| Ok(None));
    Ok(Response::new(Fields::new(), None, trailers).0)
}

async fn send(
    headers: Fields,
    body: (StreamReader<u8>, TrailersReader),
    component: &str,
    path: &str,
) -> Result<Response, ErrorCode> {
    let (body, trailers) = body;
    let (request, _) = Request::new(headers, Some(body), trailers, None);
    let is_set = request.set_method(&Method::Post).is_ok()
        && request.set_scheme(Some(&Scheme::Http)).is_ok()
        && request.set_authority(Some(&format!("{component}.spin.internal"))).is_ok()
        && request.set_path_with_query(Some(&format!("/{path}"))).is_ok();
    if !is_set {
        return Err(ErrorCode::HttpRequestUriInvalid);
    }
    client::send(request).await
}

fn bad_gateway(code: &ErrorCode) -> Response {
    let (mut writer, body) = wit_stream::new::<u8>();
    let text = format!("{code:?}");
    spawn(async move {
        writer.write_all(text.into_bytes()).await;
    });
    let (_, trailers) = wit_future::new(|| Ok(None));
    let (response, _) = Response::new(Fields::new(), Some(body), trailers);
    // 502 is a status that there is.
    let _ = response.set_status_code(502);
    response
}

fn consume_request(request: Request) -> (StreamReader<u8>, TrailersReader) {
    let (_, result) = wit_future::new(|| Ok(()));
    Request::consume_body(request, result)
}

/// A body that has what the other one has, as it comes.
fn handed_on(from: (StreamReader<u8>, TrailersReader)) -> (StreamReader<u8>, TrailersReader) {
    let (mut reader, trailers) = from;
    let (mut writer, body) = wit_stream::new::<u8>();
    spawn(async move {
        loop {
            let (result, bytes) = reader.read(Vec::with_capacity(READ_BYTES_MAX)).await;
            let is_written = writer.write_all(bytes).await.is_empty();
            if !is_written || matches!(result, StreamResult::Dropped | StreamResult::Cancelled) {
                break;
            }
        }
    });
    (body, trailers)
}
