//! Bytes → events.

pub mod native;
