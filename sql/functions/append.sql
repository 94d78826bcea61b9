-- Appends one event inside the caller's transaction and returns its place.
--
-- The same id with the same content within the deduplication window stores nothing and returns the first place with
-- duplicate = true. expect: the cursor of the subject's newest event, or 'none'.
-- tenant: the one that the logged-in role belongs to (tidewire.tenant_roles); only a role without one may name it, and
-- only if it may use the log's owner's rights. Nor may others than those write topics under tidewire., which say what the log
-- itself has done. source: the role's name if none is given; a given one is kept, since whose events these are the tenant says.
--
-- priority: that of the declared topic if none is given (tidewire.default_priority).
--
-- Data of an event without consent is withheld if the tenant has decided so (tidewire.tenant_settings).
--
-- Refuses: TW403 another tenant, or a topic of the log's own, or under system. · TW409 the subject's newest event is another (DETAIL holds its cursor) · TW422 id used
-- with other content, or expect without subject · 23514 a field that breaks a rule of the log (the constraint's name says which).
CREATE OR REPLACE FUNCTION tidewire.append(
    topic text, data jsonb DEFAULT NULL, subject text DEFAULT NULL, id text DEFAULT NULL, source text DEFAULT NULL,
    priority text DEFAULT NULL, occurred_at timestamptz DEFAULT NULL, region text DEFAULT NULL,
    gdpr jsonb DEFAULT NULL, trace text DEFAULT NULL, bytes bytea DEFAULT NULL, content_type text DEFAULT NULL,
    expect text DEFAULT NULL, tenant text DEFAULT NULL)
RETURNS TABLE (event_id text, seq bigint, cursor text, duplicate boolean)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
#variable_conflict use_column
DECLARE
    _tenant   text := tidewire.writing_tenant(append.tenant);
    _id       text := coalesce(append.id, tidewire.new_id());
    _expected bigint := CASE WHEN append.expect = 'none' THEN 0 ELSE tidewire.cursor_seq(append.expect) END;
    _result   record;
    _withheld boolean;
    _priority text := coalesce(append.priority, tidewire.default_priority(_tenant, append.topic));
BEGIN
    IF tidewire.is_reserved(append.topic) AND NOT tidewire.may_act_for_log() THEN
        RAISE EXCEPTION 'topics under tidewire. are written by the log alone' USING ERRCODE = 'TW403';
    END IF;
    IF append.topic = 'system' OR starts_with(append.topic, 'system.') THEN
        RAISE EXCEPTION 'topics under system. tell of the server itself, and are not stored' USING ERRCODE = 'TW403';
    END IF;
    IF append.expect IS NOT NULL AND append.subject IS NULL THEN
        RAISE EXCEPTION 'expect needs a subject' USING ERRCODE = 'TW422';
    END IF;
    _withheld := NOT tidewire.is_reserved(append.topic)
        AND tidewire.check_admission(_tenant, append.topic, append.gdpr);
    FOR _attempt IN 1..10 LOOP
        BEGIN
            SELECT m.seq, m.recorded_at, m.outcome INTO _result FROM tidewire.append_many(
                ARRAY[_tenant], ARRAY[_id], ARRAY[append.topic], ARRAY[append.subject],
                ARRAY[coalesce(append.source, session_user::text)], ARRAY[_priority], ARRAY[append.occurred_at],
                ARRAY[append.region], ARRAY[append.gdpr::text], ARRAY[append.trace],
                ARRAY[CASE WHEN NOT _withheld THEN append.data::text END], ARRAY[CASE WHEN NOT _withheld THEN append.bytes END],
                ARRAY[CASE WHEN NOT _withheld THEN append.content_type END], ARRAY[1], ARRAY[_expected]) AS m;
            EXIT;
        EXCEPTION WHEN unique_violation OR serialization_failure THEN
            -- Another transaction has just stored this id, or an event of the subject: the next attempt finds it. Under
            -- REPEATABLE READ it never will.
            IF _attempt = 10 OR current_setting('transaction_isolation') <> 'read committed' THEN
                RAISE;
            END IF;
        END;
    END LOOP;
    CASE _result.outcome
        WHEN 'id_conflict' THEN
            RAISE EXCEPTION 'id % was used with other content', quote_literal(_id) USING ERRCODE = 'TW422';
        WHEN 'expect_conflict' THEN
            RAISE EXCEPTION 'the subject''s newest event is another'
                USING ERRCODE = 'TW409', DETAIL = coalesce(tidewire.cursor(_result.seq, _result.recorded_at), 'none');
        ELSE NULL;
    END CASE;
    RETURN QUERY SELECT _id, _result.seq, tidewire.cursor(_result.seq, _result.recorded_at), _result.outcome = 'duplicate';
END
$fn$;
COMMENT ON FUNCTION tidewire.append(text, jsonb, text, text, text, text, timestamptz, text, jsonb, text, bytea, text, text, text) IS
    'Appends one event: SELECT * FROM tidewire.append(''deal.stage.updated'', ''{"stage":"won"}'', subject => ''deal-7'').';
