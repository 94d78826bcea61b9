-- Which of a tenant's rules of retention counts for each of these topics: of those that stand for it the most exact one; for topics
-- under tidewire. only rules that begin so. Each topic is given once; those that no rule stands for are left out.
--
-- Not by topic_regex: PostgreSQL keeps 32 compiled expressions, and compiles the others anew at each match (100 rules and 5,000
-- topics took 19 s). Rules of one shape, with words and stars at the same places, are tried at once: a topic's words and the shape's
-- stars make the one pattern of that shape that can stand for it, and either there is such a rule or not. What it costs depends on the
-- number of shapes, not on that of rules: for 5,000 topics some ms a shape.
--
-- In the snapshot of the statement that calls it.
CREATE OR REPLACE FUNCTION tidewire.rules_by_topic(tenant text, topics text[])
RETURNS TABLE (topic text, pattern text, days integer)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $fn$
#variable_conflict use_column
DECLARE
    _patterns text[];
    _days     integer[];
    _places   jsonb;
BEGIN
    -- By place: the most exact first. In variables, so that no plan compares each topic with each rule.
    SELECT array_agg(r.pattern ORDER BY r.place), array_agg(r.days ORDER BY r.place), jsonb_object_agg(r.pattern, r.place)
      INTO _patterns, _days, _places
      FROM (SELECT o.pattern, o.days, row_number() OVER (ORDER BY o.specificity DESC, o.pattern) AS place
              FROM tidewire.retention_rules AS o WHERE o.tenant = rules_by_topic.tenant) AS r;
    RETURN QUERY
    WITH split AS MATERIALIZED (
        SELECT t.topic, w.words, cardinality(w.words) AS size FROM unnest(rules_by_topic.topics) AS t(topic)
         CROSS JOIN LATERAL (SELECT string_to_array(t.topic, '.') AS words OFFSET 0) AS w
    ), shape AS MATERIALIZED (
        -- As tidewire.retention_rules.specificity has it: ~ a word, ! a star, a blank the closing star.
        SELECT m.marks, cardinality(m.marks) AS size, m.marks[cardinality(m.marks)] = ' ' AS is_open
          FROM (SELECT DISTINCT string_to_array(o.specificity, NULL) AS marks FROM tidewire.retention_rules AS o
                 WHERE o.tenant = rules_by_topic.tenant) AS m
    ), tried AS (
        SELECT s.topic, concat_ws('.',   -- NULL, beyond the shape's end, is left out.
                   CASE WHEN h.marks[1] = '~' THEN s.words[1] WHEN h.size >= 1 THEN '*' END,
                   CASE WHEN h.marks[2] = '~' THEN s.words[2] WHEN h.size >= 2 THEN '*' END,
                   CASE WHEN h.marks[3] = '~' THEN s.words[3] WHEN h.size >= 3 THEN '*' END,
                   CASE WHEN h.marks[4] = '~' THEN s.words[4] WHEN h.size >= 4 THEN '*' END,
                   CASE WHEN h.marks[5] = '~' THEN s.words[5] WHEN h.size >= 5 THEN '*' END,
                   CASE WHEN h.marks[6] = '~' THEN s.words[6] WHEN h.size >= 6 THEN '*' END,
                   CASE WHEN h.marks[7] = '~' THEN s.words[7] WHEN h.size >= 7 THEN '*' END,
                   CASE WHEN h.marks[8] = '~' THEN s.words[8] WHEN h.size >= 8 THEN '*' END) AS pattern
          FROM shape AS h JOIN split AS s ON s.size = h.size OR (h.is_open AND s.size > h.size)
        OFFSET 0
    ), best AS (
        SELECT t.topic, min((_places -> t.pattern)::integer) AS place FROM tried AS t
         WHERE starts_with(t.pattern, 'tidewire.') OR NOT starts_with(t.topic, 'tidewire.')
         GROUP BY t.topic
    )
    SELECT b.topic, _patterns[b.place], _days[b.place] FROM best AS b WHERE b.place IS NOT NULL;
END
$fn$;
COMMENT ON FUNCTION tidewire.rules_by_topic(text, text[]) IS
    'Which of a tenant''s retention rules counts for each topic; for tidewire.find_due() and tidewire.lost_by_rules().';
