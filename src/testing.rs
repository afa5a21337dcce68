//! The service over a [`FakePlatform`], for tests of its routes.

use std::cell::RefCell;
use std::ops::Deref;
use std::rc::Rc;

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::StatusCode;
use http::request::Parts;
use http_body::Frame;
use http_body_util::StreamBody;

use crate::app::App;
use crate::http::noted::Noted;
use crate::http::problem::Problem;
use crate::http::reply::{Body, ByteStream, Reply};
use crate::http::request::{Incoming, RequestBody};
use crate::http::trace::{Ids, Trace};
use crate::platform::fake::{FakePlatform, now};
use crate::routes::{self, KeyValueUse};

/// One instance of the service after another, over the same platform.
pub(crate) struct TestService {
    platform: Rc<FakePlatform>,
    app: RefCell<Rc<App>>,
}

impl TestService {
    pub(crate) fn new() -> Self {
        Self::over(FakePlatform::new())
    }

    pub(crate) fn over(platform: Rc<FakePlatform>) -> Self {
        platform.variables.borrow_mut().insert("log_level".to_owned(), "off".to_owned());
        let app = RefCell::new(now(App::load(platform.clone())).unwrap());
        TestService { platform, app }
    }

    /// What it runs on, for one more instance.
    pub(crate) fn platform(&self) -> Rc<FakePlatform> {
        Rc::clone(&self.platform)
    }

    /// The instance that answers.
    pub(crate) fn app(&self) -> Rc<App> {
        Rc::clone(&self.app.borrow())
    }

    pub(crate) fn publish(&self, body: &str) -> (StatusCode, serde_json::Value) {
        self.request("POST", "/publish", body)
    }

    pub(crate) fn get(&self, path: &str) -> (StatusCode, serde_json::Value) {
        self.request("GET", path, "")
    }

    pub(crate) fn request(
        &self,
        method: &str,
        path: &str,
        body: &str,
    ) -> (StatusCode, serde_json::Value) {
        let reply = self.send(method, path, &[], body).unwrap_or_else(Problem::into_reply);
        (reply.status, json(reply))
    }

    /// The reply to a request as its client sees it, whose route may refuse it in its own
    /// way.
    pub(crate) fn answer(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Reply {
        let head = head(method, path, headers);
        let app = self.app();
        let route = routes::find(head.uri.path()).filter(|route| route.is_open(&app.config));
        let reply = self.send_parts(method, path, headers, &[Some(body)]);
        let refuse = route.and_then(|route| route.refuse());
        reply.unwrap_or_else(|problem| routes::refuse(refuse, &head, &trace(&head), problem))
    }

    /// The reply to a request, before it is written.
    pub(crate) fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<Reply, Problem> {
        self.send_bytes(method, path, headers, body.as_bytes())
    }

    /// The same with a body that need not be text.
    pub(crate) fn send_bytes(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Reply, Problem> {
        self.send_parts(method, path, headers, &[Some(body)])
    }

    /// The parts of the reply to a stream of events that comes in `parts`; one that is
    /// none is an error of the connection.
    pub(crate) fn publish_stream(&self, parts: &[Option<&[u8]>]) -> Vec<String> {
        let reply = self.send_parts("POST", "/publish/stream", &[], parts).unwrap();
        let Body::Stream(outcomes) = reply.body else { panic!("the reply is no stream") };
        let outcomes: Vec<_> = now(outcomes.collect());
        let text = |part: Result<Vec<u8>, _>| String::from_utf8(part.unwrap()).unwrap();
        outcomes.into_iter().map(text).collect()
    }

    fn send_parts(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        parts: &[Option<&[u8]>],
    ) -> Result<Reply, Problem> {
        let head = head(method, path, headers);
        let app = self.app();
        let route = routes::find(head.uri.path());
        let operation = route.as_ref().and_then(|route| route.operation(&head.method));
        let may_be_due = operation.is_some_and(|one| one.key_value == KeyValueUse::WhenDue);
        let read = async |as_it_comes: bool| {
            if as_it_comes {
                let frame = |part: &[u8]| Frame::data(Bytes::copy_from_slice(part));
                let frames: Vec<_> =
                    parts.iter().map(|part| part.map(frame).ok_or("reset")).collect();
                let mut body = RequestBody::of(&head, StreamBody::new(stream::iter(frames)));
                return body.stream(&head.headers).map(Incoming::Stream);
            }
            if may_be_due && app.history.is_due().await {
                app.claim_snapshot().await;
            }
            Ok(Incoming::Whole(parts.iter().flatten().copied().collect::<Vec<_>>().concat()))
        };
        let reply = now(routes::handle(&app, route, &head, &trace(&head), &Noted::default(), read));
        if let Some(visit) = app.take_wanted_visit() {
            now(app.visit_key_value(visit));
        }
        reply
    }

    /// The parts of a reply that is a stream.
    pub(crate) fn stream(&self, path: &str) -> TestStream {
        self.stream_with(path, &[])
    }

    /// The same, of a request with `headers`.
    pub(crate) fn stream_with(&self, path: &str, headers: &[(&str, &str)]) -> TestStream {
        match self.send("GET", path, headers, "").unwrap().body {
            Body::Stream(parts) => TestStream(parts),
            Body::Whole(_) => panic!("{path} is no stream"),
        }
    }
}

impl Deref for TestService {
    type Target = FakePlatform;

    fn deref(&self) -> &FakePlatform {
        &self.platform
    }
}

fn head(method: &str, path: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = http::Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn trace(head: &Parts) -> Trace {
    Trace::of(&head.headers, &Ids::default())
}

/// A reply that comes in parts.
pub(crate) struct TestStream(ByteStream);

impl TestStream {
    /// The next part.
    pub(crate) fn part(&mut self) -> String {
        let part = now(self.0.next()).expect("a stream that goes on").unwrap();
        String::from_utf8(part).unwrap()
    }
}

/// The reply's body; text that is no JSON as a string.
pub(crate) fn json(reply: Reply) -> serde_json::Value {
    match reply.body {
        Body::Whole(body) => serde_json::from_slice(&body)
            .unwrap_or_else(|_| String::from_utf8(body).unwrap().into()),
        Body::Stream(_) => serde_json::Value::Null,
    }
}
