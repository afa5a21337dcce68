//! A load in the middle of which the host is killed.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use libtest_mimic::Failed;

use super::{Auditor, Client, Reply, Rng, Server, TestResult, join};

const WRITERS: u64 = 8;

/// Most events of a request whose size is left open.
const BATCH_EVENTS_MAX: u64 = 200;

/// Clients that publish, and what they know, over all lives of the host.
pub struct CrashLoad {
    topic: String,
    batch: Option<usize>,
    rng: Rng,
    next_id: AtomicU64,
    replies: Mutex<Replies>,
}

#[derive(Default)]
struct Replies {
    /// Requests that got none, to be sent again as they were.
    missing: Vec<Vec<String>>,
    auditor: Auditor,
}

/// One life of the host, as its clients see it.
struct Life<'a> {
    load: &'a CrashLoad,
    client: Client,
    answered: AtomicU64,
    is_over: AtomicBool,
}

impl CrashLoad {
    /// Requests of `batch` events, or else of any size.
    pub fn new(topic: &str, batch: Option<usize>, seed: u64) -> Self {
        CrashLoad {
            topic: topic.to_owned(),
            batch,
            rng: Rng(seed),
            next_id: AtomicU64::new(0),
            replies: Mutex::default(),
        }
    }

    /// Clients publish until some requests, `requests_max` at most, have been
    /// answered and the host is killed.
    pub fn run_until_killed(&mut self, server: Server, requests_max: u64) -> TestResult {
        let requests = 1 + self.rng.below(requests_max);
        let seeds: Vec<u64> = (0..WRITERS).map(|_| self.rng.below(u64::MAX)).collect();
        let life = Life {
            load: self,
            client: server.client(),
            answered: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
        };
        let life = &life;
        std::thread::scope(|scope| {
            let writers: Vec<_> =
                seeds.into_iter().map(|seed| scope.spawn(move || life.write(seed))).collect();
            while life.answered.load(Ordering::Acquire) < requests
                && writers.iter().any(|writer| !writer.is_finished())
            {
                std::hint::spin_loop();
            }
            let killed = server.kill();
            life.is_over.store(true, Ordering::Release);
            writers.into_iter().try_for_each(join)?;
            killed.map(drop)
        })
    }

    /// New events, with a repeated one among them now and then.
    fn request(&self, rng: &mut Rng) -> Vec<String> {
        let size = self.batch.unwrap_or_else(|| 1 + rng.below(BATCH_EVENTS_MAX) as usize);
        let id = |_| self.next_id.fetch_add(1, Ordering::Relaxed).to_string();
        let mut ids: Vec<String> = (0..size).map(id).collect();
        if rng.below(5) == 0 {
            ids.push(ids[0].clone());
        }
        ids
    }

    fn replies(&self) -> Result<MutexGuard<'_, Replies>, Failed> {
        self.replies.lock().map_err(|_| "a client panicked".into())
    }

    /// Publishes what got no reply, and audits what is stored.
    pub fn audit(self, server: &Server) -> TestResult {
        self.audit_by(server, Auditor::audit)
    }

    /// The same of a service that prunes.
    pub fn audit_pruned(self, server: &Server) -> TestResult {
        self.audit_by(server, Auditor::audit_pruned)
    }

    fn audit_by(
        self,
        server: &Server,
        audit: fn(&Auditor, &Client, &str) -> TestResult,
    ) -> TestResult {
        let client = server.client();
        let Replies { missing, mut auditor } =
            self.replies.into_inner().map_err(|_| "a client panicked")?;
        for ids in &missing {
            auditor.publish(&client, &self.topic, ids)?;
        }
        audit(&auditor, &client, &self.topic)
    }
}

impl Life<'_> {
    /// Publishes until it is over: first what got no reply in an earlier life.
    fn write(&self, seed: u64) -> TestResult {
        let mut rng = Rng(seed);
        while !self.is_over.load(Ordering::Acquire) {
            let again = self.load.replies()?.missing.pop();
            let ids = again.unwrap_or_else(|| self.load.request(&mut rng));
            match self.publish(&ids)? {
                Some(reply) => {
                    self.load.replies()?.auditor.record(&ids, &reply)?;
                    self.answered.fetch_add(1, Ordering::Release);
                }
                None => {
                    let mut replies = self.load.replies()?;
                    replies.auditor.record_unanswered(ids.len() as u64);
                    replies.missing.push(ids);
                }
            }
        }
        Ok(())
    }

    /// `None` when there was no reply that acknowledges.
    fn publish(&self, ids: &[String]) -> Result<Option<Reply>, Failed> {
        match self.client.publish_ids(&self.load.topic, ids) {
            Ok(reply) if reply.status != 503 => reply.expect(200).map(Some),
            _ => Ok(None),
        }
    }
}
