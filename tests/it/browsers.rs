use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use libtest_mimic::Failed;
use serde_json::Value;

use crate::client::{Client, Reply};
use crate::event_source::Stream;
use crate::harness::{Outcome, Start, Target, check, check_eq, event, unique_topic};
use crate::registry::{any_server, own_server, test};

const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'self'; \
    frame-ancestors 'none'";

/// What browsers of all makes ask for when someone opens an address.
const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

const PAGES: [&str; 2] = ["/", "/docs"];

/// What is served under these names, whatever the pages load.
const ASSETS: [&str; 4] =
    ["/assets/style.css", "/assets/dashboard.js", "/assets/docs.js", "/assets/icon.svg"];

/// An origin that is allowed where some are.
const ALLOWED: &str = "https://app.example:8443";

/// A host whose service allows these origins.
fn allowing(origins: &str) -> Start {
    Start::default().flags(&["--variable", &format!("cors_origins={origins}")])
}

/// The headers that speak of origins.
fn cross_origin(reply: &Reply) -> Vec<(&str, &str)> {
    let headers = reply.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    headers.filter(|(name, _)| name.starts_with("access-control-")).collect()
}

/// A reply of every kind to a page of `origin`: what it is, and its status.
fn replies(client: &Client, origin: &str) -> Result<Vec<Reply>, Failed> {
    let topic = unique_topic("origin");
    let good = event(&topic, "1");
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

/// Every reply to a page of `origin` can be read by it, as `told` says.
fn check_allowed(client: &Client, origin: &str, told: &str) -> Outcome {
    for reply in replies(client, origin)? {
        let headers = cross_origin(&reply);
        let exposed = headers.iter().find(|(name, _)| *name == "access-control-expose-headers");
        let exposed = exposed.map(|(_, exposed)| exposed.to_ascii_lowercase()).unwrap_or_default();
        check(exposed.contains("retry-after"), || format!("exposed is {exposed:?}: {reply:#?}"))?;
        check(headers.contains(&("access-control-allow-origin", told)), || format!("{reply:#?}"))?;
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
        check_eq(reply.header("access-control-allow-origin"), Some(told), path)?;
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
fn check_not_allowed(client: &Client, origin: &str) -> Outcome {
    let mut replies = replies(client, origin)?;
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
fn no_other_origin_is_allowed_by_default() -> Outcome {
    Start::default().serve(|server| {
        for origin in [ALLOWED, "null", &server.url] {
            check_not_allowed(&server.client(), origin)?;
        }
        Ok(())
    })
}

#[test(own_server)]
fn listed_origins_may_read_every_reply() -> Outcome {
    // As browsers write them, and as people do.
    let origins = format!("{ALLOWED}, http://127.0.0.1:5173 ,https://Upper.Example:443");
    allowing(&origins).serve(|server| {
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
    })
}

#[test(own_server)]
fn a_wildcard_allows_every_origin() -> Outcome {
    allowing("*").serve(|server| {
        for origin in [ALLOWED, "null", "http://localhost"] {
            check_allowed(&server.client(), origin, "*")?;
        }
        Ok(())
    })
}

#[test(own_server)]
fn an_invalid_origin_is_named() -> Outcome {
    for origins in ["app.example", "https://app.example/", "*,https://app.example", "https://"] {
        allowing(origins).serve(|server| {
            let reply = server.client().publish(event("t", "1"))?.expect(503)?;
            check(reply.json()?["code"] == "misconfigured", || format!("{reply:#?}"))?;
            check(reply.text.contains("cors_origins"), || format!("not named: {reply:#?}"))?;
            check(reply.header("retry-after").is_some(), || format!("{reply:#?}"))?;
            server.client().get("/health")?.expect(503).map(drop)
        })?;
    }
    Ok(())
}

/// Asks for a page as a browser does.
fn page(client: &Client, path: &str) -> Result<Reply, Failed> {
    client.send("GET", path, &[("accept", BROWSER)], &[])?.expect(200)
}

fn content_type(reply: &Reply) -> &str {
    reply.header("content-type").unwrap_or_default().split(';').next().unwrap_or_default()
}

#[test(any_server)]
fn the_index_is_html_for_browsers_and_text_for_others(target: &Target) -> Outcome {
    let client = target.client();
    let html = page(&client, "/")?;
    check_eq(content_type(&html), "text/html", "for a browser")?;
    check(html.text.starts_with("<!doctype html>"), || format!("{html:#?}"))?;
    let texts = [
        client.get("/")?,
        client.send("GET", "/", &[("accept", "*/*")], &[])?,
        client.send("GET", "/", &[("accept", "text/plain")], &[])?,
        client.send("GET", "/", &[("accept", "text/html;q=0, text/plain")], &[])?,
    ];
    for text in texts {
        let text = text.expect(200)?;
        check_eq(content_type(&text), "text/plain", "for others")?;
        check(text.text.contains("/publish") && !text.text.contains('<'), || format!("{text:#?}"))?;
    }
    Ok(())
}

/// The values of an attribute in HTML or SVG.
fn values<'a>(text: &'a str, attribute: &str) -> Vec<&'a str> {
    let begin = format!(" {attribute}=\"");
    let after = text.split(&begin).skip(1);
    after.filter_map(|after| after.split('"').next()).collect()
}

/// What a page or a script has a browser load from this service.
fn loads(text: &str) -> Vec<String> {
    let links = [values(text, "src"), values(text, "href")].concat();
    let links = links.into_iter().filter(|link| link.starts_with("/assets/")).map(str::to_owned);
    // `import … from './other.js'`, and `import './other.js'`.
    let modules = text.split(['\'', '"', '`']).filter_map(|quoted| {
        let name = quoted.strip_prefix("./").filter(|name| name.ends_with(".js"))?;
        Some(format!("/assets/{name}"))
    });
    links.chain(modules).collect()
}

/// Everything that the pages load, and what that loads; with the pages.
fn served(client: &Client) -> Result<BTreeMap<String, Reply>, Failed> {
    let mut served = BTreeMap::new();
    let mut rest: Vec<String> = PAGES.iter().chain(&ASSETS).map(ToString::to_string).collect();
    while let Some(path) = rest.pop() {
        if let Entry::Vacant(entry) = served.entry(path) {
            let reply = page(client, entry.key())?;
            rest.extend(loads(&reply.text));
            entry.insert(reply);
        }
    }
    Ok(served)
}

/// The pages, all of them behind the policy, and with nothing in them that the
/// policy forbids.
#[test(any_server)]
fn the_content_security_policy_allows_what_pages_need(target: &Target) -> Outcome {
    let client = target.client();
    for path in PAGES.into_iter().chain(["/docs/"]) {
        let html = page(&client, path)?;
        check_eq(content_type(&html), "text/html", path)?;
        let policy = html.header("content-security-policy");
        check_eq(policy, Some(CONTENT_SECURITY_POLICY), path)?;
        let head = client.send("HEAD", path, &[("accept", BROWSER)], &[])?.expect(200)?;
        check_eq(head.header("content-security-policy"), policy, "to HEAD")?;

        let lower = html.text.to_ascii_lowercase();
        for forbidden in [" style=", "<style", " onclick=", " onload=", "javascript:", "<base"] {
            check(!lower.contains(forbidden), || format!("{path} has {forbidden:?}"))?;
        }
        for script in lower.split("<script").skip(1) {
            let is_loaded = script.split('>').next().is_some_and(|tag| tag.contains(" src=\"/"));
            check(is_loaded, || format!("{path} has a script of its own: <script{script}"))?;
        }
        let local: Vec<&str> = [values(&html.text, "src"), values(&html.text, "href")].concat();
        check(local.iter().any(|link| link.ends_with(".js")), || format!("{path}: {local:?}"))?;
        for link in local.iter().filter(|link| !link.starts_with('#')) {
            check(link.starts_with('/'), || format!("{path} links to {link}"))?;
            client.get(&link.replace("&amp;", "&"))?.expect(200)?;
        }
    }
    Ok(())
}

#[test(any_server)]
fn assets_are_revalidated_by_etag(target: &Target) -> Outcome {
    let client = target.client();
    for (path, asset) in served(&client)? {
        let path = path.as_str();
        let Some((_, extension)) = path.split_once('.') else { continue };
        let expected = match extension {
            "css" => "text/css",
            "js" => "text/javascript",
            "svg" => "image/svg+xml",
            other => return Err(format!("{path}: browsers know no {other}").into()),
        };
        check_eq(content_type(&asset), expected, path)?;
        check_eq(asset.header("cache-control"), Some("no-cache"), path)?;
        check(!asset.text.is_empty(), || format!("{path} is empty"))?;
        let tag = asset.header("etag").unwrap_or_default();
        check(tag.len() > 2 && tag.starts_with('"') && tag.ends_with('"'), || tag.to_owned())?;
        let ask = |if_none_match: &str| {
            client.send("GET", path, &[("if-none-match", if_none_match)], &[])
        };
        for known in [tag, &format!("W/{tag}"), &format!("\"other\", {tag}"), "*"] {
            let reply = ask(known)?.expect(304)?;
            check_eq(reply.text.as_str(), "", &format!("the body, when {known} is known"))?;
            check_eq(reply.header("etag"), Some(tag), "etag of what is known")?;
            check_eq(reply.header("cache-control"), Some("no-cache"), "cache-control")?;
            let length = reply.header("content-length");
            check(length.is_none() || length == Some("0"), || format!("{reply:#?}"))?;
        }
        for other in ["\"other\"", "", &tag[1..], &format!("x{tag}")] {
            check_eq(ask(other)?.expect(200)?.text, asset.text.clone(), "the asset")?;
        }
        let head = client.send("HEAD", path, &[], &[])?.expect(200)?;
        check_eq(head.header("etag"), Some(tag), "etag to HEAD")?;
        let length = asset.text.len().to_string();
        check_eq(head.header("content-length"), Some(length.as_str()), "length to HEAD")?;
    }
    Ok(())
}

/// The namespaces of SVG and the like, which are names and no addresses.
const NAMESPACES: &str = "http://www.w3.org/";

/// Where `text` would have a browser go elsewhere.
fn elsewhere(text: &str) -> Option<&str> {
    let excerpt = |place: usize| {
        let from = text[..place].char_indices().nth_back(10).map_or(0, |(place, _)| place);
        let excerpt = &text[from..];
        let end = excerpt.char_indices().nth(80).map_or(excerpt.len(), |(place, _)| place);
        &excerpt[..end]
    };
    for (place, _) in text.match_indices("://") {
        let scheme = text[..place].rfind(|one: char| !one.is_ascii_alphabetic());
        let address = &text[scheme.map_or(0, |place| place + 1)..];
        if !address.starts_with(NAMESPACES) {
            return Some(excerpt(place));
        }
    }
    // An address without its scheme.
    let quoted = ["\"//", "'//", "`//", "url(//", "= //", "@import"];
    quoted.into_iter().find_map(|mark| text.find(mark)).map(excerpt)
}

#[test(any_server)]
fn nothing_refers_to_another_host(target: &Target) -> Outcome {
    for (path, file) in served(&target.client())? {
        let found = elsewhere(&file.text);
        check(found.is_none(), || format!("{found:?} in {path}"))?;
    }
    // These eyes see what they look for, and nothing wrong with what is right.
    for (text, is_wrong) in [
        ("<script src=\"https://cdn.example/x.js\">", true),
        ("<img src=\"//cdn.example/x.png\">", true),
        ("a { background: url(//cdn.example/x.png) }", true),
        ("import x from 'https://cdn.example/x.js';", true),
        ("new WebSocket(`ws://${host}`)", true),
        ("<svg xmlns=\"http://www.w3.org/2000/svg\">", false),
        ("// a comment\nfetch('/stats')", false),
    ] {
        check_eq(elsewhere(text).is_some(), is_wrong, text)?;
    }
    Ok(())
}

/// All strings of a JSON value that stand under `key`.
fn strings<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) if name == key => found.push(text),
                    _ => strings(value, key, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| strings(item, key, found)),
        _ => {}
    }
}

