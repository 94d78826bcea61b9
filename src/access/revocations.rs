//! What the database knows of tokens that were revoked.
//!
//! # Invariants
//! - The only place that reads or writes them. What stands there is read back with care: what names no tenant or claim
//!   revokes nothing.
//! - Statements name the tenant wherever a caller could name somebody else's row.

use chrono::{DateTime, Utc};
use tokio_postgres::{Client, Row};

use super::ledger::{LIST_MAX, LedgerError};
use super::news;
use super::revoked::{Claim, Revocation, Revoked};
use crate::event::{Label, Tenant};

/// Revocations of a tenant's tokens that are kept at once.
pub const REVOCATIONS_MAX: i64 = 10_000;

const TOO_MANY_REVOCATIONS: LedgerError = LedgerError::TooMany {
    most: REVOCATIONS_MAX,
    what: "revocations in force",
    remedy: "take back those whose tokens have ended (DELETE /v1/revocations/{claim}/{value}), and say until with others",
};
/// Revocations that are read in one statement.
const PAGE: i64 = 10_000;

/// In force for an hour beyond its `until`, as `Revoked::forget_ended` says. Those that are not are read as well: a page is as many rows
/// as it looks at.
const REVOKED: &str = "
    SELECT tenant, claim, value, revoked_at, NULLIF(until, 'infinity'), until IS NULL OR until > now() - interval '1 hour'
      FROM tidewire.revoked_tokens
     WHERE (tenant, claim, value) > ($1, $2, $3) ORDER BY tenant, claim, value LIMIT $4";
/// Again: from now on, and for longer, never for less.
const REVOKE_TOKENS: &str = "
    INSERT INTO tidewire.revoked_tokens AS r (tenant, claim, value, revoked_by, until)
    SELECT $1, $2, $3, $4, $5
     WHERE EXISTS (SELECT FROM tidewire.revoked_tokens AS o WHERE o.tenant = $1 AND o.claim = $2 AND o.value = $3)
        OR (SELECT count(*) FROM tidewire.revoked_tokens AS o WHERE o.tenant = $1
               AND (o.until IS NULL OR o.until > now() - interval '1 hour')) < $6
        ON CONFLICT (tenant, claim, value) DO UPDATE
        SET revoked_at = now(), revoked_by = excluded.revoked_by,
            until = CASE WHEN r.until IS NOT NULL AND excluded.until IS NOT NULL THEN greatest(r.until, excluded.until) END
    RETURNING revoked_at";
const LIST_REVOKED: &str = "
    SELECT claim, value, revoked_at, revoked_by, NULLIF(until, 'infinity') FROM tidewire.revoked_tokens
     WHERE tenant = $1 AND (claim, value) > ($2, $3) AND (until IS NULL OR until > now() - interval '1 hour')
     ORDER BY claim, value LIMIT $4";
const LIST_SUBJECT: &str = "
    SELECT claim, value, revoked_at, revoked_by, NULLIF(until, 'infinity') FROM tidewire.revoked_tokens
     WHERE tenant = $1 AND claim = 'sub' AND value = $2 AND (until IS NULL OR until > now() - interval '1 hour')";
const WITHDRAW: &str = "SELECT tidewire.withdraw_revocation($1, $2, $3, $4)";
/// Long after they have ended: nobody asks about them.
const FORGET_REVOKED: &str = "
    DELETE FROM tidewire.revoked_tokens AS r
     WHERE r.ctid = ANY (ARRAY(
        SELECT o.ctid FROM tidewire.revoked_tokens AS o
         WHERE o.until < now() - interval '1 day' ORDER BY o.until LIMIT $1 FOR UPDATE SKIP LOCKED))";

/// Statements of this file, for the test that prepares each.
pub const STATEMENTS: &[&str] = &[
    REVOKED,
    REVOKE_TOKENS,
    LIST_REVOKED,
    LIST_SUBJECT,
    WITHDRAW,
    FORGET_REVOKED,
];

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

/// A place among all revocations.
#[derive(Debug, Default)]
pub(super) struct After {
    tenant: String,
    claim: String,
    value: String,
}

/// Adds revocations that are in force, after this place; where to go on, if there may be more.
pub(super) async fn revoked(
    client: &Client,
    after: &After,
    revoked: &mut Revoked,
) -> Result<Option<After>, LedgerError> {
    let rows = client
        .query(REVOKED, &[&after.tenant, &after.claim, &after.value, &PAGE])
        .await?;
    for row in &rows {
        let (tenant, claim, value): (&str, &str, &str) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let names = (Tenant::parse(tenant), Claim::parse(claim), row.try_get(5)?);
        if let (Ok(tenant), Some(claim), true) = names {
            let until = row.try_get(4).ok().flatten();
            revoked.add(tenant, claim, value, news::time(row, 3), until);
        }
    }
    let last = rows
        .last()
        .filter(|_| i64::try_from(rows.len()).is_ok_and(|count| count >= PAGE));
    let place = |row: &Row| {
        Ok(After {
            tenant: row.try_get(0)?,
            claim: row.try_get(1)?,
            value: row.try_get(2)?,
        })
    };
    last.map(place).transpose()
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
    Ok(row.ok_or(TOO_MANY_REVOCATIONS)?.try_get(0)?)
}

/// Takes back a revocation of the tenant; whether there was one.
pub(super) async fn withdraw(
    client: &Client,
    tenant: &Tenant,
    claim: Claim,
    value: &Label,
    by: &str,
) -> Result<bool, LedgerError> {
    let (tenant, value) = (tenant.as_str(), value.as_str());
    let row = client
        .query_one(WITHDRAW, &[&tenant, &claim.as_str(), &value, &by])
        .await?;
    Ok(row.try_get(0)?)
}

/// The tenant's revocations after this claim and value, by them; [`LIST_MAX`] at most, and whether there are more.
pub(super) async fn list_revoked(
    client: &Client,
    tenant: &Tenant,
    (claim, value): (&str, &str),
) -> Result<(Vec<ListedRevocation>, bool), LedgerError> {
    let limit = LIST_MAX.saturating_add(1);
    let mut rows = client
        .query(LIST_REVOKED, &[&tenant.as_str(), &claim, &value, &limit])
        .await?;
    let most = usize::try_from(LIST_MAX).unwrap_or(usize::MAX);
    let has_more = rows.len() > most;
    rows.truncate(most);
    let listed: Result<_, LedgerError> = rows.iter().map(listed).collect();
    Ok((listed?, has_more))
}

/// That of the tokens of this subject, if it is in force.
pub(super) async fn of_subject(
    client: &Client,
    tenant: &Tenant,
    subject: &Label,
) -> Result<Vec<ListedRevocation>, LedgerError> {
    let rows = client
        .query(LIST_SUBJECT, &[&tenant.as_str(), &subject.as_str()])
        .await?;
    rows.iter().map(listed).collect()
}

fn listed(row: &Row) -> Result<ListedRevocation, LedgerError> {
    Ok(ListedRevocation {
        claim: row.try_get(0)?,
        value: row.try_get(1)?,
        revoked_at: news::time(row, 2),
        revoked_by: row.try_get(3)?,
        until: row.try_get(4)?,
    })
}

/// Forgets revocations that have ended, [`LIST_MAX`] at most; whether there may be more.
pub(super) async fn forget_revoked(client: &Client) -> Result<bool, LedgerError> {
    let forgotten = client.execute(FORGET_REVOKED, &[&LIST_MAX]).await?;
    Ok(i64::try_from(forgotten).is_ok_and(|count| count >= LIST_MAX))
}
