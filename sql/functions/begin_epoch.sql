-- Begins a new life of the log if the database is not the one the last life was recorded on: another cluster (restored
-- dump, pg_upgrade), another timeline (point-in-time recovery, failover), another database or another table (a dump
-- restored within the cluster, a copied database). Its history may have been cut, so cursors of the earlier life stay
-- valid only up to the newest event there is now; those beyond are answered with "unknown".
-- With force it begins one in any case, for an operator who has repaired the log or its clock.
-- Returns the epoch in force.
CREATE OR REPLACE FUNCTION tidewire.begin_epoch(reason text DEFAULT 'asked for', force boolean DEFAULT true)
RETURNS smallint LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $fn$
DECLARE
    _system   bigint := (SELECT s.system_identifier FROM pg_control_system() AS s);
    -- The first eight digits of a WAL file's name are its timeline; the control file lags until the next checkpoint.
    _timeline integer := ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer;
    _database oid := (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database());
    _events   oid := 'tidewire.events'::regclass;
    _current  tidewire.epochs;
    _newest   bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(1953064034, 2);
    SELECT e.* INTO _current FROM tidewire.epochs AS e ORDER BY e.epoch DESC LIMIT 1;
    IF _current.epoch IS NOT NULL AND NOT begin_epoch.force
       AND _current.system_identifier = _system AND _current.timeline = _timeline
       AND _current.database_oid = _database AND _current.events_oid = _events THEN
        RETURN _current.epoch;
    END IF;
    SELECT coalesce(max(e.seq), 0) INTO _newest FROM tidewire.events AS e;
    IF begin_epoch.force THEN
        PERFORM setval('tidewire.events_clock', (extract(epoch FROM clock_timestamp()) * 1000)::bigint);
    END IF;
    INSERT INTO tidewire.epochs AS e (epoch, after_seq, system_identifier, timeline, database_oid, events_oid, reason)
    VALUES (coalesce(_current.epoch, 0) + 1, _newest, _system, _timeline, _database, _events,
            CASE WHEN _current.epoch IS NULL THEN 'created'
                 WHEN begin_epoch.force THEN begin_epoch.reason
                 WHEN _current.system_identifier <> _system THEN 'another cluster: restored or upgraded'
                 WHEN _current.timeline <> _timeline THEN 'another timeline: recovered or failed over'
                 ELSE 'another database or table: restored or copied' END);
    RETURN coalesce(_current.epoch, 0) + 1;
END
$fn$;
COMMENT ON FUNCTION tidewire.begin_epoch(text, boolean) IS 'Begins a new life of the log: cursors beyond its newest event become unknown.';
