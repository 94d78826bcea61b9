//! The texts PostgreSQL is configured with, written anew at each start.
//!
//! # Invariants
//! - `fsync`, `full_page_writes` and `synchronous_commit` keep their defaults (on): an acknowledged
//!   event survives a power cut.
//! - What the server leans on (port, socket, authentication file) is given on the command line, where
//!   `ALTER SYSTEM` can't change it; the rest can be tuned with `ALTER SYSTEM`.
//! - No statement and no parameter is written to PostgreSQL's log: they hold tenants' data.

/// Role, superuser, and database of the server.
pub(super) const NAME: &str = "tidewire";

/// `postgresql.conf`: what `initdb` found out about the machine (the kind of shared memory that works
/// here), then our own. Time zone and languages are fixed, so that data directories can move.
pub(super) const CONFIG: &str = "\
# Written by tidewire at every start: change settings with ALTER SYSTEM, not here.
include 'postgres/postgresql.conf'

max_connections = 100
shared_buffers = 256MB
max_locks_per_transaction = 256
max_wal_size = 2GB
checkpoint_timeout = 10min
jit = off

shared_preload_libraries = 'timescaledb'
timescaledb.telemetry_level = off
timescaledb.max_background_workers = 8
max_worker_processes = 24

timezone = 'UTC'
datestyle = 'iso, ymd'
lc_messages = 'C'
default_text_search_config = 'pg_catalog.english'

log_timezone = 'UTC'
log_line_prefix = '%m [%p] '
log_min_messages = warning
log_min_error_statement = panic
log_checkpoints = off
log_autovacuum_min_duration = -1
";

/// `pg_hba.conf`: the socket's folder is the key to the socket; TCP wants the password.
pub(super) const HBA: &str = "\
# Written by tidewire at every start.
local all         tidewire               trust
local all         all                    scram-sha-256
host  all         all       127.0.0.1/32 scram-sha-256
";

/// Arguments of `initdb`: text sorts by code point, the same on every machine and C library.
pub(super) fn initdb_arguments(major: u32) -> Vec<&'static str> {
    let mut arguments = vec![
        "--username",
        NAME,
        "--encoding=UTF8",
        "--locale=C",
        "--no-instructions",
    ];
    if major >= 17 {
        // Upper and lower case beyond ASCII, still without the C library.
        arguments.extend(["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]);
    }
    arguments.extend(["--auth-local=peer", "--auth-host=scram-sha-256"]);
    arguments
}
