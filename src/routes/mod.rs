//! The route table: (path, method) → what answers. Matching, 404, 405, `Allow`,
//! `HEAD`, preflights and the index page follow from it, and tests hold the
//! description of the API and the docs against it.
//!
//! A new route is a file here, and a row of [`OPERATIONS`].

use std::cell::Cell;
use std::fmt::Write as _;
use std::rc::Rc;

use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, header};

use crate::app::App;
use crate::config::Scope;
use crate::http::authentication::{Access, BEARER, Caller, authenticate};
use crate::http::coding::compressed;
use crate::http::noted::{Noted, Phase};
use crate::http::problem::{Code, Problem, TOLD_BACK_BYTES_MAX};
use crate::http::reply::Reply;
use crate::http::request::{Incoming, Request};
use crate::http::trace::Trace;
use crate::http::{access, cors};
use crate::ingest;
use crate::text::shortened;

mod access_token;
#[cfg(test)]
mod description;
mod elasticsearch;
mod event_stream;
mod events;
mod health;
mod loki;
mod metrics;
mod otlp;
mod pages;
mod prune;
mod publish;
mod publish_stream;
mod reading;
mod search;
mod splunk;
mod stats;
mod stats_stream;
mod subscriptions;
mod table;
#[cfg(test)]
mod tests;
mod webhooks;

pub(crate) use table::{KeyValueUse, Operation, Refuse, Route};

use table::{Handler, Verb, handler};

