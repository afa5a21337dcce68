//! Where events are kept.

pub mod sqlite;
pub mod tail;
