//! What the database says of itself and of the log, for `/v1/status`.

use serde::Serialize;

use super::error::ReadError;
use super::read::History;
use crate::event::Tenant;
use crate::event::limits::DATABASE_SILENCE_MAX;

const DATABASE: &str = "
    SELECT current_setting('server_version'), (SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'),
           coalesce(current_setting('timescaledb.license', true), ''), pg_notification_queue_usage()";
const HOLDER: &str = "
    SELECT w.pid, CASE WHEN coalesce(r.tenant, $1) = $1 THEN w.application_name END, w.state,
           extract(epoch FROM clock_timestamp() - w.began_at)::float8
      FROM tidewire.writers AS w LEFT JOIN tidewire.tenant_roles AS r ON r.role = w.role ORDER BY w.floor LIMIT 1";

/// Statements of this file, for the test that prepares each.
pub const STATEMENTS: &[&str] = &[DATABASE, HOLDER];

/// The database behind the log.
#[derive(Debug, Clone, Serialize)]
pub struct Database {
    /// PostgreSQL's version.
    pub postgres: String,
    /// TimescaleDB's version.
    pub timescaledb: Option<String>,
    /// Its edition: `apache` or `timescale`.
    pub timescaledb_license: String,
    /// How full the NOTIFY queue is, from 0 to 1.
    pub notification_queue_usage: f64,
}

/// The transaction that holds the watermark back.
#[derive(Debug, Clone, Serialize)]
pub struct Holder {
    /// Its backend; absent for a prepared transaction.
    pub pid: Option<i32>,
    /// The name its application gave; absent for another tenant's.
    pub application: Option<String>,
    /// `idle in transaction`, `active`.
    pub state: Option<String>,
    /// How long it has been open.
    pub open_s: Option<f64>,
}

/// Asks the database, on behalf of somebody of this tenant.
///
/// # Errors
/// If it does not answer, or too many of the tenant wait.
pub async fn ask(
    history: &History,
    tenant: &Tenant,
) -> Result<(Database, Option<Holder>), ReadError> {
    let client = history.briefly(tenant).await?;
    let work = async {
        let row = client.query_one(DATABASE, &[]).await?;
        let database = Database {
            postgres: row.try_get(0)?,
            timescaledb: row.try_get(1)?,
            timescaledb_license: row.try_get(2)?,
            notification_queue_usage: row.try_get(3)?,
        };
        let holder = match client.query_opt(HOLDER, &[&tenant.as_str()]).await? {
            Some(row) => Some(Holder {
                pid: row.try_get(0)?,
                application: row.try_get(1)?,
                state: row.try_get(2)?,
                open_s: row.try_get(3)?,
            }),
            None => None,
        };
        Ok::<_, ReadError>((database, holder))
    };
    let answered = tokio::time::timeout(DATABASE_SILENCE_MAX, work).await;
    client.settle(answered)
}
