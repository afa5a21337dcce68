//! All SQL: append, page, totals; set-up in `setup.rs`, named readers in
//! `subscriptions.rs`.
//!
//! One statement carries a whole commit, since a statement is the only
//! transaction that works everywhere: the connection is shared by the requests
//! of an instance, so `BEGIN … COMMIT` over several awaits would mix them, and
//! remote libSQL sends each statement as a request of its own.

use std::collections::BTreeMap;

use crate::commit::observed::{self as counts, Counts};
use crate::event::Event;
use crate::platform::{Database, Row, StoreError, Value};
use crate::time::UnixMillis;

#[path = "columns.rs"]
mod columns;
#[path = "setup.rs"]
mod setup;
#[path = "subscriptions.rs"]
pub mod subscriptions;

use columns::{Columns, odd};
pub use setup::ensure_ready;

/// What came of one delivery of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// First delivery of its identity; stored under `seq`.
    Accepted {
        /// Its place among all events, from 1.
        seq: i64,
    },
    /// Stored before, with the same content.
    Duplicate,
    /// Stored before, with other content, which stays.
    Conflict,
}

/// Counters of one topic since the store was created.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicTotals {
    /// The topic.
    pub topic: String,
    /// Events stored.
    pub unique_processed: i64,
    /// Deliveries of events that were stored before.
    pub duplicate_dropped: i64,
    /// Those of them whose content was another.
    pub conflicts: i64,
}

/// All counters, as of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// In the order of their names.
    pub topics: Vec<TopicTotals>,
    /// Deliveries that were no valid events.
    pub rejected: i64,
    /// When the store was created.
    pub created_at: UnixMillis,
}

/// An event as it was stored.
#[derive(Clone, Debug)]
pub struct StoredEvent {
    /// Its place among all events, from 1.
    pub seq: i64,
    /// First half of its identity.
    pub topic: String,
    /// Second half of its identity.
    pub event_id: String,
    /// Who said so.
    pub source: String,
    /// As it was given, if it was.
    pub timestamp: Option<String>,
    /// JSON text.
    pub payload: String,
    /// When it was received.
    pub received_at: UnixMillis,
}

/// Which events a page holds.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only these topics; all of them when there is none.
    pub topics: Vec<String>,
    /// Only this source.
    pub source: Option<String>,
    /// Only events with a higher `seq`.
    pub above: Option<i64>,
    /// Only events with a lower `seq`.
    pub below: Option<i64>,
    /// Newest first.
    pub descending: bool,
}

/// Deliveries on their way into a statement, as the JSON that it reads. Made
/// once, however often the statement is tried.
#[derive(Debug, Default)]
pub struct Deliveries {
    /// `[…],[…]`: topic, event id, source, content, timestamp, payload of each.
    rows: String,
    count: usize,
    rejected: Vec<&'static str>,
}

impl Deliveries {
    /// `events`, and for each delivery that was no valid event the reason.
    ///
    /// # Errors
    ///
    /// None that an [`Event`] can cause.
    pub fn new(events: &[Event], rejected: Vec<&'static str>) -> Result<Self, StoreError> {
        let mut rows = Vec::new();
        for event in events {
            let row = (
                event.topic.as_str(),
                event.event_id.as_str(),
                event.source.as_str(),
                hex(&event.content),
                &event.timestamp,
                &event.payload,
            );
            if !rows.is_empty() {
                rows.push(b',');
            }
            serde_json::to_writer(&mut rows, &row).map_err(|error| odd(&error.to_string()))?;
        }
        let rows = String::from_utf8(rows).map_err(|error| odd(&error.to_string()))?;
        Ok(Deliveries { rows, count: events.len(), rejected })
    }

    /// How many events there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// How much text there is, in bytes.
    pub fn bytes(&self) -> usize {
        self.rows.len()
    }
}

