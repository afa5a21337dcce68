-- Version 1 to 2, of a store that schema.sql has made: sent as one statement, like it,
-- and run by psql after it, as the same role, where that of the service may not create
-- anything. It does nothing where it was run before.
--
-- In version 2 an identity is a row of its own, which stays when the event is pruned.
-- What is here is there at once; the identities of the events that there are follow
-- step by step (take_over_2), and until they are there nothing can be published.
--
-- Functions of version 1 that stay as they are stay in use. Those that are replaced
-- here have the same name since they do the same, with events that were pruned as well.
DO $sekali$ BEGIN
PERFORM set_config('lock_timeout', '4s', true);
PERFORM pg_advisory_xact_lock(x'53656b61'::bigint);
IF to_regclass('sekali.identity') IS NOT NULL THEN RETURN; END IF;

-- In the order in which a commit has its locks.
ALTER TABLE sekali.topic
  ADD COLUMN pruned_seq bigint NOT NULL DEFAULT 0,
  SET (fillfactor = 50);

CREATE FUNCTION sekali.being_taken_over_2() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE 'the store is being taken over from version 1' USING ERRCODE = 'SK002';
END $$;
-- It waits for the commits that are under way, and those that are about to meet it.
CREATE TRIGGER being_taken_over BEFORE INSERT ON sekali.event_log
  FOR EACH STATEMENT EXECUTE FUNCTION sekali.being_taken_over_2();

-- pruned is how many events were pruned, and content_bytes how long the event ids,
-- sources, timestamps and payloads of those are that were not.
ALTER TABLE sekali.topic_counters
  ADD COLUMN pruned        bigint NOT NULL DEFAULT 0,
  ADD COLUMN content_bytes bigint NOT NULL DEFAULT 0;

-- Which events there were, for each the place that it has, or had, and the day (of UTC,
-- since 1970) on which it was received. content is a digest of source and payload.
CREATE TABLE sekali.identity (
  topic_id bigint NOT NULL,
  event_id text COLLATE "C" NOT NULL,
  seq      bigint NOT NULL,
  content  bytea  NOT NULL,
  day      int    NOT NULL,
  PRIMARY KEY (topic_id, event_id)
);

-- The newest place whose event was pruned, and when that was received.
CREATE TABLE sekali.pruned (
  id          int PRIMARY KEY CHECK (id = 1),
  seq         bigint NOT NULL,
  received_at bigint
) WITH (fillfactor = 50);
INSERT INTO sekali.pruned (id, seq) VALUES (1, 0);

-- The identity that was looked at last, whether it can be forgotten.
CREATE TABLE sekali.forgetting (
  id       int PRIMARY KEY CHECK (id = 1),
  topic_id bigint NOT NULL,
  event_id text COLLATE "C" NOT NULL
) WITH (fillfactor = 50);
INSERT INTO sekali.forgetting VALUES (1, 0, '');

-- The place up to which identities were taken over, and how many. It has no row when
-- all of them are.
CREATE TABLE sekali.taking_over (
  id     int PRIMARY KEY CHECK (id = 1),
  seq    bigint NOT NULL,
  events bigint NOT NULL
) WITH (fillfactor = 50);
INSERT INTO sekali.taking_over VALUES (1, 0, 0);

-- How long an event is, as counters count it.
CREATE FUNCTION sekali.bytes_2(event_id text, source text, at text, payload text)
RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
  SELECT octet_length(event_id)::bigint + octet_length(source) + coalesce(octet_length(at), 0)
    + octet_length(payload)
$$;

CREATE FUNCTION sekali.day_2(at bigint) RETURNS int LANGUAGE sql IMMUTABLE AS $$
  SELECT (at / 86400000)::int
$$;

-- Takes the identities of the next events over, in the order of their places, or ends
-- the take-over if there are none. It tells of how many events that is done, and of how
-- many there are, or NULLs if it is over; is_others tells that somebody else is at it, so
-- that this did nothing.
--
-- It has the rights of its owner, who alone may change tables.
CREATE FUNCTION sekali.take_over_2(
  events_max bigint, OUT taken bigint, OUT events bigint, OUT is_others boolean
) LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET jit = off SET lock_timeout = '1s'
SET enable_seqscan = off SET plan_cache_mode = force_custom_plan AS $$
DECLARE
  step record;
