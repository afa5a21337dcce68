-- Version 4, for tests of how it is taken over.

-- Topics and their counters. received is not stored: it is the sum of the
-- first two, at every moment.
CREATE TABLE IF NOT EXISTS topic_totals (
  id                INTEGER PRIMARY KEY,
  topic             TEXT    NOT NULL UNIQUE,
  unique_processed  INTEGER NOT NULL,
  duplicate_dropped INTEGER NOT NULL,
  conflicts         INTEGER NOT NULL
) STRICT;

-- Events, once each. seq is dense and in the order of commits: a reader that
-- has seen a seq has seen all before it. received_at (milliseconds since 1970)
-- never decreases along seq, but where the clock was set back far (counters,
-- mark/time_begins/). content is a digest of source and payload; it and
-- all that is short stand before the payload, so that a look at them does not
-- read a large payload's pages. The topic's text is kept once, since both
-- indexes would repeat it.
CREATE TABLE IF NOT EXISTS event_log (
  seq         INTEGER PRIMARY KEY,
  topic_id    INTEGER NOT NULL,
  received_at INTEGER NOT NULL,
  content     BLOB    NOT NULL,
  event_id    TEXT    NOT NULL,
  source      TEXT    NOT NULL,
  timestamp   TEXT,
  payload     TEXT    NOT NULL,
  UNIQUE (topic_id, event_id)
) STRICT;

CREATE INDEX IF NOT EXISTS event_log_by_topic ON event_log (topic_id);

-- The events as a person with `sqlite3` would read them.
CREATE VIEW IF NOT EXISTS events AS
  SELECT seq, topic, event_id, source, timestamp, payload, received_at
  FROM event_log JOIN topic_totals ON id = topic_id;

CREATE TABLE IF NOT EXISTS service (
  id         INTEGER PRIMARY KEY CHECK (id = 1),
  created_at INTEGER NOT NULL,
  rejected   INTEGER NOT NULL
) STRICT;

INSERT INTO service (id, created_at, rejected) VALUES (1, ?1, 0) ON CONFLICT (id) DO NOTHING;

