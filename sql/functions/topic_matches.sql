-- Whether a topic is one that a pattern stands for: * is one segment, a closing * one or more. The server's rule; a test
-- compares the two.
CREATE OR REPLACE FUNCTION tidewire.topic_matches(topic text, pattern text)
RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
RETURN (topic ~ ('^' || replace(regexp_replace(replace(pattern, '.', '\.'), '\*$', '.+'), '*', '[^.]+') || '$'))
   AND (NOT starts_with(topic, 'tidewire.') OR starts_with(pattern, 'tidewire.'));
COMMENT ON FUNCTION tidewire.topic_matches(text, text) IS 'Whether a topic is one that a topic pattern stands for.';
