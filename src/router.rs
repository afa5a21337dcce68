//! (method, path) → feature.

use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, header};

use crate::config::Config;
use crate::events;
use crate::health;
use crate::ports::Ports;
use crate::problem::{Code, Problem};
use crate::publish;
use crate::query::Query;
use crate::reply::Reply;
use crate::stats;

/// The routes, each with what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// `/`
    Index,
    /// `/publish`
    Publish,
    /// `/events`
    Events,
    /// `/stats`
    Stats,
    /// `/stats/history`
    History,
    /// `/health`
    Health,
    /// `/healthz`
    Healthz,
}

const INDEX: &str = "\
Sekali stores events exactly once.

POST /publish         takes events, replies when they are on disk
GET  /events          reads stored events (topic, source, limit, after, order, since, until)
GET  /stats           counters
GET  /stats/history   the counters of each minute, for 24 hours
GET  /health          whether the stores answer; /healthz for machines

Send one event:

  curl -X POST -d '{\"topic\": \"demo\", \"event_id\": \"1\", \"source\": \"curl\"}' \\
    http://HOST/publish
";

impl Route {
    /// The route of a path; a trailing slash is the same route.
    pub fn of(path: &str) -> Option<Self> {
        Some(match path.strip_suffix('/').unwrap_or(path) {
            "" => Route::Index,
            "/publish" => Route::Publish,
            "/events" => Route::Events,
            "/stats" => Route::Stats,
            "/stats/history" => Route::History,
            "/health" => Route::Health,
            "/healthz" => Route::Healthz,
            _ => return None,
        })
    }

    /// Whether the route looks at the body of a request of `method`.
    pub fn reads_body(self, method: &Method) -> bool {
        self == Route::Publish && method == Method::POST
    }

    fn allowed(self) -> &'static str {
        match self {
            // HEAD, because shippers probe the address that they are given.
            Route::Publish => "POST, HEAD",
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
    let path = request.uri.path();
    let Some(route) = Route::of(path) else {
        return Err(Problem::new(
            Code::NotFound,
            format!("There is no route {path}; / lists them."),
        ));
    };
    let query = Query::parse(request.uri.query());
    match (&request.method, route) {
        (&Method::POST, Route::Publish) => {
            publish::publish(ports, config, &query, &request.headers, body).await
        }
        (&Method::HEAD, Route::Publish) => Ok(Reply::text(StatusCode::OK, "")),
        (&Method::GET | &Method::HEAD, route) => match route {
            Route::Index => Ok(Reply::text(StatusCode::OK, INDEX)),
            Route::Events => events::events(ports, config, &query, &request.headers).await,
            Route::Stats => stats::stats(ports, config).await,
            Route::History => stats::history(ports, config).await,
            Route::Health => Ok(health::health(ports, config).await),
            Route::Healthz => Ok(health::healthz(ports, config).await),
            Route::Publish => Err(method_not_allowed(route, &request.method)),
        },
        (method, route) => Err(method_not_allowed(route, method)),
    }
}

fn method_not_allowed(route: Route, method: &Method) -> Problem {
    let allowed = route.allowed();
    Problem::new(Code::MethodNotAllowed, format!("{method} is not one of {allowed}."))
        .with_header(header::ALLOW, HeaderValue::from_static(allowed))
}
