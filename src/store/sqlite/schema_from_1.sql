-- From version 1 to tables as version 4 had them, for take_over.rs to go on with. Run by
-- setup.rs as long as the table `events` of version 1 is there; one statement at a time,
-- and each can be run again. That table goes last, so a migration that was cut off starts
-- over and misses nothing.

DROP VIEW IF EXISTS deliveries;

CREATE TABLE IF NOT EXISTS topic_totals (
  id                INTEGER PRIMARY KEY,
  topic             TEXT    NOT NULL UNIQUE,
  unique_processed  INTEGER NOT NULL,
  duplicate_dropped INTEGER NOT NULL,
  conflicts         INTEGER NOT NULL
) STRICT;

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

INSERT INTO topic_totals (topic, unique_processed, duplicate_dropped, conflicts)
SELECT topic, unique_processed, duplicate_dropped, conflicts FROM topics WHERE true
ON CONFLICT (topic) DO NOTHING;

INSERT INTO event_log (seq, topic_id, received_at, content, event_id, source, timestamp, payload)
SELECT e.seq, t.id, e.received_at, e.content, e.event_id, e.source, e.timestamp, e.payload
FROM events AS e JOIN topic_totals AS t ON t.topic = e.topic WHERE true
ON CONFLICT (seq) DO NOTHING;

DROP TABLE events;
