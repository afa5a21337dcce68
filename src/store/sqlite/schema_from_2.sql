-- From version 2 to 3. Run by setup.rs after schema.sql; like it, one statement
-- at a time, and each can be run again. Nothing uses these any more.

DROP TRIGGER IF EXISTS take_batch;

DROP VIEW IF EXISTS incoming_batch;