/// All operations, in the order in which `Allow` and the index list them.
pub(crate) static OPERATIONS: [Operation; 45] = [
    Operation {
        summary: "takes events, replies when they are on disk",
        parameters: &ingest::PARAMETERS,
        reads_body: true,
        key_value: KeyValueUse::WhenDue,
        ..Operation::publishing(Verb::Post, "/publish", handler!(publish::publish))
    },
    // Shippers probe the address that they are given.
    Operation::publishing(Verb::Head, "/publish", handler!(publish::probe)),
    Operation {
        summary: "takes a line an event, tells a line an outcome",
        reads_body: true,
        streams_body: true,
        may_stay: true,
        ..Operation::publishing(Verb::Post, "/publish/stream", handler!(publish_stream::publish))
    },
    Operation {
        summary: "takes records of this topic as they are",
        parameters: &ingest::PARAMETERS_OF_RECORDS,
        names_topic: true,
        reads_body: true,
        key_value: KeyValueUse::WhenDue,
        ..Operation::publishing(Verb::Post, "/publish/{topic}", handler!(publish::publish))
    },
    Operation::publishing(Verb::Head, "/publish/{topic}", handler!(publish::probe)),
    // Open to whoever signs: the signature is the key.
    Operation {
        summary: "takes what a sender of webhooks has signed",
        reads_body: true,
        access: Access::Open,
        key_value: KeyValueUse::WhenDue,
        ..Operation::new(Verb::Post, "/webhooks/{topic}", handler!(webhooks::receive))
    },
    Operation {
        summary: "takes logs of OpenTelemetry; /v1/traces and /v1/metrics are 404",
        parameters: &ingest::otlp::PARAMETERS,
        reads_body: true,
        key_value: KeyValueUse::WhenDue,
        refuse: ingest::otlp::refuse,
        ..Operation::publishing(Verb::Post, "/v1/logs", handler!(otlp::logs))
    },
    Operation {
        refuse: ingest::otlp::refuse,
        ..Operation::publishing(Verb::Post, "/v1/traces", handler!(otlp::no_logs))
    },
    Operation {
        refuse: ingest::otlp::refuse,
        ..Operation::publishing(Verb::Post, "/v1/metrics", handler!(otlp::no_logs))
    },
    Operation {
        summary: "takes lines of clients of Loki",
        parameters: &ingest::loki::PARAMETERS,
        reads_body: true,
        key_value: KeyValueUse::WhenDue,
        needs_compat: true,
        refuse: ingest::loki::refuse,
        ..Operation::publishing(Verb::Post, "/loki/api/v1/push", handler!(loki::push))
    },
    Operation {
        summary: "reads stored events",
        parameters: &events::PARAMETERS,
        may_stay: true,
        may_compress: true,
        ..Operation::get("/events", handler!(events::list))
    },
    Operation {
        summary: "events as they are stored: server-sent events",
        parameters: &event_stream::PARAMETERS,
        may_stay: true,
        ..Operation::get("/events/stream", handler!(event_stream::stream))
    },
    Operation {
        summary: "named readers, each with its lag",
        is_of_all_topics: true,
        ..Operation::get("/subscriptions", handler!(subscriptions::list))
    },
    Operation::get("/subscriptions/{name}", handler!(subscriptions::show)),
    Operation {
        summary: "defines one (also GET, DELETE)",
        reads_body: true,
        ..Operation::new(Verb::Put, "/subscriptions/{name}", handler!(subscriptions::define))
    },
    Operation::new(Verb::Delete, "/subscriptions/{name}", handler!(subscriptions::remove)),
    Operation {
        summary: "the events after its position",
        parameters: &subscriptions::PARAMETERS,
        may_stay: true,
        may_compress: true,
        ..Operation::get("/subscriptions/{name}/events", handler!(subscriptions::events))
    },
    Operation {
        summary: "moves its position forward",
        reads_body: true,
        access: Access::Scope(Scope::Read),
        ..Operation::new(
            Verb::Post,
            "/subscriptions/{name}/ack",
            handler!(subscriptions::acknowledge),
        )
    },
    Operation {
        summary: "counters",
        is_of_all_topics: true,
        parameters: &stats::PARAMETERS,
        may_compress: true,
        ..Operation::get("/stats", handler!(stats::stats))
    },
    Operation {
        summary: "counters as they change: server-sent events",
        is_of_all_topics: true,
        may_stay: true,
        ..Operation::get("/stats/stream", handler!(stats_stream::stream))
    },
    Operation {
        summary: "the counters of each minute, for 24 hours",
        is_of_all_topics: true,
        key_value: KeyValueUse::Always,
        may_compress: true,
        ..Operation::get("/stats/history", handler!(stats::history))
    },
    Operation {
        summary: "for Prometheus",
        is_of_all_topics: true,
        may_compress: true,
        ..Operation::get("/metrics", handler!(metrics::metrics))
    },
    Operation {
        summary: "whether the stores answer; /healthz for machines",
        access: Access::AnyKey,
        key_value: KeyValueUse::Always,
        ..Operation::get("/health", handler!(health::health))
    },
    // Probes call by the address of a machine, and there is nothing in it to be
    // read by a page whose name was made to lead here.
    Operation {
        takes_any_host: true,
        access: Access::Open,
        key_value: KeyValueUse::Always,
        ..Operation::get("/healthz", handler!(health::healthz))
    },
    Operation {
        summary: "all of this for tools; /docs for people",
        access: Access::AnyKey,
        may_compress: true,
        ..Operation::get("/openapi.json", handler!(pages::openapi))
    },
    Operation {
        access: Access::AnyKey,
        page: Some(pages::docs_page),
        may_compress: true,
        ..Operation::get("/docs", handler!(pages::docs))
    },
    // The page that asks for a key is made of these, and they are the same everywhere.
    Operation {
        access: Access::Open,
        may_compress: true,
        ..Operation::get("/assets/{name}", handler!(pages::asset))
    },
    Operation {
        summary: "prunes now what is over a limit of retention",
        ..Operation::new(Verb::Post, "/prune", handler!(prune::prune))
    },
    Operation {
        summary: "a token for streams, for those who can set no header",
        access: Access::Scope(Scope::Read),
        ..Operation::new(Verb::Post, "/access_token", handler!(access_token::make))
    },
    Operation {
        summary: "a dashboard for browsers, this text for others",
        access: Access::AnyKey,
        page: Some(pages::dashboard_page),
        may_compress: true,
        ..Operation::get("/", handler!(index))
    },
    Operation {
        summary: "documents for Elasticsearch; also /_license and /_cluster/health",
        ..bulk("/_bulk")
    },
    Operation { verb: Verb::Put, ..bulk("/_bulk") },
    Operation { summary: "the same, the index is the topic", ..bulk("/{index}/_bulk") },
    Operation { verb: Verb::Put, ..bulk("/{index}/_bulk") },
    elastic_get("/_license", handler!(elasticsearch::license)),
    elastic_get("/_cluster/health", handler!(elasticsearch::health)),
    collector("/services/collector", handler!(splunk::events)),
    Operation {
        summary: "events for Splunk; also /services/collector and /services/collector/event/1.0",
        ..collector("/services/collector/event", handler!(splunk::events))
    },
    collector("/services/collector/event/1.0", handler!(splunk::events)),
    Operation {
        summary: "lines for Splunk; also /services/collector/raw/1.0",
        ..collector("/services/collector/raw", handler!(splunk::raw))
    },
    collector("/services/collector/raw/1.0", handler!(splunk::raw)),
    // Docker's log driver probes so.
    of_splunk(Verb::Options, "/services/collector/event/1.0", handler!(splunk::probe)),
    of_splunk(Verb::Post, "/services/collector/ack", handler!(splunk::acknowledgements)),
    Operation {
        summary: "for Splunk; also /services/collector/health/1.0 and /services/collector/ack",
        ..of_splunk(Verb::Get, "/services/collector/health", handler!(splunk::health))
    },
    of_splunk(Verb::Get, "/services/collector/health/1.0", handler!(splunk::health)),
];

