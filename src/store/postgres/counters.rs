//! Counters, as they stand at one moment. Each is the sum of its rows.

use super::columns::Columns;
use super::statement::{Statement, integer};
use crate::platform::postgres::Row;
use crate::store::model::{
    Counters, Measures, REJECTED_PREFIX, StoreError, Summary, TopicCounters, TopicRange, Totals,
};

/// The counters in all, and those of `topics`.
pub(super) fn totals(topics: TopicRange<'_>) -> Statement {
    // No topic is empty, so all come after the empty one.
    const TOTALS: &str = "SELECT s.*, t.*, c.rejected, c.created_at \
        FROM sekali.totals_2 s, sekali.service_1 c, LATERAL ( \
          SELECT array_agg(t.topic), array_agg(t.unique_processed), \
                 array_agg(t.duplicate_dropped), array_agg(t.conflicts), \
                 array_agg(t.pruned) \
          FROM (SELECT * FROM sekali.topics_2 WHERE topic > $1 ORDER BY topic LIMIT $2) t) t";
    let topics_max = integer(topics.topics_max.saturating_add(1));
    Statement { sql: TOTALS, parameters: vec![topics.after.into(), topics_max] }
}

/// What [`totals`] returned.
///
/// # Errors
///
/// When the row is none that the statement returns.
pub(super) fn totals_of(rows: Vec<Row>, topics: TopicRange<'_>) -> Result<Totals, StoreError> {
    let mut columns = Columns::first_of(rows)?;
    let (all, topic_count) = (counters(&mut columns)?, columns.integer()?);
    let mut of_topics = topic_counters(&mut columns)?;
    let has_more = of_topics.len() > topics.topics_max;
    of_topics.truncate(topics.topics_max);
    Ok(Totals {
        all,
        topic_count,
        topics: of_topics,
        has_more,
        rejected: columns.integer()?,
        created_at: columns.integer()?,
    })
}

/// The counters in all, and those of the `topics_max` topics with the most deliveries.
pub(super) fn summary(topics_max: usize) -> Statement {
    const SUMMARY: &str = "SELECT s.*, t.*, c.rejected \
        FROM sekali.totals_2 s, sekali.service_1 c, LATERAL ( \
          SELECT array_agg(t.topic), array_agg(t.unique_processed), \
                 array_agg(t.duplicate_dropped), array_agg(t.conflicts), \
                 array_agg(t.pruned) \
          FROM (SELECT * FROM sekali.topics_2 \
                ORDER BY unique_processed + duplicate_dropped DESC, id LIMIT $1) t) t";
    Statement { sql: SUMMARY, parameters: vec![integer(topics_max)] }
}

/// What [`summary`] returned.
///
/// # Errors
///
/// When the row is none that the statement returns.
pub(super) fn summary_of(rows: Vec<Row>) -> Result<Summary, StoreError> {
    let mut columns = Columns::first_of(rows)?;
    Ok(Summary {
        all: counters(&mut columns)?,
        topic_count: columns.integer()?,
        topics: topic_counters(&mut columns)?,
        rejected: columns.integer()?,
    })
}

/// All numbers that are watched, of `topics_max` topics by name.
pub(super) fn measures(topics_max: usize) -> Statement {
    const MEASURES: &str = "SELECT t.*, o.*, n.*, s.rejected, s.created_at, b.bytes, k.bytes \
        FROM sekali.service_1 s, LATERAL ( \
          SELECT array_agg(t.topic), array_agg(t.unique_processed), \
                 array_agg(t.duplicate_dropped), array_agg(t.conflicts), \
                 array_agg(t.pruned) \
          FROM (SELECT * FROM sekali.topics_2 ORDER BY id LIMIT $1) t) t, LATERAL ( \
          SELECT coalesce(sum(o.unique_processed), 0)::bigint, \
                 coalesce(sum(o.duplicate_dropped), 0)::bigint, \
                 coalesce(sum(o.conflicts), 0)::bigint, \
                 coalesce(sum(o.pruned), 0)::bigint, count(*) \
          FROM (SELECT * FROM sekali.topics_2 ORDER BY id OFFSET $1) o) o, LATERAL ( \
          SELECT array_agg(c.name), array_agg(c.value) \
          FROM (SELECT name, sum(value)::bigint AS value FROM sekali.counters GROUP BY name) c) n, \
        LATERAL ( \
          SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint AS bytes FROM pg_class c \
          WHERE c.relnamespace = 'sekali'::regnamespace AND c.relkind = 'r') b, LATERAL ( \
          SELECT coalesce(sum(c.content_bytes), 0)::bigint AS bytes FROM sekali.topic_counters c) k";
    Statement { sql: MEASURES, parameters: vec![integer(topics_max)] }
}

/// What [`measures`] returned.
///
/// # Errors
///
/// When the row is none that the statement returns.
pub(super) fn measures_of(rows: Vec<Row>) -> Result<Measures, StoreError> {
    let mut columns = Columns::first_of(rows)?;
    let topics = topic_counters(&mut columns)?;
    let (others, other_count) = (counters(&mut columns)?, columns.integer()?);
    let (names, values) = (columns.texts()?, columns.integers()?);
    Ok(Measures {
        topics,
        other_topics: (other_count > 0).then_some(others),
        counted: names.into_iter().zip(values).collect(),
        rejected: columns.integer()?,
        created_at: columns.integer()?,
        store_bytes: columns.integer()?,
        content_bytes: columns.integer()?,
    })
}

fn counters(columns: &mut Columns) -> Result<Counters, StoreError> {
    Ok(Counters {
        unique_processed: columns.integer()?,
        duplicate_dropped: columns.integer()?,
        conflicts: columns.integer()?,
        pruned: columns.integer()?,
    })
}

fn topic_counters(columns: &mut Columns) -> Result<Vec<TopicCounters>, StoreError> {
    let topics = columns.texts()?;
    let (unique, duplicate) = (columns.integers()?, columns.integers()?);
    let (conflicts, pruned) = (columns.integers()?, columns.integers()?);
    let counters = unique.into_iter().zip(duplicate).zip(conflicts).zip(pruned).map(
        |(((unique_processed, duplicate_dropped), conflicts), pruned)| Counters {
            unique_processed,
            duplicate_dropped,
            conflicts,
            pruned,
        },
    );
    let topics = topics.into_iter().zip(counters);
    Ok(topics.map(|(topic, counters)| TopicCounters { topic, counters }).collect())
}

const _: () = assert!(matches!(REJECTED_PREFIX.as_bytes(), b"rejected/"), "as schema.sql has it");
