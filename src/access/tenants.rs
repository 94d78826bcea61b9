//! What the database knows of tenants' settings.
//!
//! # Invariants
//! - The only place that reads or writes them. A row that cannot be read stops its tenant's writes rather than let by what it
//!   may have forbidden.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use futures_util::TryFutureExt as _;
use serde_json::Value;
use tokio_postgres::error::DbError;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use super::ledger::LedgerError;
use super::remembered::{Known, Mark};
use super::rows;
use super::schema::Schema;
use super::settings::{Consent, Declared, Settings, TopicMode};
use crate::event::limits::DECLARED_MAX;
use crate::event::{Priority, Tenant, TopicPattern};

/// The rule that a schema breaks which is too long as the database writes it.
const SCHEMA_IS_SHORT: &str = "declared_topics_schema_is_short";

/// What a statement is given, with its type: it needs no preparing then.
type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

const SETTINGS: &str = "
    SELECT s.topic_mode, s.consent, CASE WHEN s.tenant IS NULL THEN '{*}' ELSE s.consent_topics END, s.changed_at, s.changed_by, c.change
      FROM (SELECT $1::text AS tenant) AS t LEFT JOIN tidewire.tenant_settings AS s ON s.tenant = t.tenant
           LEFT JOIN tidewire.setting_changes AS c ON c.tenant = t.tenant";
const DECLARED: &str = "
    SELECT pattern, schema, in_sql, description, changed_at, changed_by, priority::text FROM tidewire.declared_topics
     WHERE tenant = $1 ORDER BY pattern";
/// Of rows that are known nothing but their names: its pattern, its place in the table and who wrote there name a version of a
/// row. Without the pattern a table that is written anew (VACUUM FULL) would give one row the name of another, and without when the
/// server began another server, which may answer over the same connection after a failover.
const ROWS: &str = "
    SELECT d.pattern, r.name, CASE WHEN r.name <> ALL ($2) THEN d.schema END, r.name <> ALL ($2) AND d.schema IS NOT NULL,
           d.priority::text
      FROM tidewire.declared_topics AS d CROSS JOIN LATERAL (
           SELECT d.pattern || ' ' || d.ctid || ' ' || d.xmin || ' ' || extract(epoch FROM pg_postmaster_start_time())) AS r(name)
     WHERE d.tenant = $1 ORDER BY d.specificity DESC, d.pattern";
const CHANGES: &str = "
    SELECT t.tenant, c.change FROM unnest($1::text[]) AS t(tenant) LEFT JOIN tidewire.setting_changes AS c ON c.tenant = t.tenant";
const CHANGE: &str = "
    INSERT INTO tidewire.tenant_settings AS s (tenant, topic_mode, consent, consent_topics, changed_by)
    VALUES ($1, coalesce($2, 'open'), coalesce($3, 'optional'), coalesce($4::text[], '{*}'), $5)
        ON CONFLICT (tenant) DO UPDATE
        SET topic_mode = coalesce($2, s.topic_mode), consent = coalesce($3, s.consent),
            consent_topics = coalesce($4, s.consent_topics), changed_by = $5, changed_at = now()";
const DECLARE: &str = "
    INSERT INTO tidewire.declared_topics AS d (tenant, pattern, schema, in_sql, description, changed_by, priority)
    SELECT $1, $2, $3, $4, $5, $6, $8::text::tidewire.priority
     WHERE (SELECT count(*) FROM tidewire.declared_topics AS o WHERE o.tenant = $1 AND o.pattern <> $2) < $7
        ON CONFLICT (tenant, pattern) DO UPDATE
        SET schema = excluded.schema, in_sql = excluded.in_sql, description = excluded.description,
            changed_by = excluded.changed_by, changed_at = now(), priority = excluded.priority
    RETURNING true";
const WITHDRAW: &str = "SELECT tidewire.withdraw_topic($1, $2, $3)";

/// Statements of this file, for the test that prepares each.
pub const STATEMENTS: &[&str] = &[SETTINGS, DECLARED, ROWS, CHANGES, CHANGE, DECLARE, WITHDRAW];

/// What shall be changed; what is `None` stays.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// See [`Settings`].
    pub topic_mode: Option<TopicMode>,
    /// See [`Settings`].
    pub consent: Option<Consent>,
    /// See [`Settings`].
    pub consent_topics: Option<Vec<TopicPattern>>,
}