/// Documents for Elasticsearch.
const fn bulk(path: &'static str) -> Operation {
    Operation {
        parameters: &ingest::elasticsearch::PARAMETERS,
        reads_body: true,
        key_value: KeyValueUse::WhenDue,
        needs_compat: true,
        refuse: ingest::elasticsearch::refuse,
        ..Operation::publishing(Verb::Post, path, handler!(elasticsearch::bulk))
    }
}

/// What clients of Elasticsearch ask beside.
const fn elastic_get(path: &'static str, handler: Handler) -> Operation {
    Operation {
        needs_compat: true,
        refuse: ingest::elasticsearch::refuse,
        ..Operation::publishing(Verb::Get, path, handler)
    }
}

/// Events for Splunk.
const fn collector(path: &'static str, handler: Handler) -> Operation {
    Operation {
        parameters: &ingest::splunk::PARAMETERS,
        reads_body: true,
        key_value: KeyValueUse::WhenDue,
        ..of_splunk(Verb::Post, path, handler)
    }
}

/// What else clients of Splunk send.
const fn of_splunk(verb: Verb, path: &'static str, handler: Handler) -> Operation {
    Operation {
        needs_compat: true,
        refuse: ingest::splunk::refuse,
        ..Operation::publishing(verb, path, handler)
    }
}

/// The route of a path.
pub(crate) fn find(path: &str) -> Option<Route<'_>> {
    Route::find(&OPERATIONS, path)
}

/// Writes the refusal of a request, as its route does, if it has one.
pub(crate) fn refuse(
    as_route: Option<Refuse>,
    head: &Parts,
    trace: &Trace,
    problem: Problem,
) -> Reply {
    let problem = problem.of_request(&trace.request_id);
    match as_route {
        Some(refuse) => refuse(head, problem),
        None => problem.into_reply(),
    }
}

/// Answers one request, whose path has this `route`, if any; its body is asked for
/// if the operation wants it: whole, or (`true`) as it comes.
///
/// The reply to HEAD is that to GET: leaving out the body is for whoever
/// writes it to the wire.
///
/// # Errors
///
/// Every error of every route.
pub(crate) async fn handle(
    app: &Rc<App>,
    route: Option<Route<'_>>,
    head: &Parts,
    trace: &Trace,
    noted: &Noted,
    read_body: impl AsyncFnOnce(bool) -> Result<Incoming, Problem>,
) -> Result<Reply, Problem> {
    if !route.as_ref().is_some_and(Route::takes_any_host) {
        access::check_host(&app.config.allowed_hosts, head)?;
    }
    access::check_origin(&app.config.cors_origins, head)?;
    let route = route.filter(|route| route.is_open(&app.config));
    // A browser asks so before it sends a page's key.
    if head.method == Method::OPTIONS
        && let Some(route) = &route
        && let Some(preflight) = cors::preflight(&app.config.cors_origins, head, &route.allowed())
    {
        return Ok(preflight);
    }
    let operation = route.as_ref().and_then(|route| route.operation(&head.method));
    let access = operation.map_or(Access::AnyKey, |operation| operation.access);
    let caller = match authenticate(&app.config.keys, access, head, || app.platform.now()) {
        Ok(caller) => caller,
        Err(problem) => return without_key(operation, head, problem),
    };
    let Some(route) = route else {
        let path = shortened(head.uri.path(), TOLD_BACK_BYTES_MAX);
        return Err(Problem::new(
            Code::NotFound,
            format!("There is no route {path}; / lists them."),
        ));
    };
    let Some(operation) = operation else {
        return Err(method_not_allowed(&head.method, &route.allowed()));
    };
    noted.set_caller(&caller);
    check_caller(app, operation, route.name, &caller)?;
    let incoming = match operation.reads_body {
        true => {
            noted.begin(&*app.platform);
            let incoming = read_body(operation.streams_body).await?;
            noted.end(Phase::Body, &*app.platform);
            incoming
        }
        false => Incoming::Whole(Vec::new()),
    };
    let (body, stream) = match incoming {
        Incoming::Whole(body) => (body, None),
        Incoming::Stream(stream) => (Vec::new(), Some(stream)),
    };
    if let Some(key) = caller.key() {
        app.limits.spend(key, app.platform.monotonic(), 0, body.len());
    }
    let stream = Cell::new(stream);
    let request = Request { head, name: route.name, body: &body, stream, caller, trace, noted };
    let reply = (operation.handler)(app, &request).await?;
    Ok(if operation.may_compress { compressed(&head.headers, reply) } else { reply })
}

