//! What the database knows of tokens that were revoked.
//!
//! # Invariants
//! - The only place that reads or writes them. What stands there is read back with care: what names no tenant or claim
//!   revokes nothing.
//! - Statements name the tenant wherever a caller could name somebody else's row.

use chrono::{DateTime, Utc};
use tokio_postgres::{Client, Row};

use super::ledger::{LIST_MAX, LedgerError};
use super::revoked::{Claim, Revocation, Revoked};
use crate::event::{Label, Tenant};

/// Revocations of a tenant's tokens that are kept at once.
pub const REVOCATIONS_MAX: i64 = 10_000;

/// A revocation is in force for an hour beyond its `until`: servers' clocks differ, and a token is good for some time after
/// its end (`--jwt-leeway-s`). As long as `tidewire.announce_credential_change()` says.
const REVOKED: &str = "
    SELECT tenant, claim, value, revoked_at FROM tidewire.revoked_tokens
     WHERE until IS NULL OR until > now() - interval '1 hour'";
/// Again: from now on, and for longer, never for less.
const REVOKE_TOKENS: &str = "
    INSERT INTO tidewire.revoked_tokens AS r (tenant, claim, value, revoked_by, until)
    SELECT $1, $2, $3, $4, $5
     WHERE (SELECT count(*) FROM tidewire.revoked_tokens AS o WHERE o.tenant = $1
               AND (o.until IS NULL OR o.until > now() - interval '1 hour')) < $6
        ON CONFLICT (tenant, claim, value) DO UPDATE
        SET revoked_at = now(), revoked_by = excluded.revoked_by,
            until = CASE WHEN r.until IS NOT NULL AND excluded.until IS NOT NULL THEN greatest(r.until, excluded.until) END
    RETURNING revoked_at";
const LIST_REVOKED: &str = "
    SELECT claim, value, revoked_at, revoked_by, NULLIF(until, 'infinity') FROM tidewire.revoked_tokens
     WHERE tenant = $1 AND (until IS NULL OR until > now() - interval '1 hour') AND ($3::text IS NULL OR (claim = 'sub' AND value = $3))
     ORDER BY revoked_at DESC, claim, value LIMIT $2";
/// Long after they have ended: nobody asks about them.
const FORGET_REVOKED: &str = "
    DELETE FROM tidewire.revoked_tokens AS r
     WHERE r.ctid = ANY (ARRAY(
        SELECT o.ctid FROM tidewire.revoked_tokens AS o
         WHERE o.until < now() - interval '1 day' ORDER BY o.until LIMIT $1 FOR UPDATE SKIP LOCKED))";

/// Statements of this file, for the test that prepares each.
pub const STATEMENTS: &[&str] = &[REVOKED, REVOKE_TOKENS, LIST_REVOKED, FORGET_REVOKED];

/// Tokens that were revoked, as their tenant's administrators see them.
#[derive(Debug, Clone, serde::Serialize)]
pub struct ListedRevocation {
    /// `jti` or `sub`.
    pub claim: String,
    /// Its value.
    pub value: String,
    /// When, and by whom.
    pub revoked_at: DateTime<Utc>,
    /// See `revoked_at`.
    pub revoked_by: String,
    /// When the last of these tokens ends by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<DateTime<Utc>>,
}

/// All tokens that were revoked and might still be shown.
pub(super) async fn revoked(client: &Client) -> Result<Revoked, LedgerError> {
    let mut revoked = Revoked::default();
    for row in client.query(REVOKED, &[]).await? {
        let (tenant, claim, value): (&str, &str, &str) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        // A time that is none, as `infinity`: all of these tokens.
        let at = row.try_get(3).unwrap_or(DateTime::<Utc>::MAX_UTC);
        if let (Ok(tenant), Some(claim)) = (Tenant::parse(tenant), Claim::parse(claim)) {
            revoked.add(tenant, claim, value, at);
        }
    }
    Ok(revoked)
}

/// Revokes tokens of the tenant.
pub(super) async fn revoke_tokens(
    client: &Client,
    tenant: &Tenant,
    revocation: &Revocation,
    by: &str,
) -> Result<DateTime<Utc>, LedgerError> {
    let claim = revocation.claim.as_str();
    let row = client
        .query_opt(
            REVOKE_TOKENS,
            &[
                &tenant.as_str(),
                &claim,
                &revocation.value.as_str(),
                &by,
                &revocation.until,
                &REVOCATIONS_MAX,
            ],
        )
        .await?;
    Ok(row
        .ok_or(LedgerError::TooMany(REVOCATIONS_MAX))?
        .try_get(0)?)
}

/// The tenant's revocations, the newest first; [`LIST_MAX`] at most. With a subject: that of its tokens.
pub(super) async fn list_revoked(
    client: &Client,
    tenant: &Tenant,
    subject: Option<&Label>,
) -> Result<Vec<ListedRevocation>, LedgerError> {
    let rows = client
        .query(
            LIST_REVOKED,
            &[&tenant.as_str(), &LIST_MAX, &subject.map(Label::as_str)],
        )
        .await?;
    let listed = |row: &Row| {
        Ok(ListedRevocation {
            claim: row.try_get(0)?,
            value: row.try_get(1)?,
            revoked_at: row.try_get(2).unwrap_or(DateTime::<Utc>::MAX_UTC),
            revoked_by: row.try_get(3)?,
            until: row.try_get(4)?,
        })
    };
    rows.iter().map(listed).collect()
}

/// Forgets revocations that have ended, [`LIST_MAX`] at most.
pub(super) async fn forget_revoked(client: &Client) -> Result<(), LedgerError> {
    client.execute(FORGET_REVOKED, &[&LIST_MAX]).await?;
    Ok(())
}
