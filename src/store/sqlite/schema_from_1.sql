-- From version 1 to 2. Run by setup.rs after schema.sql, as long as the
-- table `events` of version 1 is there; like it, one statement at a time, and
-- each can be run again. That table goes last, so a migration that was cut off
-- starts over and misses nothing.

DROP VIEW IF EXISTS deliveries;

INSERT INTO topic_totals (topic, unique_processed, duplicate_dropped, conflicts)
SELECT topic, unique_processed, duplicate_dropped, conflicts FROM topics WHERE true
ON CONFLICT (topic) DO NOTHING;

INSERT INTO event_log (seq, topic_id, received_at, content, event_id, source, timestamp, payload)
SELECT e.seq, t.id, e.received_at, e.content, e.event_id, e.source, e.timestamp, e.payload
FROM events AS e JOIN topic_totals AS t ON t.topic = e.topic WHERE true
ON CONFLICT (seq) DO NOTHING;

DROP TABLE events;