BEGIN
  is_others := NOT pg_try_advisory_xact_lock(x'53656b61'::bigint);
  IF (SELECT s.version FROM sekali.service s) > 1 THEN RETURN; END IF;
  IF NOT is_others THEN
    WITH batch AS MATERIALIZED (
      SELECT e.seq, e.topic_id, e.event_id, e.content, sekali.day_2(e.received_at) AS day,
             sekali.bytes_2(e.event_id, e.source, e.timestamp, e.payload) AS bytes
      FROM sekali.event_log e
      WHERE e.seq > (SELECT t.seq FROM sekali.taking_over t) ORDER BY e.seq LIMIT events_max
    ), made AS (
      INSERT INTO sekali.identity (topic_id, event_id, seq, content, day)
      SELECT b.topic_id, b.event_id, b.seq, b.content, b.day FROM batch b
      ORDER BY b.topic_id, b.event_id
    ), counted AS (
      INSERT INTO sekali.topic_counters AS c
        (topic_id, slot, unique_processed, duplicate_dropped, conflicts, content_bytes)
      SELECT b.topic_id, 0, 0, 0, 0, sum(b.bytes) FROM batch b GROUP BY b.topic_id
      ON CONFLICT ON CONSTRAINT topic_counters_pkey DO UPDATE SET
        content_bytes = c.content_bytes + excluded.content_bytes
    )
    SELECT count(*) AS events, max(b.seq) AS seq INTO step FROM batch b;
    IF step.events = 0 THEN
      DROP TRIGGER being_taken_over ON sekali.event_log;
      ALTER TABLE sekali.event_log
        DROP CONSTRAINT event_log_topic_id_event_id_key, DROP COLUMN content;
      DELETE FROM sekali.taking_over;
      UPDATE sekali.service SET version = 2;
      RETURN;
    END IF;
    UPDATE sekali.taking_over SET seq = step.seq, events = taking_over.events + step.events;
  END IF;
  SELECT t.events INTO taken FROM sekali.taking_over t;
  SELECT coalesce(sum(c.unique_processed), 0) INTO events FROM sekali.topic_counters c;
END $$;

-- A commit of version 1 would store events without their identities.
CREATE OR REPLACE FUNCTION sekali.append_1(
  topics text[], event_ids text[], sources text[], contents bytea, timestamps text[],
  payloads text[], at bigint, ahead_max bigint, names text[], amounts bigint[],
  OUT outcomes bigint[], OUT began_anew boolean, OUT slot bigint
) LANGUAGE plpgsql AS $$
BEGIN
  RAISE 'the database has schema version 2, and version 1 wants to publish'
    USING ERRCODE = 'SK002';
END $$;

-- What append_1 of version 1 is, with identities by themselves.
CREATE FUNCTION sekali.append_2(
  topics text[], event_ids text[], sources text[], contents bytea, timestamps text[],
  payloads text[], at bigint, ahead_max bigint, names text[], amounts bigint[],
  OUT outcomes bigint[], OUT began_anew boolean, OUT slot bigint
) LANGUAGE plpgsql SET jit = off SET lock_timeout = '4s' AS $$
DECLARE
  n int := cardinality(topics);
  own_slot int := 0;
  newest bigint;
  received bigint := sekali.now_1(at);
  ids bigint[];
  seqs bigint[];
  stored int;
  bytes bigint := 0;
