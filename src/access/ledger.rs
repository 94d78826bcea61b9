//! What the database knows of API keys.
//!
//! # Invariants
//! - The only place that reads or writes API keys. What stands there is read back with care: whoever may
//!   write the table may write nonsense, which lets nobody in.
//! - Statements name the tenant wherever a caller could name somebody else's row.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use tokio_postgres::{Client, Row};

use super::Role;
use super::api_key::{ApiKey, Grant, KeyId, KnownKey};
use super::jwt::Denied;
use super::rows::{self, LIST_ROWS, is_full};
use crate::event::limits::{KEYS_MAX, TENANT_PATTERNS_MAX, TENANT_VALUES_MAX};
use crate::event::{Label, Tenant, TopicPattern};
use crate::pg::told;

const TOO_MANY_KEYS: LedgerError = LedgerError::TooMany {
    most: KEYS_MAX,
    what: "API keys in force",
    remedy: "revoke some",
};
/// Days for which keys that have ended are kept, and listed. As many as `tidewire.record_credential()` says.
pub const KEPT_DAYS: i32 = 90;

/// Keys that are removed in one statement.
const FORGET_MAX: i64 = 1_000;

const KEYS: &str = "
    SELECT k.key_id, k.tenant, k.name, k.role, k.read_topics, k.write_topics,
           NULLIF(k.expires_at, 'infinity'), k.revoked_at IS NOT NULL, k.secret_sha256
      FROM tidewire.api_keys AS k WHERE k.key_id = ANY ($1)";
const CREATE_KEY: &str = "
    INSERT INTO tidewire.api_keys (key_id, tenant, name, role, read_topics, write_topics, secret_sha256, expires_at, created_by)
    SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9
     WHERE (SELECT count(*) FROM (SELECT FROM tidewire.api_keys AS k
             WHERE k.tenant = $2 AND k.revoked_at IS NULL AND coalesce(k.expires_at, 'infinity') > now() LIMIT $10) AS live) < $10
    RETURNING created_at";
const LIST_KEYS: &str = "
    SELECT key_id, name, role, read_topics, write_topics, created_at, created_by,
           NULLIF(expires_at, 'infinity'), revoked_at, revoked_by, last_used_at
      FROM tidewire.api_keys
     WHERE tenant = $1 AND key_id > $2 AND ($4::text IS NULL OR name = $4) ORDER BY key_id LIMIT $3";
const IS_IN_FORCE: &str = "
    SELECT revoked_at IS NULL FROM tidewire.api_keys WHERE tenant = $1 AND key_id = $2";
/// Revoked a second time it stays as it is.
const REVOKE_KEY: &str = "
    UPDATE tidewire.api_keys SET revoked_at = now(), revoked_by = $3
     WHERE tenant = $1 AND key_id = $2 AND revoked_at IS NULL";
/// Not of rows that somebody is changing: they are said again another time.
const USED: &str = "
    WITH free AS (
        SELECT k.key_id FROM tidewire.api_keys AS k WHERE k.key_id = ANY ($1::text[]) FOR NO KEY UPDATE SKIP LOCKED
    ), written AS (
        UPDATE tidewire.api_keys AS k SET last_used_at = u.at
          FROM unnest($1::text[], $2::timestamptz[]) AS u(key_id, at) JOIN free AS f ON f.key_id = u.key_id
         WHERE k.key_id = u.key_id AND (k.last_used_at IS NULL OR k.last_used_at < u.at)
    )
    SELECT k.key_id FROM tidewire.api_keys AS k WHERE k.key_id = ANY ($1::text[]) AND k.key_id NOT IN (SELECT f.key_id FROM free AS f)";
/// [`KEPT_DAYS`] after they have ended.
const FORGET_KEYS: &str = "
    DELETE FROM tidewire.api_keys AS k
     WHERE k.key_id = ANY (ARRAY(
        SELECT o.key_id FROM tidewire.api_keys AS o
         WHERE least(o.revoked_at, o.expires_at) < now() - make_interval(days => $2)
         ORDER BY least(o.revoked_at, o.expires_at) LIMIT $1 FOR UPDATE SKIP LOCKED))";

