//! The end of a run: a table for people, JSON for machines, a page to look at.

pub mod html;
pub mod load;
mod output;
pub mod ship;
mod table;

pub use load::LoadReport;
pub use output::{JsonTo, Report, print, write_file};