/// Two digits for each byte, which is how JSON can carry a BLOB.
fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| char::from(DIGITS[usize::from(value)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Takes deliveries in one commit: dedup, store and count, and `observed` added
/// to the counters by the way. Outcomes come back in the order of the events.
///
/// # Errors
///
/// What the store says; nothing of them is stored then.
pub async fn append(
    db: &impl Database,
    now: UnixMillis,
    deliveries: &[&Deliveries],
    observed: Option<&Counts>,
) -> Result<Vec<Outcome>, StoreError> {
    // One row comes back, whatever the number of events: rows are streamed to
    // a component one by one. Its last column is NULL when all were accepted,
    // otherwise it tells of each place in the batch the seq that its identity
    // is stored under, and whether the stored content is the same.
    const FROM_LAST_TO_OUTCOMES: &str = "\
        FROM (SELECT 1) \
          LEFT JOIN (SELECT seq, received_at FROM event_log ORDER BY seq DESC LIMIT 1) AS last \
        RETURNING seq_before, \
          CASE WHEN (SELECT max(seq) FROM event_log) IS NOT seq_before + ?4 THEN ( \
            SELECT json_group_array(json_array(d.key, e.seq, e.content = unhex(d.value ->> 3))) \
            FROM json_each(batch) AS d \
              CROSS JOIN topic_totals AS t ON t.topic = d.value ->> 0 \
              CROSS JOIN event_log AS e ON e.topic_id = t.id AND e.event_id = d.value ->> 1 \
          ) END";
    let count: usize = deliveries.iter().map(|deliveries| deliveries.count).sum();
    let rejected: usize = deliveries.iter().map(|deliveries| deliveries.rejected.len()).sum();
    let mut parameters =
        vec![array_of(deliveries).into(), now.into(), integer(rejected), integer(count)];
    let (view, column, value) = match counts_of(deliveries, observed)? {
        None => ("incoming_commit", "", ""),
        Some(counts) => {
            parameters.push(counts.into());
            ("incoming_counted_commit", "counts, ", "?5, ")
        }
    };
    let statement = format!(
        "INSERT INTO {view} (batch, received_at, rejected, {column}seq_before) \
         SELECT ?1, max(?2, coalesce(last.received_at, 0)), ?3, {value}coalesce(last.seq, 0) \
         {FROM_LAST_TO_OUTCOMES}"
    );
    let mut columns = Columns::first_of(db.commit(&statement, parameters).await?)?;
    let seq_before = columns.integer()?;
    match columns.optional_text()? {
        None => Ok((seq_before + 1..).map(|seq| Outcome::Accepted { seq }).take(count).collect()),
        Some(found) => outcomes(&found, count, seq_before),
    }
}

fn array_of(deliveries: &[&Deliveries]) -> String {
    let bytes: usize = deliveries.iter().map(|deliveries| deliveries.bytes() + 1).sum();
    let mut batch = String::with_capacity(bytes + 2);
    batch.push('[');
    for deliveries in deliveries.iter().filter(|deliveries| deliveries.count > 0) {
        if batch.len() > 1 {
            batch.push(',');
        }
        batch.push_str(&deliveries.rows);
    }
    batch.push(']');
    batch
}

/// What to add to the counters, as JSON, if there is anything.
fn counts_of(
    deliveries: &[&Deliveries],
    observed: Option<&Counts>,
) -> Result<Option<String>, StoreError> {
    let mut counts = Counts::new();
    for reason in deliveries.iter().flat_map(|deliveries| &deliveries.rejected) {
        *counts.entry(format!("{}{reason}", counts::REJECTED)).or_default() += 1;
    }
    // Their names are others than those of reasons.
    counts.extend(observed.into_iter().flatten().map(|(name, count)| (name.clone(), *count)));
    let text = (!counts.is_empty()).then(|| serde_json::to_string(&counts)).transpose();
    text.map_err(|error| odd(&error.to_string()))
}

/// The outcome at each place. Of the deliveries whose identity was stored by
/// this very batch, the first is the one that was accepted.
fn outcomes(found: &str, count: usize, seq_before: i64) -> Result<Vec<Outcome>, StoreError> {
    let found: Vec<(usize, i64, u8)> =
        serde_json::from_str(found).map_err(|error| odd(&error.to_string()))?;
    let mut firsts: BTreeMap<i64, usize> = BTreeMap::new();
    for (place, seq, _) in &found {
        let first = firsts.entry(*seq).or_insert(*place);
        *first = (*first).min(*place);
    }
    let mut outcomes = vec![None; count];
    for (place, seq, same_content) in found {
        let Some(slot) = outcomes.get_mut(place) else {
            return Err(odd(&format!("an outcome at {place} of {count}")));
        };
        *slot = Some(if seq > seq_before && firsts.get(&seq) == Some(&place) {
            Outcome::Accepted { seq }
        } else if same_content == 1 {
            Outcome::Duplicate
        } else {
            Outcome::Conflict
        });
    }
    let outcomes: Option<Vec<Outcome>> = outcomes.into_iter().collect();
    outcomes.ok_or_else(|| odd("fewer outcomes than events"))
}

fn integer(value: usize) -> Value {
    Value::Integer(i64::try_from(value).unwrap_or(i64::MAX))
}

/// Reads up to `events_max` events, fewer when their text reaches `bytes_max`,
/// but one at least when there is one.
///
/// # Errors
///
/// What the store says.
pub async fn page(
    db: &impl Database,
    filter: &Filter,
    events_max: usize,
    bytes_max: usize,
) -> Result<Vec<StoredEvent>, StoreError> {
    let mut parameters = vec![
        integer(events_max),
        integer(bytes_max),
        Value::Integer(filter.above.unwrap_or(0)),
        Value::Integer(filter.below.unwrap_or(i64::MAX)),
    ];
    let mut bound = |value: &str| {
        parameters.push(value.into());
        parameters.len()
    };
    let mut conditions = String::from("seq > ?3 AND seq < ?4");
    if let Some(source) = &filter.source {
        conditions.push_str(&format!(" AND source = ?{}", bound(source)));
    }
    let order = if filter.descending { "DESC" } else { "ASC" };
    let rows = |conditions: &str| {
        format!(
            "SELECT seq, octet_length(event_id) + octet_length(source) + octet_length(payload) \
               AS bytes \
             FROM event_log WHERE {conditions} ORDER BY seq {order} LIMIT ?1"
        )
    };
    // Each topic by itself, along its index: `topic_id IN (…)` would have all
    // events of the topics sorted, whatever the limit.
    let of_topics: Vec<String> = filter
        .topics
        .iter()
        .map(|topic| {
            let topic = bound(topic);
            let topic = format!("topic_id = (SELECT id FROM topic_totals WHERE topic = ?{topic})");
            rows(&format!("{conditions} AND {topic}"))
        })
        .collect();
    let found = match of_topics.as_slice() {
        [] => rows(&conditions),
        [only] => only.clone(),
        several => {
            let several: Vec<_> =
                several.iter().map(|rows| format!("SELECT * FROM ({rows})")).collect();
            format!("{} ORDER BY seq {order} LIMIT ?1", several.join(" UNION ALL "))
        }
    };
    let statement = format!(
        "SELECT e.seq, t.topic, e.event_id, e.source, e.timestamp, e.payload, e.received_at \
         FROM (SELECT seq, sum(bytes) OVER (ORDER BY seq {order}) - bytes AS bytes_before \
               FROM ({found})) AS p \
         JOIN event_log AS e ON e.seq = p.seq \
         JOIN topic_totals AS t ON t.id = e.topic_id \
         WHERE p.bytes_before < ?2 ORDER BY e.seq {order}"
    );
    db.execute(&statement, parameters).await?.into_iter().map(stored_event).collect()
}

fn stored_event(row: Row) -> Result<StoredEvent, StoreError> {
    let mut columns = Columns::of(row);
    Ok(StoredEvent {
        seq: columns.integer()?,
        topic: columns.text()?,
        event_id: columns.text()?,
        source: columns.text()?,
        timestamp: columns.optional_text()?,
        payload: columns.text()?,
        received_at: columns.integer()?,
    })
}

/// The `seq` of the first event received at `moment` or later; one past the
/// last when there is none.
///
/// `received_at` never decreases along `seq` and `seq` has no gaps, so a
/// search by halves finds it without an index, in some 25 look-ups for ten
/// million events.
///
/// # Errors
///
/// What the store says.
pub async fn first_seq_since(db: &impl Database, moment: UnixMillis) -> Result<i64, StoreError> {
    const BISECT: &str = "\
        WITH RECURSIVE bisect (low, high) AS ( \
          SELECT 1, coalesce((SELECT max(seq) FROM event_log), 0) + 1 \
          UNION ALL \
          SELECT CASE WHEN received_at < ?1 THEN seq + 1 ELSE low END, \
                 CASE WHEN received_at < ?1 THEN high ELSE seq END \
          FROM bisect JOIN event_log ON seq = (low + high) / 2 WHERE low < high) \
        SELECT low FROM bisect WHERE low = high";
    Columns::first_of(db.execute(BISECT, vec![moment.into()]).await?)?.integer()
}

/// All counters. The cost grows with the number of topics, never with the
/// number of events.
///
/// # Errors
///
/// What the store says.
pub async fn totals(db: &impl Database) -> Result<Totals, StoreError> {
    const TOTALS: &str = "\
        SELECT topic, unique_processed, duplicate_dropped, conflicts FROM topic_totals \
        UNION ALL SELECT NULL, rejected, created_at, 0 FROM service ORDER BY topic";
    let mut totals = Totals::default();
    for row in db.execute(TOTALS, Vec::new()).await? {
        let mut columns = Columns::of(row);
        let topic = columns.optional_text()?;
        let [first, second, third] = [columns.integer()?, columns.integer()?, columns.integer()?];
        match topic {
            Some(topic) => totals.topics.push(TopicTotals {
                topic,
                unique_processed: first,
                duplicate_dropped: second,
                conflicts: third,
            }),
            None => (totals.rejected, totals.created_at) = (first, second),
        }
    }
    Ok(totals)
}

/// The counters in all, and those of the topics with the most deliveries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Over all topics.
    pub all: TopicTotals,
    /// Deliveries that were no valid events.
    pub rejected: i64,
    /// How many topics there are.
    pub topic_count: i64,
    /// The topics with the most deliveries, most first.
    pub topics: Vec<TopicTotals>,
}

/// A [`Summary`] with `topics_max` topics at most. Its cost grows with the
/// number of topics, its size does not.
///
/// # Errors
///
/// What the store says.
pub async fn summary(db: &impl Database, topics_max: usize) -> Result<Summary, StoreError> {
    const SUMMARY: &str = "\
        SELECT NULL, total, duplicates, conflicts, topics, rejected FROM service, \
          (SELECT coalesce(sum(unique_processed), 0) AS total, \
                  coalesce(sum(duplicate_dropped), 0) AS duplicates, \
                  coalesce(sum(conflicts), 0) AS conflicts, count(*) AS topics FROM topic_totals) \
        UNION ALL \
        SELECT * FROM ( \
          SELECT topic, unique_processed, duplicate_dropped, conflicts, 0, 0 FROM topic_totals \
          ORDER BY unique_processed + duplicate_dropped DESC, id LIMIT ?1)";
    let mut summary = Summary::default();
    for row in db.execute(SUMMARY, vec![integer(topics_max)]).await? {
        let mut columns = Columns::of(row);
        let topic = columns.optional_text()?;
        let mut totals = TopicTotals {
            topic: String::new(),
            unique_processed: columns.integer()?,
            duplicate_dropped: columns.integer()?,
            conflicts: columns.integer()?,
        };
        match topic {
            Some(topic) => {
                totals.topic = topic;
                summary.topics.push(totals);
            }
            None => {
                summary.all = totals;
                summary.topic_count = columns.integer()?;
                summary.rejected = columns.integer()?;
            }
        }
    }
    Ok(summary)
}

/// All numbers of the store that are watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measures {
    /// The topics that came first, in the order in which they did.
    pub topics: Vec<TopicTotals>,
    /// All other topics together, if there are any.
    pub other_topics: Option<TopicTotals>,
    /// Deliveries that were no valid events.
    pub rejected: i64,
    /// What was counted by the way.
    pub counts: Counts,
    /// When the store was created.
    pub created_at: UnixMillis,
    /// The size of the database, in bytes.
    pub store_bytes: i64,
}

