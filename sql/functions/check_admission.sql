-- What the tenant's settings have to say against an event, for those who write in SQL; the server asks them itself. Returns
-- whether its data is to be withheld.
--
-- Refuses: TW422 a topic that is not declared, or has a schema, which only the server can check; an event without consent.
CREATE OR REPLACE FUNCTION tidewire.check_admission(tenant text, topic text, gdpr jsonb)
RETURNS boolean LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
DECLARE
    _mode     text;
    _consent  text;
    _topics   text[];
    _declared record;
BEGIN
    SELECT s.topic_mode, s.consent, s.consent_topics INTO _mode, _consent, _topics
      FROM tidewire.tenant_settings AS s WHERE s.tenant = check_admission.tenant;
    SELECT count(*) AS patterns, count(*) FILTER (WHERE d.schema IS NOT NULL AND d.in_sql = 'refuse') AS schemas INTO _declared
      FROM tidewire.declared_topics AS d
     WHERE d.tenant = check_admission.tenant AND tidewire.topic_matches(check_admission.topic, d.pattern);
    IF _mode = 'declared' AND _declared.patterns = 0 THEN
        RAISE EXCEPTION 'the topic % is not declared', quote_literal(check_admission.topic)
            USING ERRCODE = 'TW422', HINT = 'An administrator of the tenant declares it: PUT /v1/topics/{pattern}.';
    END IF;
    IF _declared.schemas > 0 THEN
        RAISE EXCEPTION 'the topic % has a schema, which only the server can check', quote_literal(check_admission.topic)
            USING ERRCODE = 'TW422', HINT = 'Write it over HTTP, or declare it with "in_sql": "unchecked".';
    END IF;
    IF coalesce(_consent, 'optional') = 'optional'
       OR check_admission.gdpr -> 'consent' IS NOT DISTINCT FROM 'true'::jsonb
       OR NOT EXISTS (SELECT FROM unnest(_topics) AS t(pattern) WHERE tidewire.topic_matches(check_admission.topic, t.pattern)) THEN
        RETURN false;
    END IF;
    IF _consent = 'require' THEN
        RAISE EXCEPTION 'the tenant takes no events without consent' USING ERRCODE = 'TW422', COLUMN = 'gdpr',
            HINT = 'Say so in the event: gdpr => ''{"consent": true}''.';
    END IF;
    RETURN true;
END
$fn$;
COMMENT ON FUNCTION tidewire.check_admission(text, text, jsonb) IS 'What a tenant''s settings have to say against an event; whether its data is withheld.';
