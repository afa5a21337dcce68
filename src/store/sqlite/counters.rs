//! Counters, as they stand at one moment.

use super::checkpoint::WAL_PAGES;
use super::columns::Columns;
use super::lease::WRITER_LEASE;
use super::statement::{integer, query};
use crate::platform::sqlite::SqliteConnection;
use crate::store::model::{
    Counters, Measures, StoreError, Summary, TopicCounters, TopicRange, Totals,
};

/// The counters in all, and those of `topics`.
///
/// # Errors
///
/// What the store says.
pub(super) fn totals(
    connection: &dyn SqliteConnection,
    topics: TopicRange<'_>,
) -> Result<Totals, StoreError> {
    // No topic is empty, so all come after the empty one.
    const TOTALS: &str = "\
        SELECT NULL, total, duplicates, conflicts, pruned, topics, rejected, created_at FROM service, \
          (SELECT coalesce(sum(unique_processed), 0) AS total, \
                  coalesce(sum(duplicate_dropped), 0) AS duplicates, \
                  coalesce(sum(conflicts), 0) AS conflicts, \
                  coalesce(sum(pruned), 0) AS pruned, count(*) AS topics FROM topic_totals) \
        UNION ALL \
        SELECT * FROM ( \
          SELECT topic, unique_processed, duplicate_dropped, conflicts, pruned, 0, 0, 0 FROM topic_totals \
          WHERE topic > ?1 ORDER BY topic LIMIT ?2)";
    let parameters = vec![topics.after.into(), integer(topics.topics_max.saturating_add(1))];
    let mut totals = Totals::default();
    for row in query(connection, TOTALS, parameters)? {
        let mut columns = Columns::of(row);
        let topic = columns.optional_text()?;
        let counters = counters(&mut columns)?;
        match topic {
            Some(_) if totals.topics.len() == topics.topics_max => totals.has_more = true,
            Some(topic) => totals.topics.push(TopicCounters { topic, counters }),
            None => {
                totals.all = counters;
                totals.topic_count = columns.integer()?;
                totals.rejected = columns.integer()?;
                totals.created_at = columns.integer()?;
            }
        }
    }
    Ok(totals)
}

/// The counters in all, and those of the `topics_max` topics with the most
/// deliveries.
///
/// # Errors
///
/// What the store says.
pub(super) fn summary(
    connection: &dyn SqliteConnection,
    topics_max: usize,
) -> Result<Summary, StoreError> {
    const SUMMARY: &str = "\
        SELECT NULL, total, duplicates, conflicts, pruned, topics, rejected FROM service, \
          (SELECT coalesce(sum(unique_processed), 0) AS total, \
                  coalesce(sum(duplicate_dropped), 0) AS duplicates, \
                  coalesce(sum(conflicts), 0) AS conflicts, \
                  coalesce(sum(pruned), 0) AS pruned, count(*) AS topics FROM topic_totals) \
        UNION ALL \
        SELECT * FROM ( \
          SELECT topic, unique_processed, duplicate_dropped, conflicts, pruned, 0, 0 FROM topic_totals \
          ORDER BY unique_processed + duplicate_dropped DESC, id LIMIT ?1)";
    let mut summary = Summary::default();
    for row in query(connection, SUMMARY, vec![integer(topics_max)])? {
        let mut columns = Columns::of(row);
        let topic = columns.optional_text()?;
        let counters = counters(&mut columns)?;
        match topic {
            Some(topic) => summary.topics.push(TopicCounters { topic, counters }),
            None => {
                summary.all = counters;
                summary.topic_count = columns.integer()?;
                summary.rejected = columns.integer()?;
            }
        }
    }
    Ok(summary)
}

/// All numbers that are watched, of `topics_max` topics by name.
///
/// # Errors
///
/// What the store says.
pub(super) fn measures(
    connection: &dyn SqliteConnection,
    topics_max: usize,
) -> Result<Measures, StoreError> {
    const MEASURES: &str = "\
        SELECT 'topic', topic, unique_processed, duplicate_dropped, conflicts, pruned FROM \
          (SELECT * FROM topic_totals ORDER BY id LIMIT ?1) \
        UNION ALL \
        SELECT 'others', '', total, duplicates, conflicts, pruned FROM \
          (SELECT sum(unique_processed) AS total, sum(duplicate_dropped) AS duplicates, \
                  sum(conflicts) AS conflicts, sum(pruned) AS pruned, count(*) AS topics FROM \
            (SELECT * FROM topic_totals ORDER BY id LIMIT -1 OFFSET ?1)) WHERE topics > 0 \
        UNION ALL \
        SELECT 'service', '', rejected, created_at, \
          (SELECT page_count * page_size FROM pragma_page_count, pragma_page_size), \
          (SELECT coalesce(sum(content_bytes), 0) FROM topic_totals) FROM service \
        UNION ALL \
        SELECT 'count', name, value, 0, 0, 0 FROM counters \
        WHERE name NOT IN (?2, ?3) AND name NOT GLOB 'mark/*'";
    let mut measures = Measures::default();
    for row in query(
        connection,
        MEASURES,
        vec![integer(topics_max), WAL_PAGES.into(), WRITER_LEASE.into()],
    )? {
        let mut columns = Columns::of(row);
        let (kind, name) = (columns.text()?, columns.text()?);
        match kind.as_str() {
            "topic" => {
                let counters = counters(&mut columns)?;
                measures.topics.push(TopicCounters { topic: name, counters });
            }
            "others" => measures.other_topics = Some(counters(&mut columns)?),
            "service" => {
                measures.rejected = columns.integer()?;
                measures.created_at = columns.integer()?;
                measures.store_bytes = columns.integer()?;
                measures.content_bytes = columns.integer()?;
            }
            _ => {
                measures.counted.insert(name, columns.integer()?);
            }
        }
    }
    Ok(measures)
}

fn counters(columns: &mut Columns) -> Result<Counters, StoreError> {
    Ok(Counters {
        unique_processed: columns.integer()?,
        duplicate_dropped: columns.integer()?,
        conflicts: columns.integer()?,
        pruned: columns.integer()?,
    })
}
