//! Pages of other origins.

use libtest_mimic::Failed;

use crate::support::{
    Client, Reply, Server, ServerOptions, Stream, TestResult, check, check_eq, event, own_server,
    test, unique_topic,
};

/// An origin that is allowed where some are.
const ALLOWED: &str = "https://app.example:8443";

/// A host whose service allows these origins.
fn allowing(origins: &str) -> ServerOptions {
    ServerOptions::default().variable(&format!("cors_origins={origins}"))
}

/// The headers that speak of origins.
fn cross_origin(reply: &Reply) -> Vec<(&str, &str)> {
    let headers = reply.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    headers.filter(|(name, _)| name.starts_with("access-control-")).collect()
}

/// A reply of every kind to a page of `origin`, which may change something or not.
fn replies(client: &Client, origin: &str, may_change: bool) -> Result<Vec<Reply>, Failed> {
    let topic = unique_topic("origin");
    let good = event(&topic, "1");
    let is_safe = |method| ["GET", "HEAD", "OPTIONS"].contains(&method);
    let mut replies = Vec::new();
    for (method, path, body, status) in [
        ("POST", "/publish", good.as_str(), 200),
        ("POST", "/publish", "oops", 422),
        ("GET", "/events?limit=1", "", 200),
        ("GET", "/events?limit=0", "", 422),
        ("GET", "/nowhere", "", 404),
        ("DELETE", "/stats", "", 405),
        ("HEAD", "/stats", "", 200),
        ("GET", "/metrics", "", 200),
        ("GET", "/subscriptions/nobody", "", 404),
        ("GET", "/assets/style.css", "", 200),
        ("OPTIONS", "/publish", "", 405),
        ("HEAD", "/events/stream", "", 200),
    ] {
        let status = if may_change || is_safe(method) { status } else { 403 };
        let reply = client.send(method, path, &[("origin", origin)], body.as_bytes())?;
        replies.push(reply.expect(status)?);
    }
    for path in ["/events/stream?after=end", "/stats/stream"] {
        replies.push(Stream::with_headers(client, path, &[("origin", origin)], u64::MAX)?.head);
    }
    let tag = client.get("/assets/style.css")?.expect(200)?;
    let tag = tag.header("etag").ok_or("no etag")?;
    let headers = [("origin", origin), ("if-none-match", tag)];
    replies.push(client.send("GET", "/assets/style.css", &headers, &[])?.expect(304)?);
    Ok(replies)
}

/// What a browser asks before it lets a page of `origin` send its request.
fn preflight(client: &Client, path: &str, origin: &str, method: &str) -> Result<Reply, Failed> {
    let headers = [
        ("origin", origin),
        ("access-control-request-method", method),
        ("access-control-request-headers", "content-type,last-event-id"),
    ];
    Ok(client.send("OPTIONS", path, &headers, &[])?)
}

/// Every reply to a page of `origin` can be read by it, since it allows `allowed`.
fn check_allowed(client: &Client, origin: &str, allowed: &str) -> TestResult {
    for reply in replies(client, origin, true)? {
        let headers = cross_origin(&reply);
        let exposed = headers.iter().find(|(name, _)| *name == "access-control-expose-headers");
        let exposed = exposed.map(|(_, exposed)| exposed.to_ascii_lowercase()).unwrap_or_default();
        check(exposed.contains("retry-after"), || format!("exposed is {exposed:?}: {reply:#?}"))?;
        check(headers.contains(&("access-control-allow-origin", allowed)), || {
            format!("{reply:#?}")
        })?;
        check_eq(headers.len(), 2, &format!("headers about origins in {reply:#?}"))?;
    }
    for (path, method, others) in [
        ("/publish", "POST", ["HEAD"].as_slice()),
        ("/subscriptions/any", "PUT", &["GET", "DELETE"]),
        ("/subscriptions/any/ack", "POST", &[]),
        ("/events/stream", "GET", &["HEAD"]),
    ] {
        let reply = preflight(client, path, origin, method)?.expect(200)?;
        check_eq(reply.text.as_str(), "", "the body of a preflight")?;
        check_eq(reply.header("access-control-allow-origin"), Some(allowed), path)?;
        let methods = reply.header("access-control-allow-methods").unwrap_or_default();
        let allows = |method: &&str| methods.split(',').any(|one| one.trim() == *method);
        check(allows(&method) && others.iter().all(allows), || format!("{path}: {methods}"))?;
        let headers = reply.header("access-control-allow-headers").unwrap_or_default();
        let headers: Vec<&str> = headers.split(',').map(str::trim).collect();
        let both = headers.contains(&"content-type") && headers.contains(&"last-event-id");
        check(both || headers == ["*"], || format!("{path}: {headers:?}"))?;
        let age = reply.header("access-control-max-age").and_then(|age| age.parse::<u32>().ok());
        check(age.is_some_and(|age| age > 0), || format!("{reply:#?}"))?;
        // Nothing here knows who asks, so there is nothing to send along.
        check_eq(reply.header("access-control-allow-credentials"), None, path)?;
    }
    preflight(client, "/nowhere", origin, "GET")?.expect(404).map(drop)
}