BEGIN
  began_anew := false;
  outcomes := '{}';
  -- The one thing that would make an acknowledgement a lie.
  IF current_setting('synchronous_commit') = 'off' THEN
    PERFORM set_config('synchronous_commit', 'on', true);
  END IF;
  -- Functions see what was committed before each of their statements only then.
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE 'default_transaction_isolation must be read committed' USING ERRCODE = '55000';
  END IF;
  own_slot := sekali.take_slot_2();
  slot := own_slot;
  IF n > 0 THEN
    IF n = 1 THEN
      SELECT ARRAY[t.id] INTO ids FROM sekali.topic t WHERE t.topic = topics[1];
    END IF;
    IF ids IS NULL THEN
      ids := sekali.topic_ids_1(topics);
    END IF;
    -- Before a place is taken it is told which are about to be: those after last_value.
    -- Told again, since others may have taken some until it was told for the first time:
    -- a reader that came meanwhile was told that those are settled, if they are.
    FOR i IN 1 .. 2 LOOP
      PERFORM pg_advisory_xact_lock_shared(x'5365'::bigint << 48 | s.last_value)
      FROM sekali.event_seq s;
    END LOOP;
    SELECT coalesce(l.received_at, p.received_at) INTO newest
    FROM sekali.pruned p LEFT JOIN LATERAL (
      SELECT e.received_at FROM sekali.event_log e WHERE e.seq > p.seq ORDER BY e.seq DESC LIMIT 1
    ) l ON true;
    IF newest > received + ahead_max THEN
      began_anew := true;
    ELSIF newest > received THEN
      received := newest;
    END IF;
    -- Two ways to the same: a lone event is dear the one way, and many are the other.
    -- Either way once more, if an identity was forgotten after it was met.
    IF n = 1 THEN
      seqs := ARRAY[nextval('sekali.event_seq')];
      LOOP
        INSERT INTO sekali.identity (topic_id, event_id, seq, content, day)
        VALUES (ids[1], event_ids[1], seqs[1], contents, sekali.day_2(received))
        ON CONFLICT (topic_id, event_id) DO NOTHING;
        IF FOUND THEN
          outcomes := seqs;
          INSERT INTO sekali.event_log
            (seq, topic_id, received_at, event_id, source, timestamp, payload)
          VALUES (seqs[1], ids[1], received, event_ids[1], sources[1], timestamps[1], payloads[1]);
          bytes := sekali.bytes_2(event_ids[1], sources[1], timestamps[1], payloads[1]);
          EXIT;
        END IF;
        SELECT ARRAY[CASE WHEN i.content = contents THEN 0 ELSE -1 END] INTO outcomes
        FROM sekali.identity i WHERE i.topic_id = ids[1] AND i.event_id = event_ids[1];
        EXIT WHEN FOUND;
      END LOOP;
      UPDATE sekali.topic_counters c SET
        unique_processed = c.unique_processed + (outcomes[1] > 0)::int,
        duplicate_dropped = c.duplicate_dropped + (outcomes[1] <= 0)::int,
        conflicts = c.conflicts + (outcomes[1] < 0)::int,
        content_bytes = c.content_bytes + bytes
      WHERE c.topic_id = ids[1] AND c.slot = own_slot;
      IF NOT FOUND THEN
        INSERT INTO sekali.topic_counters
          (topic_id, slot, unique_processed, duplicate_dropped, conflicts, content_bytes)
        VALUES (ids[1], own_slot, (outcomes[1] > 0)::int, (outcomes[1] <= 0)::int,
                (outcomes[1] < 0)::int, bytes);
      END IF;
    ELSE
      -- Places in the order of the events; those of repeats stay empty. Rows in the order
      -- of identities, so that no two commits wait for each other, and of the same
      -- identity in that of the events.
      SELECT array_agg(nextval('sekali.event_seq')) INTO seqs FROM generate_series(1, n);
      LOOP
        INSERT INTO sekali.identity (topic_id, event_id, seq, content, day)
        SELECT d.id, d.event_id, d.seq, substr(contents, d.ord::int * 16 - 15, 16),
               sekali.day_2(received)
        FROM unnest(seqs, ids, event_ids) WITH ORDINALITY AS d(seq, id, event_id, ord)
        ORDER BY d.id, d.event_id, d.ord
        ON CONFLICT (topic_id, event_id) DO NOTHING;
        GET DIAGNOSTICS stored = ROW_COUNT;
        IF stored = n THEN
          outcomes := seqs;
          EXIT;
        END IF;
        -- The row of each identity is there by now, whoever stored it.
        SELECT array_agg((
          SELECT CASE WHEN i.seq = d.seq THEN d.seq
                      WHEN i.content = substr(contents, d.ord::int * 16 - 15, 16) THEN 0
                      ELSE -1 END
          FROM sekali.identity i WHERE i.topic_id = d.id AND i.event_id = d.event_id
        ) ORDER BY d.ord) INTO outcomes
        FROM unnest(seqs, ids, event_ids) WITH ORDINALITY AS d(seq, id, event_id, ord);
        EXIT WHEN array_position(outcomes, NULL) IS NULL;
      END LOOP;
      INSERT INTO sekali.event_log
        (seq, topic_id, received_at, event_id, source, timestamp, payload)
      SELECT d.seq, d.id, received, d.event_id, d.source, d.timestamp, d.payload
      FROM unnest(outcomes, ids, event_ids, sources, timestamps, payloads)
        AS d(seq, id, event_id, source, timestamp, payload)
      WHERE d.seq > 0;
      INSERT INTO sekali.topic_counters AS c
        (topic_id, slot, unique_processed, duplicate_dropped, conflicts, content_bytes)
      SELECT d.id, own_slot, count(*) FILTER (WHERE d.outcome > 0),
             count(*) FILTER (WHERE d.outcome <= 0), count(*) FILTER (WHERE d.outcome < 0),
             coalesce(sum(sekali.bytes_2(d.event_id, d.source, d.timestamp, d.payload))
               FILTER (WHERE d.outcome > 0), 0)
      FROM unnest(ids, outcomes, event_ids, sources, timestamps, payloads)
        AS d(id, outcome, event_id, source, timestamp, payload) GROUP BY d.id
      ON CONFLICT ON CONSTRAINT topic_counters_pkey DO UPDATE SET
        unique_processed = c.unique_processed + excluded.unique_processed,
        duplicate_dropped = c.duplicate_dropped + excluded.duplicate_dropped,
        conflicts = c.conflicts + excluded.conflicts,
        content_bytes = c.content_bytes + excluded.content_bytes;
    END IF;
    IF began_anew THEN
      INSERT INTO sekali.marks AS m (name, at)
      SELECT 'time_begins/' || min(d.outcome), received
      FROM unnest(outcomes) AS d(outcome) WHERE d.outcome > 0 HAVING min(d.outcome) > 0;
      began_anew := FOUND;
    END IF;
  END IF;
  IF cardinality(names) > 0 THEN
    INSERT INTO sekali.counters AS c (name, slot, value)
    SELECT d.name, own_slot, d.amount FROM unnest(names, amounts) AS d(name, amount)
    ON CONFLICT ON CONSTRAINT counters_pkey DO UPDATE SET value = c.value + excluded.value;
  END IF;
