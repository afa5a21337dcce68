//! Statements on their way in.

use crate::event::Topic;
use crate::platform::postgres::Value;

/// How long a reader waits for the commits that are under way when it comes, in
/// milliseconds. What they told their clients before it came is in what it reads then.
pub(super) const SETTLE_MS_MAX: i64 = 1_000;

/// A statement with its parameters.
pub(super) struct Statement {
    pub(super) sql: &'static str,
    pub(super) parameters: Vec<Value>,
}

/// The texts of topics, as an array.
pub(super) fn topics(topics: &[Topic]) -> Value {
    Value::Texts(topics.iter().map(|topic| Some(topic.as_str().to_owned())).collect())
}

/// A number, or NULL.
pub(super) fn optional(number: Option<i64>) -> Value {
    number.map_or(Value::Null, Value::Integer)
}

/// A limit or a count. Larger than any table, it is no limit.
pub(super) fn integer(number: usize) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}
