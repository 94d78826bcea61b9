//! Brings a database up: migrations first, each once; definitions second, those that the database has not.
//!
//! # Invariants
//! - One process at a time (refinery takes no lock of its own); a dropped connection frees the lock.
//! - A second run changes nothing, and takes no lock on the log.
//! - Each change is a short transaction of its own that gives way to whoever holds what it needs (`attempts.rs`).

use std::time::Duration;

use tokio_postgres::Client;

use super::applied::{self, Definition};
use super::attempts::{Attempts, Needs, lacks_a_lock};
use super::definitions::{LOCKS_CLOSED, ROLES, TIMESCALE_CLOSED};
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
    /// A definition failed; it was rolled back.
    #[error("sql/{file} failed and was rolled back: {source}")]
    Definition {
        /// The file.
        file: &'static str,
        /// The cause.
        source: tokio_postgres::Error,
    },
    /// Others hold what a change needs, and have not let go in time.
    #[error(
        "{what} could not be applied within {waited_s} s, because of {in_the_way}: end it (SELECT pg_terminate_backend(<process>)) or wait until it is over, and start again"
    )]
    InTheWay {
        /// The migrations, or a file.
        what: String,
        /// Who, as far as can be seen.
        in_the_way: String,
        /// How long it was tried.
        waited_s: u64,
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

/// How to bring a database up.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Definitions that are recorded as applied as well, which somebody may have changed by hand.
    pub everything: bool,
    /// How long to wait for others in all.
    pub patience: Duration,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            everything: false,
            patience: Duration::from_mins(1),
        }
    }
}

/// A change: definitions and a statement after them, in one transaction.
struct Step {
    what: String,
    needs: Needs,
    definitions: Vec<Definition>,
    then: &'static str,
}

/// Everybody may call a new function until this: it does not wait for the grants.
const CLOSE_FUNCTIONS: &str = "REVOKE ALL ON ALL FUNCTIONS IN SCHEMA tidewire FROM PUBLIC";
const BEGIN_EPOCH: &str = "SELECT tidewire.begin_epoch(force => false)";
const PREPARE_CHUNKS: &str = "SELECT tidewire.prepare_chunks()";

/// Applies migrations and definitions and records the log's life. Returns what was found.
///
/// # Errors
/// If the database lacks something, others hold what a change needs, or a statement fails.
pub async fn apply(client: &mut Client, plan: Plan) -> Result<Versions, SchemaError> {
    client
        .execute("SELECT pg_advisory_lock($1)", &[&SCHEMA_LOCK])
        .await?;
    let mut attempts = Attempts::within(plan.patience);
    let versions = requirements::provide(client).await?;
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
    migrate(client, &mut attempts).await?;
    for step in steps(applied::missing(client, plan.everything).await?) {
        while let Err(error) = attempt(client, attempts.lock_timeout_ms(), &step).await {
            attempts
                .again(client, &step.what, step.needs, error)
                .await?;
        }
    }
    let prepared = client.execute(PREPARE_CHUNKS, &[]).await;
    if let Err(error) = prepared.map_err(SchemaError::Query) {
        if !lacks_a_lock(&error) {
            return Err(error);
        }
        // Writers then make it themselves, and servers try again every half a minute.
        tracing::warn!("a chunk could not be made ahead: another transaction is in the way");
    }
    client
        .execute("SELECT pg_advisory_unlock($1)", &[&SCHEMA_LOCK])
        .await?;
    Ok(versions)
}

/// Runs the migrations that the database has not. Each is a transaction, so those before one that failed stay.
async fn migrate(client: &mut Client, attempts: &mut Attempts) -> Result<(), SchemaError> {
    loop {
        let lock_timeout = format!("SET lock_timeout = {}", attempts.lock_timeout_ms());
        client.batch_execute(&lock_timeout).await?;
        let migrated = embedded::migrations::runner()
            .set_migration_table_name("tidewire.schema_migrations")
            .run_async(client)
            .await;
        client.batch_execute("RESET lock_timeout").await?;
        match migrated {
            Ok(_) => return Ok(()),
            Err(error) => {
                let error = SchemaError::Migration(error);
                attempts
                    .again(client, "a migration", Needs::ANY, error)
                    .await?;
            }
        }
    }
}

/// All functions in one transaction, since they call each other and lock no table. Triggers, views and grants one by one,
/// so that none waits while another's locks are held. The grants last.
fn steps(definitions: Vec<Definition>) -> Vec<Step> {
    let (functions, others): (Vec<_>, Vec<_>) = definitions
        .into_iter()
        .partition(|definition| definition.folder() == "functions");
    let mut steps = Vec::new();
    if !functions.is_empty() {
        steps.push(Step {
            what: "sql/functions".to_owned(),
            needs: Needs::ANY,
            definitions: functions,
            then: CLOSE_FUNCTIONS,
        });
    }
    for definition in others {
        let relation = Some(definition.name());
        steps.push(Step {
            what: format!("sql/{}", definition.file),
            needs: match definition.folder() {
                "triggers" => Needs {
                    relation,
                    from_readers: false,
                },
                "views" => Needs {
                    relation,
                    from_readers: true,
                },
                _ => Needs::ANY,
            },
            definitions: vec![definition],
            then: "",
        });
    }
    steps.push(Step {
        what: "a new life of the log".to_owned(),
        needs: Needs::ANY,
        definitions: Vec::new(),
        then: BEGIN_EPOCH,
    });
    steps
}

async fn attempt(
    client: &mut Client,
    lock_timeout_ms: u64,
    step: &Step,
) -> Result<(), SchemaError> {
    let transaction = client.transaction().await?;
    let lock_timeout = format!("SET LOCAL lock_timeout = {lock_timeout_ms}");
    transaction.batch_execute(&lock_timeout).await?;
    for definition in &step.definitions {
        transaction
            .batch_execute(definition.text)
            .await
            .map_err(|source| SchemaError::Definition {
                file: definition.file,
                source,
            })?;
        definition.record(&transaction).await?;
    }
    transaction.batch_execute(step.then).await?;
    Ok(transaction.commit().await?)
}

/// Creates the cluster's roles.
///
/// # Errors
/// If the connection's role may not.
pub async fn create_roles(client: &Client) -> Result<(), tokio_postgres::Error> {
    client.batch_execute(ROLES).await
}

/// Closes what TimescaleDB and PostgreSQL leave open to everybody who may connect (see the two files).
///
/// # Errors
/// If the connection's role may not, or there is no log.
pub async fn close_to_others(client: &Client) -> Result<(), tokio_postgres::Error> {
    client.batch_execute(TIMESCALE_CLOSED).await?;
    client.batch_execute(LOCKS_CLOSED).await
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
