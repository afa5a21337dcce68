//! Requests, replies, and what the service says of itself.

use std::fmt::Write as _;
use std::io::Read;
use std::net::TcpStream;

use libtest_mimic::Failed;
use serde_json::Value;

use super::{TIMEOUT, batch, check, check_eq, openapi};

/// A reply.
#[derive(Clone, Debug)]
pub struct Reply {
    #[expect(dead_code, reason = "shown when a test fails")]
    pub request: String,
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub text: String,
}

impl Reply {
    pub fn json(&self) -> Result<Value, Failed> {
        serde_json::from_str(&self.text).map_err(|error| format!("{error} in {self:#?}").into())
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The `content-type` without its parameters.
    pub fn media_type(&self) -> &str {
        let content_type = self.header("content-type").unwrap_or_default();
        content_type.split(';').next().unwrap_or_default()
    }

    pub fn expect(self, status: u16) -> Result<Self, Failed> {
        check(self.status == status, || format!("expected {status}, got {self:#?}"))?;
        Ok(self)
    }

    /// The ids, of those that the request had in this order, that were accepted.
    /// All others were duplicates, or the test fails.
    pub fn accepted(&self, ids: &[String]) -> Result<Vec<String>, Failed> {
        let json = self.json()?;
        let results = json["results"].as_array().map(Vec::as_slice).unwrap_or_default();
        check_eq(results.len(), ids.len(), "results")?;
        let mut accepted = Vec::new();
        for (id, result) in ids.iter().zip(results) {
            match result["status"].as_str() {
                Some("accepted") if result["event_id"] == **id => accepted.push(id.clone()),
                Some("duplicate") if result["event_id"] == **id => {}
                _ => return Err(format!("{id}: {result} in {self:#?}").into()),
            }
        }
        Ok(accepted)
    }

    /// The counters of one topic in a reply of `/stats`, which balance or the
    /// test fails.
    pub fn counters(&self, topic: &str) -> Result<Counters, Failed> {
        let stats = self.json()?;
        let total = Counters::of(&stats);
        check(total.balance(), || format!("the counters do not balance: {stats:#}"))?;
        let counters = Counters::of(&stats["by_topic"][topic]);
        check(counters.balance(), || format!("the counters of {topic} do not balance: {stats:#}"))?;
        Ok(counters)
    }

    pub fn count(&self, field: &str) -> Result<u64, Failed> {
        self.json()?[field].as_u64().ok_or_else(|| format!("no number {field} in {self:#?}").into())
    }
}

/// What a client does after its last byte.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Waits for the reply.
    Wait,
    /// Closes its half of the connection.
    HangUp,
}

/// A client with keep-alive connections. Clones share them.
#[derive(Clone)]
pub struct Client {
    agent: ureq::Agent,
    url: String,
}

