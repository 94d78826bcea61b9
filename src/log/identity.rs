//! What this log is: its id, its lives, and how far back it reaches.
//!
//! # Invariants
//! - Shared by all readers; replaced as a whole, so a reader sees one state of it.
//! - The beginning moves forward only.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use tokio_postgres::Client;
use uuid::Uuid;

use crate::event::cursor::CursorError;
use crate::event::{Cursor, LogIdentity, Position, Seq, Tenant};

const EPOCHS: &str = "SELECT epoch, after_seq FROM tidewire.epochs ORDER BY epoch";
const LOG: &str = "
    SELECT log_id, retained_seq, retained_at, extract(epoch FROM disorder_max)::bigint FROM tidewire.log";
const TENANTS: &str = "SELECT tenant, retained_seq, retained_at FROM tidewire.retained_tenants";
const BEGIN_EPOCH: &str = "SELECT tidewire.begin_epoch(force => false)";

/// Statements of this file, for the test that prepares each.
pub const STATEMENTS: &[&str] = &[EPOCHS, LOG, TENANTS, BEGIN_EPOCH];

/// One state of what is known of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Its id and lives.
    pub identity: LogIdentity,
    /// Retention has removed events up to here.
    pub retained: Position,
    /// Tenants whose own rules have removed events beyond that.
    pub tenants: HashMap<Tenant, Position>,
    /// Seconds that `recorded_at` may stand out of the order of places.
    pub disorder_s: i64,
}

impl Known {
    /// Retention has removed events of the tenant up to here.
    #[must_use]
    pub fn retained_of(&self, tenant: &Tenant) -> Position {
        let own = self.tenants.get(tenant);
        own.map_or(self.retained, |own| self.retained.max(*own))
    }
}

/// The state in force, shared.
#[derive(Debug, Clone)]
pub struct Identity(Arc<RwLock<Arc<Known>>>);

impl Identity {
    /// Reads it from the database, beginning a new life of the log if its history may have been cut.
    ///
    /// # Errors
    /// If the database does not answer, or the schema is not there.
    pub async fn load(client: &Client) -> Result<Self, tokio_postgres::Error> {
        client.execute(BEGIN_EPOCH, &[]).await?;
        Ok(Self(Arc::new(RwLock::new(Arc::new(read(client).await?)))))
    }

    /// Reads it again after a reconnect: the database behind the address may be another one now.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn reload(&self, client: &Client) -> Result<(), tokio_postgres::Error> {
        client.execute(BEGIN_EPOCH, &[]).await?;
        self.refresh(client).await
    }

    /// Reads it again, from time to time because retention moves the beginning.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn refresh(&self, client: &Client) -> Result<(), tokio_postgres::Error> {
        let known = Arc::new(read(client).await?);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = known;
        Ok(())
    }

    /// Takes note that the log begins there at the earliest: retention ran elsewhere.
    pub(super) fn begins_at(&self, retained: Position) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.retained.seq < retained.seq {
            *known = Arc::new(Known {
                retained,
                ..Known::clone(&known)
            });
        }
    }

    /// The same for a tenant, whose rules ran elsewhere.
    pub(super) fn tenant_begins_at(&self, tenant: &Tenant, retained: Position) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.retained_of(tenant).seq < retained.seq {
            let mut changed = Known::clone(&known);
            changed.tenants.insert(tenant.clone(), retained);
            *known = Arc::new(changed);
        }
    }

    /// The state in force.
    #[must_use]
    pub fn known(&self) -> Arc<Known> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The text of a position's cursor.
    #[must_use]
    pub fn encode(&self, position: Position) -> String {
        self.known().identity.encode(position)
    }

    /// Reads a cursor's text.
    ///
    /// # Errors
    /// If it is malformed or another log's.
    pub fn decode(&self, text: &str) -> Result<Cursor, CursorError> {
        self.known().identity.decode(text)
    }
}

async fn read(client: &Client) -> Result<Known, tokio_postgres::Error> {
    let mut epochs: Vec<(u16, Seq)> = Vec::new();
    for row in client.query(EPOCHS, &[]).await? {
        let epoch: i16 = row.try_get(0)?;
        epochs.push((u16::try_from(epoch).unwrap_or_default(), row.try_get(1)?));
    }
    let mut tenants = HashMap::new();
    for row in client.query(TENANTS, &[]).await? {
        if let Ok(tenant) = Tenant::parse(row.try_get(0)?) {
            tenants.insert(tenant, Position::new(row.try_get(1)?, row.try_get(2)?));
        }
    }
    let row = client.query_one(LOG, &[]).await?;
    let log_id: Uuid = row.try_get(0)?;
    Ok(Known {
        identity: LogIdentity {
            log_id: log_id.into_bytes(),
            epoch: epochs.last().map_or(0, |(epoch, _)| *epoch),
            epochs,
        },
        retained: Position::new(row.try_get(1)?, row.try_get(2)?),
        tenants,
        disorder_s: row.try_get(3)?,
    })
}