END $$;

-- A slot that nobody else has until the end of this transaction.
CREATE FUNCTION sekali.take_slot_2() RETURNS int LANGUAGE plpgsql AS $$
DECLARE
  slot int := 0;
BEGIN
  WHILE NOT pg_try_advisory_xact_lock(x'53656b61'::int, slot) LOOP
    slot := slot + 1;
  END LOOP;
  RETURN slot;
END $$;

-- The place of the newest event, of those up to which nothing will appear any more.
CREATE OR REPLACE FUNCTION sekali.head_1(wait_ms int) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  settled bigint := sekali.settled_1(wait_ms);
BEGIN
  -- Not the newest place that was given out: after a crash that may be given out anew.
  RETURN (
    SELECT coalesce((
      SELECT max(e.seq) FROM sekali.event_log e WHERE e.seq > p.seq AND e.seq <= settled), p.seq)
    FROM sekali.pruned p);
END $$;

-- The next events after `above`, before `below` and up to `up_to`, in ascending order
-- or the other one, of any of the topics and of the source, if there are any; received
-- from `since` on and before `until`, if they are given. A page ends with the event
-- that reaches bytes_max. One row, with an array for each column.
--
-- With BETWEEN it is the index by topic that has the order. Through all events, PostgreSQL
-- would look for those of a topic that it expects to be many, and of which all are pruned.
CREATE OR REPLACE FUNCTION sekali.page_1(
  topics text[], source text, ascending boolean, above bigint, below bigint, up_to bigint,
  since bigint, until bigint, events_max bigint, bytes_max bigint, wait_ms int,
  OUT seqs bigint[], OUT topic_names text[], OUT event_ids text[], OUT sources text[],
  OUT timestamps text[], OUT payloads text[], OUT received bigint[]
) LANGUAGE plpgsql SET jit = off AS $$
DECLARE
  settled bigint := sekali.settled_1(wait_ms);
  direction text := CASE WHEN ascending THEN 'ASC' ELSE 'DESC' END;
  conditions text := 'e.seq > $1 AND e.seq < $2 AND e.seq <= $3'
    || CASE WHEN source IS NULL THEN '' ELSE ' AND e.source = $4' END
    || CASE WHEN since IS NULL THEN '' ELSE ' AND e.received_at >= $5' END
    || CASE WHEN until IS NULL THEN '' ELSE ' AND e.received_at < $6' END;
  of_one text := 'SELECT e.seq, octet_length(e.event_id) + octet_length(e.source)
      + octet_length(e.payload) AS bytes
    FROM sekali.event_log e WHERE ' || conditions
    || CASE WHEN cardinality(topics) = 0 THEN '' ELSE ' AND e.topic_id BETWEEN t.id AND t.id' END
    || CASE WHEN cardinality(topics) = 0 THEN ' ORDER BY e.seq '
            ELSE ' ORDER BY e.topic_id ' || direction || ', e.seq ' END || direction || ' LIMIT $7';