/// No reply to a page of `origin` says anything about origins.
fn check_not_allowed(client: &Client, origin: &str) -> TestResult {
    let is_own = origin == format!("http://{}", client.address());
    let mut replies = replies(client, origin, is_own)?;
    for path in ["/publish", "/subscriptions/any"] {
        let reply = preflight(client, path, origin, "POST")?.expect(405)?;
        check(reply.header("allow").is_some(), || format!("{reply:#?}"))?;
        replies.push(reply);
    }
    replies.iter().try_for_each(|reply| {
        check(cross_origin(reply).is_empty(), || format!("to {origin}: {reply:#?}"))
    })
}

#[test(own_server)]
fn no_other_origin_is_allowed_by_default() -> TestResult {
    let server = Server::start()?;
    for origin in [ALLOWED, "null", &server.url] {
        check_not_allowed(&server.client(), origin)?;
    }
    Ok(())
}

#[test(own_server)]
fn listed_origins_may_read_every_reply() -> TestResult {
    // As browsers write them, and as people do.
    let origins = format!("{ALLOWED}, http://127.0.0.1:5173 ,https://Upper.Example:443");
    let server = allowing(&origins).start()?;
    let client = server.client();
    for origin in [ALLOWED, "http://127.0.0.1:5173", "https://upper.example"] {
        check_allowed(&client, origin, origin)?;
        let reply = client.send("GET", "/stats", &[("origin", origin)], &[])?;
        // Caches keep replies to one origin from another.
        let vary = reply.header("vary").unwrap_or_default().to_ascii_lowercase();
        check(vary.contains("origin"), || format!("{reply:#?}"))?;
    }
    for origin in [
        "https://app.example",
        "http://app.example:8443",
        "https://app.example:84433",
        "https://app.example.evil.example:8443",
        "https://evil.example",
        "https://evil.example https://app.example:8443",
        "null",
        "*",
        &server.url,
    ] {
        check_not_allowed(&client, origin)?;
    }
    // Nobody asked on behalf of a page.
    check_eq(cross_origin(&client.get("/stats")?), vec![], "without an origin")
}

#[test(own_server)]
fn a_wildcard_allows_every_origin() -> TestResult {
    let server = allowing("*").start()?;
    for origin in [ALLOWED, "null", "http://localhost"] {
        check_allowed(&server.client(), origin, "*")?;
    }
    Ok(())
}

#[test(own_server)]
fn an_invalid_origin_is_named() -> TestResult {
    for origins in ["app.example", "https://app.example/", "*,https://app.example", "https://"] {
        let server = allowing(origins).start()?;
        let reply = server.client().publish(event("t", "1"))?.expect(503)?;
        check(reply.json()?["code"] == "misconfigured", || format!("{reply:#?}"))?;
        check(reply.text.contains("cors_origins"), || format!("not named: {reply:#?}"))?;
        check(reply.header("retry-after").is_some(), || format!("{reply:#?}"))?;
        server.client().get("/health")?.expect(503).map(drop)?;
    }
    Ok(())
}
