-- Whether a topic is one that the log keeps for itself.
CREATE OR REPLACE FUNCTION tidewire.is_reserved(topic text)
RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN is_reserved.topic = 'tidewire' OR starts_with(is_reserved.topic, 'tidewire.');
COMMENT ON FUNCTION tidewire.is_reserved(text) IS 'Whether a topic is one that the log keeps for itself (tidewire.…).';
