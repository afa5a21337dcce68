//! POST /publish: how a body arrives.

use std::io::{Read, Write};

use crate::support::{
    End, Server, Target, TestResult, any_server, check, check_eq, event, own_server, test,
    unique_topic,
};

#[test(any_server)]
fn takes_chunks_without_a_length(target: &Target) -> TestResult {
    let client = target.client();
    let topic = unique_topic("chunked");
    let event = event(&topic, "1");
    let (first, second) = event.split_at(20);
    let request = format!(
        "POST /publish HTTP/1.1\r\nhost: {}\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n\
         {:x}\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n",
        client.address(),
        first.len(),
        second.len()
    );
    let reply = client.raw(request.as_bytes(), End::Wait)?;
    check(reply.starts_with("HTTP/1.1 200") && reply.contains(r#""accepted":1"#), || reply)?;
    // Over the limit without saying so first.
    let chunk = "x".repeat(1 << 20);
    let mut request = format!(
        "POST /publish HTTP/1.1\r\nhost: {}\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n",
        client.address()
    );
    for _ in 0..11 {
        request.push_str(&format!("{:x}\r\n{chunk}\r\n", chunk.len()));
    }
    request.push_str("0\r\n\r\n");
    let reply = client.raw(request.as_bytes(), End::Wait)?;
    check(reply.starts_with("HTTP/1.1 413"), || reply)?;
    check_eq(client.counters(&topic)?.received, 1, "received")
}

#[test(any_server)]
fn stores_nothing_of_a_truncated_body(target: &Target) -> TestResult {
    let client = target.client();
    let topic = unique_topic("cut-off");
    let lines = format!("{}\n{}\n", event(&topic, "1"), event(&topic, "2"));
    // Whole lines, but not all that was announced: nothing tells that the last is the last.
    let with_length = format!(
        "POST /publish HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n\r\n{lines}",
        client.address(),
        lines.len() + 50
    );
    let in_chunks = format!(
        "POST /publish HTTP/1.1\r\nhost: {}\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{lines}\r\n",
        client.address(),
        lines.len()
    );
    for request in [with_length, in_chunks] {
        let reply = client.raw(request.as_bytes(), End::HangUp)?;
        check(!reply.starts_with("HTTP/1.1 200"), || format!("acknowledged: {reply}"))?;
        check_eq(client.counters(&topic)?.received, 0, "received")?;
    }
    client.publish(&lines)?.expect(200)?;
    check_eq(client.counters(&topic)?.unique_processed, 2, "stored after the retry")
}

/// A client that sends all before it listens must get its answer.
#[test(any_server)]
fn reads_a_large_body_that_it_refuses(target: &Target) -> TestResult {
    let client = target.client();
    let body = vec![b'x'; 8 << 20];
    let reply = client.send("POST", "/publish", &[("content-encoding", "br")], &body)?;
    reply.expect(415)?;
    client.send("POST", "/nowhere", &[], &body)?.expect(404)?;
    client.send("POST", "/stats", &[], &body)?.expect(405).map(drop)
}

/// The body is all there, the connection stays open, and nothing more comes:
/// the reply must not wait for it.
#[test(any_server)]
fn replies_before_the_end_of_a_keep_alive_body(target: &Target) -> TestResult {
    let client = target.client();
    let topic = unique_topic("keep-alive");
    let mut stream = client.connect()?;
    for id in 0..3 {
        let body = event(&topic, &id.to_string());
        write!(
            stream,
            "POST /publish HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n\r\n{body}",
            client.address(),
            body.len()
        )?;
        let mut reply = String::new();
        let mut buffer = [0; 4096];
        while !reply.ends_with('}') {
            let read = stream.read(&mut buffer)?;
            check(read > 0, || format!("closed after {reply}"))?;
            reply.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
        check(reply.starts_with("HTTP/1.1 200"), || reply)?;
    }
    check_eq(client.counters(&topic)?.unique_processed, 3, "stored")
}

#[test(own_server)]
fn slow_bodies_hold_up_no_other_client() -> TestResult {
    let topic = unique_topic("slow");
    let server = Server::start()?;
    let client = server.client();
    let mut slow = Vec::new();
    for _ in 0..40 {
        let mut stream = client.connect()?;
        write!(
            stream,
            "POST /publish HTTP/1.1\r\nhost: {}\r\ncontent-length: 100\r\n\r\n{{",
            client.address()
        )?;
        slow.push(stream);
    }
    client.publish(event(&topic, "1"))?.expect(200)?;
    check_eq(client.counters(&topic)?.received, 1, "received")
}