/// A topic to be declared.
#[derive(Debug, Clone)]
pub struct Declaration {
    /// Which topics.
    pub pattern: TopicPattern,
    /// What their data looks like: a JSON Schema.
    pub schema: Option<Value>,
    /// Whether those who write in SQL, where it cannot be checked, may write them all the same.
    pub is_unchecked_in_sql: bool,
    /// For people.
    pub description: Option<String>,
    /// Of events that name none.
    pub priority: Option<Priority>,
}

/// A declared topic as its tenant sees it.
#[derive(Debug, Clone, serde::Serialize)]
pub struct ListedTopic {
    /// Which topics.
    pub pattern: String,
    /// What their data looks like.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<Value>,
    /// `refuse` or `unchecked`.
    pub in_sql: String,
    /// Of events that name none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<String>,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// When, and by whom.
    pub changed_at: DateTime<Utc>,
    /// See `changed_at`.
    pub changed_by: String,
}

/// A tenant's settings as it sees them.
#[derive(Debug, Clone, serde::Serialize)]
pub struct ListedSettings {
    /// `open` or `declared`.
    pub topic_mode: String,
    /// `optional`, `withhold` or `require`.
    pub consent: String,
    /// To which topics that applies.
    pub consent_topics: Vec<String>,
    /// When they were changed, and by whom; absent: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed_at: Option<DateTime<Utc>>,
    /// See `changed_at`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed_by: Option<String>,
}