/// All [`Measures`], with `topics_max` topics by name at most: always the same
/// ones, so that no series ends because another topic overtook it.
///
/// # Errors
///
/// What the store says.
pub async fn measures(db: &impl Database, topics_max: usize) -> Result<Measures, StoreError> {
    const MEASURES: &str = "\
        SELECT 'topic', topic, unique_processed, duplicate_dropped, conflicts FROM \
          (SELECT * FROM topic_totals ORDER BY id LIMIT ?1) \
        UNION ALL \
        SELECT 'others', '', sum(unique_processed), sum(duplicate_dropped), sum(conflicts) FROM \
          (SELECT * FROM topic_totals ORDER BY id LIMIT -1 OFFSET ?1) HAVING count(*) > 0 \
        UNION ALL \
        SELECT 'service', '', rejected, created_at, \
          (SELECT page_count * page_size FROM pragma_page_count, pragma_page_size) FROM service \
        UNION ALL \
        SELECT 'count', name, value, 0, 0 FROM counters";
    let mut measures = Measures::default();
    for row in db.execute(MEASURES, vec![integer(topics_max)]).await? {
        let mut columns = Columns::of(row);
        let (kind, name) = (columns.text()?, columns.text()?);
        let [first, second, third] = [columns.integer()?, columns.integer()?, columns.integer()?];
        let totals = |topic| TopicTotals {
            topic,
            unique_processed: first,
            duplicate_dropped: second,
            conflicts: third,
        };
        match kind.as_str() {
            "topic" => measures.topics.push(totals(name)),
            "others" => measures.other_topics = Some(totals(name)),
            "service" => {
                measures.rejected = first;
                measures.created_at = second;
                measures.store_bytes = third;
            }
            _ => {
                measures.counts.insert(name, first);
            }
        }
    }
    Ok(measures)
}

/// The `seq` of the newest event, 0 when there is none. A look at the end of
/// the table, however long it is.
///
/// # Errors
///
/// What the store says.
pub async fn head(db: &impl Database) -> Result<i64, StoreError> {
    const HEAD: &str = "SELECT coalesce(max(seq), 0) FROM event_log";
    Columns::first_of(db.execute(HEAD, Vec::new()).await?)?.integer()
}

/// Asks for one row, to see that the store answers.
///
/// # Errors
///
/// What the store says.
pub async fn probe(db: &impl Database) -> Result<(), StoreError> {
    db.execute("SELECT id FROM service", Vec::new()).await.map(drop)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
