-- Roles belong to the cluster, so an operator runs this file once (the embedded database does it by itself):
--   psql "$DATABASE_URL" -f sql/roles/roles.sql
-- Then: tidewire role create app --tenant acme --write
DO $do$
DECLARE
    _role name;
BEGIN
    -- writer: tidewire.append() for its own tenant · loader: INSERT and COPY for any tenant ·
    -- analyst: reads its own tenant's events · monitor: reads the log's state, no events.
    FOREACH _role IN ARRAY ARRAY['tidewire_writer', 'tidewire_loader', 'tidewire_analyst', 'tidewire_monitor'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles AS r WHERE r.rolname = _role) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', _role);
        END IF;
    END LOOP;
END
$do$;
