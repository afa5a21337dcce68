-- From version 4 to 5, the beginning: take_over.rs has the rest. Run statement by
-- statement, and each can be run again. What is read is still in event_log, under the
-- names that it has in version 5, so whoever reads goes on.

-- The ways in of this version and of those before. Their triggers go with them, and
-- nothing is written to event_log any more.
DROP VIEW IF EXISTS incoming_batch;

DROP VIEW IF EXISTS incoming_counted_commit;

DROP VIEW IF EXISTS incoming_commit;

DROP VIEW IF EXISTS incoming_event;

DROP VIEW IF EXISTS incoming_counted_group;

DROP VIEW IF EXISTS incoming_group;

DROP VIEW IF EXISTS incoming_delivery;

-- It would stand in the way of a table that gets another name.
DROP VIEW IF EXISTS events;

-- What event_log will be: without identities.
CREATE TABLE IF NOT EXISTS event_log_5 (
  seq         INTEGER PRIMARY KEY,
  topic_id    INTEGER NOT NULL,
  received_at INTEGER NOT NULL,
  event_id    TEXT    NOT NULL,
  source      TEXT    NOT NULL,
  timestamp   TEXT,
  payload     TEXT    NOT NULL
) STRICT;

CREATE INDEX IF NOT EXISTS event_log_by_topic_id ON event_log_5 (topic_id);

CREATE TRIGGER IF NOT EXISTS count_taken_over AFTER INSERT ON event_log_5
BEGIN
  UPDATE topic_totals SET content_bytes = content_bytes + octet_length(NEW.event_id)
    + octet_length(NEW.source) + coalesce(octet_length(NEW.timestamp), 0)
    + octet_length(NEW.payload)
  WHERE id = NEW.topic_id;
END;
