//! Erasing people from history, and hearing that events were erased elsewhere.
//!
//! # Invariants
//! - A batch is a transaction of its own: a server that is killed has erased it or not, and whoever asks again goes on.
//! - A server hears within a second of what was erased, by a look every half second: neither a lost notification nor a
//!   transaction that holds the watermark back keeps it from that.
//! - The name of who was erased stands in no log line.

use std::time::Duration;

use tokio_postgres::{Client, IsolationLevel};

use super::error::{ReadError, Unavailable};
use super::read::History;
use crate::event::limits::DATABASE_SILENCE_MAX;
use crate::event::{Label, Position, Seq, Tenant};
use crate::pg::Connector;
use crate::tasks::pause;

const ERASE: &str = "
    SELECT erased, is_complete, through_seq, seq, recorded_at FROM tidewire.erase_subject($1, $2, $3)";
const FORGET_SAMPLES: &str = "SELECT tidewire.forget_samples($1)";
/// All of it, if the database is another one, whose numbers are smaller.
const ERASED_SINCE: &str = "
    SELECT t.tenant, t.through_seq, t.version FROM tidewire.erased_tenants AS t
     WHERE t.version > $1 OR $1 > (SELECT c.version FROM tidewire.erasure_changes AS c)
     ORDER BY t.version";

/// Statements of this file, for the test that prepares each.
pub const STATEMENTS: &[&str] = &[ERASE, FORGET_SAMPLES, ERASED_SINCE];

/// What was erased is looked for this often.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
const RECONNECT_INTERVAL: Duration = Duration::from_millis(250);

/// What a batch has erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Erased {
    /// Events that were changed.
    pub events: u64,
    /// Nothing is left of what had been committed when the erasure began.
    pub is_complete: bool,
    /// The last place that was changed: what servers hold of the tenant up to there they must forget.
    pub through: Option<Seq>,
    /// Where the log says so.
    pub told_at: Option<Position>,
}

impl History {
    /// Erases a subject, a batch a call, until it is complete. What is left of its name in the planner's samples goes with
    /// the last one.
    ///
    /// # Errors
    /// If the database cannot be asked, or another erasure or a vacuum is in the way for long.
    pub async fn erase(
        &self,
        tenant: &Tenant,
        subject: &Label,
        actor: &Label,
    ) -> Result<Erased, ReadError> {
        let mut client = self.at_length(tenant).await?;
        let work = async {
            let transaction = client
                .build_transaction()
                .isolation_level(IsolationLevel::ReadCommitted)
                .start()
                .await?;
            let params = [tenant.as_str(), subject.as_str(), actor.as_str()];
            let row = transaction
                .query_one(ERASE, &[&params[0], &params[1], &params[2]])
                .await?;
            transaction.commit().await?;
            let events: i64 = row.try_get(0)?;
            let told: (Option<Seq>, Option<_>) = (row.try_get(3)?, row.try_get(4)?);
            let erased = Erased {
                events: u64::try_from(events).unwrap_or_default(),
                is_complete: row.try_get(1)?,
                through: row.try_get(2)?,
                told_at: told.0.zip(told.1).map(|(seq, at)| Position::new(seq, at)),
            };
            if erased.is_complete {
                client.execute(FORGET_SAMPLES, &[&subject.as_str()]).await?;
            }
            Ok(erased)
        };
        let answered = tokio::time::timeout(DATABASE_SILENCE_MAX, work).await;
        client.settle(answered)
    }
}

/// Tells `sink` of every tenant of which events have been erased up to a place, for ever.
pub async fn watch(connector: Connector, mut sink: impl FnMut(&Tenant, Seq)) {
    let mut seen = -1_i64;
    loop {
        match connector.connect("erasures").await {
            Ok(client) => loop {
                let looked = look(&client, &mut seen, &mut sink);
                match tokio::time::timeout(DATABASE_SILENCE_MAX, looked).await {
                    Ok(Ok(())) => pause(LOOK_INTERVAL).await,
                    Ok(Err(error)) => {
                        tracing::debug!(%error, "erasures are looked for again in a moment");
                        break;
                    }
                    Err(_) => break,
                }
            },
            Err(error) => tracing::debug!(%error, "no connection for erasures"),
        }
        pause(RECONNECT_INTERVAL).await;
    }
}

async fn look(
    client: &Client,
    seen: &mut i64,
    sink: &mut impl FnMut(&Tenant, Seq),
) -> Result<(), Unavailable> {
    for row in client.query(ERASED_SINCE, &[&*seen]).await? {
        if let Ok(tenant) = Tenant::parse(row.try_get(0)?) {
            sink(&tenant, row.try_get(1)?);
        }
        *seen = row.try_get(2)?;
    }
    Ok(())
}
