//! PostgreSQL: a plain schema, and one task that has a few connections and hands
//! each that is idle all requests that wait.
//!
//! A commit is one statement: the call of a function, so that the way to the
//! server is gone once, whatever is found there.

use std::collections::{BTreeMap, HashSet};

use anyhow::{Context, Result, ensure};
use publisher::wire::Counters;
use tokio::sync::mpsc;
use tokio_postgres::{Client, NoTls, Row, Statement};

use super::store::{Event, Settled};
use super::writer::{self, Requests};
use crate::native;

/// Connections that write: one makes its group durable while the other takes the
/// next. With four and with eight the rates were the same within the noise, for more
/// CPU time.
const CONNECTIONS: i32 = 2;

/// Counters have a row for each connection, which no other one waits for; a
/// counter is their sum. Names have the collation of bytes, the fastest.
const SCHEMA: &str = r#"
    CREATE TABLE IF NOT EXISTS events (
        seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        topic text COLLATE "C" NOT NULL,
        event_id text COLLATE "C" NOT NULL,
        source text NOT NULL,
        timestamp text,
        payload text NOT NULL,
        received_at bigint NOT NULL,
        UNIQUE (topic, event_id)
    );
    CREATE TABLE IF NOT EXISTS counters (
        topic text COLLATE "C" NOT NULL,
        connection int NOT NULL,
        received bigint NOT NULL,
        unique_processed bigint NOT NULL,
        duplicate_dropped bigint NOT NULL,
        conflicts bigint NOT NULL,
        PRIMARY KEY (topic, connection)
    );

    -- Stores events, and counts them. What became of each: its seq if it is one of
    -- these, also if it repeats another of them; 0 if it was there; -1 in a conflict.
    CREATE OR REPLACE FUNCTION append(
        topics text[], event_ids text[], sources text[], timestamps text[], payloads text[],
        at bigint, writer int, OUT outcomes bigint[]
    ) LANGUAGE plpgsql AS $$
    DECLARE
        own xid := pg_current_xact_id()::xid;
    BEGIN
        -- In the same order in all commits, so that no two wait for each other.
        INSERT INTO events (topic, event_id, source, timestamp, payload, received_at)
        SELECT d.topic, d.event_id, d.source, d.timestamp, d.payload, at
        FROM unnest(topics, event_ids, sources, timestamps, payloads)
            WITH ORDINALITY AS d (topic, event_id, source, timestamp, payload, n)
        ORDER BY d.topic COLLATE "C", d.event_id COLLATE "C", d.n
        ON CONFLICT DO NOTHING;

        -- A statement of its own, which sees what others have stored meanwhile.
        SELECT array_agg((
            SELECT CASE WHEN e.source <> d.source OR e.payload <> d.payload THEN -1
                        WHEN e.xmin = own THEN e.seq
                        ELSE 0 END
            FROM events e WHERE e.topic = d.topic AND e.event_id = d.event_id
        ) ORDER BY d.n) INTO outcomes
        FROM unnest(topics, event_ids, sources, payloads)
            WITH ORDINALITY AS d (topic, event_id, source, payload, n);

        INSERT INTO counters AS c
        SELECT d.topic, writer, count(*),
            count(DISTINCT d.outcome) FILTER (WHERE d.outcome > 0),
            count(*) - count(DISTINCT d.outcome) FILTER (WHERE d.outcome > 0),
            count(*) FILTER (WHERE d.outcome < 0)
        FROM unnest(topics, outcomes) AS d (topic, outcome) GROUP BY d.topic
        ON CONFLICT (topic, connection) DO UPDATE SET
            received = c.received + excluded.received,
            unique_processed = c.unique_processed + excluded.unique_processed,
            duplicate_dropped = c.duplicate_dropped + excluded.duplicate_dropped,
            conflicts = c.conflicts + excluded.conflicts;
    END $$;"#;

const APPEND: &str = "SELECT append($1, $2, $3, $4, $5, $6, $7)";

const COUNTERS: &str = "
    SELECT topic, sum(received)::bigint, sum(unique_processed)::bigint,
        sum(duplicate_dropped)::bigint, sum(conflicts)::bigint
    FROM counters GROUP BY topic";

