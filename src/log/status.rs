//! What the database says of itself and of the log, for `/v1/status`.

use std::time::SystemTime;

use serde::Serialize;
use tokio_postgres::{Error, Row};

use super::error::ReadError;
use super::read::History;
use crate::event::Tenant;
use crate::event::limits::DATABASE_SILENCE_MAX;
use crate::telemetry::DatabaseMetrics;

const DATABASE: &str = "
    SELECT current_setting('server_version'), (SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'),
           coalesce(current_setting('timescaledb.license', true), ''), pg_notification_queue_usage(),
           extract(epoch FROM clock_timestamp())::float8,
           coalesce(pg_sequence_last_value('tidewire.events_clock'::regclass) / 1000.0
                    - extract(epoch FROM clock_timestamp()), 0)::float8";
/// Counted only as far as it matters. Rows are taken in the order of the table: among the first is the oldest, or nearly.
const UNAUDITED: &str = "
    SELECT count(*), coalesce(extract(epoch FROM clock_timestamp() - min(s.appended_at)), 0)::float8
      FROM (SELECT a.appended_at FROM tidewire.sql_appends AS a LIMIT $1) AS s";
const HOLDER: &str = "
    SELECT w.pid, w.application_name, w.state, extract(epoch FROM clock_timestamp() - w.began_at)::float8, r.tenant
      FROM tidewire.writers AS w LEFT JOIN tidewire.tenant_roles AS r ON r.role = w.role ORDER BY w.floor LIMIT 1";

/// Some are enough: whoever takes one may take many.
const UNDUE: &str = "SELECT u.purpose, u.pid FROM tidewire.undue_locks() AS u LIMIT 10";

/// Statements of this file, for the test that prepares each.
pub const STATEMENTS: &[&str] = &[DATABASE, HOLDER, UNAUDITED, UNDUE];

/// Statements in SQL that wait for the audit are counted up to this many.
const UNAUDITED_MAX: i64 = 10_000;

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
    /// How far its clock is ahead of this machine's.
    pub clock_ahead_s: f64,
    /// How far its clock stands behind that of the newest events, to a minute; 0 unless it went back.
    pub clock_behind_s: f64,
    /// What was appended in SQL and is not in the audit yet.
    pub unaudited: Unaudited,
    /// Advisory locks of the log that somebody holds who is not at its work, up to ten.
    #[serde(skip)]
    pub undue_locks: Vec<UndueLock>,
}

/// An advisory lock of the log that somebody holds who is not at its work (`sql/functions/undue_locks.sql`).
#[derive(Debug, Clone)]
pub struct UndueLock {
    /// What it stands for.
    pub purpose: String,
    /// Who holds it; absent for a prepared transaction.
    pub pid: Option<i32>,
}

/// What was appended in SQL and is not in the audit yet.
#[derive(Debug, Clone, Serialize)]
pub struct Unaudited {
    /// Statements, a topic each; 10,000 stands for that many or more.
    pub statements: i64,
    /// How long the oldest has waited.
    pub oldest_s: f64,
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
    /// The tenant whose role it is.
    #[serde(skip)]
    owner: Option<String>,
}

impl Holder {
    /// The tenant whose role it is; none if it is no tenant's.
    #[must_use]
    pub fn owner(&self) -> Option<&str> {
        self.owner.as_deref()
    }

    /// What another tenant may see of it: a tenant's role names its application as it likes.
    #[must_use]
    pub fn without_name(self) -> Self {
        let application = self.application.filter(|_| self.owner.is_none());
        Self {
            application,
            ..self
        }
    }
}

impl History {
    /// Counts its connections.
    pub fn measure(&self, metrics: &DatabaseMetrics) {
        let pool = self.pool().status();
        let whole = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        metrics.pool_idle.set(whole(pool.available));
        let in_use = pool.size.saturating_sub(pool.available);
        metrics.pool_in_use.set(whole(in_use));
        // Each turn has its connection: who waits does so for a turn.
        metrics
            .pool_waiting
            .set(whole(pool.waiting.saturating_add(self.places.waiting())));
    }
}

/// Asks the database, on behalf of somebody of this tenant, who sees what it may.
///
/// # Errors
/// If it does not answer, or too many of the tenant wait.
pub async fn ask(
    history: &History,
    tenant: &Tenant,
) -> Result<(Database, Option<Holder>), ReadError> {
    let (database, holder) = look(history, tenant).await?;
    let seen = |holder: Holder| {
        if holder.owner() == Some(tenant.as_str()) {
            holder
        } else {
            holder.without_name()
        }
    };
    Ok((database, holder.map(seen)))
}

/// Asks the database in this tenant's turn: whoever shows the holder has to see to what it shows to whom.
///
/// # Errors
/// As [`ask`].
pub async fn look(
    history: &History,
    tenant: &Tenant,
) -> Result<(Database, Option<Holder>), ReadError> {
    let client = history.briefly(tenant).await?;
    let work = async {
        let row = client.query_one(DATABASE, &[]).await?;
        let unaudited = client.query_one(UNAUDITED, &[&UNAUDITED_MAX]).await?;
        let undue = client.query(UNDUE, &[]).await?;
        let undue_lock = |row: &Row| {
            Ok::<_, Error>(UndueLock {
                purpose: row.try_get(0)?,
                pid: row.try_get(1)?,
            })
        };
        let database = Database {
            postgres: row.try_get(0)?,
            timescaledb: row.try_get(1)?,
            timescaledb_license: row.try_get(2)?,
            notification_queue_usage: row.try_get(3)?,
            clock_ahead_s: row.try_get::<_, f64>(4)? - here(),
            clock_behind_s: row.try_get::<_, f64>(5)?.max(0.0),
            unaudited: Unaudited {
                statements: unaudited.try_get(0)?,
                oldest_s: unaudited.try_get(1)?,
            },
            undue_locks: undue.iter().map(undue_lock).collect::<Result<_, _>>()?,
        };
        let holder = match client.query_opt(HOLDER, &[]).await? {
            Some(row) => Some(Holder {
                pid: row.try_get(0)?,
                application: row.try_get(1)?,
                state: row.try_get(2)?,
                open_s: row.try_get(3)?,
                owner: row.try_get(4)?,
            }),
            None => None,
        };
        Ok::<_, ReadError>((database, holder))
    };
    let answered = tokio::time::timeout(DATABASE_SILENCE_MAX, work).await;
    client.settle(answered)
}

/// Seconds since 1970, by this machine's clock.
fn here() -> f64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}
