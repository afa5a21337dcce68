//! Validates every reply of every test against the description of the API.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, OnceLock};

use jsonschema::{Draft, Registry, Validator};
use libtest_mimic::Failed;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::{Reply, TestResult, read};

/// Under this name the schemas of the document refer to each other.
const DOCUMENT: &str = "urn:sekali:openapi";

/// Bodies up to this size are all validated, and so are larger ones among the
/// first replies of a kind. After those one in [`VALIDATED_EVERY`] is: the large
/// bodies of a load are alike, and to validate them takes time in which the
/// clients put no load on the server.
const SMALL_BYTES: usize = 4_096;
const VALIDATED_FIRST: u32 = 50;
const VALIDATED_EVERY: u32 = 10;

/// Streams are described as what comes in one part, not as a whole body.
const NDJSON: &str = "application/x-ndjson";
pub const EVENT_STREAM: &str = "text/event-stream";
/// Of a request to another host, whatever its route.
const MISDIRECTED: u16 = 421;
/// Of one by a page or a key that may not, whatever its route.
const FORBIDDEN: u16 = 403;
/// Of one by no key, or one that has published too much, whatever its route.
const OF_KEYS: [u16; 2] = [401, 429];
/// What the host answers by itself has no body, and none of the service's headers.
const OF_THE_HOST: [u16; 4] = [408, 414, 431, 503];
/// A message without any fields is an empty body.
const PROTOBUF: &str = "application/x-protobuf";
pub const PROBLEM: &str = "application/problem+json";

/// What a failing test shows of a body.
const SHOWN_BYTES: usize = 4_000;

/// The description of the API, below the root of the checkout.
pub const DOCUMENT_FILE: &str = "src/openapi.json";

/// Validates a reply against the description of the API.
pub fn check_reply(method: &str, target: &str, reply: &Reply) -> TestResult {
    let description = Description::get()?;
    description.check(method, target, reply).map_err(|why| {
        let mut shown = reply.clone();
        if let Some((end, _)) = shown.text.char_indices().nth(SHOWN_BYTES) {
            shown.text.truncate(end);
            shown.text.push('…');
        }
        format!("not as {DOCUMENT_FILE} describes it: {why}\nin {shown:#?}").into()
    })
}

/// The document, and the validators that were made of it.
pub struct Description {
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
pub fn at(pointer: &str, key: &str) -> String {
    format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"))
}

impl Description {
    pub fn get() -> Result<&'static Self, Failed> {
        static DESCRIPTION: OnceLock<Result<Description, String>> = OnceLock::new();
        DESCRIPTION
            .get_or_init(|| {
                let text = read(DOCUMENT_FILE)
                    .map_err(|failed| failed.message().unwrap_or("not read").to_owned())?;
                let document: Value = serde_json::from_str(&text)
                    .map_err(|error| format!("{DOCUMENT_FILE}: {error}"))?;
                let registry = Registry::new()
                    .draft(Draft::Draft202012)
                    .add(DOCUMENT, document.clone())
                    .and_then(|registry| registry.prepare())
                    .map_err(|error| format!("{DOCUMENT_FILE}: {error}"))?;
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

    pub fn value(&self, pointer: &str) -> &Value {
        self.document.pointer(pointer).unwrap_or(&Value::Null)
    }

    /// The names of the fields of what is at `pointer`.
    fn names(&self, pointer: &str) -> impl Iterator<Item = &str> + use<'_> {
        self.value(pointer).as_object().into_iter().flatten().map(|(name, _)| name.as_str())
    }

    /// The paths as they are described, such as `/subscriptions/{name}`.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.names("/paths")
    }

    /// The methods of a described path.
    pub fn methods(&self, path: &str) -> BTreeSet<String> {
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
        let is_of_the_host =
            OF_THE_HOST.contains(&reply.status) && reply.header("content-type").is_none();
        if !is_of_the_host {
            self.check_header("/components/headers/RequestId", "x-request-id", reply)?;
        }
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
        if status == MISDIRECTED || status == FORBIDDEN {
            return otherwise(format!("any route, {requested} among them"));
        }
        let Some(path) = self.path_of(requested) else {
            // What the pages load is of use to them alone, and one route refuses whatever it
            // is sent.
            let is_asset = requested.starts_with("/assets/") && [200, 304].contains(&status);
            return if is_asset || (requested, status) == ("/services/collector/ack", 400) {
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
        if place.is_none() && OF_KEYS.contains(&status) {
            return otherwise(format!("{method} {path}"));
        }
        place.map(Some).ok_or_else(|| unknown(format!("{method} {path}")))
    }

    fn check_headers(&self, response: &str, reply: &Reply) -> Result<(), String> {
        let headers = at(response, "headers");
        for name in self.names(&headers) {
            let header = self.find(&at(&headers, name)).ok_or("a header leads nowhere")?;
            self.check_header(&header, name, reply)?;
        }
        Ok(())
    }

    /// Checks a header of a reply against its description, which is at `header`.
    fn check_header(&self, header: &str, name: &str, reply: &Reply) -> Result<(), String> {
        let Some(value) = reply.header(name) else {
            return match self.value(header)["required"] == true {
                true => Err(format!("the header {name} is missing")),
                false => Ok(()),
            };
        };
        let (schema, _) = self.schema(&at(header, "schema"))?;
        let number = value.parse::<u64>().map_or(Value::Null, Value::from);
        match schema.is_valid(&number) || schema.is_valid(&Value::from(value)) {
            true => Ok(()),
            false => Err(format!("the header {name} is {value:?}")),
        }
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

    /// Where a media type of a response is described: in its content, or beside it
    /// where generators of clients would not know which of two types they get.
    fn content(&self, response: &str, media_type: &str) -> Result<String, String> {
        let places = ["content", "x-content"].map(|content| at(&at(response, content), media_type));
        let described = places.into_iter().find(|place| !self.value(place).is_null());
        described.ok_or_else(|| format!("the media type {media_type} is not described"))
    }

    /// The media type of a reply, which is one of those described.
    fn media_type<'a>(&self, response: &str, reply: &'a Reply) -> Result<&'a str, String> {
        let content_type = reply.header("content-type").ok_or("there is no content-type")?;
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        self.content(response, media_type)?;
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
        let content = self.content(response, media_type)?;
        let place = self.find(&at(&content, "schema")).ok_or("a media type without a schema")?;
        let (schema, uses) = self.schema(&place)?;
        if reply.text.len() > SMALL_BYTES
            && uses > VALIDATED_FIRST
            && !uses.is_multiple_of(VALIDATED_EVERY)
        {
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
            PROTOBUF => Ok(()),
            _ if reply.text.is_empty() => Err("it has no body".to_owned()),
            _ => Ok(()),
        }
    }

    /// The schema at `pointer`, and how often it was asked for.
    pub fn schema(&self, pointer: &str) -> Result<(Arc<Validator>, u32), String> {
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

pub fn validate(schema: &Validator, value: &Value) -> Result<(), String> {
    if schema.is_valid(value) {
        return Ok(());
    }
    let errors: Vec<String> = schema
        .iter_errors(value)
        .map(|error| format!("at {:?}: {error}", error.instance_path().as_str()))
        .collect();
    Err(errors.join("\n"))
}

pub fn check_type(problem: &Value) -> Result<(), String> {
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
