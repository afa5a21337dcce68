//! The end of a run: a table for people, JSON for machines, a page to look at.

pub(crate) mod backup;
pub(crate) mod export;
pub(crate) mod html;
pub(crate) mod import;
pub mod load;
mod output;
pub(crate) mod ship;
mod table;

pub use load::LoadReport;
pub(crate) use output::{JsonTo, Report, print, tell, write_file};