/// Statements of this file, for the test that prepares each.
pub const STATEMENTS: &[&str] = &[
    KEYS,
    CREATE_KEY,
    LIST_KEYS,
    IS_IN_FORCE,
    REVOKE_KEY,
    USED,
    FORGET_KEYS,
];

/// Why a credential could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The database cannot be asked now.
    #[error("the database does not answer at the moment")]
    Unavailable,
    /// Another transaction has held what is asked for or changed, for as long as this waits.
    #[error("another transaction in the database is in the way")]
    HeldUp,
    /// The credential of who asks has ended. Nothing is done any more for it; what was under way may be done nonetheless.
    #[error(transparent)]
    Ended(#[from] Denied),
    /// As many of the tenant's administrative requests wait already as may.
    #[error("too many administrative requests of this tenant are waiting")]
    Crowded,
    /// The tenant has as many as it may.
    #[error("the tenant has {most} {what}, which is as many as it may have: {remedy}")]
    TooMany {
        /// How many it may have.
        most: i64,
        /// Of what.
        what: &'static str,
        /// What to do about it.
        remedy: &'static str,
    },
    /// The database refuses the schema: numbers with exponents are longer there.
    #[error("is too long as the database writes it")]
    Refused,
    /// The tenant's schemas together are too large.
    #[error(
        "with the tenant's other schemas it holds more than {TENANT_VALUES_MAX} values or {TENANT_PATTERNS_MAX} regular expressions"
    )]
    TooLarge,
    /// What stands in the database is nothing that this program has written.
    #[error("the settings of the tenant {} cannot be read: correct tidewire.tenant_settings and tidewire.declared_topics", .0.as_str())]
    Unreadable(Tenant),
    /// A fault of ours.
    #[error("credentials could not be read or written: {}", told(.0))]
    Database(#[from] tokio_postgres::Error),
}

/// A key as its tenant's administrators see it.
#[derive(Debug, Clone, serde::Serialize)]
pub struct ListedKey {
    /// Its public part.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What it is for.
    pub role: String,
    /// Topics it may read.
    pub read: Vec<String>,
    /// Topics it may write.
    pub write: Vec<String>,
    /// When, and by whom.
    pub created_at: DateTime<Utc>,
    /// See `created_at`.
    pub created_by: String,
    /// When it ends by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<DateTime<Utc>>,
    /// When it ended before its time, and by whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<DateTime<Utc>>,
    /// See `revoked_at`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoked_by: Option<String>,
    /// When it was used, as of a minute ago.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<DateTime<Utc>>,
}

/// These keys. One that is not there, or cannot be read, is left out.
pub(super) async fn keys(client: &Client, ids: &[&str]) -> Result<Vec<KnownKey>, LedgerError> {
    let mut keys = Vec::new();
    for row in client.query(KEYS, &[&ids]).await? {
        if let Some(key) = known_key(&row) {
            keys.push(key);
        } else {
            let id: &str = row.try_get(0)?;
            tracing::error!(
                key_id = id,
                "an API key in the database cannot be read: it lets nobody in"
            );
        }
    }
    Ok(keys)
}

/// A row that says nothing which can be understood is none: not the others' concern.
fn known_key(row: &Row) -> Option<KnownKey> {
    let patterns = |column: usize| -> Option<Vec<TopicPattern>> {
        let texts: Vec<&str> = row.try_get(column).ok()?;
        let parse = |text| TopicPattern::parse(text).ok();
        texts.into_iter().map(parse).collect()
    };
    let text = |column: usize| row.try_get::<_, &str>(column).ok();
    let expires_at: Option<DateTime<Utc>> = row.try_get(6).ok()?;
    let secret: &[u8] = row.try_get(8).ok()?;
    Some(KnownKey {
        id: KeyId::parse(text(0)?)?,
        grant: Grant {
            tenant: Tenant::parse(text(1)?).ok()?,
            name: Label::parse(text(2)?).ok()?,
            role: Role::parse(text(3)?)?,
            read: patterns(4)?,
            write: patterns(5)?,
            // What ended before 1970 has ended.
            expires_at: expires_at.map(|at| u64::try_from(at.timestamp()).unwrap_or(0)),
        },
        is_revoked: row.try_get(7).ok()?,
        secret_sha256: secret.try_into().ok()?,
    })
}

