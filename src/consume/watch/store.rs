//! What the watch reads of the database and writes there.
//!
//! # Invariants
//! - Everything here runs in the transaction that began with [`hold`]: nobody changes a watch or erases a subject meanwhile.

use chrono::{DateTime, TimeDelta, Utc};
use tokio_postgres::{Row, Transaction};

use super::clock::{Clock, Gap};
use super::signs::{Declared, Expected, Sign, TOLD};
use super::verdict::{Known, Verdict, judge as verdict};
use crate::consume::runner::Place;
use crate::event::limits::WATCHED_MAX;
use crate::event::{Position, Seq, TopicPattern};
use crate::log::Unavailable;
use crate::log::facts::{self, Wanted, earlier};

const HOLD: &str = "SELECT pg_advisory_xact_lock(1953064041, 0)";
/// The time after the lock: to wait for it is not to look.
const CHANGE: &str = "SELECT last_value, clock_timestamp() FROM tidewire.watch_changes";
const DECLARED: &str =
    "SELECT tenant, name, topics, within_s, since_seq, since_at FROM tidewire.watches";
const CLOCK: &str = "SELECT looked_at, blind_ms, gap_from, gap_to FROM tidewire.watch_clock";
const LOOKED: &str = "
    UPDATE tidewire.watch_clock SET looked_at = clock_timestamp(), blind_ms = $1, gap_from = $2, gap_to = $3";
const NOTE: &str = "SELECT tidewire.watch_signs($1, $2, $3, $4, $5, $6, $7)";
/// Those who are due, and those who have stalled and are heard of again.
const DUE: &str = "
    SELECT d.tenant, d.watch, d.subject, d.last_seen_seq, d.due_at, d.is_stalled, d.silent_seq, w.topics, w.within_s, w.since_seq
      FROM ((SELECT o.* FROM tidewire.watched AS o WHERE NOT o.is_stalled AND o.due_at < $1 ORDER BY o.due_at LIMIT $2)
            UNION ALL
            (SELECT o.* FROM tidewire.watched AS o WHERE o.is_stalled AND o.last_seen_seq > o.silent_seq LIMIT $2)) AS d
      JOIN tidewire.watches AS w ON w.tenant = d.tenant AND w.name = d.watch";
const JUDGE: &str = "SELECT tidewire.judge_watched($1, $2, $3, $4, $5)";
const STALLED: &str = "SELECT count(*) FROM tidewire.watched AS o WHERE o.is_stalled";

/// Statements of this file, for the test that prepares each.
pub const STATEMENTS: &[&str] = &[
    HOLD, CHANGE, DECLARED, CLOCK, LOOKED, NOTE, DUE, JUDGE, STALLED,
];

/// Subjects that are judged in one transaction, of each kind: what they write holds the watermark for its time.
const JUDGED_MAX: usize = 500;

/// Keeps watches and erasures as they are, until the transaction ends; the number of the last change, and what time it is then.
///
/// # Errors
/// If somebody else does for too long, or the database cannot be asked.
pub async fn hold(transaction: &Transaction<'_>) -> Result<(i64, DateTime<Utc>), Unavailable> {
    transaction.execute(HOLD, &[]).await?;
    let row = transaction.query_one(CHANGE, &[]).await?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}

/// All watches.
///
/// # Errors
/// If the database cannot be asked.
pub async fn declared(transaction: &Transaction<'_>) -> Result<Declared, Unavailable> {
    let mut declared = Declared::default();
    for row in transaction.query(DECLARED, &[]).await? {
        let topics: Vec<String> = row.try_get(2)?;
        let within: i32 = row.try_get(3)?;
        let expected = Expected {
            name: row.try_get(1)?,
            topics: patterns(&topics),
            within: TimeDelta::seconds(within.into()),
            since: Position::new(row.try_get(4)?, row.try_get(5)?),
        };
        declared.add(row.try_get(0)?, expected);
    }
    Ok(declared)
}

/// What somebody has written in SQL that is no pattern stands for nothing.
fn patterns(topics: &[String]) -> Vec<TopicPattern> {
    let parsed = topics.iter().map(|text| TopicPattern::parse(text));
    parsed.filter_map(Result::ok).collect()
}

/// The watch's clock, taken up where the last look left it.
///
/// # Errors
/// If the database cannot be asked.
pub async fn clock(
    transaction: &Transaction<'_>,
    now: DateTime<Utc>,
) -> Result<Clock, Unavailable> {
    let row = transaction.query_one(CLOCK, &[]).await?;
    let gap: (Option<DateTime<Utc>>, Option<DateTime<Utc>>) = (row.try_get(2)?, row.try_get(3)?);
    let gap = gap.0.zip(gap.1).map(|(from, to)| Gap { from, to });
    let blind = TimeDelta::try_milliseconds(row.try_get(1)?).unwrap_or_default();
    Ok(Clock::resumed(blind, gap, row.try_get(0)?, now))
}

