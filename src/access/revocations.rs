//! What the database knows of tokens that were revoked.
//!
//! # Invariants
//! - The only place that reads or writes them. What stands there is read back with care: what names no tenant or claim
//!   revokes nothing.
//! - Statements name the tenant wherever a caller could name somebody else's row.

use chrono::{DateTime, Utc};
use tokio_postgres::{Client, Row};

use super::ledger::LedgerError;
use super::revoked::{BEYOND_HOURS, Claim, Revocation, Revoked};
use super::rows::{self, LIST_ROWS, is_full};
use crate::event::limits::REVOCATIONS_MAX;
use crate::event::{Label, Tenant};

const TOO_MANY_REVOCATIONS: LedgerError = LedgerError::TooMany {
    most: REVOCATIONS_MAX,
    what: "revocations in force",
    remedy: "take back those whose tokens have ended (DELETE /v1/revocations/{claim}/{value}), and say until with others",
};
/// Revocations that are read in one statement.
const PAGE: i64 = 10_000;
/// Revocations that are removed in one statement.
const FORGET_MAX: i64 = 1_000;
/// Days for which revocations are kept beyond their `until`: nobody asks about them by then. As many as
/// `tidewire.record_credential()` says.
pub const KEPT_DAYS: i32 = 1;

/// Those that are in force no more are read as well: a page is as many rows as it looks at.
const REVOKED: &str = "
    SELECT tenant, claim, value, revoked_at, NULLIF(until, 'infinity'), until IS NULL OR until > now() - make_interval(hours => $5)
      FROM tidewire.revoked_tokens
     WHERE (tenant, claim, value) > ($1, $2, $3) ORDER BY tenant, claim, value LIMIT $4";
/// Again: from now on, and for longer, never for less.
const REVOKE_TOKENS: &str = "
    INSERT INTO tidewire.revoked_tokens AS r (tenant, claim, value, revoked_by, until)
    SELECT $1, $2, $3, $4, $5
     WHERE EXISTS (SELECT FROM tidewire.revoked_tokens AS o WHERE o.tenant = $1 AND o.claim = $2 AND o.value = $3)
        OR (SELECT count(*) FROM tidewire.revoked_tokens AS o WHERE o.tenant = $1
               AND (o.until IS NULL OR o.until > now() - make_interval(hours => $7))) < $6
        ON CONFLICT (tenant, claim, value) DO UPDATE
        SET revoked_at = now(), revoked_by = excluded.revoked_by,
            until = CASE WHEN r.until IS NOT NULL AND excluded.until IS NOT NULL THEN greatest(r.until, excluded.until) END
    RETURNING revoked_at";
const LIST_REVOKED: &str = "
    SELECT claim, value, revoked_at, revoked_by, NULLIF(until, 'infinity') FROM tidewire.revoked_tokens
     WHERE tenant = $1 AND (claim, value) > ($2, $3) AND (until IS NULL OR until > now() - make_interval(hours => $5))
     ORDER BY claim, value LIMIT $4";
const LIST_SUBJECT: &str = "
    SELECT claim, value, revoked_at, revoked_by, NULLIF(until, 'infinity') FROM tidewire.revoked_tokens
     WHERE tenant = $1 AND claim = 'sub' AND value = $2 AND (until IS NULL OR until > now() - make_interval(hours => $3))";
const WITHDRAW: &str = "SELECT tidewire.withdraw_revocation($1, $2, $3, $4)";
/// [`KEPT_DAYS`] after they have ended.
const FORGET_REVOKED: &str = "
    DELETE FROM tidewire.revoked_tokens AS r
     WHERE r.ctid = ANY (ARRAY(
        SELECT o.ctid FROM tidewire.revoked_tokens AS o
         WHERE o.until < now() - make_interval(days => $2) ORDER BY o.until LIMIT $1 FOR UPDATE SKIP LOCKED))";

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
    let (tenant, claim, value) = (&after.tenant, &after.claim, &after.value);
    let rows = client
        .query(REVOKED, &[tenant, claim, value, &PAGE, &BEYOND_HOURS])
        .await?;
    for row in &rows {
        let (tenant, claim, value): (&str, &str, &str) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let names = (Tenant::parse(tenant), Claim::parse(claim), row.try_get(5)?);
        if let (Ok(tenant), Some(claim), true) = names {
            let until = row.try_get(4).ok().flatten();
            revoked.add(tenant, claim, value, rows::revoked_at(row, 3), until);
        }
    }
    let last = rows.last().filter(|_| is_full(rows.len(), PAGE));
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
                &BEYOND_HOURS,
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

/// The tenant's revocations after this claim and value, by them; [`LIST_MAX`](crate::event::limits::LIST_MAX) at most, and whether there are more.
pub(super) async fn list_revoked(
    client: &Client,
    tenant: &Tenant,
    (claim, value): (&str, &str),
) -> Result<(Vec<ListedRevocation>, bool), LedgerError> {
    let tenant = tenant.as_str();
    let rows = client
        .query(
            LIST_REVOKED,
            &[&tenant, &claim, &value, &LIST_ROWS, &BEYOND_HOURS],
        )
        .await?;
    rows::page(&rows, listed)
}

/// That of the tokens of this subject, if it is in force.
pub(super) async fn of_subject(
    client: &Client,
    tenant: &Tenant,
    subject: &Label,
) -> Result<Vec<ListedRevocation>, LedgerError> {
    let rows = client
        .query(
            LIST_SUBJECT,
            &[&tenant.as_str(), &subject.as_str(), &BEYOND_HOURS],
        )
        .await?;
    rows.iter().map(listed).collect()
}

fn listed(row: &Row) -> Result<ListedRevocation, LedgerError> {
    Ok(ListedRevocation {
        claim: row.try_get(0)?,
        value: row.try_get(1)?,
        revoked_at: rows::shown(rows::revoked_at(row, 2)),
        revoked_by: row.try_get(3)?,
        until: rows::time(row, 4),
    })
}

/// Forgets revocations that have ended, [`FORGET_MAX`] at most; whether there may be more.
pub(super) async fn forget_revoked(client: &Client) -> Result<bool, LedgerError> {
    let forgotten = client
        .execute(FORGET_REVOKED, &[&FORGET_MAX, &KEPT_DAYS])
        .await?;
    Ok(is_full(forgotten, FORGET_MAX))
}
