-- A UUIDv7 (RFC 9562): rises with time, so that the ids of new events stand together in the index.
CREATE OR REPLACE FUNCTION tidewire.new_id()
RETURNS text LANGUAGE sql VOLATILE PARALLEL SAFE
RETURN encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid())
    PLACING substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3) FROM 1 FOR 6),
    52, 1), 53, 1), 'hex')::uuid::text;
COMMENT ON FUNCTION tidewire.new_id() IS 'A new event id (UUIDv7).';
