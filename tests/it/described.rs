use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, OnceLock};

use jsonschema::{Draft, Registry, Validator};
use libtest_mimic::Failed;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::client::{Client, Reply};
use crate::event_source::Stream;
use crate::harness::{Outcome, Target, check, check_eq, event, read, unique_topic};
use crate::registry::{any_server, no_server, test};

/// Under this name the schemas of the document refer to each other.
const DOCUMENT: &str = "urn:sekali:openapi";

/// Bodies up to this size are all looked at, and so are larger ones among the
/// first replies of a kind. After those one in [`LOOK_EVERY`] is: the large
/// bodies of a load are alike, and to look at them takes time in which the
/// clients do not press the server.
const SMALL_BYTES: usize = 4_096;
const LOOKS: u32 = 50;
const LOOK_EVERY: u32 = 10;

/// Streams are described as what comes in one part, not as a whole body.
const NDJSON: &str = "application/x-ndjson";
const EVENT_STREAM: &str = "text/event-stream";
const PROBLEM: &str = "application/problem+json";

/// What a failing test shows of a body.
const SHOWN_BYTES: usize = 4_000;

/// Holds a reply against the description of the API, `src/openapi.json`.
pub fn check_reply(method: &str, target: &str, reply: &Reply) -> Outcome {
    let description = Description::get()?;
    description.check(method, target, reply).map_err(|why| {
        let mut shown = reply.clone();
        if let Some((end, _)) = shown.text.char_indices().nth(SHOWN_BYTES) {
            shown.text.truncate(end);
            shown.text.push('…');
        }
        format!("not as src/openapi.json describes it: {why}\nin {shown:#?}").into()
    })
}

/// The document, and what was made of it.
struct Description {
    document: Value,
    registry: Registry<'static>,
    schemas: Mutex<HashMap<String, Schema>>,
}

/// The schema at one place of the document.
struct Schema {
    validator: Arc<Validator>,
    uses: u32,
}

/// The JSON pointer to what stands under `key` at `pointer`.
fn at(pointer: &str, key: &str) -> String {
    format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"))
}

