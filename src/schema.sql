-- Version 1. Run by event_log.rs, one statement at a time (Spin runs only the
-- first of a string), so statements end with a semicolon and an empty line.
-- Each can be run again: several instances may create the schema at the same
-- moment, or one may be killed half-way. The version is set last.

-- Events, once each. seq is dense and in the order of commits: a reader that
-- has seen a seq has seen all before it. received_at (milliseconds since 1970)
-- never decreases along seq. content is a digest of source and payload; it and
-- all that is short stand before the payload, so that a look at them does not
-- read a large payload's pages.
CREATE TABLE IF NOT EXISTS events (
  seq         INTEGER PRIMARY KEY,
  received_at INTEGER NOT NULL,
  content     BLOB    NOT NULL,
  topic       TEXT    NOT NULL,
  event_id    TEXT    NOT NULL,
  source      TEXT    NOT NULL,
  timestamp   TEXT,
  payload     TEXT    NOT NULL,
  UNIQUE (topic, event_id)
) STRICT;

CREATE INDEX IF NOT EXISTS events_by_topic ON events (topic);

-- Counters. received is not stored: it is the sum of the first two, at every moment.
CREATE TABLE IF NOT EXISTS topics (
  topic             TEXT    PRIMARY KEY,
  unique_processed  INTEGER NOT NULL,
  duplicate_dropped INTEGER NOT NULL,
  conflicts         INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS service (
  id         INTEGER PRIMARY KEY CHECK (id = 1),
  created_at INTEGER NOT NULL,
  rejected   INTEGER NOT NULL
) STRICT;

INSERT INTO service (id, created_at, rejected) VALUES (1, ?1, 0) ON CONFLICT (id) DO NOTHING;

-- What came of the delivery that the trigger below handled last.
CREATE TABLE IF NOT EXISTS verdict (
  id      INTEGER PRIMARY KEY CHECK (id = 1),
  place   INTEGER NOT NULL,
  outcome INTEGER NOT NULL,
  seq     INTEGER NOT NULL
) STRICT;

INSERT INTO verdict (id, place, outcome, seq) VALUES (1, -1, 0, 0) ON CONFLICT (id) DO NOTHING;

-- The only way in. A delivery is inserted here; the trigger lets the UNIQUE
-- constraint decide, notes the outcome and counts it, all in the one statement
-- that inserts the whole batch. A row without a topic says how many deliveries
-- of the batch were rejected.
CREATE VIEW IF NOT EXISTS deliveries AS
  SELECT 0 AS place, received_at, content, topic, event_id, source, timestamp, payload, 0 AS rejected
  FROM events WHERE false;

-- changes() is that of the INSERT before it: SQLite gives each trigger program
-- a count of its own. Outcomes: 0 accepted, 1 duplicate, 2 conflict.
CREATE TRIGGER IF NOT EXISTS deliver INSTEAD OF INSERT ON deliveries WHEN NEW.topic IS NOT NULL
BEGIN
  INSERT INTO events (received_at, content, topic, event_id, source, timestamp, payload)
  VALUES (
    max(NEW.received_at, coalesce((SELECT received_at FROM events ORDER BY seq DESC LIMIT 1), 0)),
    unhex(NEW.content), NEW.topic, NEW.event_id, NEW.source, NEW.timestamp, NEW.payload
  )
  ON CONFLICT (topic, event_id) DO NOTHING;
  UPDATE verdict SET (place, outcome, seq) = (
    SELECT NEW.place,
           CASE WHEN changes() = 1 THEN 0 WHEN content = unhex(NEW.content) THEN 1 ELSE 2 END,
           seq
    FROM events WHERE topic = NEW.topic AND event_id = NEW.event_id
  );
  INSERT INTO topics (topic, unique_processed, duplicate_dropped, conflicts)
  SELECT NEW.topic, outcome = 0, outcome > 0, outcome = 2 FROM verdict WHERE true
  ON CONFLICT (topic) DO UPDATE SET
    unique_processed  = unique_processed  + excluded.unique_processed,
    duplicate_dropped = duplicate_dropped + excluded.duplicate_dropped,
    conflicts         = conflicts         + excluded.conflicts;
END;

CREATE TRIGGER IF NOT EXISTS reject INSTEAD OF INSERT ON deliveries WHEN NEW.topic IS NULL
BEGIN
  UPDATE service SET rejected = rejected + NEW.rejected;
END;
