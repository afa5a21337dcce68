//! All SQL.

pub mod event_log;