impl Description {
    fn get() -> Result<&'static Self, Failed> {
        static DESCRIPTION: OnceLock<Result<Description, String>> = OnceLock::new();
        DESCRIPTION
            .get_or_init(|| {
                let text = read("src/openapi.json")
                    .map_err(|failed| failed.message().unwrap_or("not read").to_owned())?;
                let document: Value = serde_json::from_str(&text)
                    .map_err(|error| format!("openapi.json: {error}"))?;
                let registry = Registry::new()
                    .draft(Draft::Draft202012)
                    .add(DOCUMENT, document.clone())
                    .and_then(|registry| registry.prepare())
                    .map_err(|error| format!("openapi.json: {error}"))?;
                Ok(Description { document, registry, schemas: Mutex::default() })
            })
            .as_ref()
            .map_err(|why| why.as_str().into())
    }

    /// Where `pointer` leads through every `$ref`; `None` when nothing is there.
    fn find(&self, pointer: &str) -> Option<String> {
        let mut pointer = pointer.to_owned();
        loop {
            match self.document.pointer(&pointer)?.get("$ref").and_then(Value::as_str) {
                Some(other) => pointer = other.strip_prefix('#')?.to_owned(),
                None => return Some(pointer),
            }
        }
    }

    fn value(&self, pointer: &str) -> &Value {
        self.document.pointer(pointer).unwrap_or(&Value::Null)
    }

    /// The names of the fields of what is at `pointer`.
    fn names(&self, pointer: &str) -> impl Iterator<Item = &str> + use<'_> {
        self.value(pointer).as_object().into_iter().flatten().map(|(name, _)| name.as_str())
    }

    /// The paths as they are described, such as `/subscriptions/{name}`.
    fn paths(&self) -> impl Iterator<Item = &str> {
        self.names("/paths")
    }

    /// The methods of a described path.
    fn methods(&self, path: &str) -> BTreeSet<String> {
        let item = at("/paths", path);
        self.names(&item).filter(|name| *name != "parameters").map(str::to_uppercase).collect()
    }

    /// The described path that a requested one is. A trailing slash is the same.
    fn path_of(&self, requested: &str) -> Option<&str> {
        let requested: Vec<&str> = trim(requested).split('/').collect();
        self.paths().find(|path| {
            let described: Vec<&str> = trim(path).split('/').collect();
            let alike = |(this, that): (&&str, &&str)| this == that || this.starts_with('{');
            described.len() == requested.len() && described.iter().zip(&requested).all(alike)
        })
    }

    fn check(&self, method: &str, target: &str, reply: &Reply) -> Result<(), String> {
        let requested = target.split('?').next().unwrap_or_default();
        let Some(place) = self.response(method, requested, reply)? else { return Ok(()) };
        self.check_headers(&place, reply)?;
        if method == "HEAD" {
            return self.check_head(requested, reply);
        }
        self.check_body(&place, reply)
    }

    /// Where the reply is described; `None` when it need not be.
    fn response(
        &self,
        method: &str,
        requested: &str,
        reply: &Reply,
    ) -> Result<Option<String>, String> {
        let status = reply.status;
        let unknown = |what: String| format!("{status} is not described for {what}");
        let otherwise = |what: String| {
            let place = self.find(&format!("/x-otherwise/{status}"));
            place.map(Some).ok_or_else(|| unknown(what))
        };
        let Some(path) = self.path_of(requested) else {
            // What the pages load is of use to them alone.
            let is_asset = requested.starts_with("/assets/") && [200, 304].contains(&status);
            return if is_asset {
                Ok(None)
            } else {
                otherwise(format!("the unknown route {requested}"))
            };
        };
        let methods = self.methods(path);
        if !methods.contains(method) {
            if method == "OPTIONS" && reply.header("access-control-allow-methods").is_some() {
                return Ok(None);
            }
            if let Some(allow) = reply.header("allow") {
                let allowed: BTreeSet<String> = allow.split(", ").map(str::to_owned).collect();
                if allowed != methods {
                    return Err(format!("{allowed:?} are allowed, {methods:?} are described"));
                }
            }
            return otherwise(format!("the unknown {method} {path}"));
        }
        let operation = at(&at("/paths", path), &method.to_lowercase());
        let place = self.find(&format!("{operation}/responses/{status}"));
        place.map(Some).ok_or_else(|| unknown(format!("{method} {path}")))
    }

    fn check_headers(&self, response: &str, reply: &Reply) -> Result<(), String> {
        let headers = at(response, "headers");
        for name in self.names(&headers) {
            let header = self.find(&at(&headers, name)).ok_or("a header leads nowhere")?;
            let Some(value) = reply.header(name) else {
                if self.value(&header)["required"] == true {
                    return Err(format!("the header {name} is missing"));
                }
                continue;
            };
            let (schema, _) = self.schema(&at(&header, "schema"))?;
            let number = value.parse::<u64>().map_or(Value::Null, Value::from);
            if !schema.is_valid(&number) && !schema.is_valid(&Value::from(value)) {
                return Err(format!("the header {name} is {value:?}"));
            }
        }
        Ok(())
    }

    /// A reply to HEAD: the media type of the reply to GET, and nothing of its body.
    fn check_head(&self, requested: &str, reply: &Reply) -> Result<(), String> {
        if !reply.text.is_empty() {
            return Err("it has a body".to_owned());
        }
        let Some(place) = self.response("GET", requested, reply).ok().flatten() else {
            return Ok(());
        };
        if self.value(&place).get("content").is_none() {
            return Ok(());
        }
        self.media_type(&place, reply).map(drop)
    }

    /// The media type of a reply, which is one of those described.
    fn media_type<'a>(&self, response: &str, reply: &'a Reply) -> Result<&'a str, String> {
        let content_type = reply.header("content-type").ok_or("there is no content-type")?;
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        let described = self.value(response)["content"].get(media_type).is_some();
        if !described {
            return Err(format!("the media type {media_type} is not described"));
        }
        let is_stream = [NDJSON, EVENT_STREAM].contains(&media_type);
        if is_stream == reply.header("content-length").is_some() {
            return Err(format!("content-length of {media_type}"));
        }
        Ok(media_type)
    }

    fn check_body(&self, response: &str, reply: &Reply) -> Result<(), String> {
        if self.value(response).get("content").is_none() {
            return if reply.text.is_empty() { Ok(()) } else { Err("it has a body".to_owned()) };
        }
        let media_type = self.media_type(response, reply)?;
        let content = at(&at(response, "content"), media_type);
        let place = self.find(&at(&content, "schema")).ok_or("a media type without a schema")?;
        let (schema, uses) = self.schema(&place)?;
        if reply.text.len() > SMALL_BYTES && uses > LOOKS && !uses.is_multiple_of(LOOK_EVERY) {
            return Ok(());
        }
        match media_type {
            "application/json" | PROBLEM => {
                let Some(body) = parse(&reply.text)? else { return Ok(()) };
                if media_type == PROBLEM {
                    check_type(&body)?;
                }
                validate(&schema, &body)
            }
            NDJSON => {
                let rows: Result<Vec<_>, _> = reply.text.lines().map(parse).collect();
                validate(&schema, &rows?.into_iter().flatten().collect())
            }
            EVENT_STREAM => {
                let (data_schema, _) =
                    self.schema(&format!("{place}/properties/data/contentSchema"))?;
                for frame in frames(&reply.text)? {
                    validate(&schema, &frame)?;
                    if let Some(data) = parse(frame["data"].as_str().unwrap_or_default())? {
                        validate(&data_schema, &data)?;
                    }
                }
                Ok(())
            }
            _ if reply.text.is_empty() => Err("it has no body".to_owned()),
            _ => Ok(()),
        }
    }

    /// The schema at `pointer`, and how often it was asked for.
    fn schema(&self, pointer: &str) -> Result<(Arc<Validator>, u32), String> {
        let mut schemas = self.schemas.lock().map_err(|_| "another test panicked")?;
        if let Some(schema) = schemas.get_mut(pointer) {
            schema.uses += 1;
            return Ok((Arc::clone(&schema.validator), schema.uses));
        }
        // What may not stand in a URI.
        let fragment = pointer.replace('{', "%7B").replace('}', "%7D");
        let validator = jsonschema::options()
            .with_draft(Draft::Draft202012)
            .should_validate_formats(true)
            .with_registry(&self.registry)
            .build(&json!({"$ref": format!("{DOCUMENT}#{fragment}")}))
            .map_err(|error| format!("the schema at {pointer}: {error}"))?;
        let validator = Arc::new(validator);
        schemas.insert(pointer.to_owned(), Schema { validator: Arc::clone(&validator), uses: 1 });
        Ok((validator, 1))
    }
}

