//! What an export is: events, one a line, and beside them a manifest that says what
//! they have to be.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`line`] | an event as a line, which a service would take as it is |
//! | [`manifest`] | the file beside it |
//! | [`sums`] | what both are compared by |
//! | [`canonical`] | the one text of a JSON value |

mod canonical;
pub(crate) mod line;
pub(crate) mod manifest;
pub(crate) mod sums;