-- What is counted by the way, by name: deliveries rejected for one reason or
-- another, and how long and how large commits were. See commit/observed.rs.
CREATE TABLE IF NOT EXISTS counters (
  name  TEXT    PRIMARY KEY,
  value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Named readers. topics is a JSON array, the empty one stands for every topic;
-- position is the seq up to which events are acknowledged, and passed how many
-- events of its topics that is, so that its lag is a difference of two numbers
-- and not a count of rows. revision is how often it was defined.
CREATE TABLE IF NOT EXISTS subscriptions (
  name       TEXT    PRIMARY KEY,
  topics     TEXT    NOT NULL,
  position   INTEGER NOT NULL,
  passed     INTEGER NOT NULL,
  revision   INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  acked_at   INTEGER
) STRICT, WITHOUT ROWID;

-- The ways in: one row is one commit, whose triggers do all of it in the one
-- statement that inserts the row. seq_before is the highest seq before it. A row
-- whose received_at is past `latest` changes nothing.

-- One event.
CREATE VIEW IF NOT EXISTS incoming_delivery AS
  SELECT 0 AS latest, 0 AS received_at, 0 AS seq_before, '' AS topic, '' AS event_id, '' AS source,
         x'' AS content, '' AS timestamp, '' AS payload
  WHERE false;

-- Any number of them. They are in the bytes `data`, one after the other; `places`
-- is a JSON object with a member for each, which says where: see places.rs.
CREATE VIEW IF NOT EXISTS incoming_group AS
  SELECT x'' AS data, '' AS places, 0 AS latest, 0 AS received_at, 0 AS rejected, 0 AS seq_before
  WHERE false;

-- The same with `counts`, a JSON object of what to add to the counters. Most
-- commits have none, and what is in a trigger has its price for every commit.
CREATE VIEW IF NOT EXISTS incoming_counted_group AS
  SELECT x'' AS data, '' AS places, 0 AS latest, 0 AS received_at, 0 AS rejected, '' AS counts,
         0 AS seq_before
  WHERE false;

-- The UNIQUE constraint decides. changes() is that of the INSERT before it:
-- SQLite gives each trigger program a count of its own.
CREATE TRIGGER IF NOT EXISTS take_delivery INSTEAD OF INSERT ON incoming_delivery
WHEN NEW.received_at <= NEW.latest
BEGIN
  INSERT INTO topic_totals (topic, unique_processed, duplicate_dropped, conflicts)
  VALUES (NEW.topic, 0, 0, 0)
  ON CONFLICT (topic) DO NOTHING;
  INSERT INTO event_log (topic_id, received_at, content, event_id, source, timestamp, payload)
  VALUES (
    (SELECT id FROM topic_totals WHERE topic = NEW.topic),
    NEW.received_at, NEW.content, NEW.event_id, NEW.source, NEW.timestamp, NEW.payload
  )
  ON CONFLICT (topic_id, event_id) DO NOTHING;
  UPDATE topic_totals SET
    unique_processed  = unique_processed  + changes(),
    duplicate_dropped = duplicate_dropped + (changes() = 0),
    conflicts         = conflicts         + (changes() = 0 AND (
      SELECT content <> NEW.content FROM event_log
      WHERE topic_id = topic_totals.id AND event_id = NEW.event_id
    ))
  WHERE topic = NEW.topic;
END;

-- OFFSET keeps SQLite from putting the expressions of the inner query in the place
-- of each of its columns, and asking json_each for the same number twenty times.
CREATE TRIGGER IF NOT EXISTS take_group INSTEAD OF INSERT ON incoming_group
WHEN NEW.received_at <= NEW.latest
BEGIN
  INSERT INTO incoming_delivery
    (latest, received_at, topic, event_id, source, content, timestamp, payload)
  SELECT NEW.latest, NEW.received_at,
    CAST(substr(NEW.data, topic, event_id - topic) AS TEXT),
    CAST(substr(NEW.data, event_id, source - event_id) AS TEXT),
    CAST(substr(NEW.data, source, timestamp - source) AS TEXT),
    substr(NEW.data, topic - 16, 16),
    iif(timestamp_bytes, CAST(substr(NEW.data, timestamp, timestamp_bytes) AS TEXT), NULL),
    CAST(substr(NEW.data, timestamp + timestamp_bytes, payload_bytes) AS TEXT)
  FROM (
    SELECT value >> 30 AS topic,
      (value >> 30) + (value >> 20 & 1023) AS event_id,
      (value >> 30) + (value >> 20 & 1023) + (value >> 10 & 1023) AS source,
      (value >> 30) + (value >> 20 & 1023) + (value >> 10 & 1023) + (value & 1023) AS timestamp,
      timestamp_bytes, payload_bytes
    FROM (
      SELECT value, key & 1023 AS timestamp_bytes, key >> 10 AS payload_bytes
      FROM json_each(NEW.places) LIMIT -1 OFFSET 0
    ) LIMIT -1 OFFSET 0
  );
  UPDATE service SET rejected = rejected + NEW.rejected WHERE NEW.rejected > 0;
END;

CREATE TRIGGER IF NOT EXISTS take_counted_group INSTEAD OF INSERT ON incoming_counted_group
WHEN NEW.received_at <= NEW.latest
BEGIN
  INSERT INTO counters (name, value) SELECT key, value FROM json_each(NEW.counts) WHERE true
  ON CONFLICT (name) DO UPDATE SET value = value + excluded.value;
  INSERT INTO incoming_group (data, places, latest, received_at, rejected, seq_before)
  VALUES (NEW.data, NEW.places, NEW.latest, NEW.received_at, NEW.rejected, NEW.seq_before);
END;
