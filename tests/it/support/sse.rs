//! Server-sent events as a client reads them.

use std::io::{BufRead, BufReader, Read, Take};

use libtest_mimic::Failed;
use serde_json::Value;

use super::{Client, Reply, TestResult, check, check_eq};

/// What stands between two empty lines of an event stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Block {
    pub retry: Option<String>,
    pub id: Option<String>,
    pub data: Option<String>,
    /// Lines that begin with a colon, which readers skip.
    pub comments: usize,
}

/// A block that a browser would hand to the page.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The last id that the stream gave.
    pub id: String,
    pub data: Value,
}

impl Event {
    pub fn topic(&self) -> &str {
        self.data["topic"].as_str().unwrap_or_default()
    }

    pub fn event_id(&self) -> &str {
        self.data["event_id"].as_str().unwrap_or_default()
    }
}

/// Server-sent events as they arrive. To drop it closes the connection, at
/// whatever byte that is.
///
/// Format: <https://html.spec.whatwg.org/multipage/server-sent-events.html>
pub struct Stream {
    /// Status and headers.
    pub head: Reply,
    lines: BufReader<Take<ureq::BodyReader<'static>>>,
    /// The id of the last whole block that had one: what to resume after. A
    /// block that was cut off does not count.
    pub last_id: String,
    /// Whether it was cut off in the middle of a block.
    pub cut_inside: bool,
    /// Why it ended, if that was not for the bytes that it was opened for.
    pub broken: Option<String>,
}

impl Stream {
    pub fn open(client: &Client, path: &str) -> Result<Self, Failed> {
        Self::resume(client, path, "", u64::MAX)
    }

    /// Opens a stream after the event `last_id`, if that is not empty, which is
    /// cut off after so many bytes.
    pub fn resume(client: &Client, path: &str, last_id: &str, bytes: u64) -> Result<Self, Failed> {
        let last_event_id = [("last-event-id", last_id)];
        Self::with_headers(client, path, &last_event_id[usize::from(last_id.is_empty())..], bytes)
    }

    pub fn with_headers(
        client: &Client,
        path: &str,
        headers: &[(&str, &str)],
        bytes: u64,
    ) -> Result<Self, Failed> {
        let (mut head, mut body) = client.open(path, headers)?;
        if head.status != 200 {
            body.read_to_string(&mut head.text)?;
        }
        let head = head.expect(200)?;
        check_eq(head.header("content-type"), Some("text/event-stream"), "content-type")?;
        Ok(Stream {
            head,
            lines: BufReader::new(body.take(bytes)),
            last_id: String::new(),
            cut_inside: false,
            broken: None,
        })
    }

    /// The next whole block; `None` when the stream is over.
    pub fn block_if_any(&mut self) -> Result<Option<Block>, Failed> {
        let mut block = Block::default();
        let mut lines = 0;
        loop {
            let mut line = Vec::new();
            let read = self.lines.read_until(b'\n', &mut line);
            if line.pop() != Some(b'\n') {
                self.cut_inside = lines > 0 || !line.is_empty();
                if self.lines.get_ref().limit() > 0 {
                    let why = read.err().map_or("its end".to_owned(), |error| error.to_string());
                    self.broken = Some(format!("{why} after the id {:?}", self.last_id));
                }
                return Ok(None);
            }
            // A carriage return ends a line too, with or without a line feed.
            let line = line.strip_suffix(b"\r").unwrap_or(&line);
            for line in line.split(|byte| *byte == b'\r') {
                if !line.is_empty() {
                    lines += 1;
                    block.take(std::str::from_utf8(line)?)?;
                } else if lines > 0 {
                    if let Some(id) = &block.id {
                        self.last_id.clone_from(id);
                    }
                    return Ok(Some(block));
                }
            }
        }
    }

    /// The next block, of a stream that goes on.
    pub fn block(&mut self) -> Result<Block, Failed> {
        let block = self.block_if_any()?;
        block.ok_or_else(|| format!("the stream is over: {:?}", self.broken).into())
    }

    /// The first block of a stream: where it begins, and nothing else.
    pub fn opening(&mut self) -> Result<String, Failed> {
        let block = self.block()?;
        let id = block.id.clone().unwrap_or_default();
        let is_cursor = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit());
        let expected =
            Block { retry: Some("1000".into()), id: block.id.clone(), ..Block::default() };
        check(is_cursor && block == expected, || format!("a stream begins with {block:?}"))?;
        Ok(id)
    }

    /// The next event; `None` when the stream is over.
    pub fn event_if_any(&mut self) -> Result<Option<Event>, Failed> {
        while let Some(block) = self.block_if_any()? {
            if let Some(data) = block.data {
                let data = serde_json::from_str(&data)
                    .map_err(|error| format!("{error} in the data {data:?}"))?;
                return Ok(Some(Event { id: self.last_id.clone(), data }));
            }
        }
        Ok(None)
    }

    /// The next event, of a stream that goes on.
    pub fn event(&mut self) -> Result<Event, Failed> {
        let event = self.event_if_any()?;
        event.ok_or_else(|| format!("the stream is over: {:?}", self.broken).into())
    }

    /// The next events are those with these ids.
    pub fn check_next(&mut self, ids: &[&str], of: &str) -> TestResult {
        for id in ids {
            check_eq(self.event()?.event_id(), *id, of)?;
        }
        Ok(())
    }
}

impl Block {
    fn take(&mut self, line: &str) -> Result<(), Failed> {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" => self.comments += 1,
            "retry" => self.retry = Some(value.to_owned()),
            "id" => self.id = Some(value.to_owned()),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            // A browser would skip it, or hand the event to other listeners.
            _ => return Err(format!("the stream has a line {line:?}").into()),
        }
        Ok(())
    }
}

/// The path of a stream of these topics.
pub fn event_stream_path(topics: &[String]) -> String {
    let topics: Vec<String> = topics.iter().map(|topic| format!("topic={topic}")).collect();
    format!("/events/stream?{}", topics.join("&"))
}

/// A cursor behind every event that is there.
pub fn end_cursor(client: &Client) -> Result<String, Failed> {
    let mut stream = Stream::open(client, "/events/stream?after=end")?;
    stream.block()?.id.ok_or_else(|| "the stream does not begin with an id".into())
}