fn trim(path: &str) -> &str {
    path.strip_suffix('/').unwrap_or(path)
}

/// The value of a JSON text; `None` when it is JSON that cannot be held in
/// memory here: a number that no `f64` comes near, or very deep nesting.
fn parse(text: &str) -> Result<Option<Value>, String> {
    match serde_json::from_str(text) {
        Ok(value) => Ok(Some(value)),
        Err(_) if serde_json::from_str::<&RawValue>(text).is_ok() => Ok(None),
        Err(error) => Err(format!("{error} in {text:?}")),
    }
}

fn validate(schema: &Validator, value: &Value) -> Result<(), String> {
    if schema.is_valid(value) {
        return Ok(());
    }
    let errors: Vec<String> = schema
        .iter_errors(value)
        .map(|error| format!("at {:?}: {error}", error.instance_path().as_str()))
        .collect();
    Err(errors.join("\n"))
}

fn check_type(problem: &Value) -> Result<(), String> {
    let code = problem["code"].as_str().unwrap_or_default();
    if problem["type"] == format!("urn:sekali:problem:{code}") {
        return Ok(());
    }
    Err(format!("the type {} is not that of {code}", problem["type"]))
}

/// The frames of an event stream that carry data, as a client reads them.
fn frames(text: &str) -> Result<Vec<Value>, String> {
    let mut frames = Vec::new();
    // After the last empty line there is at most a part of a frame.
    let whole = text.rsplit_once("\n\n").map_or("", |(whole, _)| whole);
    for block in whole.split("\n\n") {
        let mut frame = Map::from_iter([("event".to_owned(), json!("message"))]);
        for line in block.lines().filter(|line| !line.starts_with(':')) {
            let (name, value) =
                line.split_once(": ").ok_or_else(|| format!("no field: {line:?}"))?;
            let value = match name {
                "retry" => value.parse::<u64>().map_or(Value::Null, Value::from),
                _ => Value::from(value),
            };
            if frame.insert(name.to_owned(), value).is_some() {
                return Err(format!("{name} is given twice in {block:?}"));
            }
        }
        if frame.contains_key("data") {
            frames.push(Value::Object(frame));
        }
    }
    Ok(frames)
}

