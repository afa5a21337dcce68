-- From version 3 to 4, and of what came before. Run by setup.rs after schema.sql;
-- like it, one statement at a time, and each can be run again. Nothing uses these
-- any more, nor their triggers, which go with them.

DROP VIEW IF EXISTS incoming_counted_commit;

DROP VIEW IF EXISTS incoming_commit;

DROP VIEW IF EXISTS incoming_event;
