-- Open transactions that have written events, the one that holds the watermark back first.
CREATE OR REPLACE VIEW tidewire.writers AS
SELECT l.pid, a.application_name, a.usename AS role, a.state, a.xact_start AS began_at, a.wait_event,
       n.newest - ((n.newest - l.objid::bigint) & 4294967295) AS floor
  FROM pg_locks AS l
  CROSS JOIN LATERAL (SELECT pg_sequence_last_value('tidewire.events_seq'::regclass) AS newest) AS n
  LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
 WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.granted
   AND l.classid = tidewire.floor_class()::oid
   AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
 ORDER BY floor;
COMMENT ON VIEW tidewire.writers IS
    'Open transactions that have written events; readers stop below the lowest floor.';
