-- The first number of the two-number advisory locks that carry floors ("tide" in ASCII), so that an application's own
-- advisory locks cannot pass for one.
CREATE OR REPLACE FUNCTION tidewire.floor_class()
RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN 1953064037;
