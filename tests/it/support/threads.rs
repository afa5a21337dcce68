//! Many clients at once.

use std::any::Any;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ScopedJoinHandle;

use libtest_mimic::Failed;

use super::TestResult;

/// The result of a thread, whose panic is a failure too.
pub fn join<T>(thread: ScopedJoinHandle<'_, Result<T, Failed>>) -> Result<T, Failed> {
    thread.join().unwrap_or_else(|panic| Err(panicked(&*panic)))
}

/// A panic as a failure.
pub fn panicked(panic: &(dyn Any + Send)) -> Failed {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let message = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("panicked: {}", message.unwrap_or("without a message")).into()
}

/// Does `work` in `count` threads at once, which are numbered from 0.
pub fn concurrently<T: Send>(
    count: usize,
    work: impl Fn(usize) -> Result<T, Failed> + Sync,
) -> Result<Vec<T>, Failed> {
    let work = &work;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|number| scope.spawn(move || work(number))).collect();
        threads.into_iter().map(join).collect()
    })
}

/// Does `work` while `readers` threads poll, and poll once more at the end.
pub fn while_polling<T>(
    readers: usize,
    poll: impl Fn() -> TestResult + Sync,
    work: impl FnOnce() -> Result<T, Failed>,
) -> Result<T, Failed> {
    let done = AtomicBool::new(false);
    let poll_until_done = || {
        loop {
            let is_last_poll = done.load(Ordering::Acquire);
            poll()?;
            if is_last_poll {
                return Ok(());
            }
        }
    };
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..readers).map(|_| scope.spawn(poll_until_done)).collect();
        let worked = work();
        done.store(true, Ordering::Release);
        let polled: TestResult = readers.into_iter().try_for_each(join);
        polled.and(worked)
    })
}