/// Checks what the key of a caller is not good for, as far as it is known before the body
/// is read.
fn check_caller(
    app: &App,
    operation: &Operation,
    name: &str,
    caller: &Caller,
) -> Result<(), Problem> {
    let Some(key) = caller.key() else { return Ok(()) };
    if operation.is_of_all_topics {
        caller.check_all_topics()?;
    }
    // What is no topic is told by whoever reads it.
    if operation.names_topic
        && let Ok(Some(topic)) = ingest::topic_in_path(name)
    {
        caller.check_topics([topic.as_str()])?;
    }
    match operation.access {
        Access::Scope(Scope::Publish) => app.limits.admit(key, app.platform.monotonic()),
        _ => Ok(()),
    }
}

/// What a request without a key is told: a browser that wants a page has one that asks
/// for the key.
fn without_key(
    operation: Option<&Operation>,
    head: &Parts,
    problem: Problem,
) -> Result<Reply, Problem> {
    let page = operation.and_then(|operation| operation.page);
    let Some(page) = page.filter(|_| pages::wants_html(&head.headers)) else {
        return Err(problem);
    };
    Ok(Reply { status: problem.status(), ..page()? }
        .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static(BEARER)))
}

fn method_not_allowed(method: &Method, allowed: &str) -> Problem {
    let method = shortened(method.as_str(), TOLD_BACK_BYTES_MAX);
    let problem =
        Problem::new(Code::MethodNotAllowed, format!("{method} is not one of {allowed}."));
    match HeaderValue::from_str(allowed) {
        Ok(allowed) => problem.with_header(header::ALLOW, allowed),
        // Names of methods are always a header's value.
        Err(_) => problem,
    }
}

/// Answers `GET /`: the dashboard for a browser, what a client of Elasticsearch asks for,
/// the routes as text for others.
async fn index(app: &Rc<App>, request: &Request<'_>) -> Result<Reply, Problem> {
    let reply = match elasticsearch::info(app, request) {
        Some(info) => info,
        None if pages::wants_html(request.headers()) => pages::dashboard(request)?,
        None => Reply::text(StatusCode::OK, &index_text(app.config.compat)),
    };
    Ok(reply.with_header(header::VARY, HeaderValue::from_static("accept")))
}

/// The routes that have a line in the index, each with its parameters.
fn index_text(has_compat: bool) -> String {
    let mut lines = String::new();
    let open = OPERATIONS.iter().filter(|operation| has_compat || !operation.needs_compat);
    for operation in open.filter(|operation| !operation.summary.is_empty()) {
        let Operation { verb, path, summary, parameters, .. } = operation;
        let verb = verb.as_str();
        // Those of a publish are for the reply alone.
        let names: Vec<&str> = match operation.reads_body {
            true => Vec::new(),
            false => parameters.iter().map(|parameter| parameter.name).collect(),
        };
        let parameters = match names.is_empty() {
            true => String::new(),
            false => format!(" ({})", names.join(", ")),
        };
        // Writing to a string does not fail.
        writeln!(lines, "{verb:<6} {path:<28}  {summary}{parameters}").ok();
    }
    include_str!("../web/index.txt").replace("{routes}\n", &lines)
}
