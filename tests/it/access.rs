//! By which host, and on behalf of which page, a request may come.

use std::io::{BufRead, BufReader, Write};

use libtest_mimic::Failed;

use crate::support::{
    Client, End, Server, ServerOptions, TestResult, check, check_eq, event, own_server, test,
    unique_topic,
};

const EVIL: (&str, &str) = ("origin", "https://evil.example");
const CROSS_SITE: (&str, &str) = ("sec-fetch-site", "cross-site");

/// What a page can send without asking first.
const FORM: (&str, &str) = ("content-type", "text/plain");

#[test(own_server)]
fn pages_of_other_origins_change_nothing() -> TestResult {
    let server = Server::start()?;
    let client = server.client();
    let topic = unique_topic("access");
    client.publish(event(&topic, "1"))?.expect(200)?;
    let path = format!("/subscriptions/{topic}");
    client.send("PUT", &path, &[], &[])?.expect(201)?;
    let before = client.get(&path)?.expect(200)?.text;
    let publish = event(&topic, "2");
    let port = client.address().rsplit_once(':').ok_or("no port")?.1;
    let localhost = format!("http://localhost:{port}");
    for headers in [
        &[EVIL][..],
        &[("origin", "null")],
        &[("origin", "")],
        &[("origin", "http://127.0.0.1")],
        &[("origin", "http://127.0.0.1:1")],
        &[("origin", &localhost)],
        &[CROSS_SITE],
        &[("origin", &server.url), CROSS_SITE],
        &[("origin", &server.url), EVIL],
        &[("origin", &server.url), ("x-forwarded-proto", "https")],
        &[EVIL, ("sec-fetch-site", "same-origin")],
    ] {
        let headers = [headers, &[FORM]].concat();
        for (method, path, body) in [
            ("POST", "/publish".to_owned(), publish.as_str()),
            ("POST", format!("{path}/ack"), r#"{"cursor": "1"}"#),
            ("PUT", path.clone(), r#"{"topics": ["other"]}"#),
            ("PUT", format!("{path}-new"), ""),
            ("DELETE", path.clone(), ""),
            ("POST", "/nowhere".to_owned(), ""),
            ("PATCH", "/events".to_owned(), ""),
        ] {
            let reply = client.send(method, &path, &headers, body.as_bytes())?.expect(403)?;
            check_eq(&reply.json()?["code"], &"origin_refused".into(), "code")?;
        }
        // What a browser does not let them read.
        client.send("GET", "/events?limit=1", &headers, &[])?.expect(200)?;
        client.send("HEAD", "/publish", &headers, &[])?.expect(200)?;
    }
    check_eq(client.all_events(&topic)?.len(), 1, "events")?;
    check_eq(client.get(&path)?.expect(200)?.text, before, "the subscription")?;
    client.get(&format!("{path}-new"))?.expect(404).map(drop)
}

#[test(own_server)]
fn its_own_pages_and_no_pages_at_all_are_let_in() -> TestResult {
    let server = Server::start()?;
    let client = server.client();
    let topic = unique_topic("access");
    let https = server.url.replace("http:", "https:");
    let upper = server.url.replace("http:", "HTTP:");
    for (id, headers) in [
        &[][..],
        &[("origin", &*server.url)],
        &[("origin", &*server.url), ("sec-fetch-site", "same-origin")],
        // TLS may have ended before it came here.
        &[("origin", &*https)],
        &[("origin", &*https), ("x-forwarded-proto", "https")],
        &[("origin", &*upper)],
        &[("sec-fetch-site", "none")],
    ]
    .into_iter()
    .enumerate()
    {
        let event = event(&topic, &id.to_string());
        client.send("POST", "/publish", headers, event.as_bytes())?.expect(200)?;
    }
    let listed = ServerOptions::default().variable("cors_origins=https://evil.example").start()?;
    let any = ServerOptions::default().variable("cors_origins=*").start()?;
    for (server, headers) in [
        (&listed, &[EVIL, CROSS_SITE][..]),
        (&any, &[EVIL, CROSS_SITE]),
        (&any, &[CROSS_SITE]),
        (&any, &[("origin", "null"), CROSS_SITE]),
    ] {
        let event = event(&topic, "1");
        server.client().send("POST", "/publish", headers, event.as_bytes())?.expect(200)?;
    }
    let headers = [EVIL, ("origin", "https://other.example")];
    listed.client().send("POST", "/publish", &headers, &[])?.expect(403).map(drop)
}

/// The refusal does not wait for what it does not want, and reaches who sends all
/// of it first.
#[test(own_server)]
fn a_page_is_refused_before_its_body_is_read() -> TestResult {
    let server = Server::start()?;
    let client = server.client();
    for expect in ["", "expect: 100-continue\r\n"] {
        let mut stream = client.connect()?;
        write!(
            stream,
            "POST /publish HTTP/1.1\r\nhost: {}\r\norigin: https://evil.example\r\n{expect}\
             content-length: 1000000\r\n\r\n",
            client.address()
        )?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        check_eq(line.as_str(), "HTTP/1.1 403 Forbidden\r\n", expect)?;
    }
    let large = vec![b' '; 9 << 20];
    for _ in 0..3 {
        client.send("POST", "/publish", &[EVIL], &large)?.expect(403)?;
        client.get("/stats")?.expect(200)?;
    }
    Ok(())
}

/// The statuses of a few routes, and that of a publish, when the service is called
/// by `host`.
fn statuses(client: &Client, host: &str) -> Result<(Vec<u16>, u16), Failed> {
    let status = |request: &str| -> Result<u16, Failed> {
        let request = format!(
            "{request} HTTP/1.1\r\nhost: {host}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
        let reply = client.raw(request.as_bytes(), End::Wait)?;
        let status = reply.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| format!("{request}: {reply}"))?;
        let is_told = request.starts_with("HEAD") || reply.contains(r#""code":"host_refused""#);
        check(status != 421 || is_told, || reply.clone())?;
        Ok(status)
    };
    let mut found = Vec::new();
    for request in [
        "GET /",
        "GET /events?limit=1",
        "HEAD /events",
        "GET /stats",
        "GET /subscriptions",
        "GET /metrics",
        "GET /health",
        "GET /openapi.json",
        "GET /docs",
        "GET /assets/style.css",
        "HEAD /publish",
    ] {
        found.push(status(request)?);
    }
    found.push(match status("GET /nowhere")? {
        404 => 200,
        other => other,
    });
    found.push(match status("OPTIONS /publish")? {
        405 => 200,
        other => other,
    });
    found.push(match status("POST /publish")? {
        422 => 200,
        other => other,
    });
    found.sort_unstable();
    found.dedup();
    // Probes call by whatever address there is.
    Ok((found, status("GET /healthz")?))
}

/// By each of these hosts the service may be called or not.
fn check_hosts(server: &Server, hosts: &[(&str, bool)]) -> TestResult {
    let client = server.client();
    let port = client.address().rsplit_once(':').ok_or("no port")?.1;
    for (host, may_be_called) in hosts {
        let host = host.replace("PORT", port);
        let status = if *may_be_called { 200 } else { 421 };
        check_eq(statuses(&client, &host)?, (vec![status], 200), &host)?;
    }
    Ok(())
}

#[test(own_server)]
fn only_hosts_that_are_named_are_answered() -> TestResult {
    let named = "events.example, *.apps.example, 127.0.0.1:8443";
    let server = ServerOptions::default().variable(&format!("allowed_hosts={named}")).start()?;
    check_hosts(
        &server,
        &[
            ("events.example", true),
            ("Events.Example:8080", true),
            ("a.apps.example", true),
            ("127.0.0.1:8443", true),
            ("127.0.0.1:PORT", false),
            ("apps.example", false),
            ("events.example.evil.example", false),
            ("localhost", false),
            ("evil.example", false),
        ],
    )?;
    let wrong = ServerOptions::default().variable("allowed_hosts=https://a.example").start()?;
    let reply = wrong.client().get("/stats")?.expect(503)?;
    check(reply.text.contains("allowed_hosts"), || format!("not named: {reply:#?}"))
}

#[test(own_server)]
fn a_host_that_nobody_told_answers_to_its_own_addresses() -> TestResult {
    let own = [("127.0.0.1:PORT", true), ("localhost:PORT", true), ("[::1]:PORT", true)];
    let evil =
        [("evil.example", false), ("evil.example:PORT", false), ("127.0.0.1.evil.example", false)];
    check_hosts(&Server::start()?, &[own, evil].concat())?;
    // The operator has the last word, in each of the ways to say it.
    let any = [own, evil.map(|(host, _)| (host, true))].concat();
    let empty = ServerOptions::default().variable("allowed_hosts=");
    check_hosts(&empty.start()?, &any)?;
    let environment = ServerOptions::default()
        .wrapper(r#"SPIN_VARIABLE_ALLOWED_HOSTS=evil.example exec "$@""#.to_owned());
    check_hosts(&environment.start()?, &[("evil.example", true), ("127.0.0.1:PORT", false)])?;
    // Who listens on every address is called by names that only others know.
    let open = ServerOptions::default().listen("0.0.0.0:0");
    check_hosts(&open.start()?, &any)
}
