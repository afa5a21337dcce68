//! A request and its response that both go on.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use libtest_mimic::Failed;

use super::{Client, TestResult, check_eq};

/// A request whose body goes on, and its response as it comes.
pub struct Duplex {
    stream: TcpStream,
    response: BufReader<TcpStream>,
}

impl Duplex {
    pub fn open(client: &Client, path: &str) -> Result<Self, Failed> {
        let mut stream = client.connect()?;
        stream.set_nodelay(true)?;
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\nspin-client-addr: mine\r\n\
             transfer-encoding: chunked\r\n\r\n",
            client.address()
        )?;
        let response = BufReader::new(stream.try_clone()?);
        Ok(Duplex { stream, response })
    }

    pub fn send(&mut self, line: &str) -> TestResult {
        Ok(write!(self.stream, "{:x}\r\n{line}\n\r\n", line.len() + 1)?)
    }

    fn receive(&mut self) -> Result<String, Failed> {
        let mut line = String::new();
        self.response.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    /// Status line and headers.
    pub fn head(&mut self) -> Result<Vec<String>, Failed> {
        let mut lines = Vec::new();
        loop {
            match self.receive()? {
                line if line.is_empty() => return Ok(lines),
                line => lines.push(line),
            }
        }
    }

    /// A line of the body, in however many chunks it comes.
    pub fn receive_body_line(&mut self) -> Result<String, Failed> {
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            let length = usize::from_str_radix(&self.receive()?, 16)?;
            let mut chunk = vec![0; length + "\r\n".len()];
            self.response.read_exact(&mut chunk)?;
            line.extend_from_slice(&chunk[..length]);
        }
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    pub fn end(mut self) -> TestResult {
        write!(self.stream, "0\r\n\r\n")?;
        let mut rest = String::new();
        self.response.read_to_string(&mut rest)?;
        check_eq(rest.as_str(), "0\r\n\r\n", "the end of the response")
    }
}
