-- Writes who appended in SQL into the tenants' own logs: tidewire.audit.events.appended, one event for each role and tenant. Takes
-- row_limit rows of tidewire.sql_appends a call and returns how many it took: call it until it returns less.
--
-- Taken and written in one transaction: nothing is counted twice, whatever dies. Rows that another session is taking are left
-- to it, those of open transactions are not seen yet. is_written: false forgets them, where nobody wants an audit.
CREATE OR REPLACE FUNCTION tidewire.record_sql_appends(row_limit integer DEFAULT 20000, is_written boolean DEFAULT true)
RETURNS bigint LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
DECLARE
    _topics_max CONSTANT integer := 50; -- that are told apart of one role, as the server does (src/http/audit.rs)
    _taken bigint;
BEGIN
    WITH taken AS (
        DELETE FROM tidewire.sql_appends AS s
         WHERE s.ctid = ANY (ARRAY(SELECT f.ctid FROM tidewire.sql_appends AS f
                                    LIMIT record_sql_appends.row_limit FOR UPDATE SKIP LOCKED))
        RETURNING s.role, s.tenant, s.topic, s.events, s.appended_at
    ), by_topic AS (
        SELECT t.role, t.tenant, t.topic, sum(t.events) AS events, min(t.appended_at) AS first_at, max(t.appended_at) AS last_at,
               row_number() OVER (PARTITION BY t.role, t.tenant ORDER BY sum(t.events) DESC, t.topic) AS nth
          FROM taken AS t GROUP BY t.role, t.tenant, t.topic
    ), told_apart AS (
        SELECT b.role, b.tenant, CASE WHEN b.nth <= _topics_max THEN b.topic ELSE 'others' END AS topic,
               sum(b.events)::bigint AS events, min(b.first_at) AS first_at, max(b.last_at) AS last_at
          FROM by_topic AS b GROUP BY 1, 2, 3
    ), written AS (
        INSERT INTO tidewire.events (tenant, id, topic, subject, source, data)
        SELECT a.tenant, tidewire.new_id(), 'tidewire.audit.events.appended', a.name, a.name,
               jsonb_build_object('by', a.name, 'role', 'sql', 'credential', jsonb_build_object('sql_role', a.name),
                   'count', sum(a.events)::bigint, 'topics', jsonb_object_agg(a.topic, a.events),
                   'first_at', to_char(min(a.first_at) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
                   'last_at', to_char(max(a.last_at) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'))
          FROM (SELECT o.*, regexp_replace(o.role, '[\u0001-\u001f\u007f-\u009f]', '?', 'g') AS name FROM told_apart AS o) AS a
         WHERE record_sql_appends.is_written GROUP BY a.tenant, a.role, a.name
    )
    SELECT count(*) INTO _taken FROM taken AS t;
    RETURN _taken;
END
$fn$;
COMMENT ON FUNCTION tidewire.record_sql_appends(integer, boolean) IS
    'Writes who appended in SQL into the tenants'' logs; call it until it returns less than row_limit.';