BEGIN
  EXECUTE 'SELECT array_agg(r.seq), array_agg(r.topic), array_agg(r.event_id), array_agg(r.source),
      array_agg(r.timestamp), array_agg(r.payload), array_agg(r.received_at)
    FROM (
      SELECT e.*, t.topic
      FROM (
        SELECT p.seq, sum(p.bytes) OVER (ORDER BY p.seq ' || direction || ') - p.bytes AS before
        FROM (' || CASE WHEN cardinality(topics) = 0 THEN of_one ELSE '
          -- Each topic by itself, along its index, whatever the limit.
          SELECT f.* FROM sekali.topic t CROSS JOIN LATERAL (' || of_one || ') f
          WHERE t.topic = ANY ($9) ORDER BY f.seq ' || direction || ' LIMIT $7' END || '
        ) p
      ) w
      JOIN sekali.event_log e ON e.seq = w.seq
      JOIN sekali.topic t ON t.id = e.topic_id
      WHERE w.before < $8 ORDER BY e.seq ' || direction || '
    ) r'
  INTO seqs, topic_names, event_ids, sources, timestamps, payloads, received
  USING above, below, least(up_to, settled), source, since, until, events_max, bytes_max, topics;
END $$;

-- As received_between_1, but that what is yet to come is after all events that there were.
CREATE FUNCTION sekali.received_between_2(
  since bigint, until bigint, disorder_ms bigint, wait_ms int, OUT after bigint, OUT up_to bigint
) LANGUAGE plpgsql AS $$
BEGIN
  SELECT b.after, b.up_to INTO after, up_to
  FROM sekali.received_between_1(since, until, disorder_ms, wait_ms) b;
  IF after IS NOT NULL AND NOT EXISTS (SELECT FROM sekali.event_log e WHERE e.seq > after) THEN
    after := (SELECT greatest(after, p.seq) FROM sekali.pruned p);
  END IF;
END $$;

-- How many events of `topics` (all, if there are none) were pruned.
CREATE FUNCTION sekali.pruned_2(topics text[]) RETURNS bigint LANGUAGE sql STABLE AS $$
  SELECT coalesce(sum(c.pruned), 0)::bigint FROM sekali.topic_counters c
  WHERE cardinality(topics) = 0
    OR c.topic_id IN (SELECT t.id FROM sekali.topic t WHERE t.topic = ANY (topics))
$$;

-- Defines a subscription: a new one begins after `start`, or after the newest event; one
-- that is there gets these topics. No row when there are subscriptions_max others.
--
-- passed counts all that were pruned of its topics, and those that are left up to its
-- position: what is not counted there is left, and after it.
CREATE OR REPLACE FUNCTION sekali.define_1(
  subscription text, new_topics text[], start bigint, subscriptions_max bigint, at bigint, wait_ms int
) RETURNS SETOF sekali.subscriptions_1 LANGUAGE plpgsql AS $$
DECLARE
  known sekali.subscriptions;
  begins bigint;