/// The tenant's settings as they stand, and the change at which they were read.
pub(super) async fn listed(
    client: &Client,
    tenant: &Tenant,
) -> Result<(ListedSettings, Mark), LedgerError> {
    let name = tenant.as_str();
    let named: [Parameter<'_>; 1] = [(&name, Type::TEXT)];
    let row = client.query_typed_one(SETTINGS, &named).await?;
    let or = |text: Option<String>, default: &str| text.unwrap_or_else(|| default.to_owned());
    let listed = ListedSettings {
        topic_mode: or(row.try_get(0)?, TopicMode::default().as_str()),
        consent: or(row.try_get(1)?, Consent::default().as_str()),
        consent_topics: rows::patterns(&row, 2),
        changed_at: rows::time(&row, 3),
        changed_by: row.try_get(4)?,
    };
    Ok((listed, row.try_get(5)?))
}

/// The tenant's declared topics.
pub(super) async fn topics(
    client: &Client,
    tenant: &Tenant,
) -> Result<Vec<ListedTopic>, LedgerError> {
    let listed = |row: &Row| {
        Ok(ListedTopic {
            pattern: row.try_get(0)?,
            schema: row.try_get(1)?,
            in_sql: row.try_get(2)?,
            description: row.try_get(3)?,
            changed_at: rows::time(row, 4).unwrap_or_default(),
            changed_by: row.try_get(5)?,
            priority: row.try_get(6)?,
        })
    };
    client
        .query(DECLARED, &[&tenant.as_str()])
        .await?
        .iter()
        .map(listed)
        .collect()
}

/// The last change of each of these tenants.
pub(super) async fn changes(
    client: &Client,
    tenants: &[&str],
) -> Result<Vec<(Tenant, Mark)>, LedgerError> {
    let rows = client.query(CHANGES, &[&tenants]).await?;
    let mut changes = Vec::with_capacity(rows.len());
    for row in &rows {
        // It is one: it was asked for.
        if let Ok(tenant) = Tenant::parse(row.try_get(0)?) {
            changes.push((tenant, row.try_get(1)?));
        }
    }
    Ok(changes)
}

/// A tenant's settings as the database has them.
#[derive(Debug)]
pub(super) struct Stored {
    listed: ListedSettings,
    change: Mark,
    rows: Vec<Row>,
}

/// The tenant's settings, without the rows that are `known`.
pub(super) async fn stored(
    client: &Client,
    tenant: &Tenant,
    known: &HashMap<String, Declared>,
) -> Result<Stored, LedgerError> {
    let known: Vec<&str> = known.keys().map(String::as_str).collect();
    let tenant_name = tenant.as_str();
    let parameters: [Parameter<'_>; 2] = [(&tenant_name, Type::TEXT), (&known, Type::TEXT_ARRAY)];
    // The change first: what is read after it is as new or newer. Both are on their way at once, in this order: whoever writes
    // waits for one round trip, which may be a long one.
    let reading = futures_util::try_join!(
        listed(client, tenant),
        client
            .query_typed(ROWS, &parameters)
            .map_err(LedgerError::from),
    );
    let ((listed, change), rows) = reading?;
    Ok(Stored {
        listed,
        change,
        rows,
    })
}

impl Stored {
    /// Whether a schema has to be made ready, which takes long.
    pub(super) fn is_costly(&self) -> bool {
        let has_schema = |row: &Row| row.try_get(3).unwrap_or(true);
        self.rows.iter().any(has_schema)
    }

    /// Ready to be asked; `known` is what [`stored`] was given.
    pub(super) fn ready(self, known: &HashMap<String, Declared>, connection: u64) -> Known {
        let declared = self.rows.iter().map(|row| declared(row, known));
        let declared: Option<Vec<_>> = declared.collect();
        let settings = declared.as_deref().and_then(|declared| {
            let patterns = self.listed.consent_topics.iter();
            Some(Settings {
                topic_mode: TopicMode::parse(&self.listed.topic_mode)?,
                consent: Consent::parse(&self.listed.consent)?,
                consent_topics: patterns
                    .map(|text| TopicPattern::parse(text).ok())
                    .collect::<Option<_>>()?,
                declared: declared.iter().map(|(_, one)| one.clone()).collect(),
            })
        });
        Known {
            settings: settings.map(Into::into),
            change: self.change,
            rows: declared.unwrap_or_default().into_iter().collect(),
            connection,
        }
    }
}

/// A row by its name, if it can be read.
fn declared(row: &Row, known: &HashMap<String, Declared>) -> Option<(String, Declared)> {
    let name: String = row.try_get(1).ok()?;
    if let Some(declared) = known.get(&name) {
        return Some((name, declared.clone()));
    }
    let schema: Option<Value> = row.try_get(2).ok()?;
    let schema = schema.as_ref().map(Schema::new).transpose().ok()?;
    let pattern = TopicPattern::parse(row.try_get(0).ok()?).ok()?;
    let priority: Option<String> = row.try_get(4).ok()?;
    let declared = Declared {
        pattern,
        schema: schema.map(Into::into),
        priority: priority.as_deref().and_then(Priority::parse),
    };
    Some((name, declared))
}

/// Changes what is given, in the name of `by`.
pub(super) async fn change(
    client: &Client,
    tenant: &Tenant,
    change: &Change,
    by: &str,
) -> Result<(), LedgerError> {
    let mode = change.topic_mode.map(TopicMode::as_str);
    let consent = change.consent.map(Consent::as_str);
    let topics = change.consent_topics.as_ref();
    let topics: Option<Vec<&str>> =
        topics.map(|topics| topics.iter().map(TopicPattern::as_str).collect());
    client
        .execute(CHANGE, &[&tenant.as_str(), &mode, &consent, &topics, &by])
        .await?;
    Ok(())
}

/// Declares topics, in the name of `by`.
pub(super) async fn declare(
    client: &Client,
    tenant: &Tenant,
    declared: &Declaration,
    by: &str,
) -> Result<(), LedgerError> {
    let in_sql = if declared.is_unchecked_in_sql {
        "unchecked"
    } else {
        "refuse"
    };
    let row = client
        .query_opt(
            DECLARE,
            &[
                &tenant.as_str(),
                &declared.pattern.as_str(),
                &declared.schema,
                &in_sql,
                &declared.description,
                &by,
                &DECLARED_MAX,
                &declared.priority.map(Priority::as_str),
            ],
        )
        .await;
    let is_too_long = |error: &DbError| error.constraint() == Some(SCHEMA_IS_SHORT);
    let row = row.map_err(|error| match error.as_db_error() {
        Some(refused) if is_too_long(refused) => LedgerError::Refused,
        _ => error.into(),
    })?;
    row.map(|_| ()).ok_or(LedgerError::TooMany {
        most: DECLARED_MAX,
        what: "declared topics",
        remedy: "withdraw some",
    })
}

/// Withdraws a declared topic, in the name of `by`; whether there was one.
pub(super) async fn withdraw(
    client: &Client,
    tenant: &Tenant,
    pattern: &TopicPattern,
    by: &str,
) -> Result<bool, LedgerError> {
    let row = client
        .query_one(WITHDRAW, &[&tenant.as_str(), &pattern.as_str(), &by])
        .await?;
    Ok(row.try_get(0)?)
}