impl Client {
    pub fn new(url: &str) -> Self {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(TIMEOUT))
            .build()
            .into();
        Client { agent, url: url.to_owned() }
    }

    /// Sends one request, `Err` when there is no reply. Panics when the reply is
    /// not as the API is described.
    pub fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Reply, ureq::Error> {
        let (head, mut body) = self.run(method, path, headers, body)?;
        if head.header("content-type") == Some("text/event-stream") {
            // It has no end.
            return Ok(head);
        }
        let bytes = body.with_config().limit(u64::MAX).read_to_vec()?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let reply = Reply { text, ..head };
        // No error of this function: to some tests any error means that there
        // was no reply, and that is not one that they may pass over.
        if let Err(failed) = openapi::check_reply(method, path, &reply) {
            panic!("{}", failed.message().unwrap_or("a reply is not as described"));
        }
        Ok(reply)
    }

    /// Asks for what has no end: the head of the reply, without its text, and
    /// where to read it from.
    pub fn open(
        &self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<(Reply, ureq::BodyReader<'static>), ureq::Error> {
        let (head, body) = self.run("GET", path, headers, &[])?;
        Ok((head, body.into_reader()))
    }

    /// Sends one request and reads the head of its reply.
    fn run(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<(Reply, ureq::Body), ureq::Error> {
        let mut request =
            ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut shown = format!("{method} {path} {headers:?} ");
        let excerpt = String::from_utf8_lossy(&body[..body.len().min(2000)]).into_owned();
        write!(shown, "{excerpt}").ok();
        let response = if body.is_empty() && method != "POST" {
            self.agent.run(request.body(())?)?
        } else {
            self.agent.run(request.body(body)?)?
        };
        let headers = response
            .headers()
            .iter()
            .map(|(name, value)| {
                (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
            })
            .collect();
        let status = response.status().as_u16();
        let head = Reply { request: shown, status, headers, text: String::new() };
        Ok((head, response.into_body()))
    }

    pub fn get(&self, path: &str) -> Result<Reply, Failed> {
        Ok(self.send("GET", path, &[], &[])?)
    }

    pub fn publish(&self, body: impl AsRef<[u8]>) -> Result<Reply, Failed> {
        Ok(self.send("POST", "/publish", &[("content-type", "application/json")], body.as_ref())?)
    }

    /// The status of a publish, which may be of the host: an instance that ends leaves
    /// its requests to it, and no such reply is described.
    pub fn publish_status(&self, body: &[u8]) -> Result<u16, ureq::Error> {
        let headers = [("content-type", "application/json")];
        let (head, mut body) = self.run("POST", "/publish", &headers, body)?;
        body.read_to_vec()?;
        Ok(head.status)
    }

    /// Publishes one event, which must be accepted, and returns its `seq`.
    pub fn publish_one(&self, topic: &str, id: &str) -> Result<i64, Failed> {
        let reply = self.publish_ids(topic, &[id.to_owned()])?.expect(200)?.json()?;
        let seq = reply["results"][0]["seq"].as_i64();
        seq.ok_or_else(|| format!("it was not accepted: {reply:#}").into())
    }

    /// Publishes events with these ids; the reply names each.
    pub fn publish_ids(&self, topic: &str, ids: &[String]) -> Result<Reply, ureq::Error> {
        self.send("POST", "/publish?results=all", &[], batch(topic, ids).as_bytes())
    }

    /// Sends bytes as they are, hangs up half-way if that is the `end`, and
    /// reads until the server closes.
    pub fn raw(&self, bytes: &[u8], end: End) -> Result<String, Failed> {
        let mut stream = self.connect()?;
        std::io::Write::write_all(&mut stream, bytes)?;
        if end == End::HangUp {
            stream.shutdown(std::net::Shutdown::Write)?;
        }
        let mut read = Vec::new();
        stream.read_to_end(&mut read)?;
        Ok(String::from_utf8_lossy(&read).into_owned())
    }

    pub fn connect(&self) -> Result<TcpStream, Failed> {
        let address = self.address();
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        Ok(stream)
    }

    /// Host and port.
    pub fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// Every stored event of a topic, page by page.
    pub fn all_events(&self, topic: &str) -> Result<Vec<Value>, Failed> {
        let mut events = Vec::new();
        let mut after = "0".to_owned();
        loop {
            let path = format!("/events?topic={topic}&limit=1000&after={after}");
            let page = self.get(&path)?.expect(200)?.json()?;
            let Some(rows) = page["events"].as_array().filter(|rows| !rows.is_empty()) else {
                return Ok(events);
            };
            events.extend(rows.iter().cloned());
            after = page["next"].as_str().unwrap_or_default().to_owned();
        }
    }

    /// The counters of one topic, which balance or the test fails.
    pub fn counters(&self, topic: &str) -> Result<Counters, Failed> {
        self.get("/stats")?.expect(200)?.counters(topic)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    pub received: u64,
    pub unique_processed: u64,
    pub duplicate_dropped: u64,
    pub conflicts: u64,
}

impl Counters {
    pub fn of(json: &Value) -> Self {
        let count = |field: &str| json[field].as_u64().unwrap_or_default();
        Counters {
            received: count("received"),
            unique_processed: count("unique_processed"),
            duplicate_dropped: count("duplicate_dropped"),
            conflicts: count("conflicts"),
        }
    }

    pub fn balance(&self) -> bool {
        self.received == self.unique_processed + self.duplicate_dropped
            && self.conflicts <= self.duplicate_dropped
    }
}