/// Every operation of the document does what it is for.
#[test(any_server)]
fn every_operation_answers(target: &Target) -> Outcome {
    let description = Description::get()?;
    let client = target.client();
    let topic = unique_topic("described");
    client.publish(event(&topic, "1"))?.expect(200)?;
    let mut failures = Vec::new();
    for path in description.paths() {
        for method in description.methods(path) {
            if let Err(failed) = answer(&client, &method, path, &topic) {
                failures.push(format!("{method} {path}: {}", failed.message().unwrap_or("failed")));
            }
        }
    }
    client.send("DELETE", &format!("/subscriptions/{topic}"), &[], &[])?;
    check(failures.is_empty(), || failures.join("\n\n"))
}

fn answer(client: &Client, method: &str, path: &str, topic: &str) -> Outcome {
    let concrete = path.replace("{name}", topic);
    if concrete != path && method != "PUT" {
        client.send("PUT", &format!("/subscriptions/{topic}"), &[], &[])?;
    }
    let body = match (method, path) {
        ("POST", "/publish") => event(topic, "2"),
        ("POST", _) => json!({"cursor": "0"}).to_string(),
        _ => String::new(),
    };
    let reply = if method == "GET" && path.ends_with("/stream") {
        begin(client, &concrete)?
    } else {
        client.send(method, &concrete, &[], body.as_bytes())?
    };
    check((200..300).contains(&reply.status), || format!("{reply:#?}"))
}

/// What a stream begins with, up to the first frame with data.
fn begin(client: &Client, path: &str) -> Result<Reply, Failed> {
    let mut stream = Stream::open(client, path)?;
    let mut text = String::new();
    loop {
        let block = stream.block()?;
        let is_last = block.data.is_some();
        for (name, value) in [("retry", block.retry), ("id", block.id), ("data", block.data)] {
            text.extend(value.map(|value| format!("{name}: {value}\n")));
        }
        text.push('\n');
        if is_last {
            break;
        }
    }
    check(text.starts_with("retry: 1000\n"), || format!("{path} begins with {text:?}"))?;
    let reply = Reply { text, ..stream.head };
    check_reply("GET", path, &reply)?;
    Ok(reply)
}

/// The index of the routes and the document name the same; so do the document
/// and what the service says it allows.
#[test(any_server)]
fn every_route_and_method_is_described(target: &Target) -> Outcome {
    let description = Description::get()?;
    let client = target.client();
    let index = client.get("/")?.expect(200)?.text;
    for line in index.lines() {
        let mut words = line.split_whitespace();
        let (Some(method), Some(path)) = (words.next(), words.next()) else { continue };
        if path.starts_with('/') && method.chars().all(|letter| letter.is_ascii_uppercase()) {
            let is_described = description.methods(path).contains(method);
            check(is_described, || format!("{method} {path} of the index is not described"))?;
        }
    }
    let words: BTreeSet<&str> = index.split_whitespace().collect();
    for path in description.paths() {
        check(words.contains(path), || format!("{path} is not in the index:\n{index}"))?;
        let concrete = path.replace("{name}", "some");
        let reply = client.send("PATCH", &concrete, &[], &[])?.expect(405)?;
        let allow = reply.header("allow").unwrap_or_default();
        let allowed: BTreeSet<String> = allow.split(", ").map(str::to_owned).collect();
        check_eq(allowed, description.methods(path), &format!("what {path} allows"))?;
    }
    Ok(())
}

