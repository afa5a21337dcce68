-- Version 1, which schema_from_1.sql brings up to date. schema.rs sends all of it as one
-- statement, so it is there whole or not at all. An operator whose role for the service
-- may not create anything runs this file and that one instead, by psql, as a role that
-- may.
--
-- Functions carry the version in their names: what is added later stands beside
-- them, so that replicas of two versions run on one database. All names are
-- qualified, whatever the search path is.
DO $sekali$ BEGIN
PERFORM pg_advisory_xact_lock(x'53656b61'::bigint);
IF to_regclass('sekali.service') IS NOT NULL THEN RETURN; END IF;
CREATE SCHEMA IF NOT EXISTS sekali;

-- The places of events. It begins at 0, which is taken here, so that last_value is
-- always the newest place that was given out. CACHE must stay 1: a backend that
-- keeps places for later would hand them out below those of others.
CREATE SEQUENCE sekali.event_seq MINVALUE 0 START 0 CACHE 1;
PERFORM nextval('sekali.event_seq');

CREATE TABLE sekali.topic (
  id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  topic text COLLATE "C" NOT NULL UNIQUE
);

-- Events, once each. seq increases along commits as readers see them (settled_1),
-- with gaps. received_at is in milliseconds since 1970. content is a digest of
-- source and payload. payload is JSON text and no jsonb, which would rewrite it.
CREATE TABLE sekali.event_log (
  seq         bigint PRIMARY KEY,
  topic_id    bigint NOT NULL,
  received_at bigint NOT NULL,
  content     bytea  NOT NULL,
  event_id    text COLLATE "C" NOT NULL,
  source      text COLLATE "C" NOT NULL,
  timestamp   text,
  payload     text   NOT NULL,
  UNIQUE (topic_id, event_id)
);
CREATE INDEX event_log_by_topic ON sekali.event_log (topic_id, seq);

-- The events as a person with psql would read them.
CREATE VIEW sekali.events AS
  SELECT e.seq, t.topic, e.event_id, e.source, e.timestamp, e.payload, e.received_at
  FROM sekali.event_log e JOIN sekali.topic t ON t.id = e.topic_id;

-- Counters have a row for each slot, and a commit has a slot for itself while it
-- lasts: two commits never wait for each other's row. A value is the sum of its
-- rows. There are as many slots as there were commits at the same time.
CREATE TABLE sekali.topic_counters (
  topic_id          bigint NOT NULL,
  slot              int    NOT NULL,
  unique_processed  bigint NOT NULL,
  duplicate_dropped bigint NOT NULL,
  conflicts         bigint NOT NULL,
  PRIMARY KEY (topic_id, slot)
) WITH (fillfactor = 50);
CREATE TABLE sekali.counters (
  name  text COLLATE "C" NOT NULL,
  slot  int    NOT NULL,
  value bigint NOT NULL,
  PRIMARY KEY (name, slot)
) WITH (fillfactor = 50);

-- Moments that instances note for each other, in milliseconds since 1970, and under
-- time_begins/SEQ the places from which on times begin anew, since the clock was set
-- back far.
CREATE TABLE sekali.marks (
  name text COLLATE "C" PRIMARY KEY,
  at   bigint NOT NULL
);

-- Named readers. topics is empty for every topic; passed is how many events of its
-- topics there are up to its position.
CREATE TABLE sekali.subscriptions (
  name       text COLLATE "C" PRIMARY KEY,
  topics     text[] COLLATE "C" NOT NULL,
  position   bigint NOT NULL,
  passed     bigint NOT NULL,
  revision   bigint NOT NULL,
  created_at bigint NOT NULL,
  acked_at   bigint
);

-- What the service keeps beside events: its history.
CREATE TABLE sekali.state (
  key   text COLLATE "C" PRIMARY KEY,
  value bytea NOT NULL
);

CREATE TABLE sekali.service (
  id         int PRIMARY KEY CHECK (id = 1),
  version    int    NOT NULL,
  created_at bigint NOT NULL
);

-- Now, in milliseconds since 1970: at, if it is given. The clock of the database is
-- one for all replicas.
CREATE FUNCTION sekali.now_1(at bigint) RETURNS bigint LANGUAGE sql VOLATILE AS $$
  SELECT coalesce(at, (extract(epoch FROM clock_timestamp()) * 1000)::bigint)