BEGIN
  PERFORM pg_advisory_xact_lock(x'53656b62'::bigint);
  SELECT s.* INTO known FROM sekali.subscriptions s WHERE s.name = subscription FOR UPDATE;
  IF FOUND THEN
    UPDATE sekali.subscriptions s SET topics = new_topics, revision = s.revision + 1,
      passed = CASE WHEN s.topics = new_topics THEN s.passed
                    ELSE sekali.pruned_2(new_topics)
                         + sekali.count_between_1(new_topics, 0, s.position) END
    WHERE s.name = subscription;
  ELSIF (SELECT count(*) FROM sekali.subscriptions) < subscriptions_max THEN
    begins := coalesce(start, sekali.head_1(wait_ms));
    INSERT INTO sekali.subscriptions
      (name, topics, position, passed, revision, created_at)
    VALUES (subscription, new_topics, begins,
            CASE WHEN start IS NULL
                 THEN sekali.count_1(new_topics)
                      - sekali.count_between_1(new_topics, begins, 9223372036854775807)
                 ELSE sekali.pruned_2(new_topics)
                      + sekali.count_between_1(new_topics, 0, begins) END,
            1, sekali.now_1(at));
  ELSE
    RETURN;
  END IF;
  RETURN QUERY SELECT * FROM sekali.subscriptions_1 s WHERE s.name = subscription;
END $$;

-- Fails until all identities are there.
CREATE FUNCTION sekali.is_taken_over_2() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF (SELECT s.version FROM sekali.service s) = 1 THEN
    RAISE 'the store is being taken over from version 1' USING ERRCODE = 'SK002';
  END IF;
END $$;

-- Whether a topic is in the group of those that are LIKE `of` (all, if it is NULL) and
-- unlike each of `but`.
CREATE FUNCTION sekali.is_in_2(topic text, of text, but text[])
RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
  SELECT (of IS NULL OR topic LIKE of) AND NOT topic LIKE ANY (but)
$$;

-- What there is of a group: the place before the oldest event (NULL if there is none),
-- how many events, and how long they are.
CREATE FUNCTION sekali.kept_2(
  of text, but text[], OUT before_oldest bigint, OUT events bigint, OUT bytes bigint
) LANGUAGE plpgsql SET jit = off AS $$
BEGIN
  IF of IS NULL AND cardinality(but) = 0 THEN
    SELECT (SELECT min(e.seq) - 1 FROM sekali.event_log e),
           coalesce(sum(c.unique_processed - c.pruned), 0), coalesce(sum(c.content_bytes), 0)
    INTO before_oldest, events, bytes FROM sekali.topic_counters c;
  ELSE
    SELECT min(o.seq) - 1, coalesce(sum(c.events), 0), coalesce(sum(c.bytes), 0)
    INTO before_oldest, events, bytes
    FROM sekali.topic t
    CROSS JOIN LATERAL (
      SELECT sum(c.unique_processed - c.pruned) AS events, sum(c.content_bytes) AS bytes
      FROM sekali.topic_counters c WHERE c.topic_id = t.id) c
    LEFT JOIN LATERAL (
      SELECT e.seq FROM sekali.event_log e WHERE c.events > 0 AND e.topic_id BETWEEN t.id AND t.id
      ORDER BY e.topic_id, e.seq LIMIT 1
    ) o ON true
    WHERE sekali.is_in_2(t.topic, of, but);
  END IF;
END $$;

