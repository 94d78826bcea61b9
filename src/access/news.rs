//! What the database knows of changes: of settings by tenant, of credentials one by one.
//!
//! # Invariants
//! - What one snapshot did not see the next look finds, in whatever order transactions commit: nothing never, whatever came between.
//! - A mark of a credential is removed only when it was to be seen for longer than any server may go without a look.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use tokio_postgres::Client;

use super::api_key::KeyId;
use super::ledger::LedgerError;
use super::remembered::Mark;
use super::revoked::{BEYOND_HOURS, Claim, Revoked};
use super::rows::{self, is_full};
use super::upkeep::UPKEEP_INTERVAL;
use crate::event::Tenant;

/// Changes of credentials that are read in one statement.
const PAGE: i64 = 5_000;
/// Marks that are removed in one statement.
const FORGET_MAX: i64 = 10_000;
/// Time between two looks, by the database's clock, beyond which marks may have gone: everything is read anew.
const GAP_MAX: Duration = Duration::from_mins(5);
/// Rounds of upkeep that a mark is kept for once nobody can miss it: together twice as long as [`GAP_MAX`].
const ROUNDS_KEPT: u32 = 10;

/// What a look before did not see. Who writes during a look is seen by the next, in whatever order they commit.
/// What is beyond the present snapshot was written in another cluster, before a restore. The second column names the server of the
/// database that answers, by what every role may ask, and the table, which is another after a restore.
const NEWS: &str = "
    SELECT pg_current_snapshot()::text,
           (extract(epoch FROM pg_postmaster_start_time()), (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database()),
            'tidewire.credential_changes'::regclass::oid)::text,
           extract(epoch FROM now())::float8,
           EXISTS (SELECT FROM tidewire.credential_changes AS k
                    WHERE k.changed_in >= pg_snapshot_xmin($1::text::pg_snapshot)
                      AND k.changed_in < pg_snapshot_xmax(pg_current_snapshot())
                      AND NOT pg_visible_in_snapshot(k.changed_in, $1::text::pg_snapshot)),
           c.tenant, c.change
      FROM (SELECT) AS look LEFT JOIN tidewire.setting_changes AS c
           ON c.changed_in >= pg_snapshot_xmin($1::text::pg_snapshot)
          AND c.changed_in < pg_snapshot_xmax(pg_current_snapshot())
          AND NOT pg_visible_in_snapshot(c.changed_in, $1::text::pg_snapshot)";
/// Of revocations as they stand now, in the order of the marks' key, by which the next page goes on.
const CHANGES: &str = "
    SELECT c.changed_in::text, c.change, c.tenant, c.kind, c.value, r.revoked_at, NULLIF(r.until, 'infinity'), r.tenant IS NOT NULL
      FROM (SELECT k.changed_in, k.change, k.tenant, k.kind, k.value FROM tidewire.credential_changes AS k
             WHERE (k.changed_in, k.change) > ($2::text::xid8, $3)
               AND k.changed_in >= pg_snapshot_xmin($1::text::pg_snapshot)
               AND k.changed_in < pg_snapshot_xmax(pg_current_snapshot())
               AND NOT pg_visible_in_snapshot(k.changed_in, $1::text::pg_snapshot)
             ORDER BY k.changed_in, k.change LIMIT $4) AS c
           LEFT JOIN tidewire.revoked_tokens AS r ON r.tenant = c.tenant AND r.claim = c.kind AND r.value = c.value
                 AND (r.until IS NULL OR r.until > now() - make_interval(hours => $5))
     ORDER BY c.changed_in, c.change";
/// Marks of transactions that were over when the snapshot was taken.
const FORGET: &str = "
    DELETE FROM tidewire.credential_changes AS k
     WHERE k.ctid = ANY (ARRAY(
        SELECT o.ctid FROM tidewire.credential_changes AS o
         WHERE o.changed_in < pg_snapshot_xmin($1::text::pg_snapshot) ORDER BY o.changed_in LIMIT $2 FOR UPDATE SKIP LOCKED))";

/// Statements of this file, for the test that prepares each.
pub const STATEMENTS: &[&str] = &[NEWS, CHANGES, FORGET];

/// Up to where a server has looked.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Seen {
    /// What is visible in it was seen.
    pub(super) snapshot: String,
    /// Which server of the database has said so, since when it runs, and with which table.
    server: String,
    /// Seconds since 1970, by the database's clock.
    at: f64,
}

impl Seen {
    /// Whether what this has not seen is among the marks that `next` finds.
    pub(super) fn leads_to(&self, next: &Self) -> bool {
        self.server == next.server && (next.at - self.at).abs() <= GAP_MAX.as_secs_f64()
    }
}

/// What a look finds.
#[derive(Debug)]
pub(super) struct News {
    /// What this look has seen, for the next.
    pub(super) seen: Seen,
    /// Whether credentials have changed since the look before.
    pub(super) of_credentials: bool,
    /// Tenants whose settings have changed since the look before.
    pub(super) settings: Vec<(Tenant, Mark)>,
}

