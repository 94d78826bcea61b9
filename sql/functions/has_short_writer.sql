-- Whether a transaction that is likely to end soon may still commit an event with a place below this one: a writer of less
-- than 200 ms. Not those that hold a subject (sql/functions/append_many.sql): two that expect would wait for each other.
-- A role that may not see when others' transactions began (pg_read_all_stats) is told of its own only.
CREATE OR REPLACE FUNCTION tidewire.has_short_writer(below bigint)
RETURNS boolean LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$
WITH held AS MATERIALIZED (
    SELECT l.pid, l.classid::bigint AS class, l.objid::bigint AS low
      FROM pg_locks AS l
     WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.granted AND l.pid <> pg_backend_pid()
       AND l.classid::bigint IN (tidewire.floor_class(), 1953064035)
       AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
)
SELECT EXISTS (
    SELECT FROM held AS f JOIN pg_stat_activity AS a ON a.pid = f.pid
     WHERE f.class = tidewire.floor_class()
       -- As in tidewire.watermark(): the floor, seen from the place.
       AND ((has_short_writer.below - f.low) & 4294967295) BETWEEN 1 AND 2147483648
       AND a.xact_start > clock_timestamp() - interval '200 ms'
       AND NOT EXISTS (SELECT FROM held AS s WHERE s.pid = f.pid AND s.class = 1953064035));
$fn$;
COMMENT ON FUNCTION tidewire.has_short_writer(bigint) IS
    'Whether a transaction of less than 200 ms may still commit an event below this place.';
