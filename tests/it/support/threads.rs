//! Many clients at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ScopedJoinHandle;

use libtest_mimic::Failed;

use super::Outcome;

pub fn join<T>(thread: ScopedJoinHandle<'_, Result<T, Failed>>) -> Result<T, Failed> {
    thread.join().unwrap_or_else(|_| Err("a client panicked".into()))
}

/// Does `work` in `count` threads at once, which are numbered from 0.
pub fn at_once<T: Send>(
    count: usize,
    work: impl Fn(usize) -> Result<T, Failed> + Sync,
) -> Result<Vec<T>, Failed> {
    let work = &work;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|number| scope.spawn(move || work(number))).collect();
        threads.into_iter().map(join).collect()
    })
}

/// Does `work` while `readers` threads look again and again, and once more at
/// the end.
pub fn watched<T>(
    readers: usize,
    look: impl Fn() -> Outcome + Sync,
    work: impl FnOnce() -> Result<T, Failed>,
) -> Result<T, Failed> {
    let done = AtomicBool::new(false);
    let watch = || {
        loop {
            let last_look = done.load(Ordering::Acquire);
            look()?;
            if last_look {
                return Ok(());
            }
        }
    };
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..readers).map(|_| scope.spawn(watch)).collect();
        let worked = work();
        done.store(true, Ordering::Release);
        let looked: Outcome = readers.into_iter().try_for_each(join);
        looked.and(worked)
    })
}
