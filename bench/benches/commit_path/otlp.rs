//! Exports of OTLP in protocol buffers, as an SDK sends them, and the loop that sends
//! them: the publisher's workload has events with ids, and these have none.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use publisher::client::Client;
use publisher::metrics::Metrics;

use crate::load::Load;

/// Where logs go.
const PATH: &str = "/v1/logs";

const MEDIA_TYPE: &str = "application/x-protobuf";

/// One request in so many is sent again, as one delivery in five of the publisher's
/// workload is.
const REPEATED: u64 = 5;

/// Services whose records these are, each a topic.
const SERVICES: u64 = 10;

/// Time from one record to the next, in nanoseconds: they are told apart by it.
const STEP_NS: u64 = 1_000;

/// Exports that were sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sent {
    /// Records, each time they were sent.
    pub records: u64,
    /// Distinct ones among them.
    pub distinct: u64,
}

/// Measures exports of so many records each.
///
/// # Errors
///
/// If one is not acknowledged whole.
pub fn measure(
    load: &Load,
    client: &Arc<Client>,
    records: u64,
    connections: usize,
) -> Result<(Metrics, Sent)> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.context("the clock is before 1970")?;
    let exporting = Arc::new(Exporting {
        client: Arc::clone(client),
        records,
        first_unix_ns: u64::try_from(now.as_nanos()).context("the clock is past 2554")?,
        next: AtomicU64::new(0),
    });
    let of_workers = Arc::clone(&exporting);
    let metrics = load.repeat(connections, records, move || {
        let exporting = Arc::clone(&of_workers);
        async move { exporting.export(exporting.next.fetch_add(1, Ordering::Relaxed)).await }
    })?;
    let requests = exporting.next.load(Ordering::Relaxed);
    let sent =
        Sent { records: requests * records, distinct: (requests - requests / REPEATED) * records };
    Ok((metrics, sent))
}

/// What the connections of a loop share.
struct Exporting {
    client: Arc<Client>,
    records: u64,
    first_unix_ns: u64,
    next: AtomicU64,
}

impl Exporting {
    async fn export(&self, number: u64) -> Result<()> {
        let is_repeated = number % REPEATED == REPEATED - 1;
        let number = if is_repeated { number - 1 } else { number };
        let first = number * self.records;
        let body = self.request(number % SERVICES, first..first + self.records);
        let reply = self.client.post(PATH, MEDIA_TYPE, body.into()).await;
        let reply = reply.with_context(|| format!("POST {PATH}"))?;
        // A reply that rejects nothing has no field, and so no byte.
        ensure!(reply.is_empty(), "POST {PATH}: some records are rejected");
        Ok(())
    }

    /// `ExportLogsServiceRequest`: one resource, one scope, and its records.
    fn request(&self, service: u64, numbers: Range<u64>) -> Vec<u8> {
        let mut resource = Vec::new();
        attribute(&mut resource, 1, "service.name", |value| {
            bytes(value, 1, format!("service-{service}").as_bytes());
        });
        attribute(&mut resource, 1, "telemetry.sdk.language", |value| bytes(value, 1, b"rust"));
        let mut logs = Vec::new();
        message(&mut logs, 1, |scope| bytes(scope, 1, b"bench"));
        for number in numbers {
            let unix_ns = self.first_unix_ns + number * STEP_NS;
            message(&mut logs, 2, |record| log_record(record, number, unix_ns));
        }
        let mut request = Vec::new();
        message(&mut request, 1, |resource_logs| {
            bytes(resource_logs, 1, &resource);
            bytes(resource_logs, 2, &logs);
        });
        request
    }
}

/// `LogRecord`, with what an event of the publisher's workload has.
fn log_record(out: &mut Vec<u8>, number: u64, unix_ns: u64) {
    fixed64(out, 1, unix_ns);
    varint_field(out, 2, 9);
    bytes(out, 3, b"INFO");
    message(out, 5, |body| bytes(body, 1, b"order placed"));
    attribute(out, 6, "number", |value| varint_field(value, 3, number));
    let user = format!("user-{}", number % 10_000);
    attribute(out, 6, "user_id", |value| bytes(value, 1, user.as_bytes()));
    attribute(out, 6, "amount_cents", |value| varint_field(value, 3, number % 1_000_000));
    let token = format!("{number:032x}");
    attribute(out, 6, "token", |value| bytes(value, 1, token.as_bytes()));
    fixed64(out, 11, unix_ns);
}

/// `KeyValue`.
fn attribute(out: &mut Vec<u8>, field: u64, key: &str, value: impl FnOnce(&mut Vec<u8>)) {
    message(out, field, |pair| {
        bytes(pair, 1, key.as_bytes());
        message(pair, 2, value);
    });
}

fn message(out: &mut Vec<u8>, field: u64, write: impl FnOnce(&mut Vec<u8>)) {
    let mut inner = Vec::new();
    write(&mut inner);
    bytes(out, field, &inner);
}

fn bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

fn fixed64(out: &mut Vec<u8>, field: u64, value: u64) {
    varint(out, field << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}

fn varint_field(out: &mut Vec<u8>, field: u64, value: u64) {
    varint(out, field << 3);
    varint(out, value);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
