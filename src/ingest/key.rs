//! A key of a JSON object.

use std::borrow::Cow;

use serde::Deserialize;

/// A key, borrowed from the input unless it holds an escape.
#[derive(Deserialize)]
pub(super) struct Key<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);