/// What has changed since the look that saw `snapshot`; nothing if it is the first.
pub(super) async fn news(client: &Client, snapshot: Option<&str>) -> Result<News, LedgerError> {
    let rows = client.query(NEWS, &[&snapshot]).await?;
    let first = rows.first().ok_or(LedgerError::Unavailable)?;
    let seen = Seen {
        snapshot: first.try_get(0)?,
        server: first.try_get(1)?,
        at: first.try_get(2)?,
    };
    let of_credentials = first.try_get(3)?;
    let mut settings = Vec::new();
    for row in &rows {
        let tenant: Option<&str> = row.try_get(4)?;
        if let Some(tenant) = tenant.and_then(|tenant| Tenant::parse(tenant).ok()) {
            settings.push((tenant, row.try_get(5)?));
        }
    }
    Ok(News {
        seen,
        of_credentials,
        settings,
    })
}

/// A place among the marks.
#[derive(Debug)]
pub(super) struct Place {
    changed_in: String,
    change: i64,
}

impl Default for Place {
    fn default() -> Self {
        Self {
            changed_in: "0".to_owned(),
            change: 0,
        }
    }
}

/// Some credentials that have changed.
#[derive(Debug, Default)]
pub(super) struct Changed {
    /// API keys, to be read.
    pub(super) keys: HashSet<KeyId>,
    /// Revocations that are in force.
    pub(super) revoked: Revoked,
    /// Revocations that are not, any more.
    pub(super) withdrawn: Vec<(Tenant, Claim, Box<str>)>,
    /// Where to go on, if there may be more.
    pub(super) next: Option<Place>,
}

/// Changes of credentials that `snapshot` did not see, after this place.
pub(super) async fn changed(
    client: &Client,
    snapshot: &str,
    after: &Place,
) -> Result<Changed, LedgerError> {
    let (number, change) = (&after.changed_in, after.change);
    let rows = client
        .query(CHANGES, &[&snapshot, number, &change, &PAGE, &BEYOND_HOURS])
        .await?;
    let mut changed = Changed::default();
    for row in &rows {
        let (kind, value): (&str, &str) = (row.try_get(3)?, row.try_get(4)?);
        // What names no tenant or claim has revoked nothing.
        let tenant = Tenant::parse(row.try_get(2)?).ok();
        match (Claim::parse(kind), tenant) {
            (Some(claim), Some(tenant)) => {
                if row.try_get(7)? {
                    let (at, until) = (rows::revoked_at(row, 5), row.try_get(6).ok().flatten());
                    changed.revoked.add(tenant, claim, value, at, until);
                } else {
                    changed.withdrawn.push((tenant, claim, value.into()));
                }
            }
            _ => changed.keys.extend(KeyId::parse(value)),
        }
    }
    if let Some(last) = rows.last().filter(|_| is_full(rows.len(), PAGE)) {
        changed.next = Some(Place {
            changed_in: last.try_get(0)?,
            change: last.try_get(1)?,
        });
    }
    Ok(changed)
}

/// Removes marks that every server has seen, or will not ask for; whether there may be more.
pub(super) async fn forget(client: &Client, seen: &Seen) -> Result<bool, LedgerError> {
    let forgotten = client
        .execute(FORGET, &[&seen.snapshot, &FORGET_MAX])
        .await?;
    Ok(is_full(forgotten, FORGET_MAX))
}

/// What was seen in the last rounds of upkeep, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Rounds(VecDeque<Seen>);

impl Rounds {
    /// Another round has seen this. What was seen so long ago that marks which it saw may go.
    pub(super) fn note(&mut self, seen: Seen) -> Option<Seen> {
        // Numbers of transactions are others there.
        self.0.retain(|before| before.server == seen.server);
        self.0.push_back(seen);
        u32::try_from(self.0.len())
            .is_ok_and(|rounds| rounds > ROUNDS_KEPT)
            .then(|| self.0.pop_front())
            .flatten()
    }
}

const _: () = assert!(
    GAP_MAX.saturating_mul(2).as_millis()
        <= UPKEEP_INTERVAL.saturating_mul(ROUNDS_KEPT).as_millis()
);

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(server: &str, at: f64) -> Seen {
        Seen {
            snapshot: format!("{at}"),
            server: server.to_owned(),
            at,
        }
    }

    #[test]
    fn what_may_have_gone_is_read_anew() {
        let first = seen("a", 1_000.0);
        for (next, leads, why) in [
            (seen("a", 1_000.5), true, "the next look"),
            (seen("a", 1_299.0), true, "marks are kept for longer"),
            (seen("a", 1_301.0), false, "it stood still"),
            (seen("a", 600.0), false, "the clock was set back"),
            (seen("b", 1_000.5), false, "another server"),
        ] {
            assert_eq!(first.leads_to(&next), leads, "{why}");
        }
    }

    #[test]
    fn marks_stay_for_twice_as_long_as_a_server_may_go_without_a_look() {
        let mut rounds = Rounds::default();
        for minute in 0..10 {
            assert_eq!(rounds.note(seen("a", f64::from(minute) * 60.0)), None);
        }
        assert_eq!(rounds.note(seen("a", 600.0)), Some(seen("a", 0.0)));
        assert_eq!(rounds.note(seen("a", 660.0)), Some(seen("a", 60.0)));
        assert_eq!(
            rounds.note(seen("b", 720.0)),
            None,
            "numbers of before say nothing there"
        );
    }
}