#[test(any_server)]
fn references_resolve_and_servers_are_local(target: &Target) -> Outcome {
    let client = target.client();
    let reply = client.get("/openapi.json")?.expect(200)?;
    check_eq(content_type(&reply), "application/json", "content-type")?;
    let document = reply.json()?;
    let version = document["openapi"].as_str().unwrap_or_default();
    check(version.starts_with("3."), || format!("version {version:?}"))?;
    let index = client.get("/")?.expect(200)?.text;
    let routes = index.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (method, path) = (words.next()?, words.next()?);
        (path.starts_with('/') && method.chars().all(|one| one.is_ascii_uppercase()))
            .then_some((method, path))
    });
    let routes: Vec<(&str, &str)> = routes.collect();
    check(routes.len() > 10, || format!("the index names {routes:?}"))?;
    for (method, path) in routes {
        let operation = &document["paths"][path][method.to_ascii_lowercase()];
        check(operation.is_object(), || format!("{method} {path} is not described"))?;
    }
    let mut references = Vec::new();
    strings(&document, "$ref", &mut references);
    check(!references.is_empty(), || "there are no references".into())?;
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap_or("elsewhere");
        check(document.pointer(pointer).is_some(), || format!("{reference} leads nowhere"))?;
    }
    // Tools would send requests there.
    let servers = document["servers"].as_array().cloned().unwrap_or_default();
    let local = servers.iter().all(|server| server["url"].as_str().is_some_and(|url| url == "/"));
    check(local, || format!("{servers:?}"))
}
