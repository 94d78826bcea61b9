-- Writes down what was found of watched subjects, and says so in their tenants' logs: agent.stalled and agent.recovered, in the
-- same transaction. Its arrays run parallel, one place a subject.
--
-- verdicts: stalls · recovers · goes_on (it is silent still: its last sign came too late) · later (a sign is on its way to the
-- readers: due_ats says until when that counts).
--
-- A subject that is gone meanwhile is left out: nobody hears of it. Whoever calls it holds 1953064041; if two callers ever judge
-- the same spell nonetheless, the second waits for the first's row, sees that it was told of, and says nothing.
CREATE OR REPLACE FUNCTION tidewire.judge_watched(tenants text[], watches text[], subjects text[], verdicts text[],
    due_ats timestamptz[])
RETURNS void LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
BEGIN
    WITH judged AS (
        SELECT j.* FROM unnest(judge_watched.tenants, judge_watched.watches, judge_watched.subjects, judge_watched.verdicts,
                               judge_watched.due_ats) AS j(tenant, watch, subject, verdict, due_at)
    ), changed AS (
        UPDATE tidewire.watched AS o
           SET is_stalled = CASE j.verdict WHEN 'stalls' THEN true WHEN 'recovers' THEN false ELSE o.is_stalled END,
               since = CASE WHEN j.verdict IN ('stalls', 'recovers') THEN clock_timestamp() ELSE o.since END,
               silent_seq = CASE WHEN j.verdict IN ('stalls', 'goes_on') THEN o.last_seen_seq ELSE o.silent_seq END,
               silent_at = CASE WHEN j.verdict = 'stalls' THEN o.last_seen_at ELSE o.silent_at END,
               due_at = CASE WHEN j.verdict = 'later' THEN j.due_at ELSE o.due_at END
          FROM judged AS j
         WHERE o.tenant = j.tenant AND o.watch = j.watch AND o.subject = j.subject
           AND (j.verdict <> 'stalls' OR NOT o.is_stalled) AND (j.verdict <> 'recovers' OR o.is_stalled)
        RETURNING o.*, j.verdict
    ), told AS (
        SELECT c.*, w.within_s,
               extract(epoch FROM CASE c.verdict WHEN 'stalls' THEN clock_timestamp() ELSE c.last_seen_at END - c.silent_at) AS silent_s
          FROM changed AS c JOIN tidewire.watches AS w ON w.tenant = c.tenant AND w.name = c.watch
         WHERE c.verdict IN ('stalls', 'recovers')
    )
    INSERT INTO tidewire.events (tenant, id, topic, subject, source, priority, data)
    SELECT t.tenant, tidewire.new_id(), CASE t.verdict WHEN 'stalls' THEN 'agent.stalled' ELSE 'agent.recovered' END, t.subject,
           'tidewire.watch', 'high',
           jsonb_build_object('watch', t.watch, 'within_s', t.within_s, 'silent_s', round(t.silent_s, 3),
               'last_seen_at', to_char(t.last_seen_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
               'last_cursor', tidewire.cursor(t.last_seen_seq, t.last_seen_at))
      FROM told AS t ORDER BY t.last_seen_seq;
END
$fn$;
COMMENT ON FUNCTION tidewire.judge_watched(text[], text[], text[], text[], timestamptz[]) IS
    'Writes down which watched subjects have stalled or recovered, and says so in the log; for the server.';
