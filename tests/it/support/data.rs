//! What tests publish.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// A topic that no other test, and no earlier run against the same server, has.
pub fn unique_topic(of: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let process = std::process::id();
    format!("it-{of}-{:x}-{process:x}-{}", now.as_nanos(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// One event as JSON text.
pub fn event(topic: &str, event_id: &str) -> String {
    format!(
        r#"{{"topic":"{topic}","event_id":"{event_id}","source":"it","payload":{{"of":"{event_id}"}}}}"#
    )
}

/// Events with these ids as a JSON array.
pub fn batch(topic: &str, ids: &[String]) -> String {
    let events: Vec<String> = ids.iter().map(|id| event(topic, id)).collect();
    format!("[{}]", events.join(","))
}

/// An event whose JSON text has exactly `bytes` bytes.
pub fn event_of_size(topic: &str, event_id: &str, bytes: usize) -> String {
    let empty =
        format!(r#"{{"topic":"{topic}","event_id":"{event_id}","source":"s","payload":""}}"#);
    empty.replace("\"\"", &format!("\"{}\"", "x".repeat(bytes - empty.len())))
}

/// Random numbers that are the same in each run (SplitMix64), from a seed.
pub struct Rng(pub u64);

impl Rng {
    /// A number from 0 up to, and without, `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}