#[test(any_server)]
fn the_document_is_served_unchanged(target: &Target) -> Outcome {
    let reply = target.client().get("/openapi.json")?.expect(200)?;
    let text = read("src/openapi.json")?;
    check(reply.text == text, || "what is served is not src/openapi.json".to_owned())?;
    let document = reply.json()?;
    check_eq(&document["info"]["version"], &json!(env!("CARGO_PKG_VERSION")), "info.version")
}

/// The one reply that is not the service's own.
#[test(any_server)]
fn refuses_a_head_that_is_too_large(target: &Target) -> Outcome {
    let names: Vec<String> = (0..120).map(|number| format!("x-{number}")).collect();
    let headers: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
    target.client().send("GET", "/healthz", &headers, &[])?.expect(431).map(drop)
}

/// Every example of the document is what its schema says.
#[test(no_server)]
fn every_example_is_valid() -> Outcome {
    let description = Description::get()?;
    let mut found = 0;
    let mut todo = vec![String::new()];
    while let Some(place) = todo.pop() {
        let value = description.value(&place);
        let mut values: Vec<&Value> = value.get("example").into_iter().collect();
        let named = value.get("examples").and_then(Value::as_object).into_iter().flatten();
        values.extend(named.map(|(_, example)| &example["value"]));
        if !values.is_empty() && value.get("schema").is_some() {
            let (schema, _) = description.schema(&at(&place, "schema"))?;
            for example in values {
                found += 1;
                validate(&schema, example).map_err(|why| format!("{place}: {why}"))?;
                let code = &example["code"];
                if code.is_string() {
                    check_type(example).map_err(|why| format!("{place}: {why}"))?;
                }
            }
        }
        match value {
            Value::Object(fields) => todo.extend(fields.keys().map(|key| at(&place, key))),
            Value::Array(items) => {
                todo.extend((0..items.len()).map(|index| format!("{place}/{index}")));
            }
            _ => {}
        }
    }
    check(found > 40, || format!("only {found} examples"))
}

