//! Brings a database up: migrations first, each once; definitions second, all of them, every time.
//!
//! # Invariants
//! - One process at a time (refinery takes no lock of its own); a dropped connection frees the lock.
//! - A second run changes nothing.

use tokio_postgres::Client;

use super::definitions::{DEFINITIONS, ROLES};
use super::requirements::{self, RequirementError, Versions};

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// The advisory lock under which one process at a time changes the schema.
const SCHEMA_LOCK: i64 = 0x7469_6465_0001;

/// Why the schema could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// The database lacks something.
    #[error(transparent)]
    Requirement(#[from] RequirementError),
    /// A migration failed; it was rolled back.
    #[error("a migration failed and was rolled back: {0}")]
    Migration(#[from] refinery::Error),
    /// A definition failed; all were rolled back.
    #[error("sql/{file} failed, and all definitions were rolled back: {source}")]
    Definition {
        /// The file.
        file: &'static str,
        /// The cause.
        source: tokio_postgres::Error,
    },
    /// The role may not create the schema.
    #[error(
        "this role may not create the schema tidewire: as the database's owner run GRANT CREATE ON DATABASE … TO …, or let a stronger role run `tidewire migrate` once"
    )]
    Permission,
    /// The schema is another version's.
    #[error("the schema is not this version's: run `tidewire migrate` (or leave --no-migrate out)")]
    NotMigrated,
    /// A query failed.
    #[error("the schema could not be applied: {0}")]
    Query(#[from] tokio_postgres::Error),
}

/// Applies migrations and definitions and records the log's life. Returns what was found.
///
/// # Errors
/// If the database lacks something or a statement fails.
pub async fn apply(client: &mut Client) -> Result<Versions, SchemaError> {
    client
        .execute("SELECT pg_advisory_lock($1)", &[&SCHEMA_LOCK])
        .await?;
    let versions = requirements::check(client).await?;
    client
        .batch_execute("SET client_min_messages = warning; CREATE SCHEMA IF NOT EXISTS tidewire")
        .await
        .map_err(|error| {
            if error.code() == Some(&tokio_postgres::error::SqlState::INSUFFICIENT_PRIVILEGE) {
                SchemaError::Permission
            } else {
                SchemaError::Query(error)
            }
        })?;
    embedded::migrations::runner()
        .set_migration_table_name("tidewire.schema_migrations")
        .run_async(client)
        .await?;
    let transaction = client.transaction().await?;
    for &(file, sql) in DEFINITIONS {
        transaction
            .batch_execute(sql)
            .await
            .map_err(|source| SchemaError::Definition { file, source })?;
    }
    transaction
        .execute("SELECT tidewire.begin_epoch(force => false)", &[])
        .await?;
    transaction.commit().await?;
    client
        .execute("SELECT tidewire.prepare_chunks()", &[])
        .await?;
    client
        .execute("SELECT pg_advisory_unlock($1)", &[&SCHEMA_LOCK])
        .await?;
    Ok(versions)
}

/// Creates the cluster's roles.
///
/// # Errors
/// If the connection's role may not.
pub async fn create_roles(client: &Client) -> Result<(), tokio_postgres::Error> {
    client.batch_execute(ROLES).await
}

/// Checks that the schema is the one this binary was built with, for a server that may not migrate.
///
/// # Errors
/// If it is not, or the database lacks something.
pub async fn verify(client: &Client) -> Result<Versions, SchemaError> {
    let versions = requirements::check(client).await?;
    let newest = embedded::migrations::runner()
        .get_migrations()
        .iter()
        .map(refinery::Migration::version)
        .max();
    let applied = client
        .query_opt(
            "SELECT max(version)::bigint FROM tidewire.schema_migrations",
            &[],
        )
        .await
        .ok()
        .flatten()
        .and_then(|row| row.get::<_, Option<i64>>(0));
    if applied == newest.map(i64::from) {
        Ok(versions)
    } else {
        Err(SchemaError::NotMigrated)
    }
}
