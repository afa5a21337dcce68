//! The components of an application, each with instances of its own.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use wasmtime_wasi::async_trait;
use wasmtime_wasi_http::handler::{self, ProxyHandler};
use wasmtime_wasi_http::p3::bindings::ServicePre;

use crate::chaining::Chain;
use crate::console;
use crate::instances::{Grants, InstanceState, Instances, Reuse};
use crate::routes;

/// The components of an application that can be called, by name.
pub(crate) struct Components(BTreeMap<String, ProxyHandler<Instances>>);

/// A component and what its instances are given.
pub(crate) struct Loaded {
    /// Ready to be instantiated.
    pub component: ServicePre<InstanceState>,
    /// What every instance is given.
    pub grants: Grants,
}

impl Components {
    /// Of these, whose instances are reused as `reuse` says, until `ended` is
    /// set: then they are dropped as they are, which is no failure.
    pub(crate) fn new(
        loaded: HashMap<String, Loaded>,
        reuse: Reuse,
        ended: &Arc<AtomicBool>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|components: &Weak<Self>| {
            let handler = |Loaded { component, grants }| {
                let ended = ended.clone();
                ProxyHandler::new(Instances::new(
                    component,
                    grants,
                    reuse,
                    components.clone(),
                    ended,
                ))
            };
            Self(loaded.into_iter().map(|(id, loaded)| (id, handler(loaded))).collect())
        })
    }

    /// Hands a request to `component`, headers and all as they are.
    ///
    /// # Errors
    ///
    /// Whatever it fails with before the head of its response.
    pub(crate) async fn handle(
        &self,
        component: &str,
        request: handler::Request,
    ) -> wasmtime::Result<handler::Response> {
        match self.0.get(component) {
            Some(handler) => handler.handle((), request).await,
            None => Err(wasmtime::Error::msg(format!("there is no component {component:?}"))),
        }
    }
}

#[async_trait]
impl Chain for Components {
    async fn respond(
        &self,
        component: &str,
        request: handler::Request,
    ) -> Option<handler::Response> {
        if !self.0.contains_key(component) {
            return None;
        }
        let (mut parts, body) = request.into_parts();
        Some(match routes::chained_headers(&parts) {
            Ok(headers) => {
                parts.headers = headers;
                let request = http::Request::from_parts(parts, body);
                self.handle(component, request).await.unwrap_or_else(|error| failure(&error))
            }
            Err(error) => failure(&error),
        })
    }
}

/// What is responded when a component fails, which is said on stderr.
pub(crate) fn failure(error: &impl Display) -> handler::Response {
    console::message(format_args!("error processing a request: {error:#}"));
    let body = Empty::<Bytes>::new().map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response
}
