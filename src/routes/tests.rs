use http::header;
use rusqlite::types::Value as SqlValue;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::*;
use crate::http::noted::Noted;
use crate::http::query::Takes;
use crate::http::trace::Ids;
use crate::platform::fake::{FakePlatform, now};
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
        ("/publish/stream", "POST", ""),
        ("/publish/orders", "POST, HEAD", "orders"),
        ("/publish//", "POST, HEAD", ""),
        ("/events", "GET, HEAD", ""),
        ("/events/stream", "GET, HEAD", ""),
        ("/subscriptions", "GET, HEAD", ""),
        ("/subscriptions/a", "GET, HEAD, PUT, DELETE", "a"),
        ("/subscriptions/a/", "GET, HEAD, PUT, DELETE", "a"),
        ("/subscriptions//events", "GET, HEAD", ""),
        ("/subscriptions/a/events", "GET, HEAD", "a"),
        ("/subscriptions/events/ack", "POST", "events"),
        ("/assets/style.css", "GET, HEAD", "style.css"),
        ("/_bulk", "POST, PUT", ""),
        ("/app/_bulk/", "POST, PUT", "app"),
        ("/services/collector/event/1.0", "POST, OPTIONS", ""),
        // What was there before them.
        ("/publish/_bulk", "POST, HEAD", "_bulk"),
        ("/subscriptions/_bulk", "GET, HEAD, PUT, DELETE", "_bulk"),
    ] {
        assert_eq!(found(path), Some((allowed.to_owned(), name.to_owned())), "{path}");
    }
    for path in [
        "/Publish",
        "/publish/x/y",
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
fn without_compat_the_routes_of_others_are_not_there() {
    let platform = FakePlatform::new();
    platform.variables.borrow_mut().extend([("compat".to_owned(), "false".to_owned())]);
    let service = TestService::over(platform);
    let shown = |reply: Reply| {
        let content_type = reply.headers[header::CONTENT_TYPE].to_str().unwrap().to_owned();
        (reply.status.as_u16(), content_type, testing::json(reply)["code"].clone())
    };
    for operation in OPERATIONS.iter().filter(|operation| operation.needs_compat) {
        let reply = service.answer(operation.verb.as_str(), operation.path, &[], b"{}");
        let expected = (404, "application/problem+json".to_owned(), json!("not_found"));
        assert_eq!(shown(reply), expected, "{}", operation.path);
    }
    let text = service.answer("GET", "/", &[("accept", "application/json")], b"");
    assert_eq!(text.headers[header::CONTENT_TYPE], "text/plain; charset=utf-8");
    let text = testing::json(text);
    assert!(!text.as_str().unwrap().contains("_bulk"), "{text}");
}

#[test]
fn a_key_is_good_for_the_topic_that_a_path_names() {
    let platform = FakePlatform::new();
    let digest = crate::text::hex(&Sha256::digest("sekali_key"));
    let keys = format!(
        r#"{{"name": "a", "sha256": "{digest}", "scopes": ["publish"], "topics": ["a+b é"]}}"#
    );
    platform.variables.borrow_mut().extend([("api_keys".to_owned(), keys)]);
    let service = TestService::over(platform);
    let key = [("x-api-key", "sekali_key")];
    // In a path a plus is a plus.
    for (path, expected) in
        [("/publish/a+b%20%C3%A9", 200), ("/publish/a%2Bb%20%C3%A9", 200), ("/publish/a%20b", 403)]
    {
        let status = service.answer("POST", path, &key, b"{}").status;
        assert_eq!(status.as_u16(), expected, "{path}");
    }
}

#[test]
fn the_index_lists_the_routes() {
    let service = TestService::new();
    let reply = service.send("GET", "/", &[("accept", "*/*")], "").unwrap();
    assert_eq!(reply.headers[header::VARY], "accept, accept-encoding");
    let text = testing::json(reply);
    let text = text.as_str().unwrap();
    for line in [
        "POST   /publish                      takes events, replies when they are on disk",
        "GET    /events                       reads stored events \
         (topic, source, contains, match, limit, after, order, since, until, format)",
        "GET    /events/stream                events as they are stored: server-sent events \
         (topic, after, format)",
        "GET    /subscriptions/{name}/events  the events after its position (limit, wait)",
        "GET    /                             a dashboard for browsers, this text for others",
        "POST   /services/collector/raw       lines for Splunk; also /services/collector/raw/1.0",
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

/// Every path that is read with a parameter for which `is_meant` holds, and its name.
fn paths_taking(is_meant: impl Fn(&Takes) -> bool) -> Vec<(&'static str, &'static str)> {
    let reads = OPERATIONS.iter().filter(|operation| !operation.reads_body);
    let each = reads.flat_map(|operation| {
        operation.parameters.iter().map(|parameter| (operation.path, parameter))
    });
    let meant = each.filter(|(_, parameter)| is_meant(&parameter.takes));
    meant.map(|(path, parameter)| (path, parameter.name)).collect()
}

#[test]
fn readers_refuse_the_names_that_cannot_be_published() {
    let service = TestService::new();
    let long = "%C3%A9".repeat(crate::event::NAME_CHARS_MAX + 1);
    let paths =
        paths_taking(|takes| matches!(takes, Takes::Topic | Takes::Topics { .. } | Takes::Source));
    assert!(paths.len() >= 3, "{paths:?}");
    for (path, name) in paths {
        for wrong in ["", "a%00", &long, "%FF", "a%C3", "%ED%A0%80", "%C0%AF", "%80a"] {
            let (status, reply) = service.get(&format!("{path}?{name}={wrong}"));
            let got = (status.as_u16(), reply["code"].as_str());
            assert_eq!(got, (422, Some("invalid_parameter")), "{path}?{name}={wrong}");
            assert!(reply["detail"].as_str().unwrap().contains(name), "{reply}");
        }
        for good in ["a", "%C3%A9", "a+b", "%EF%BF%BD", "50%", "%zz", &long[6..]] {
            let reply = service.send("GET", &format!("{path}?{name}={good}"), &[], "");
            assert_eq!(reply.unwrap().status, 200, "{path}?{name}={good}");
        }
    }
    for wrong in ["", r"a\u0000", &"é".repeat(crate::event::NAME_CHARS_MAX + 1), r"\ud800"] {
        let body = format!(r#"{{"topics": ["a", "{wrong}"]}}"#);
        let (status, reply) = service.request("PUT", "/subscriptions/n", &body);
        assert_eq!((status.as_u16(), &reply["code"]), (422, &json!("invalid_body")), "{wrong}");
    }
}

#[test]
fn every_reader_refuses_a_cursor_ahead_of_every_event() {
    let service = TestService::new();
    let cursors = |takes: &Takes| matches!(takes, Takes::Cursor | Takes::CursorOrEnd);
    let paths = paths_taking(cursors);
    assert!(paths.len() >= 2, "{paths:?}");
    for newest in 0..3 {
        for (path, name) in &paths {
            for more in ["", "&order=desc", "&limit=1", "&topic=other", "&since=2000-01-01"] {
                for accept in ["*/*", "application/x-ndjson"] {
                    let status_after = |cursor: i64| {
                        let path = format!("{path}?{name}={cursor}{more}");
                        let reply = service.send("GET", &path, &[("accept", accept)], "");
                        let reply = reply.unwrap_or_else(Problem::into_reply);
                        let status = reply.status.as_u16();
                        (status, (status == 409).then(|| testing::json(reply)["code"].clone()))
                    };
                    for cursor in [newest + 1, newest + 1000, i64::MAX] {
                        let ahead = (409, Some(json!("cursor_ahead")));
                        assert_eq!(status_after(cursor), ahead, "{path} {cursor} {more} {accept}");
                    }
                    for cursor in 0..=newest {
                        assert_eq!(status_after(cursor), (200, None), "{path} {cursor} {more}");
                    }
                }
            }
        }
        service.publish(
            &json!({"topic": "t", "event_id": newest.to_string(), "source": "s"}).to_string(),
        );
    }
}

/// Readers of one instance share what the last poll found; another instance may
/// have committed since, and have told a client so.
#[test]
fn a_cursor_that_another_instance_gave_a_moment_ago_is_taken() {
    let platform = FakePlatform::new();
    let (one, other) = (TestService::over(platform.clone()), TestService::over(platform));
    for id in 0..5 {
        // The end as this instance last saw it, before the other commits.
        one.stream("/events/stream?after=end").part();
        let event = json!({"topic": "t", "event_id": id.to_string(), "source": "s"}).to_string();
        let (_, reply) = other.request("POST", "/publish?results=all", &event);
        let seq = &reply["results"][0]["seq"];
        for query in ["", "&order=desc", "&topic=none"] {
            let path = format!("/events?after={seq}{query}");
            assert_eq!(one.get(&path).0, 200, "{path}");
        }
        let mut stream = one.stream(&format!("/events/stream?after={seq}"));
        assert_eq!(stream.part(), format!("retry: 1000\nid: {seq}\n\n"));
    }
}

/// What a page gives to go on with, every route takes.
#[test]
fn the_next_of_a_page_is_never_ahead() {
    let service = TestService::new();
    for published in 0..2 {
        for query in ["", "order=desc", "topic=none", "topic=none&order=desc", "until=2000-01-01"] {
            let next = service.get(&format!("/events?{query}")).1["next"].clone();
            let next = next.as_str().unwrap();
            for path in ["/events?order=desc&", "/events?", "/events/stream?"] {
                let reply = service.send("GET", &format!("{path}after={next}"), &[], "");
                assert_eq!(reply.unwrap().status, 200, "{published} {query}, then {path}");
            }
        }
        service.publish(r#"{"topic": "t", "event_id": "1", "source": "s"}"#);
    }
}

/// A page may send `GET`, `HEAD` and `OPTIONS` from wherever it is: nothing that
/// any client can see changes by them.
#[test]
fn what_any_page_may_send_changes_nothing() {
    let service = TestService::new();
    service.publish(r#"{"topic": "t", "event_id": "1", "source": "s"}"#);
    service.request("PUT", "/subscriptions/name", "");
    let kept = || {
        let rows = |sql: &str| {
            let mut statement = service.connection.prepare(sql).unwrap();
            let columns = statement.column_count();
            let row = |row: &rusqlite::Row<'_>| {
                (0..columns).map(|column| row.get(column)).collect::<Result<Vec<SqlValue>, _>>()
            };
            let rows = statement.query_map((), row).unwrap();
            rows.collect::<Result<Vec<_>, _>>().unwrap()
        };
        ["events", "topic_totals", "subscriptions", "service"]
            .map(|table| rows(&format!("SELECT * FROM {table}")))
    };
    let before = kept();
    for operation in &OPERATIONS {
        for method in ["GET", "HEAD", "OPTIONS"] {
            let path = operation.path.replace("{name}", "name");
            let evil = [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")];
            let reply = service.send(method, &path, &evil, r#"{"cursor": "1", "topics": ["a"]}"#);
            let status = reply.unwrap_or_else(Problem::into_reply).status.as_u16();
            assert!([200, 404, 405].contains(&status), "{method} {path}: {status}");
            assert_eq!(kept(), before, "{method} {path}");
        }
    }
}

#[test]
fn what_else_it_sends_is_refused_before_its_body_is_read() {
    let service = TestService::new();
    for operation in &OPERATIONS {
        let path = operation.path.replace("{name}", "name");
        for method in ["POST", "PUT", "DELETE", "PATCH", "BREW"] {
            let request = http::Request::builder().method(method).uri(&path);
            let request = request.header("origin", "https://evil.example");
            let head = request.body(()).unwrap().into_parts().0;
            let trace = Trace::of(&head.headers, &Ids::default());
            let read = async |_: bool| panic!("{method} {path}: its body is asked for");
            let reply = now(handle(
                &service.app(),
                find(head.uri.path()),
                &head,
                &trace,
                &Noted::default(),
                read,
            ));
            let problem = reply.err().unwrap();
            assert_eq!(problem.code(), Code::OriginRefused, "{method} {path}");
        }
    }
}

#[test]
fn every_route_but_that_of_probes_asks_for_the_host() {
    let platform = FakePlatform::new();
    let hosts = ("allowed_hosts".to_owned(), "events.example".to_owned());
    platform.variables.borrow_mut().extend([hosts]);
    let service = TestService::over(platform);
    let paths = OPERATIONS.iter().map(|operation| operation.path.replace("{name}", "name"));
    for path in paths.chain(["/nowhere".to_owned()]) {
        for method in ["GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE"] {
            for (host, is_refused) in [("events.example:80", false), ("evil.example", true)] {
                let reply = service.send(method, &path, &[("host", host)], "");
                let is_421 = reply.is_err_and(|problem| problem.code() == Code::HostRefused);
                let expected = is_refused && path != "/healthz";
                assert_eq!(is_421, expected, "{method} {path} of {host}");
            }
        }
    }
}