/// Stores a new key, created by `by`.
///
/// # Errors
/// If the tenant has too many, or the database refuses.
pub async fn create_key(
    client: &Client,
    key: &ApiKey,
    grant: &Grant,
    by: &str,
) -> Result<DateTime<Utc>, LedgerError> {
    let texts = |patterns: &[TopicPattern]| -> Vec<String> {
        patterns.iter().map(ToString::to_string).collect()
    };
    let role = grant.role.as_str();
    let expires_at = grant.expires_at.map(time);
    let row = client
        .query_opt(
            CREATE_KEY,
            &[
                &key.id.as_str(),
                &grant.tenant.as_str(),
                &grant.name.as_str(),
                &role,
                &texts(&grant.read),
                &texts(&grant.write),
                &key.secret_sha256().as_slice(),
                &expires_at,
                &by,
                &KEYS_MAX,
            ],
        )
        .await?;
    Ok(row.ok_or(TOO_MANY_KEYS)?.try_get(0)?)
}

fn time(seconds: u64) -> DateTime<Utc> {
    SystemTime::UNIX_EPOCH
        .checked_add(Duration::from_secs(seconds))
        .map_or(DateTime::<Utc>::MAX_UTC, DateTime::<Utc>::from)
}

/// The tenant's keys after this id, by their ids; [`LIST_MAX`](crate::event::limits::LIST_MAX) at most, and whether there are more. With a name: those of this name.
pub(super) async fn list_keys(
    client: &Client,
    tenant: &Tenant,
    after: &str,
    name: Option<&Label>,
) -> Result<(Vec<ListedKey>, bool), LedgerError> {
    let rows = client
        .query(
            LIST_KEYS,
            &[
                &tenant.as_str(),
                &after,
                &LIST_ROWS,
                &name.map(Label::as_str),
            ],
        )
        .await?;
    rows::page(&rows, |row| {
        Ok(ListedKey {
            id: row.try_get(0)?,
            name: row.try_get(1)?,
            role: row.try_get(2)?,
            read: rows::patterns(row, 3),
            write: rows::patterns(row, 4),
            created_at: rows::time(row, 5).unwrap_or_default(),
            created_by: row.try_get(6)?,
            expires_at: rows::time(row, 7),
            revoked_at: rows::time(row, 8),
            revoked_by: row.try_get(9)?,
            last_used_at: rows::time(row, 10),
        })
    })
}

/// Revokes a key of the tenant; whether there is one.
pub(super) async fn revoke_key(
    client: &Client,
    tenant: &Tenant,
    id: &KeyId,
    by: &str,
) -> Result<bool, LedgerError> {
    let row = client
        .query_opt(IS_IN_FORCE, &[&tenant.as_str(), &id.as_str()])
        .await?;
    // Whoever asks for what changes nothing makes no server look.
    if row
        .as_ref()
        .is_some_and(|row| row.try_get(0).unwrap_or(true))
    {
        let params = [tenant.as_str(), id.as_str(), by];
        client
            .execute(REVOKE_KEY, &[&params[0], &params[1], &params[2]])
            .await?;
    }
    Ok(row.is_some())
}

/// Writes when keys were used. Those that somebody is changing are left: they are returned.
pub(super) async fn used(
    client: &Client,
    used: &HashMap<KeyId, DateTime<Utc>>,
) -> Result<HashMap<KeyId, DateTime<Utc>>, LedgerError> {
    let (ids, times): (Vec<&str>, Vec<DateTime<Utc>>) =
        used.iter().map(|(id, at)| (id.as_str(), *at)).unzip();
    let mut left = HashMap::new();
    for row in client.query(USED, &[&ids, &times]).await? {
        let known = KeyId::parse(row.try_get(0)?).and_then(|id| used.get_key_value(&id));
        left.extend(known.map(|(id, at)| (id.clone(), *at)));
    }
    Ok(left)
}

/// Forgets keys that ended long ago, [`FORGET_MAX`] at most; whether there may be more.
pub(super) async fn forget_keys(client: &Client) -> Result<bool, LedgerError> {
    let forgotten = client
        .execute(FORGET_KEYS, &[&FORGET_MAX, &KEPT_DAYS])
        .await?;
    Ok(is_full(forgotten, FORGET_MAX))
}