$$;

-- A commit of events. Its events are the elements of the arrays, and 16 bytes each of
-- contents. Of each event it tells the place if it was accepted, 0 if it is a
-- duplicate and -1 if it is a conflict. began_anew tells that the newest event was
-- received more than ahead_max milliseconds after now, and slot, from 0 on, that at least
-- as many other commits were under way.
--
-- No commit waits for another but for one of the same identity or of a topic that is
-- new; whatever is locked row by row is locked in the same order by all.
CREATE FUNCTION sekali.append_1(
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
  WHILE NOT pg_try_advisory_xact_lock(x'53656b61'::int, own_slot) LOOP
    own_slot := own_slot + 1;
  END LOOP;
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
    SELECT e.received_at INTO newest FROM sekali.event_log e ORDER BY e.seq DESC LIMIT 1;
    IF newest > received + ahead_max THEN
      began_anew := true;
    ELSIF newest > received THEN
      received := newest;
    END IF;
    -- Two ways to the same: a lone event is dear the one way, and many are the other.
    IF n = 1 THEN
      seqs := ARRAY[nextval('sekali.event_seq')];
      INSERT INTO sekali.event_log
        (seq, topic_id, received_at, content, event_id, source, timestamp, payload)
      VALUES (seqs[1], ids[1], received, contents, event_ids[1], sources[1], timestamps[1],
              payloads[1])
      ON CONFLICT (topic_id, event_id) DO NOTHING;
      IF FOUND THEN
        outcomes := seqs;
      ELSE
        SELECT ARRAY[CASE WHEN e.content = contents THEN 0 ELSE -1 END] INTO STRICT outcomes
        FROM sekali.event_log e WHERE e.topic_id = ids[1] AND e.event_id = event_ids[1];
      END IF;
      UPDATE sekali.topic_counters c SET
        unique_processed = c.unique_processed + (outcomes[1] > 0)::int,
        duplicate_dropped = c.duplicate_dropped + (outcomes[1] <= 0)::int,
        conflicts = c.conflicts + (outcomes[1] < 0)::int
      WHERE c.topic_id = ids[1] AND c.slot = own_slot;
      IF NOT FOUND THEN
        INSERT INTO sekali.topic_counters
          (topic_id, slot, unique_processed, duplicate_dropped, conflicts)
        VALUES (ids[1], own_slot, (outcomes[1] > 0)::int, (outcomes[1] <= 0)::int,
                (outcomes[1] < 0)::int);
      END IF;
    ELSE
      -- Places in the order of the events; those of repeats stay empty. Rows in the order
      -- of identities, so that no two commits wait for each other, and of the same
      -- identity in that of the events.
      SELECT array_agg(nextval('sekali.event_seq')) INTO seqs FROM generate_series(1, n);
      INSERT INTO sekali.event_log
        (seq, topic_id, received_at, content, event_id, source, timestamp, payload)
      SELECT d.seq, d.id, received, substr(contents, d.ord::int * 16 - 15, 16), d.event_id,
             d.source, d.timestamp, d.payload
      FROM unnest(seqs, ids, event_ids, sources, timestamps, payloads)
        WITH ORDINALITY AS d(seq, id, event_id, source, timestamp, payload, ord)
      ORDER BY d.id, d.event_id, d.ord
      ON CONFLICT (topic_id, event_id) DO NOTHING;
      GET DIAGNOSTICS stored = ROW_COUNT;
      IF stored = n THEN
        outcomes := seqs;
      ELSE
        -- The row of each identity is there by now, whoever stored it.
        SELECT array_agg((
          SELECT CASE WHEN e.seq = d.seq THEN d.seq
                      WHEN e.content = substr(contents, d.ord::int * 16 - 15, 16) THEN 0
                      ELSE -1 END
          FROM sekali.event_log e WHERE e.topic_id = d.id AND e.event_id = d.event_id
        ) ORDER BY d.ord) INTO outcomes
        FROM unnest(seqs, ids, event_ids) WITH ORDINALITY AS d(seq, id, event_id, ord);
      END IF;
      INSERT INTO sekali.topic_counters AS c
        (topic_id, slot, unique_processed, duplicate_dropped, conflicts)
      SELECT d.id, own_slot, count(*) FILTER (WHERE d.outcome > 0),
             count(*) FILTER (WHERE d.outcome <= 0), count(*) FILTER (WHERE d.outcome < 0)
      FROM unnest(ids, outcomes) AS d(id, outcome) GROUP BY d.id
      ON CONFLICT ON CONSTRAINT topic_counters_pkey DO UPDATE SET
        unique_processed = c.unique_processed + excluded.unique_processed,
        duplicate_dropped = c.duplicate_dropped + excluded.duplicate_dropped,
        conflicts = c.conflicts + excluded.conflicts;
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

-- The numbers of topics, which are made if they are new.
CREATE FUNCTION sekali.topic_ids_1(topics text[]) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
  ids bigint[];
BEGIN
  LOOP
    SELECT array_agg((SELECT t.id FROM sekali.topic t WHERE t.topic = d.topic) ORDER BY d.ord)
    INTO ids FROM unnest(topics) WITH ORDINALITY AS d(topic, ord);
    IF array_position(ids, NULL) IS NULL THEN RETURN ids; END IF;
    INSERT INTO sekali.topic (topic)
    SELECT DISTINCT d.topic FROM unnest(topics) AS d(topic)
    WHERE NOT EXISTS (SELECT FROM sekali.topic t WHERE t.topic = d.topic) ORDER BY d.topic
    ON CONFLICT (topic) DO NOTHING;
  END LOOP;
END $$;

-- The newest place up to which nothing will appear any more: what a later statement
-- finds up to there is all that there will ever be. It waits wait_ms at most for the
-- commits that were under way when it began, so that what they tell is up to there.
--
-- A commit holds locks whose numbers are below each place that it takes, from before it
-- takes one until others see it. The sequence is read before the locks: a commit that
-- has none of these takes its places after what was read, or is visible by now. The
-- higher number of a commit is no lower than what anybody was told before it had it.
CREATE FUNCTION sekali.settled_1(wait_ms int) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  upto bigint;
  lowest bigint;
  deadline timestamptz := clock_timestamp() + wait_ms * interval '1 ms';
BEGIN
  SELECT last_value INTO upto FROM sekali.event_seq;
  LOOP
    SELECT min(o.highest) INTO lowest FROM (
      SELECT max((l.classid::bigint & 65535) << 32 | l.objid::bigint) AS highest
      FROM pg_locks l
      WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.classid::bigint >> 16 = x'5365'::bigint
        AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
      GROUP BY l.virtualtransaction) o;
    IF lowest IS NULL OR lowest >= upto THEN RETURN upto; END IF;
    IF clock_timestamp() >= deadline THEN RETURN lowest; END IF;
    PERFORM pg_sleep(0.001);
  END LOOP;
END $$;

-- The place of the newest event, of those up to which nothing will appear any more.
CREATE FUNCTION sekali.head_1(wait_ms int) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  settled bigint := sekali.settled_1(wait_ms);
BEGIN
  -- Not the newest place that was given out: after a crash that may be given out anew.
  RETURN coalesce((SELECT max(e.seq) FROM sekali.event_log e WHERE e.seq <= settled), 0);
END $$;

-- The next events after `above`, before `below` and up to `up_to`, in ascending order
-- or the other one, of any of the topics and of the source, if there are any; received
-- from `since` on and before `until`, if they are given. A page ends with the event
-- that reaches bytes_max. One row, with an array for each column.
CREATE FUNCTION sekali.page_1(
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
    || CASE WHEN cardinality(topics) = 0 THEN '' ELSE ' AND e.topic_id = t.id' END
    || ' ORDER BY e.seq ' || direction || ' LIMIT $7';
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

-- A place from `first` on and up to `bound` that comes after an event received before
-- `moment`, or is `first`, and at or before one received then or later, or is `bound`.
CREATE FUNCTION sekali.crossing_1(moment bigint, first bigint, bound bigint)
RETURNS bigint LANGUAGE plpgsql SET jit = off AS $$
DECLARE
  low bigint := first;
  high bigint := bound;
  middle bigint;
  found_seq bigint;
  found_at bigint;
BEGIN
  WHILE low < high LOOP
    middle := low + (high - low) / 2;
    SELECT e.seq, e.received_at INTO found_seq, found_at FROM sekali.event_log e
    WHERE e.seq >= middle AND e.seq < high ORDER BY e.seq LIMIT 1;
    IF FOUND AND found_at < moment THEN
      low := found_seq + 1;
    ELSE
      high := middle;
    END IF;
  END LOOP;
  RETURN low;
END $$;

-- Places that hold every event received from `since` on and before `until`, those of
-- them that are given: after the first, up to the second.
--
-- Between two places where times begin anew, received_at decreases along seq only by as
-- much as commits that were under way at the same time differ, which is less than
-- disorder_ms: so a binary search finds where to begin to look.
CREATE FUNCTION sekali.received_between_1(
  since bigint, until bigint, disorder_ms bigint, wait_ms int, OUT after bigint, OUT up_to bigint
) LANGUAGE plpgsql SET jit = off AS $$
DECLARE
  settled bigint := sekali.settled_1(wait_ms);
  stretch record;
  place bigint;
BEGIN
  FOR stretch IN
    SELECT b.first, least(lead(b.first) OVER (ORDER BY b.first), settled + 1) AS bound FROM (
      SELECT 1 AS first UNION
      SELECT substr(m.name, 13)::bigint FROM sekali.marks m
      WHERE m.name >= 'time_begins/' AND m.name < 'time_begins0') b
    WHERE b.first <= settled ORDER BY b.first
  LOOP
    -- Before the first event of then or later, in the first stretch that has one.
    IF since IS NOT NULL AND after IS NULL THEN
      place := sekali.crossing_1(since - disorder_ms, stretch.first, stretch.bound);
      SELECT e.seq - 1 INTO after FROM sekali.event_log e
      WHERE e.seq >= place AND e.seq < stretch.bound AND e.received_at >= since
      ORDER BY e.seq LIMIT 1;
    END IF;
    -- The last event of before, in the last stretch that has one.
    IF until IS NOT NULL THEN
      place := sekali.crossing_1(until + disorder_ms, stretch.first, stretch.bound);
      SELECT e.seq INTO place FROM sekali.event_log e
      WHERE e.seq >= stretch.first AND e.seq < place AND e.received_at < until
      ORDER BY e.seq DESC LIMIT 1;
      up_to := coalesce(place, up_to, 0);
    END IF;
  END LOOP;
  -- There is none: what is yet to come.
  IF since IS NOT NULL AND after IS NULL THEN
    after := coalesce((SELECT max(e.seq) FROM sekali.event_log e WHERE e.seq <= settled), 0);
  END IF;
  IF until IS NOT NULL THEN up_to := coalesce(up_to, 0); END IF;
END $$;

-- How many events there are of `topics` (all, if there are none) after `above` and up
-- to `up_to`.
CREATE FUNCTION sekali.count_between_1(topics text[], above bigint, up_to bigint)
RETURNS bigint LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN cardinality(topics) = 0 THEN
    (SELECT count(*) FROM sekali.event_log e WHERE e.seq > above AND e.seq <= up_to)
  ELSE
    (SELECT count(*) FROM sekali.topic t CROSS JOIN LATERAL (
       SELECT FROM sekali.event_log e WHERE e.topic_id = t.id AND e.seq > above AND e.seq <= up_to
     ) e WHERE t.topic = ANY (topics))
  END
$$;

-- How many events there are of `topics` (all, if there are none).
CREATE FUNCTION sekali.count_1(topics text[]) RETURNS bigint LANGUAGE sql STABLE AS $$
  SELECT coalesce(sum(c.unique_processed), 0)::bigint FROM sekali.topic_counters c
  WHERE cardinality(topics) = 0
    OR c.topic_id IN (SELECT t.id FROM sekali.topic t WHERE t.topic = ANY (topics))
$$;

-- Subscriptions as they are told. The lag is a difference of two numbers.
CREATE VIEW sekali.subscriptions_1 AS
  SELECT s.name, s.topics, s.position, s.revision, s.created_at, s.acked_at,
         sekali.count_1(s.topics) - s.passed AS lag
  FROM sekali.subscriptions s;

-- Defines a subscription: a new one begins after `start`, or after the newest event; one
-- that is there gets these topics. No row when there are subscriptions_max others.
CREATE FUNCTION sekali.define_1(
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
                    ELSE sekali.count_between_1(new_topics, 0, s.position) END
    WHERE s.name = subscription;
  ELSIF (SELECT count(*) FROM sekali.subscriptions) < subscriptions_max THEN
    begins := coalesce(start, sekali.head_1(wait_ms));
    INSERT INTO sekali.subscriptions
      (name, topics, position, passed, revision, created_at)
    VALUES (subscription, new_topics, begins,
            CASE WHEN start IS NULL
                 THEN sekali.count_1(new_topics)
                      - sekali.count_between_1(new_topics, begins, 9223372036854775807)
                 ELSE sekali.count_between_1(new_topics, 0, begins) END,
            1, sekali.now_1(at));
  ELSE
    RETURN;
  END IF;
  RETURN QUERY SELECT * FROM sekali.subscriptions_1 s WHERE s.name = subscription;
END $$;

-- Moves a subscription forward to new_position, unless that is behind it or ahead of
-- the newest event, and returns it as it is then.
CREATE FUNCTION sekali.acknowledge_1(
  subscription text, new_position bigint, at bigint, wait_ms int
) RETURNS SETOF sekali.subscriptions_1 LANGUAGE plpgsql AS $$
DECLARE
  head bigint := sekali.head_1(wait_ms);
  known sekali.subscriptions;
BEGIN
  SELECT s.* INTO known FROM sekali.subscriptions s WHERE s.name = subscription FOR UPDATE;
  IF FOUND AND known.position < new_position AND new_position <= head THEN
    UPDATE sekali.subscriptions s SET position = new_position, acked_at = sekali.now_1(at),
      passed = s.passed + sekali.count_between_1(s.topics, s.position, new_position)
    WHERE s.name = subscription;
  END IF;
  RETURN QUERY SELECT * FROM sekali.subscriptions_1 s WHERE s.name = subscription;
END $$;

CREATE FUNCTION sekali.remove_1(subscription text)
RETURNS SETOF sekali.subscriptions_1 LANGUAGE plpgsql AS $$
BEGIN
  RETURN QUERY SELECT * FROM sekali.subscriptions_1 s WHERE s.name = subscription;
  DELETE FROM sekali.subscriptions s WHERE s.name = subscription;
END $$;

-- Counters, each the sum of its rows.
CREATE VIEW sekali.topics_1 AS
  SELECT t.id, t.topic, sum(c.unique_processed)::bigint AS unique_processed,
         sum(c.duplicate_dropped)::bigint AS duplicate_dropped, sum(c.conflicts)::bigint AS conflicts
  FROM sekali.topic t JOIN sekali.topic_counters c ON c.topic_id = t.id GROUP BY t.id;

CREATE VIEW sekali.totals_1 AS
  SELECT coalesce(sum(c.unique_processed), 0)::bigint AS unique_processed,
         coalesce(sum(c.duplicate_dropped), 0)::bigint AS duplicate_dropped,
         coalesce(sum(c.conflicts), 0)::bigint AS conflicts, count(DISTINCT c.topic_id) AS topics
  FROM sekali.topic_counters c;

-- What there is of the service itself; '0' comes after '/'.
CREATE VIEW sekali.service_1 AS
  SELECT (SELECT coalesce(sum(c.value), 0)::bigint FROM sekali.counters c
          WHERE c.name >= 'rejected/' AND c.name < 'rejected0') AS rejected, s.created_at
  FROM sekali.service s;

-- Does what a commit does, and undoes it: nothing is stored, and the disk not waited for.
CREATE FUNCTION sekali.undone_1() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO sekali.event_log
    (seq, topic_id, received_at, content, event_id, source, payload)
  VALUES (0, 0, 0, '', '', '', '');
  RAISE 'undone' USING ERRCODE = 'SK001';
END $$;

INSERT INTO sekali.service (id, version, created_at) VALUES (1, 1, sekali.now_1(NULL));
END $sekali$
