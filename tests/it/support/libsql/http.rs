//! Requests with a length, and answers, whole or in chunks.

use std::io::{self, BufRead, Read, Write};
use std::net::TcpStream;

use serde_json::Value;

pub struct Request {
    pub path: String,
    pub authorization: String,
    pub body: Vec<u8>,
}

impl Request {
    /// The next one; `None` when the client has gone.
    pub fn read(from: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut request = Request { path, authorization: String::new(), body: Vec::new() };
        let mut length = 0;
        loop {
            line.clear();
            from.read_line(&mut line)?;
            let Some((name, value)) = line.split_once(':') else { break };
            match name.to_ascii_lowercase().as_str() {
                "authorization" => value.trim().clone_into(&mut request.authorization),
                "content-length" => length = value.trim().parse().map_err(io::Error::other)?,
                _ => {}
            }
        }
        from.take(length).read_to_end(&mut request.body)?;
        Ok(Some(request))
    }
}

/// An answer that is to be given.
pub struct Answer<'a> {
    pub to: &'a TcpStream,
}

impl<'a> Answer<'a> {
    pub fn whole(mut self, status: u16, body: &str) -> io::Result<()> {
        let length = body.len();
        let head = format!("HTTP/1.1 {status} -\r\ncontent-length: {length}\r\n\r\n");
        self.to.write_all((head + body).as_bytes())
    }

    /// Begins one that goes on line by line.
    pub fn lines(mut self) -> io::Result<Lines<'a>> {
        self.to.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
        Ok(Lines { to: self.to })
    }
}

pub struct Lines<'a> {
    to: &'a TcpStream,
}

impl Lines<'_> {
    pub fn send(&mut self, line: &Value) -> io::Result<()> {
        let line = format!("{line}\n");
        self.to.write_all(format!("{:x}\r\n{line}\r\n", line.len()).as_bytes())
    }

    pub fn end(mut self) -> io::Result<()> {
        self.to.write_all(b"0\r\n\r\n")
    }
}
