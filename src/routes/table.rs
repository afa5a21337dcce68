//! What a row of the route table is, and how a path finds its rows.

use std::rc::Rc;

use futures::future::LocalBoxFuture;
use http::Method;
use http::request::Parts;

use crate::app::App;
use crate::config::{Config, Scope};
use crate::http::authentication::Access;
use crate::http::problem::Problem;
use crate::http::query::Parameter;
use crate::http::reply::Reply;
use crate::http::request::Request;

/// What answers a request.
pub(crate) type Handler =
    for<'a> fn(&'a Rc<App>, &'a Request<'a>) -> LocalBoxFuture<'a, Result<Reply, Problem>>;

/// How a refusal is written, for those who understand none but their own.
pub(crate) type Refuse = fn(&Parts, Problem) -> Reply;

/// The methods that routes have. (`http::Method` can own a string, so a table of
/// them could not be a constant.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Options,
}

impl Verb {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Verb::Get => "GET",
            Verb::Head => "HEAD",
            Verb::Post => "POST",
            Verb::Put => "PUT",
            Verb::Delete => "DELETE",
            Verb::Options => "OPTIONS",
        }
    }
}

/// When an operation calls the key-value store, which holds up its instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyValueUse {
    /// It does not.
    Never,
    /// Not while anybody waits; afterwards, when a snapshot of the counters is due.
    WhenDue,
    /// It may, also before it is answered.
    Always,
}

/// One method of one path.
pub(crate) struct Operation {
    pub(crate) verb: Verb,
    /// Segments, of which `{name}` stands for any one.
    pub(crate) path: &'static str,
    /// What it does, for the index; empty for one that has no line of its own.
    pub(crate) summary: &'static str,
    /// The query parameters that it takes.
    pub(crate) parameters: &'static [Parameter],
    /// Whether it wants the body of the request.
    pub(crate) reads_body: bool,
    /// Whether it wants it as it comes, and not when it is whole.
    pub(crate) streams_body: bool,
    /// Whether its reply may take as long as the client likes.
    pub(crate) may_stay: bool,
    /// Whether its reply goes out compressed to who likes that: one whose parts matter
    /// as they come, such as an event stream, does not.
    pub(crate) may_compress: bool,
    /// Whether it answers whatever the host that the request names.
    pub(crate) takes_any_host: bool,
    /// Who may call it, once there are keys.
    pub(crate) access: Access,
    /// Whether it is about all topics, so that a key of some is not good for it.
    pub(crate) is_of_all_topics: bool,
    /// Whether what stands for `{name}` is the topic of all that it takes.
    pub(crate) names_topic: bool,
    /// The page that asks somebody without a key for one.
    pub(crate) page: Option<fn() -> Result<Reply, Problem>>,
    /// Whether it calls the key-value store, or may have it called.
    pub(crate) key_value: KeyValueUse,
    /// Whether it is there for the clients of another service, and only while
    /// `compat` is on. All operations of a path are, or none.
    pub(crate) needs_compat: bool,
    /// How it refuses requests. All operations of a path do it the same way.
    pub(crate) refuse: Refuse,
    pub(crate) handler: Handler,
}

impl Operation {
    /// A `GET`, which answers `HEAD` as well.
    pub(crate) const fn get(path: &'static str, handler: Handler) -> Self {
        let access = Access::Scope(Scope::Read);
        Operation { access, ..Operation::new(Verb::Get, path, handler) }
    }

    /// One by which events come in.
    pub(crate) const fn publishing(verb: Verb, path: &'static str, handler: Handler) -> Self {
        let access = Access::Scope(Scope::Publish);
        Operation { access, ..Operation::new(verb, path, handler) }
    }

    /// An operation with no parameters, no body, and a reply that ends soon. Not for
    /// everybody: a row that says nothing else is for the scope that has all.
    pub(crate) const fn new(verb: Verb, path: &'static str, handler: Handler) -> Self {
        Operation {
            verb,
            path,
            summary: "",
            parameters: &[],
            reads_body: false,
            streams_body: false,
            may_stay: false,
            may_compress: false,
            takes_any_host: false,
            access: Access::Scope(Scope::Admin),
            is_of_all_topics: false,
            names_topic: false,
            page: None,
            key_value: KeyValueUse::Never,
            needs_compat: false,
            refuse: |_, problem| problem.into_reply(),
            handler,
        }
    }
}

/// An async function as a [`Handler`].
macro_rules! handler {
    ($function:path) => {
        |app, request| Box::pin($function(app, request))
    };
}
pub(crate) use handler;

/// The operations of a path, and what stands for `{name}` in it.
pub(crate) struct Route<'p> {
    operations: Vec<&'static Operation>,
    /// What stands for `{name}`; empty in a path without.
    pub(crate) name: &'p str,
}

impl<'p> Route<'p> {
    /// The route of a path; a trailing slash is the same route. Of two that a path
    /// matches, the table's first is its route.
    pub(crate) fn find(table: &'static [Operation], path: &'p str) -> Option<Self> {
        let path = path.strip_suffix('/').unwrap_or(path);
        let mut route = Route { operations: Vec::new(), name: "" };
        for operation in table {
            if route.path().is_some_and(|path| path != operation.path) {
                continue;
            }
            let template = operation.path.strip_suffix('/').unwrap_or(operation.path);
            if let Some(name) = captured(template, path) {
                route.name = name;
                route.operations.push(operation);
            }
        }
        (!route.operations.is_empty()).then_some(route)
    }

    /// The operation of a method. `HEAD` is that of `GET`, unless it has one of
    /// its own.
    pub(crate) fn operation(&self, method: &Method) -> Option<&'static Operation> {
        let of = |verb: &str| self.operations.iter().copied().find(|one| one.verb.as_str() == verb);
        of(method.as_str()).or_else(|| if method == Method::HEAD { of("GET") } else { None })
    }

    /// How requests for it are refused.
    pub(crate) fn refuse(&self) -> Option<Refuse> {
        self.operations.first().map(|operation| operation.refuse)
    }

    /// Its path as the table has it.
    pub(crate) fn path(&self) -> Option<&'static str> {
        self.operations.first().map(|operation| operation.path)
    }

    /// Whether it is there, as the service is set up.
    pub(crate) fn is_open(&self, config: &Config) -> bool {
        config.compat || !self.operations.iter().any(|operation| operation.needs_compat)
    }

    /// Whether a reply of any of its operations may take as long as the client likes.
    pub(crate) fn may_stay(&self) -> bool {
        self.operations.iter().any(|operation| operation.may_stay)
    }

    /// Whether all of its operations answer whatever the host that the request names.
    pub(crate) fn takes_any_host(&self) -> bool {
        self.operations.iter().all(|operation| operation.takes_any_host)
    }

    /// The methods that it has, as `Allow` lists them.
    pub(crate) fn allowed(&self) -> String {
        let verbs = self.operations.iter().flat_map(|operation| match operation.verb {
            Verb::Get => vec!["GET", "HEAD"],
            other => vec![other.as_str()],
        });
        verbs.collect::<Vec<_>>().join(", ")
    }
}

/// What stands for the `{…}` of `template` in `path`, if the path matches it.
fn captured<'p>(template: &str, path: &'p str) -> Option<&'p str> {
    let mut name = "";
    let mut wanted = template.split('/');
    for segment in path.split('/') {
        match wanted.next()? {
            hole if hole.starts_with('{') => name = segment,
            fixed if fixed == segment => {}
            _ => return None,
        }
    }
    wanted.next().is_none().then_some(name)
}