/// A reply as it should be, changed in one thing at a time.
#[test(no_server)]
fn detects_a_reply_that_is_not_as_described() -> Outcome {
    let reply = |status: u16, media_type: &str, body: &Value| {
        let text = body.to_string();
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let headers = vec![
            header("content-type", media_type),
            header("content-length", &text.len().to_string()),
        ];
        Reply { request: String::new(), status, headers, text }
    };
    let json = "application/json";
    let good = json!({"received": 1, "accepted": 1, "duplicates": 0, "conflicts": 0, "rejected": 0,
        "message": "Received 1 events, accepted 1, rejected 0 duplicates",
        "results": [{"index": 0, "topic": "t", "event_id": "e", "status": "accepted", "seq": 1}]});
    let with = |within: &str, name: &str, value: Value| {
        let mut changed = good.clone();
        if let Some(object) = changed.pointer_mut(within) {
            object[name] = value;
        }
        reply(200, json, &changed)
    };
    let without = |name: &str| {
        let mut changed = good.clone();
        changed.as_object_mut().map(|fields| fields.remove(name));
        reply(200, json, &changed)
    };
    let problem = |status: u16, code: &str| {
        let kind = format!("urn:sekali:problem:{code}");
        reply(
            status,
            PROBLEM,
            &json!({"type": kind, "title": "t", "status": status, "detail": "d",
            "code": code}),
        )
    };
    let and = |mut reply: Reply, name: &str, value: &str| {
        reply.headers.push((name.to_owned(), value.to_owned()));
        reply
    };

    let busy = || problem(503, "store_busy");
    let mut mistaken = and(busy(), "retry-after", "1");
    mistaken.text = mistaken.text.replace("problem:store_busy", "problem:store_full");
    let chunked = Reply { headers: vec![], ..reply(200, json, &good) };
    let bodiless = Reply { text: String::new(), ..reply(200, json, &good) };
    for (method, path, reply, is_good) in [
        ("POST", "/publish", reply(200, json, &good), true),
        ("POST", "/publish/?strict=true", reply(409, json, &good), true),
        ("POST", "/publish", without("results"), true),
        ("POST", "/publish", without("message"), false),
        ("POST", "/publish", with("", "more", json!(1)), false),
        ("POST", "/publish", with("/results/0", "seq", json!(0)), false),
        ("POST", "/publish", with("/results/0", "status", json!("duplicate")), false),
        ("POST", "/publish", with("/results/0", "more", json!(1)), false),
        ("POST", "/publish", reply(201, json, &good), false),
        ("POST", "/publish", reply(200, "text/plain", &good), false),
        ("POST", "/publish", chunked, false),
        ("POST", "/publish", bodiless.clone(), false),
        ("GET", "/stats", reply(200, json, &good), false),
        ("HEAD", "/stats", bodiless, true),
        ("HEAD", "/stats", reply(200, json, &good), false),
        ("GET", "/stats", and(busy(), "retry-after", "1"), true),
        ("GET", "/stats", and(busy(), "retry-after", "soon"), false),
        ("GET", "/stats", busy(), false),
        ("GET", "/stats", mistaken, false),
        ("GET", "/stats", and(problem(503, "internal"), "retry-after", "1"), false),
        ("GET", "/nowhere", problem(404, "not_found"), true),
        ("GET", "/nowhere", problem(404, "subscription_not_found"), false),
        ("GET", "/nowhere", reply(200, json, &good), false),
        ("GET", "/stats/", problem(404, "not_found"), false),
        ("GET", "/subscriptions/some", problem(404, "subscription_not_found"), true),
        ("GET", "/subscriptions/some", problem(404, "not_found"), false),
        ("PUT", "/stats", and(problem(405, "method_not_allowed"), "allow", "GET, HEAD"), true),
        ("PUT", "/stats", and(problem(405, "method_not_allowed"), "allow", "GET"), false),
        ("PUT", "/stats", problem(405, "method_not_allowed"), false),
    ] {
        let outcome = check_reply(method, path, &reply);
        check(outcome.is_ok() == is_good, || {
            let why = outcome.err().and_then(|failed| failed.message().map(str::to_owned));
            format!("{method} {path} with {reply:#?}: {why:?}")
        })?;
    }

    let frames = "retry: 1000\nid: 0\n\n:\n\nid: 1\ndata: {\"seq\":1,\"topic\":\"t\",\
        \"event_id\":\"e\",\"timestamp\":\"2025-10-23\",\"source\":\"s\",\"payload\":null,\
        \"received_at\":\"2026-01-02T03:04:05.678Z\"}\n\nid: 2\ndata: {";
    for (from, to, is_good) in [
        ("null", "{}", true),
        ("null", "1E400", true),
        ("null", "{},\"more\":1", false),
        ("678Z", "678", false),
        ("id: 1\n", "", false),
        ("id: 1\n", "event: other\nid: 1\n", false),
        ("\"s\"", "s", false),
    ] {
        let mut stream = reply(200, EVENT_STREAM, &Value::Null);
        stream.headers.retain(|(name, _)| name != "content-length");
        let stream = and(and(stream, "cache-control", "no-cache"), "x-accel-buffering", "no");
        let stream = Reply { text: frames.replace(from, to), ..stream };
        let outcome = check_reply("GET", "/events/stream?topic=t", &stream);
        check(outcome.is_ok() == is_good, || format!("{from:?} as {to:?}: {outcome:?}"))?;
    }
    Ok(())
}
