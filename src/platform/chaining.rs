//! Lines between instances: one component of the application calls another, and both
//! sides send for as long as they like.

use async_trait::async_trait;

/// Bytes both ways between two instances, in order. It ends when either side drops it.
#[async_trait(?Send)]
pub trait Line {
    /// Sends `bytes`. False when the other side takes no more.
    async fn send(&mut self, bytes: Vec<u8>) -> bool;
    /// Appends what comes next to `read`. False when nothing comes any more.
    async fn receive(&mut self, read: &mut Vec<u8>) -> bool;
}

/// A call that was answered.
pub struct Called {
    /// The status of the reply.
    pub status: u16,
    /// What the other side noted in the head of the reply, or nothing.
    pub note: String,
    /// The line.
    pub line: Box<dyn Line>,
}

/// The way to the other components of the application.
#[async_trait(?Send)]
pub trait Chaining {
    /// Opens a line to an instance of the component `name`, at `path`.
    ///
    /// # Errors
    ///
    /// What the platform says: there is no such component, or it may not be called.
    async fn call(&self, name: &str, path: &str) -> Result<Called, String>;
}