/// A store on PostgreSQL.
pub struct Postgres {
    /// A connection that reads.
    reader: Client,
}

/// A connection that writes.
struct Connection {
    client: Client,
    append: Statement,
    /// Which of them: 0 and on.
    number: i32,
}

impl Postgres {
    /// Makes the schema at `url`, and starts the task that commits `requests`.
    pub async fn open(url: &str, requests: Requests) -> Result<Self> {
        let reader = connect(url).await?;
        reader.batch_execute(SCHEMA).await.context("cannot make the schema")?;
        let mut connections = Vec::new();
        for number in 0..CONNECTIONS {
            let client = connect(url).await?;
            let append = client.prepare(APPEND).await.context("cannot prepare")?;
            connections.push(Connection { client, append, number });
        }
        tokio::spawn(write(connections, requests));
        Ok(Postgres { reader })
    }

    /// The counters of each topic.
    pub async fn counters(&self) -> Result<BTreeMap<String, Counters>> {
        let rows = self.reader.query(COUNTERS, &[]).await?;
        rows.iter().map(of_topic).collect()
    }
}

fn of_topic(row: &Row) -> Result<(String, Counters)> {
    let count = |column: usize| anyhow::Ok(u64::try_from(row.try_get::<_, i64>(column)?)?);
    let counters = Counters {
        received: count(1)?,
        unique_processed: count(2)?,
        duplicate_dropped: count(3)?,
        conflicts: count(4)?,
        pruned: 0,
    };
    Ok((row.try_get(0)?, counters))
}

async fn connect(url: &str) -> Result<Client> {
    let (client, connection) =
        tokio_postgres::connect(url, NoTls).await.context("cannot connect to PostgreSQL")?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            eprintln!("a connection to PostgreSQL is lost: {error}");
        }
    });
    Ok(client)
}

async fn write(connections: Vec<Connection>, mut requests: Requests) {
    let (free, mut idle) = mpsc::unbounded_channel();
    for connection in connections {
        free.send(connection).ok();
    }
    while let Some(first) = requests.recv().await {
        let Some(mut connection) = idle.recv().await else { return };
        let group = writer::group(first, &mut requests);
        let free = free.clone();
        tokio::spawn(async move {
            let committed = connection.commit(&group).await;
            writer::answer(group, committed);
            // Nobody takes it when the service ends.
            free.send(connection).ok();
        });
    }
}

impl Connection {
    /// Stores the events of several requests by one statement, and counts them.
    /// What became of each is on disk when this returns.
    async fn commit(&mut self, requests: &[impl AsRef<[Event]>]) -> Result<Vec<Vec<Settled>>> {
        let events = || requests.iter().flat_map(AsRef::as_ref);
        let topics: Vec<&str> = events().map(|event| event.topic.as_str()).collect();
        let event_ids: Vec<&str> = events().map(|event| event.event_id.as_str()).collect();
        let sources: Vec<&str> = events().map(|event| event.source.as_str()).collect();
        let timestamps: Vec<Option<&str>> =
            events().map(|event| event.timestamp.as_deref()).collect();
        let payloads: Vec<&str> = events().map(|event| event.payload.get()).collect();
        let now = native::now();
        let row = self
            .client
            .query_one(
                &self.append,
                &[&topics, &event_ids, &sources, &timestamps, &payloads, &now, &self.number],
            )
            .await?;
        let outcomes: Vec<i64> = row.try_get(0)?;
        ensure!(outcomes.len() == topics.len(), "{} outcomes", outcomes.len());
        let mut accepted = HashSet::new();
        let mut settled = outcomes.into_iter().map(|outcome| match outcome {
            0 => Settled::DUPLICATE,
            seq @ 1.. if accepted.insert(seq) => Settled::accepted(seq),
            1.. => Settled::DUPLICATE,
            _ => Settled::CONFLICT,
        });
        Ok(requests
            .iter()
            .map(|request| settled.by_ref().take(request.as_ref().len()).collect())
            .collect())
    }
}
