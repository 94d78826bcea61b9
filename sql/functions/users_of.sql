-- Who else holds a lock on a relation, as a text for a message: process, application, state.
CREATE OR REPLACE FUNCTION tidewire.users_of(relation regclass)
RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $fn$
    SELECT coalesce(string_agg(format('%s (%s, %s)', coalesce('process ' || u.pid, 'a prepared transaction'),
                                      coalesce(nullif(a.application_name, ''), 'without a name'),
                                      coalesce(a.state, a.backend_type, 'of another role')), ', '), 'another transaction')
      FROM (SELECT DISTINCT l.pid FROM pg_locks AS l
             WHERE l.locktype = 'relation' AND l.granted AND l.pid IS DISTINCT FROM pg_backend_pid()
               AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
               AND l.relation = users_of.relation) AS u
      LEFT JOIN pg_stat_activity AS a ON a.pid = u.pid;
$fn$;
COMMENT ON FUNCTION tidewire.users_of(regclass) IS 'Who else holds a lock on a relation, for a message.';