-- Prunes the oldest events of a group after `after` and up to `up_to`, received before
-- received_before if that is given: events_max at most, and not more than it takes to
-- have bytes_enough bytes less, if that is given. It looks at looks_max events at most,
-- and tells up to where there is nothing more to prune.
--
-- One prunes at a time, and no subscription is defined meanwhile. Those that have not
-- come as far as what is pruned do not move until it is.
CREATE FUNCTION sekali.prune_2(
  of text, but text[], after bigint, up_to bigint, received_before bigint, events_max bigint,
  bytes_enough bigint, looks_max bigint, topics_few int,
  OUT events bigint, OUT bytes bigint, OUT came_to bigint
) LANGUAGE plpgsql SET jit = off SET lock_timeout = '4s' AS $$
DECLARE
  ids bigint[];
  looks bigint := looks_max;
  bound bigint;
  looked bigint;
  looked_to bigint;
  due_at bigint;
  seqs bigint[];
  seq_ids bigint[];
  lengths bigint[];
  newest bigint;
  newest_at bigint;
  own_slot int;
  event text := 'SELECT e.seq, e.topic_id, e.received_at,
      sekali.bytes_2(e.event_id, e.source, e.timestamp, e.payload) AS bytes
    FROM sekali.event_log e WHERE e.seq > $1 AND e.seq <= $2 ';
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE 'default_transaction_isolation must be read committed' USING ERRCODE = '55000';
  END IF;
  PERFORM sekali.is_taken_over_2();
  PERFORM pg_advisory_xact_lock(x'53656b62'::bigint);
  bound := least(up_to, sekali.settled_1(0));
  events := 0;
  bytes := 0;
  IF of IS NOT NULL OR cardinality(but) > 0 THEN
    SELECT coalesce(array_agg(t.id), '{}') INTO ids
    FROM sekali.topic t WHERE sekali.is_in_2(t.topic, of, but);
  END IF;
  -- Few topics along their indexes, and others among all events. Where all that is met is
  -- of the group, the one after those that there may be is enough.
  IF ids IS NULL OR cardinality(ids) <= topics_few THEN
    looks := greatest(
      least(looks_max / greatest(cardinality(ids), 1), least(events_max, looks_max) + 1), 1);
  END IF;
  IF cardinality(ids) <= topics_few THEN
    event := 'SELECT f.* FROM unnest($3) AS t(id) CROSS JOIN LATERAL (' || event
      || 'AND e.topic_id BETWEEN t.id AND t.id ORDER BY e.topic_id, e.seq LIMIT $4) f
         ORDER BY f.seq LIMIT $4';
  ELSE
    event := event || 'ORDER BY e.seq LIMIT $4';
  END IF;
  EXECUTE 'WITH looked AS MATERIALIZED (' || event || '), due AS (
      SELECT l.*, row_number() OVER o AS number, sum(l.bytes) OVER o - l.bytes AS before
      FROM looked l
      WHERE ($3 IS NULL OR l.topic_id = ANY ($3)) AND ($5 IS NULL OR l.received_at < $5)
      WINDOW o AS (ORDER BY l.seq)
    ), chosen AS (
      SELECT d.*, d.number <= $6 AND ($7 IS NULL OR d.before < $7) AS is_chosen FROM due d
    )
    SELECT (SELECT count(*) FROM looked), (SELECT max(l.seq) FROM looked l),
           min(c.seq) FILTER (WHERE NOT c.is_chosen),
           array_agg(c.seq ORDER BY c.seq) FILTER (WHERE c.is_chosen),
           array_agg(c.topic_id ORDER BY c.seq) FILTER (WHERE c.is_chosen),
           array_agg(c.bytes ORDER BY c.seq) FILTER (WHERE c.is_chosen),
           max(c.seq) FILTER (WHERE c.is_chosen)
    FROM chosen c'
  INTO looked, looked_to, due_at, seqs, seq_ids, lengths, newest
  USING after, bound, ids, looks, received_before, events_max, bytes_enough;
  -- Before what is due as well; or to the end, unless that was not looked at.
  came_to := greatest(after, CASE WHEN due_at IS NOT NULL THEN due_at - 1
                                  WHEN looked >= looks THEN looked_to ELSE bound END);
  IF newest IS NULL THEN RETURN; END IF;

  -- From here on they wait with what they count until the events are gone.
  UPDATE sekali.subscriptions s SET passed = s.passed + (
    SELECT count(*) FROM unnest(seqs, seq_ids) AS d(seq, id) JOIN sekali.topic t ON t.id = d.id
    WHERE d.seq > s.position AND (cardinality(s.topics) = 0 OR t.topic = ANY (s.topics)))
  WHERE s.position < newest;
  SELECT e.received_at INTO newest_at FROM sekali.event_log e WHERE e.seq = newest;
  UPDATE sekali.pruned p SET seq = newest, received_at = newest_at WHERE p.seq < newest;
  DELETE FROM sekali.event_log e WHERE e.seq = ANY (seqs);
  UPDATE sekali.topic t SET pruned_seq = d.seq
  FROM (SELECT d.id, max(d.seq) AS seq FROM unnest(seqs, seq_ids) AS d(seq, id) GROUP BY d.id) d
  WHERE t.id = d.id AND t.pruned_seq < d.seq;
  own_slot := sekali.take_slot_2();
  INSERT INTO sekali.topic_counters AS c
    (topic_id, slot, unique_processed, duplicate_dropped, conflicts, pruned, content_bytes)
  SELECT d.id, own_slot, 0, 0, 0, count(*), -sum(d.bytes)
  FROM unnest(seq_ids, lengths) AS d(id, bytes) GROUP BY d.id
  ON CONFLICT ON CONSTRAINT topic_counters_pkey DO UPDATE SET
    pruned = c.pruned + excluded.pruned,
    content_bytes = c.content_bytes + excluded.content_bytes;
  events := cardinality(seqs);
  bytes := (SELECT sum(d.bytes) FROM unnest(lengths) AS d(bytes));
