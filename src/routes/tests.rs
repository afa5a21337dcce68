use http::header;
use serde_json::json;

use super::*;
use crate::testing::{self, TestService};

fn status(service: &TestService, method: &str, path: &str) -> u16 {
    service.request(method, path, "").0.as_u16()
}

#[test]
fn paths_find_their_routes() {
    let found = |path: &str| find(path).map(|route| (route.allowed(), route.name.to_owned()));
    for (path, allowed, name) in [
        ("/", "GET, HEAD", ""),
        ("", "GET, HEAD", ""),
        ("/publish", "POST, HEAD", ""),
        ("/publish/", "POST, HEAD", ""),
        ("/events", "GET, HEAD", ""),
        ("/events/stream", "GET, HEAD", ""),
        ("/subscriptions", "GET, HEAD", ""),
        ("/subscriptions/a", "GET, HEAD, PUT, DELETE", "a"),
        ("/subscriptions/a/", "GET, HEAD, PUT, DELETE", "a"),
        ("/subscriptions//events", "GET, HEAD", ""),
        ("/subscriptions/a/events", "GET, HEAD", "a"),
        ("/subscriptions/events/ack", "POST", "events"),
        ("/assets/style.css", "GET, HEAD", "style.css"),
    ] {
        assert_eq!(found(path), Some((allowed.to_owned(), name.to_owned())), "{path}");
    }
    for path in [
        "/Publish",
        "/publish/x",
        "//",
        "/events//",
        "/eventsx",
        "publish",
        "/subscriptions/a/b",
        "/subscriptions/a/events/x",
        "/assets",
        "/assets/a/b",
        "/{name}",
        "*",
    ] {
        assert_eq!(found(path), None, "{path}");
    }
}

#[test]
fn other_methods_are_told_which_there_are() {
    let service = TestService::new();
    for operation in &OPERATIONS {
        let path = operation.path.replace("{name}", "x");
        let allowed = find(&path).unwrap().allowed();
        for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"] {
            let reply = service.send(method, &path, &[], "").unwrap_or_else(Problem::into_reply);
            let is_allowed = allowed.split(", ").any(|one| one == method);
            assert_eq!(reply.status.as_u16() != 405, is_allowed, "{method} {path}");
            if !is_allowed {
                assert_eq!(reply.headers[header::ALLOW], allowed.as_str(), "{method} {path}");
            }
        }
    }
    assert_eq!(status(&service, "GET", "/nowhere"), 404);
}

#[test]
fn the_index_lists_the_routes() {
    let service = TestService::new();
    let reply = service.send("GET", "/", &[("accept", "*/*")], "").unwrap();
    assert_eq!(reply.headers[header::VARY], "accept");
    let text = testing::json(reply);
    let text = text.as_str().unwrap();
    for line in [
        "POST   /publish                      takes events, replies when they are on disk",
        "GET    /events                       reads stored events \
         (topic, source, limit, after, order, since, until)",
        "GET    /events/stream                events as they are stored: server-sent events \
         (topic, after)",
        "GET    /subscriptions/{name}/events  the events after its position (limit, wait)",
        "GET    /                             a dashboard for browsers, this text for others",
    ] {
        assert!(text.lines().any(|one| one == line), "{line} in\n{text}");
    }
    for operation in &OPERATIONS {
        let path = operation.path;
        assert!(path == "/assets/{name}" || text.contains(path), "{path} in\n{text}");
    }
    let html = service.send("GET", "/", &[("accept", "text/html")], "").unwrap();
    assert_eq!(html.headers[header::CONTENT_TYPE], "text/html; charset=utf-8");
}

#[test]
fn readers_refuse_the_topics_that_cannot_be_published() {
    let service = TestService::new();
    let long = "é".repeat(crate::event::NAME_CHARS_MAX + 1);
    for topic in ["", "a%00", &long.replace('é', "%C3%A9")] {
        for path in ["/events", "/events/stream"] {
            let (status, reply) = service.get(&format!("{path}?topic={topic}"));
            assert_eq!((status.as_u16(), &reply["code"]), (422, &json!("invalid_parameter")));
            assert!(reply["detail"].as_str().unwrap().contains("topic"), "{reply}");
        }
    }
    assert_eq!(status(&service, "GET", "/events?topic=a"), 200);
}
