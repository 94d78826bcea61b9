//! Consumers are paused and resumed: in the database, for whichever server runs them. `consume/runner.rs` looks at it before each
//! step.
//!
//! # Invariants
//! - Once a pause is answered no step is under way, and none begins: both hold the consumer's row.
//! - Neither moves a place, and neither is done without being told of in the log: both are one transaction.

use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio_postgres::IsolationLevel;
use tokio_postgres::types::ToSql;

use super::error::ReadError;
use super::read::History;
use crate::event::limits::DATABASE_SILENCE_MAX;
use crate::event::{Label, Position, Tenant};

/// Who paused it first stays named.
const PAUSE: &str = "
    UPDATE tidewire.consumers AS c
       SET paused_at = coalesce(c.paused_at, clock_timestamp()), paused_by = coalesce(c.paused_by, $2)
     WHERE c.name = $1
    RETURNING c.paused_at, c.paused_by";
const RESUME: &str = "
    UPDATE tidewire.consumers AS c SET paused_at = NULL, paused_by = NULL
     WHERE c.name = $1
    RETURNING c.paused_at, c.paused_by";

/// No further than the life of the log in which it came there is shared with this one.
const PLACE: &str = "
    SELECT least(c.seq, coalesce((SELECT min(e.after_seq) FROM tidewire.epochs AS e WHERE e.epoch > c.epoch), c.seq)),
           c.recorded_at, c.paused_at IS NOT NULL FROM tidewire.consumers AS c WHERE c.name = $1";

/// Whose doing it is, in their own log. Last: an open writer holds readers back, so it waits for nobody.
const TELL: &str = "
    INSERT INTO tidewire.events (tenant, id, topic, source, data)
    VALUES ($1, tidewire.new_id(), $2, $3,
            jsonb_build_object('by', $3::text, 'role', $4::text, 'did', jsonb_build_object('consumer', $5::text)))";

/// Statements of this file, for the test that prepares each.
pub const STATEMENTS: &[&str] = &[PAUSE, RESUME, PLACE, TELL];

/// Who pauses or resumes.
#[derive(Debug, Clone, Copy)]
pub struct By<'a> {
    /// In whose log it stands.
    pub tenant: &'a Tenant,
    /// By name.
    pub actor: &'a Label,
    /// And role.
    pub role: &'a str,
}

/// Whether a consumer goes on.
#[derive(Debug, Clone, Serialize)]
pub struct Paused {
    /// Since when it does not.
    pub paused_at: Option<DateTime<Utc>>,
    /// Whose doing that is.
    pub paused_by: Option<String>,
}

/// How far a consumer has come.
#[derive(Debug, Clone, Copy)]
pub struct Reached {
    /// All up to here is done, or is none of its business.
    pub position: Position,
    /// It takes no step.
    pub is_paused: bool,
}

impl History {
    /// How far a consumer has come; none if there is none of this name.
    ///
    /// # Errors
    /// If the database cannot be asked.
    pub async fn consumer(
        &self,
        tenant: &Tenant,
        name: &str,
    ) -> Result<Option<Reached>, ReadError> {
        let client = self.briefly(tenant).await?;
        let work = async {
            let row = client.query_opt(PLACE, &[&name]).await?;
            let Some(row) = row else {
                return Ok(None);
            };
            Ok(Some(Reached {
                position: Position::new(row.try_get(0)?, row.try_get(1)?),
                is_paused: row.try_get(2)?,
            }))
        };
        let answered = tokio::time::timeout(DATABASE_SILENCE_MAX, work).await;
        client.settle(answered)
    }

    /// Pauses a consumer, or lets it go on, and says so in the log; none if there is none of this name. Waits for the step that it
    /// takes now.
    ///
    /// # Errors
    /// If the database cannot be asked.
    pub async fn pause_consumer(
        &self,
        by: By<'_>,
        name: &str,
        is_to_pause: bool,
    ) -> Result<Option<Paused>, ReadError> {
        let mut client = self.briefly(by.tenant).await?;
        let work = async {
            let (tenant, actor) = (by.tenant.as_str(), by.actor.as_str());
            let transaction = client
                .build_transaction()
                .isolation_level(IsolationLevel::ReadCommitted)
                .start()
                .await?;
            let (row, topic) = if is_to_pause {
                let row = transaction.query_opt(PAUSE, &[&name, &actor]).await?;
                (row, "tidewire.audit.admin.consumer.paused")
            } else {
                let row = transaction.query_opt(RESUME, &[&name]).await?;
                (row, "tidewire.audit.admin.consumer.resumed")
            };
            let Some(row) = row else {
                return Ok(None);
            };
            let told: [&(dyn ToSql + Sync); 5] = [&tenant, &topic, &actor, &by.role, &name];
            transaction.execute(TELL, &told).await?;
            transaction.commit().await?;
            Ok(Some(Paused {
                paused_at: row.try_get(0)?,
                paused_by: row.try_get(1)?,
            }))
        };
        let answered = tokio::time::timeout(DATABASE_SILENCE_MAX, work).await;
        client.settle(answered)
    }
}
