//! What Tidewire demands of a database, and the sentence that says what is missing.

use tokio_postgres::Client;

/// Oldest PostgreSQL that is supported.
pub const POSTGRES_MIN: i32 = 15;
/// Newest PostgreSQL that is supported.
pub const POSTGRES_MAX: i32 = 18;
/// Oldest TimescaleDB: the first whose hypertables have triggers with transition tables.
pub const TIMESCALE_MIN: (u32, u32) = (2, 18);
const TIMESCALE_MIN_TEXT: &str = "2.18";

/// What a database lacks.
#[derive(Debug, thiserror::Error)]
pub enum RequirementError {
    /// Another PostgreSQL.
    #[error(
        "this is PostgreSQL {0}; Tidewire runs on PostgreSQL {POSTGRES_MIN} to {POSTGRES_MAX}: upgrade, or name another database in DATABASE_URL"
    )]
    PostgresVersion(String),
    /// The extension's files are not there.
    #[error(
        "this PostgreSQL has no TimescaleDB: install the timescaledb extension ({TIMESCALE_MIN_TEXT} or later) on the database server, or leave DATABASE_URL out to use the embedded database"
    )]
    NoTimescale,
    /// The extension is there, but not created.
    #[error(
        "TimescaleDB is installed on the server but not in this database, nor is Tidewire: run `tidewire migrate`"
    )]
    NotCreated,
    /// The same, and it may not be.
    #[error(
        "TimescaleDB is installed on the server but not in this database, and this role may not create it: as a superuser run CREATE EXTENSION timescaledb ({0})"
    )]
    MayNotCreate(String),
    /// The extension is there, but its library is not loaded.
    #[error(
        "TimescaleDB is installed on the server but not loaded: set shared_preload_libraries = 'timescaledb' in postgresql.conf, and start PostgreSQL again"
    )]
    NotPreloaded,
    /// An old extension.
    #[error(
        "this database has TimescaleDB {0}; Tidewire needs {TIMESCALE_MIN_TEXT} or later: ALTER EXTENSION timescaledb UPDATE"
    )]
    TimescaleVersion(String),
    /// A standby.
    #[error("this database is a standby (read-only): name the primary in DATABASE_URL")]
    Standby,
    /// A query failed.
    #[error("the database could not be examined: {0}")]
    Query(#[from] tokio_postgres::Error),
}

/// Versions found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versions {
    /// `17.11`.
    pub postgres: String,
    /// `2.19.3`.
    pub timescale: String,
    /// `apache` or `timescale` (the community edition).
    pub license: String,
}

const EXAMINE: &str = "
    SELECT current_setting('server_version_num')::int / 10000, current_setting('server_version'), pg_is_in_recovery(),
           (SELECT default_version FROM pg_available_extensions WHERE name = 'timescaledb'),
           (SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'),
           coalesce(current_setting('timescaledb.license', true), '')";

/// Examines the database, and creates the extension if it is there and may be created. One at a time.
///
/// # Errors
/// If something is missing.
pub async fn provide(client: &Client) -> Result<Versions, RequirementError> {
    match check(client).await {
        Err(RequirementError::NotCreated) => {
            client
                .batch_execute("CREATE EXTENSION IF NOT EXISTS timescaledb")
                .await
                .map_err(not_created)?;
            check(client).await
        }
        checked => checked,
    }
}

/// Examines the database.
///
/// # Errors
/// If something is missing.
pub async fn check(client: &Client) -> Result<Versions, RequirementError> {
    let row = client.query_one(EXAMINE, &[]).await?;
    let (major, postgres): (i32, String) = (row.try_get(0)?, row.try_get(1)?);
    if !(POSTGRES_MIN..=POSTGRES_MAX).contains(&major) {
        return Err(RequirementError::PostgresVersion(postgres));
    }
    if row.try_get(2)? {
        return Err(RequirementError::Standby);
    }
    let (available, installed): (Option<String>, Option<String>) =
        (row.try_get(3)?, row.try_get(4)?);
    let timescale = match (available, installed) {
        (_, Some(version)) => version,
        (None, None) => return Err(RequirementError::NoTimescale),
        (Some(_), None) => return Err(RequirementError::NotCreated),
    };
    if parse_version(&timescale) < TIMESCALE_MIN {
        return Err(RequirementError::TimescaleVersion(timescale));
    }
    Ok(Versions {
        postgres,
        timescale,
        license: row.try_get(5)?,
    })
}

/// The extension's own loader ends the connection where it is not preloaded.
fn not_created(error: tokio_postgres::Error) -> RequirementError {
    let Some(db) = error.as_db_error() else {
        return error.into();
    };
    if db.message().contains("must be preloaded") {
        RequirementError::NotPreloaded
    } else {
        RequirementError::MayNotCreate(db.message().to_owned())
    }
}

fn parse_version(text: &str) -> (u32, u32) {
    let mut parts = text.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        assert!(parse_version("2.9.1") < TIMESCALE_MIN);
        assert!(parse_version("2.18.0") >= TIMESCALE_MIN);
        assert!(parse_version("3.0-dev") >= TIMESCALE_MIN);
    }
}