END $$;

-- Forgets identities of pruned events that were received on a day before that of
-- `before`: of the next identities_max, in their order, after those that were looked at
-- last, by whomever.
CREATE FUNCTION sekali.forget_2(
  before bigint, identities_max bigint,
  OUT looked_at bigint, OUT forgotten bigint, OUT was_last boolean
) LANGUAGE plpgsql SET jit = off SET lock_timeout = '4s'
SET enable_seqscan = off SET plan_cache_mode = force_custom_plan AS $$
DECLARE
  place sekali.forgetting;
  last_topic_id bigint;
  last_event_id text;
BEGIN
  PERFORM sekali.is_taken_over_2();
  -- Whoever else forgets waits here, and goes on where this one ends.
  SELECT f.* INTO place FROM sekali.forgetting f FOR UPDATE;
  WITH looked AS MATERIALIZED (
    SELECT i.* FROM sekali.identity i
    WHERE (i.topic_id, i.event_id) > (place.topic_id, place.event_id)
    ORDER BY i.topic_id, i.event_id LIMIT identities_max
  ), gone AS (
    DELETE FROM sekali.identity i USING looked l
    WHERE i.topic_id = l.topic_id AND i.event_id = l.event_id
      AND l.day < sekali.day_2(before)
      AND NOT EXISTS (SELECT FROM sekali.event_log e WHERE e.seq = l.seq)
    RETURNING i.seq
  )
  SELECT (SELECT count(*) FROM looked), (SELECT count(*) FROM gone), l.topic_id, l.event_id
  INTO looked_at, forgotten, last_topic_id, last_event_id
  FROM (SELECT) one LEFT JOIN LATERAL (
    SELECT * FROM looked ORDER BY topic_id DESC, event_id DESC LIMIT 1) l ON true;
  was_last := looked_at < identities_max;
  UPDATE sekali.forgetting SET
    topic_id = CASE WHEN was_last THEN 0 ELSE last_topic_id END,
    event_id = CASE WHEN was_last THEN '' ELSE last_event_id END;
END $$;

-- Counters, each the sum of its rows.
CREATE VIEW sekali.topics_2 AS
  SELECT t.id, t.topic, sum(c.unique_processed)::bigint AS unique_processed,
         sum(c.duplicate_dropped)::bigint AS duplicate_dropped,
         sum(c.conflicts)::bigint AS conflicts, sum(c.pruned)::bigint AS pruned
  FROM sekali.topic t JOIN sekali.topic_counters c ON c.topic_id = t.id GROUP BY t.id;

CREATE VIEW sekali.totals_2 AS
  SELECT coalesce(sum(c.unique_processed), 0)::bigint AS unique_processed,
         coalesce(sum(c.duplicate_dropped), 0)::bigint AS duplicate_dropped,
         coalesce(sum(c.conflicts), 0)::bigint AS conflicts,
         coalesce(sum(c.pruned), 0)::bigint AS pruned, count(DISTINCT c.topic_id) AS topics
  FROM sekali.topic_counters c;

-- Does what a commit does, and undoes it: nothing is stored, and the disk not waited for.
CREATE FUNCTION sekali.undone_2() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO sekali.identity (topic_id, event_id, seq, content, day) VALUES (0, '', 0, '', 0);
  INSERT INTO sekali.event_log (seq, topic_id, received_at, event_id, source, payload)
  VALUES (0, 0, 0, '', '', '');
  RAISE 'undone' USING ERRCODE = 'SK001';
END $$;

-- An empty store is taken over by now.
IF NOT EXISTS (SELECT FROM sekali.event_log) THEN
  PERFORM sekali.take_over_2(1);
END IF;
END $sekali$