/// Takes note that it was looked.
///
/// # Errors
/// If the database cannot be asked.
pub async fn looked(transaction: &Transaction<'_>, clock: &Clock) -> Result<(), Unavailable> {
    let (from, to) = (clock.gap.map(|gap| gap.from), clock.gap.map(|gap| gap.to));
    let blind_ms = clock.blind.num_milliseconds();
    transaction
        .execute(LOOKED, &[&blind_ms, &from, &to])
        .await?;
    Ok(())
}

/// Takes note of signs of life.
///
/// # Errors
/// If the database cannot be asked.
pub async fn note(transaction: &Transaction<'_>, signs: &[Sign]) -> Result<(), Unavailable> {
    if signs.is_empty() {
        return Ok(());
    }
    let text = |of: fn(&Sign) -> &str| signs.iter().map(of).collect::<Vec<&str>>();
    let time = |of: fn(&Sign) -> DateTime<Utc>| signs.iter().map(of).collect::<Vec<_>>();
    let seqs: Vec<Seq> = signs.iter().map(|sign| sign.seq).collect();
    transaction
        .execute(
            NOTE,
            &[
                &text(|sign| &sign.tenant),
                &text(|sign| &sign.watch),
                &text(|sign| &sign.subject),
                &seqs,
                &time(|sign| sign.recorded_at),
                &time(|sign| sign.due),
                &WATCHED_MAX,
            ],
        )
        .await?;
    Ok(())
}

/// A subject that may have stalled or recovered.
struct Judged {
    tenant: String,
    watch: String,
    subject: String,
    known: Known,
    /// Where a newer sign would lie.
    wanted: Wanted,
}

/// Says who has stalled and who has recovered, of whom everything up to `through` is known; whether there may be more of them.
///
/// # Errors
/// If the database cannot be asked.
pub async fn judge(
    transaction: &Transaction<'_>,
    clock: &Clock,
    through: Position,
    place: &Place,
) -> Result<bool, Unavailable> {
    let limit = i64::try_from(JUDGED_MAX).unwrap_or(i64::MAX);
    let rows = transaction.query(DUE, &[&clock.reading(), &limit]).await?;
    if rows.is_empty() {
        return Ok(false);
    }
    let mut all: Vec<Judged> = rows
        .iter()
        .map(|row| judged(row, through.seq))
        .collect::<Result<_, _>>()?;
    let wanted: Vec<Wanted> = all.iter().map(|one| one.wanted.clone()).collect();
    let since = earlier(through.at(), place.disorder_s);
    let newest = facts::newest(transaction, &wanted, since, &TOLD).await?;
    for (one, newest) in all.iter_mut().zip(newest) {
        one.known.newer = newest.map(|at| clock.reading_at(at));
    }
    let verdicts: Vec<Verdict> = all
        .iter()
        .map(|one| verdict(&one.known, clock.reading()))
        .collect();
    let due: Vec<Option<DateTime<Utc>>> = verdicts
        .iter()
        .map(|verdict| match verdict {
            Verdict::Later(due) => Some(*due),
            _ => None,
        })
        .collect();
    let words: Vec<&str> = verdicts.iter().map(|verdict| verdict.as_str()).collect();
    let text = |of: fn(&Judged) -> &str| all.iter().map(of).collect::<Vec<&str>>();
    transaction
        .execute(
            JUDGE,
            &[
                &text(|one| &one.tenant),
                &text(|one| &one.watch),
                &text(|one| &one.subject),
                &words,
                &due,
            ],
        )
        .await?;
    Ok(rows.len() >= JUDGED_MAX)
}

fn judged(row: &Row, through: Seq) -> Result<Judged, tokio_postgres::Error> {
    let (topics, within, since): (Vec<String>, i32, Seq) =
        (row.try_get(7)?, row.try_get(8)?, row.try_get(9)?);
    let topics: Vec<String> = patterns(&topics)
        .iter()
        .map(TopicPattern::to_regex)
        .collect();
    let (tenant, subject): (String, String) = (row.try_get(0)?, row.try_get(2)?);
    Ok(Judged {
        wanted: Wanted {
            tenant: tenant.clone(),
            subject: subject.clone(),
            topics: topics.join("|"),
            after: through.max(since),
        },
        tenant,
        watch: row.try_get(1)?,
        subject,
        known: Known {
            last_seen: row.try_get(3)?,
            due: row.try_get(4)?,
            is_stalled: row.try_get(5)?,
            silent: row.try_get(6)?,
            newer: None,
            within: TimeDelta::seconds(within.into()),
        },
    })
}

/// How many have stalled, of all tenants.
///
/// # Errors
/// If the database cannot be asked.
pub async fn stalled(transaction: &Transaction<'_>) -> Result<i64, Unavailable> {
    Ok(transaction.query_one(STALLED, &[]).await?.try_get(0)?)
}
