//! Lines between instances: one component of the application calls another, and both
//! sides send for as long as they like.

use async_trait::async_trait;

/// One direction of a line: bytes to the other instance, in order.
#[async_trait(?Send)]
pub trait Sender {
    /// Sends `bytes`. False when the other side takes no more.
    async fn send(&mut self, bytes: Vec<u8>) -> bool;
}

/// The other direction.
#[async_trait(?Send)]
pub trait Receiver {
    /// Appends what comes next to `read`. False when nothing comes any more.
    async fn receive(&mut self, read: &mut Vec<u8>) -> bool;
}

/// Bytes both ways between two instances. Each direction ends when either side drops
/// its end of it.
pub struct Line {
    /// To the other side.
    pub sender: Box<dyn Sender>,
    /// From the other side.
    pub receiver: Box<dyn Receiver>,
}

/// A call that was answered.
pub struct Called {
    /// The status of the reply.
    pub status: u16,
    /// The line.
    pub line: Line,
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
