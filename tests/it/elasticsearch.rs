//! `_bulk` and what clients of Elasticsearch ask before it.

use serde_json::{Value, json};

use crate::support::{
    End, Reply, ServerOptions, Target, TestResult, any_server, check, check_eq, own_server, test,
    unique_topic,
};

fn bulk(target: &Target, path: &str, body: &[u8]) -> Result<Reply, libtest_mimic::Failed> {
    let reply = target.client().send("POST", path, &[], body)?;
    check_eq(reply.header("x-elastic-product"), Some("Elasticsearch"), "product")?;
    Ok(reply)
}

/// The statuses of the items.
fn statuses(reply: &Reply) -> Result<Vec<Value>, libtest_mimic::Failed> {
    let json = reply.json()?;
    let items = json["items"].as_array().into_iter().flatten();
    let results = items.filter_map(|item| item.as_object()?.values().next());
    Ok(results.map(|result| result["status"].clone()).collect())
}

#[test(any_server)]
fn a_request_that_is_sent_again_stores_nothing_new(target: &Target) -> TestResult {
    let topic = unique_topic("bulk");
    let named: String = (0..1_000)
        .map(|id| format!("{{\"create\":{{\"_id\":\"{id}\"}}}}\n{{\"m\":{id}}}\n"))
        .collect();
    let nameless = "{\"index\":{}}\n{\"m\":0}\n".repeat(3);
    let body = format!("{named}{nameless}");
    for (status, method) in [(201, "POST"), (200, "PUT")] {
        let path = format!("/{topic}/_bulk");
        let reply = target.client().send(method, &path, &[], body.as_bytes())?.expect(200)?;
        check(reply.text.contains("\"errors\":false,\"items\":["), || reply.text.clone())?;
        check_eq(statuses(&reply)?, vec![json!(status); 1_003], method)?;
    }
    check_eq(target.client().all_events(&topic)?.len(), 1_003, "events")
}

#[test(any_server)]
fn items_have_their_own_errors(target: &Target) -> TestResult {
    let topic = unique_topic("bulk");
    let create = |id: &str, document: &str| {
        format!("{{\"create\":{{\"_index\":\"{topic}\",\"_id\":\"{id}\"}}}}\n{document}\n")
    };
    let delete = format!("{{\"delete\":{{\"_index\":\"{topic}\",\"_id\":\"1\"}}}}\n");
    let body = [create("1", "{}"), create("2", "{oops"), create("1", "{\"a\":1}"), delete].concat();
    let reply = bulk(target, "/_bulk", body.as_bytes())?.expect(200)?;
    check_eq(statuses(&reply)?, [201, 400, 409, 400].map(Value::from).to_vec(), "statuses")?;
    check_eq(&reply.json()?["errors"], &json!(true), "errors")?;
    check_eq(target.client().all_events(&topic)?.len(), 1, "events")
}

#[test(any_server)]
fn a_line_that_is_no_action_refuses_the_request(target: &Target) -> TestResult {
    let topic = unique_topic("bulk");
    let good = format!("{{\"index\":{{\"_index\":\"{topic}\"}}}}\n{{}}\n");
    for (body, status, word) in [
        (format!("{good}{{\"drop\":{{}}}}\n{{}}\n"), 400, "line [3]"),
        (format!("{good}{{\"index\":{{}}}}\n"), 400, "line [3]"),
        (String::new(), 400, "no action"),
        (good.repeat(10_001), 413, "10000"),
        (format!("{good}{}", "x".repeat(10_485_760)), 413, "10485760"),
    ] {
        let reply = bulk(target, "/_bulk", body.as_bytes())?.expect(status)?.json()?;
        let reason = reply["error"]["reason"].to_string();
        check(reason.contains(word), || format!("{reply:#}"))?;
    }
    check_eq(target.client().all_events(&topic)?.len(), 0, "events")
}

#[test(any_server)]
fn probes_are_answered(target: &Target) -> TestResult {
    let client = target.client();
    let accept = [("accept", "application/vnd.elasticsearch+json; compatible-with=8")];
    for (path, field) in
        [("/", "version"), ("/_license", "license"), ("/_cluster/health", "status")]
    {
        for headers in [&accept[..], &[("accept", "application/json")]] {
            let reply = client.send("GET", path, headers, &[])?.expect(200)?;
            check_eq(reply.header("x-elastic-product"), Some("Elasticsearch"), path)?;
            check(!reply.json()?[field].is_null(), || reply.text.clone())?;
            client.send("HEAD", path, headers, &[])?.expect(200)?;
        }
    }
    for accept in ["*/*", "text/html"] {
        let reply = client.send("GET", "/", &[("accept", accept)], &[])?.expect(200)?;
        check(reply.header("x-elastic-product").is_none(), || format!("{reply:#?}"))?;
    }
    Ok(())
}

#[test(own_server)]
fn without_compat_nothing_of_it_is_there() -> TestResult {
    let server = ServerOptions::default().variable("compat=false").start()?;
    let client = server.client();
    for path in ["/_bulk", "/i/_bulk", "/services/collector", "/services/collector/raw"] {
        let head = format!("POST {path} HTTP/1.1\r\nhost: {}\r\n", client.address());
        let request = format!("{head}connection: close\r\ncontent-length: 2\r\n\r\n{{}}");
        let reply = client.raw(request.as_bytes(), End::Wait)?;
        let is_unknown = reply.starts_with("HTTP/1.1 404 ") && reply.contains("not_found");
        check(is_unknown, || reply.clone())?;
    }
    let reply = client.send("GET", "/", &[("accept", "application/json")], &[])?.expect(200)?;
    check_eq(reply.media_type(), "text/plain", "/")
}
