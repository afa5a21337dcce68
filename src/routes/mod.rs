//! (method, path) → feature.

use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, header};

use crate::config::Config;
use crate::http::cors;
use crate::http::problem::{Code, Problem};
use crate::http::query::Query;
use crate::http::reply::Reply;
use crate::platform::Ports;

pub mod event_stream;
pub mod events;
pub mod health;
pub mod metrics;
pub mod pages;
pub mod publish;
pub mod stats;
pub mod stats_stream;
pub mod subscriptions;

/// The routes, each with what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// `/`
    Index,
    /// `/publish`
    Publish,
    /// `/events`
    Events,
    /// `/events/stream`
    EventStream,
    /// `/subscriptions`
    Subscriptions,
    /// `/subscriptions/{name}`
    Subscription(&'a str),
    /// `/subscriptions/{name}/events`
    SubscriptionEvents(&'a str),
    /// `/subscriptions/{name}/ack`
    Acknowledgement(&'a str),
    /// `/stats`
    Stats,
    /// `/stats/stream`
    StatsStream,
    /// `/stats/history`
    History,
    /// `/metrics`
    Metrics,
    /// `/health`
    Health,
    /// `/healthz`
    Healthz,
    /// `/openapi.json`
    OpenApi,
    /// `/docs`
    Docs,
    /// `/assets/{name}`
    Asset(&'a str),
}

impl<'a> Route<'a> {
    /// The route of a path; a trailing slash is the same route.
    pub fn of(path: &'a str) -> Option<Self> {
        let path = path.strip_suffix('/').unwrap_or(path);
        let mut segments = path.split('/');
        // What stands before the first slash.
        if segments.next() != Some("") {
            return None;
        }
        let segments: Vec<&str> = segments.collect();
        Some(match *segments.as_slice() {
            [] => Route::Index,
            ["publish"] => Route::Publish,
            ["events"] => Route::Events,
            ["events", "stream"] => Route::EventStream,
            ["subscriptions"] => Route::Subscriptions,
            ["subscriptions", name] => Route::Subscription(name),
            ["subscriptions", name, "events"] => Route::SubscriptionEvents(name),
            ["subscriptions", name, "ack"] => Route::Acknowledgement(name),
            ["stats"] => Route::Stats,
            ["stats", "stream"] => Route::StatsStream,
            ["stats", "history"] => Route::History,
            ["metrics"] => Route::Metrics,
            ["health"] => Route::Health,
            ["healthz"] => Route::Healthz,
            ["openapi.json"] => Route::OpenApi,
            ["docs"] => Route::Docs,
            ["assets", name] => Route::Asset(name),
            _ => return None,
        })
    }

    /// Whether the route looks at the body of a request of `method`.
    pub fn reads_body(self, method: &Method) -> bool {
        match self {
            Route::Publish | Route::Acknowledgement(_) => method == Method::POST,
            Route::Subscription(_) => method == Method::PUT,
            _ => false,
        }
    }

    /// Whether its reply may take as long as the client likes.
    pub fn may_stay(self) -> bool {
        matches!(
            self,
            Route::Events | Route::EventStream | Route::StatsStream | Route::SubscriptionEvents(_)
        )
    }

    /// The methods that it has, as `Allow` lists them.
    pub fn allowed(self) -> &'static str {
        match self {
            // HEAD, because shippers probe the address that they are given.
            Route::Publish => "POST, HEAD",
            Route::Subscription(_) => "GET, HEAD, PUT, DELETE",
            Route::Acknowledgement(_) => "POST",
            _ => "GET, HEAD",
        }
    }
}

/// Answers one request. `body` is empty unless [`Route::reads_body`].
///
/// The reply to HEAD is that to GET: leaving out the body is for whoever
/// writes it to the wire.
///
/// # Errors
///
/// Every error of every route.
pub async fn handle(
    ports: &impl Ports,
    config: &Config,
    request: &Parts,
    body: &[u8],
) -> Result<Reply, Problem> {
    if let Some(preflight) = cors::preflight(&config.cors_origins, request) {
        return Ok(preflight);
    }
    let path = request.uri.path();
    let Some(route) = Route::of(path) else {
        return Err(Problem::new(
            Code::NotFound,
            format!("There is no route {path}; / lists them."),
        ));
    };
    let query = Query::parse(request.uri.query());
    let headers = &request.headers;
    match (&request.method, route) {
        (&Method::POST, Route::Publish) => {
            publish::publish(ports, config, &query, headers, body).await
        }
        (&Method::HEAD, Route::Publish) => Ok(Reply::text(StatusCode::OK, "")),
        (&Method::PUT, Route::Subscription(name)) => {
            subscriptions::define(ports, config, name, body).await
        }
        (&Method::DELETE, Route::Subscription(name)) => {
            subscriptions::remove(ports, config, name).await
        }
        (&Method::POST, Route::Acknowledgement(name)) => {
            subscriptions::acknowledge(ports, config, name, body).await
        }
        (&Method::GET | &Method::HEAD, route) => match route {
            Route::Index => Ok(pages::index(request)),
            Route::Events => events::events(ports, config, &query, headers).await,
            Route::EventStream => event_stream::stream(ports, config, &query, headers).await,
            Route::Subscriptions => subscriptions::list(ports, config).await,
            Route::Subscription(name) => subscriptions::show(ports, config, name).await,
            Route::SubscriptionEvents(name) => {
                subscriptions::events(ports, config, name, &query).await
            }
            Route::Stats => stats::stats(ports, config).await,
            Route::StatsStream => stats_stream::stream(ports, config).await,
            Route::History => stats::history(ports, config).await,
            Route::Metrics => metrics::metrics(ports, config, headers).await,
            Route::Health => Ok(health::health(ports, config).await),
            Route::Healthz => Ok(health::healthz(ports, config).await),
            Route::OpenApi => Ok(pages::openapi(request)),
            Route::Docs => Ok(pages::docs(request)),
            Route::Asset(name) => pages::asset(request, name),
            Route::Publish | Route::Acknowledgement(_) => {
                Err(method_not_allowed(route, &request.method))
            }
        },
        (method, route) => Err(method_not_allowed(route, method)),
    }
}

fn method_not_allowed(route: Route<'_>, method: &Method) -> Problem {
    let allowed = route.allowed();
    Problem::new(Code::MethodNotAllowed, format!("{method} is not one of {allowed}."))
        .with_header(header::ALLOW, HeaderValue::from_static(allowed))
}
