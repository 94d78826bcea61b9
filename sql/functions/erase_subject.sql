-- Erases a person from a tenant's history, a batch a call: call it, each time in a transaction of its own, until is_complete.
-- A call that is killed has done nothing; the next one goes on.
--
-- First the events whose subject it is, by their index; then those whose source it is, for which all of the tenant's events are
-- looked through, look_limit a call. When it is complete, what had been committed when the first of these calls began is
-- erased. An event of this subject that is stored later is a new one.
--
-- What the log itself says (topics under tidewire.) stays, but for who was revoked by name: else an administrator wipes away the
-- traces of what it has done, under the key's id, the pattern or the hash that the log names it by.
--
-- Each call that erases, and the one that ends, writes tidewire.audit.subject.erased into the tenant's log, in the same
-- transaction: who and how many, and the hash of the subject. seq and recorded_at are that event's, NULL if there is none;
-- through_seq is the last place that was changed by this call.
--
-- Of watches the subject is forgotten, with each call. Nobody looks at watches until its end (1953064041): who has read these
-- events before takes no note of them afterwards, and says nothing of the subject meanwhile.
--
-- Locks: rows that are changed, the version of erasures, so that they come one after the other, and the watches. Writers and readers
-- wait for none of these. What the planner has sampled: tidewire.forget_samples().
-- Refuses: TW400 what is no subject, or a transaction that does not see what is committed · 55P03 another erasure for two seconds.
CREATE OR REPLACE FUNCTION tidewire.erase_subject(tenant text, subject text, actor text DEFAULT session_user,
    row_limit integer DEFAULT 1000, look_limit integer DEFAULT 20000)
RETURNS TABLE (erased bigint, is_complete boolean, through_seq bigint, seq bigint, recorded_at timestamptz)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $fn$
#variable_conflict use_column
DECLARE
    _hash     bytea := tidewire.erased_key(erase_subject.tenant, erase_subject.subject);
    _job      tidewire.erasures;
    _seqs     bigint[];
    _times    timestamptz[];
    _produced record;
    _told     record;
    _erased   bigint := 0;
    _complete boolean := false;
    _looked_to bigint;
BEGIN
    IF erase_subject.subject IS NULL OR octet_length(erase_subject.subject) NOT BETWEEN 1 AND 255
       OR erase_subject.row_limit < 1 OR erase_subject.look_limit < 1 THEN
        RAISE EXCEPTION 'a subject is 1 to 255 bytes, and a limit 1 or more' USING ERRCODE = 'TW400';
    END IF;
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'erasure needs a READ COMMITTED transaction' USING ERRCODE = 'TW400';
    END IF;
    UPDATE tidewire.erasure_changes AS c SET version = c.version + 1;
    IF EXISTS (SELECT FROM tidewire.watches AS w WHERE w.tenant = erase_subject.tenant) THEN
        PERFORM pg_advisory_xact_lock(1953064041, 0);
        DELETE FROM tidewire.watched AS o USING tidewire.watches AS w
         WHERE w.tenant = erase_subject.tenant AND o.tenant = w.tenant AND o.watch = w.name
           AND o.subject = erase_subject.subject;
    END IF;
    INSERT INTO tidewire.erasures AS j (tenant, subject_sha256, asked_by)
    VALUES (erase_subject.tenant, _hash, erase_subject.actor)
        ON CONFLICT (tenant, subject_sha256) DO UPDATE
        SET asked_by = excluded.asked_by, began_at = clock_timestamp(), ended_at = NULL, looked_to_seq = 0, erased = 0
      WHERE j.ended_at IS NOT NULL;
    SELECT j.* INTO STRICT _job FROM tidewire.erasures AS j
     WHERE j.tenant = erase_subject.tenant AND j.subject_sha256 = _hash;

    SELECT coalesce(array_agg(f.seq), '{}'), coalesce(array_agg(f.recorded_at), '{}') INTO _seqs, _times
      FROM (SELECT e.seq, e.recorded_at FROM tidewire.events AS e
             WHERE e.tenant = erase_subject.tenant AND e.subject = erase_subject.subject
               AND (NOT starts_with(e.topic, 'tidewire.')
                    OR (e.topic = 'tidewire.audit.token.revoked' AND e.data ->> 'claim' = 'sub' AND e.source <> e.subject))
             ORDER BY e.seq LIMIT erase_subject.row_limit) AS f;
    IF cardinality(_seqs) < erase_subject.row_limit THEN
        -- Up to the one after which there would be too many to change at once.
        SELECT array_agg(p.seq) FILTER (WHERE p.is_theirs) AS seqs, array_agg(p.recorded_at) FILTER (WHERE p.is_theirs) AS times,
               max(p.seq) AS looked_to, count(*) < erase_subject.look_limit AND NOT coalesce(bool_or(p.is_cut), false) AS is_end
          INTO _produced
          FROM (SELECT l.*, count(*) FILTER (WHERE l.is_theirs) OVER (ORDER BY l.seq) >= erase_subject.row_limit AS is_cut,
                       count(*) FILTER (WHERE l.is_theirs) OVER (ORDER BY l.seq) AS nth
                  FROM (SELECT e.seq, e.recorded_at, coalesce(e.source = erase_subject.subject, false)
                                   AND NOT starts_with(e.topic, 'tidewire.') AS is_theirs
                          FROM tidewire.events AS e
                         WHERE e.tenant = erase_subject.tenant AND e.seq > _job.looked_to_seq
                         ORDER BY e.seq LIMIT erase_subject.look_limit) AS l) AS p
         WHERE p.nth < erase_subject.row_limit OR (p.nth = erase_subject.row_limit AND p.is_theirs);
        _seqs := _seqs || coalesce(_produced.seqs, '{}');
        _times := _times || coalesce(_produced.times, '{}');
        _complete := _produced.is_end;
        _looked_to := _produced.looked_to;
    END IF;

    IF cardinality(_seqs) > 0 THEN
        _erased := tidewire.redact(erase_subject.tenant, _seqs, (SELECT min(t.at) FROM unnest(_times) AS t(at)),
                                   (SELECT max(t.at) FROM unnest(_times) AS t(at)), erase_subject.subject);
    END IF;
    UPDATE tidewire.erasures AS j
       SET erased = j.erased + _erased, looked_to_seq = greatest(j.looked_to_seq, _looked_to),
           ended_at = CASE WHEN _complete THEN clock_timestamp() END
     WHERE j.tenant = erase_subject.tenant AND j.subject_sha256 = _hash
    RETURNING j.* INTO _job;
    IF _erased > 0 OR _complete THEN
        INSERT INTO tidewire.events AS e (tenant, id, topic, subject, source, data)
        VALUES (erase_subject.tenant, tidewire.new_id(), 'tidewire.audit.subject.erased', encode(_hash, 'hex'), erase_subject.actor,
                jsonb_build_object('subject_sha256', encode(_hash, 'hex'), 'events', _erased, 'events_in_all', _job.erased,
                                   'is_complete', _complete))
        RETURNING e.seq, e.recorded_at INTO _told;
        RETURN QUERY SELECT _erased, _complete, (SELECT max(s.seq) FROM unnest(_seqs) AS s(seq)), _told.seq, _told.recorded_at;
    ELSE
        RETURN QUERY SELECT _erased, _complete, NULL::bigint, NULL::bigint, NULL::timestamptz;
    END IF;
END
$fn$;
COMMENT ON FUNCTION tidewire.erase_subject(text, text, text, integer, integer) IS
    'Erases a person from a tenant''s history, a batch a call: SELECT * FROM tidewire.erase_subject(''acme'', ''person-7''), until is_complete.';
