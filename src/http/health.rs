//! What is the matter with the server, in sentences: a score, and issues by name with their cause and what to do.
//!
//! # Invariants
//! - An issue has a name that does not change: alerts and people look for it. Its cause says what was seen, its advice what
//!   to do.
//! - No issue names another tenant, or anything that a client chose.

mod consumers;
mod latency;

use std::time::Duration;

use serde::Serialize;

pub use latency::Latency;

use super::app::App;
use crate::access::looks::{Cause, Late};
use crate::event::ByPriority;
use crate::event::limits::{
    APPEND_QUEUE_BYTES_MAX, APPEND_QUEUE_MAX, BODIES_BYTES_MAX, MESSAGES_BYTES_MAX,
};
use crate::feed::Hub;
use crate::log::status::{Database, Holder, UndueLock};
use crate::log::wakeup::{NotifyMode, WakeUp};
use crate::log::{Appender, BreakerState, Resource, Shortage, Trouble};

/// A watermark that is held back by more events than this is worth a word.
const LAG_EVENTS: i64 = 10_000;
/// And so is a transaction that holds it back for longer than this.
const HELD_S: f64 = 10.0;
/// And clocks that are further apart.
const CLOCKS_S: f64 = 5.0;
/// And a clock that stands further behind the newest event: it is noted once a minute.
const CLOCK_BACK_S: f64 = 10.0;
/// And readers that wait for history, if there are more of them.
const BEHIND: usize = 1_000;

/// Something that an operator should know.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct Issue {
    /// Its name.
    pub code: &'static str,
    /// What was seen.
    pub cause: String,
    /// What to do.
    pub advice: String,
    /// Taken off the health score.
    pub weight: u8,
}

/// What was seen of the whole server at one moment.
#[derive(Debug)]
pub struct Observed {
    /// Of the database, if it answered.
    pub database: Option<Database>,
    /// Who holds the watermark back.
    pub held_by: Option<Holder>,
    /// By class, of the last minute.
    pub latency: ByPriority<Option<Latency>>,
}

/// 100 if nothing is the matter.
#[must_use]
pub fn score(issues: &[Issue]) -> u8 {
    let lost = |sum: u8, issue: &Issue| sum.saturating_add(issue.weight);
    100_u8.saturating_sub(issues.iter().fold(0, lost))
}

/// All that is the matter, the gravest first.
#[must_use]
pub fn issues(app: &App, observed: &Observed) -> Vec<Issue> {
    let mut issues = Vec::new();
    issues.extend(away(&app.hub, observed));
    issues.extend(tripped(&app.appender));
    issues.extend(
        app.appender
            .breaker()
            .shortages()
            .known()
            .iter()
            .map(lacking),
    );
    issues.extend(app.access.registry().late().map(unlooked));
    issues.extend(held_back(&app.hub));
    issues.extend(observed.held_by.as_ref().and_then(open_writer));
    issues.extend(filling(&app.appender));
    issues.extend(polling(app));
    issues.extend(behind(&app.hub));
    issues.extend(memory(app));
    issues.extend(consumers::issues(app, observed));
    if let Some(database) = &observed.database {
        issues.extend(notify_queue(database));
        issues.extend(clocks(database));
        issues.extend(undue_locks(database));
        issues.extend(gone_back(database));
        issues.extend(late_audit(database, app.audit.late_after()));
    }
    issues.extend(latency::slow(&observed.latency));
    issues.sort_by_key(|issue| std::cmp::Reverse(issue.weight));
    issues
}

fn issue(code: &'static str, weight: u8, cause: impl Into<String>, advice: &str) -> Issue {
    Issue {
        code,
        cause: cause.into(),
        advice: advice.to_owned(),
        weight,
    }
}

fn away(hub: &Hub, observed: &Observed) -> Option<Issue> {
    let is_up = hub.tail().is_up && observed.database.is_some();
    (!is_up).then(|| {
        let cause = "the database does not answer";
        issue("database-down", 60, cause, "see its log and DATABASE_URL")
    })
}

fn tripped(appender: &Appender) -> Option<Issue> {
    let breaker = appender.breaker();
    let state = breaker.state();
    (state != BreakerState::Closed).then(|| {
        let why = breaker.trouble().map_or("the database is tried again", Trouble::text);
        issue(
            "breaker-open",
            40,
            format!("the database has failed again and again, so nobody waits for it: {why}; the breaker is {}", state.as_str()),
            "see the server's log for why; it closes by itself once a batch is stored, or POST /v1/admin/breaker/reset",
        )
    })
}

/// The database has run out of something.
fn lacking(shortage: &Shortage) -> Issue {
    let (code, weight, advice) = match shortage.resource {
        Resource::Disk => (
            "disk-full",
            60,
            "free room where PostgreSQL's data and WAL lie, or give it more: what waits is stored by itself then. Remove no file of PostgreSQL's by hand; retention removes old events (--retention-days, /v1/retention)",
        ),
        Resource::Memory => (
            "out-of-memory",
            40,
            "see the database's log; too many locks are max_locks_per_transaction, else give its machine more memory",
        ),
        Resource::Connections => (
            "too-many-connections",
            40,
            "see pg_stat_activity for who holds them; raise max_connections, or the limit of the role or the database (ALTER ROLE or ALTER DATABASE … CONNECTION LIMIT)",
        ),
    };
    let (lack, ago) = (shortage.resource.lack(), shortage.at.elapsed().as_secs());
    let cause = format!("{lack}: \"{}\", {ago} s ago", shortage.said);
    issue(code, weight, cause, advice)
}

/// Credentials have not been looked up for some time.
fn unlooked(late: Late) -> Issue {
    let (cause, remedy) = match late.cause {
        Cause::NoConnection => (
            "no connection can be opened".to_owned(),
            "see the server's log, DATABASE_URL and max_connections",
        ),
        Cause::Silent => (
            "the database does not answer".to_owned(),
            "see its log, and what pg_stat_activity says of \"tidewire credentials\"",
        ),
        Cause::Locked => (
            "a transaction holds a table of credentials, or the database is too slow".to_owned(),
            "see pg_locks for who is before \"tidewire credentials\", and end it",
        ),
        Cause::Refused(code) => (
            format!("the database refuses, with SQLSTATE {code}"),
            "see the server's log, and run `tidewire migrate --definitions`",
        ),
    };
    issue(
        "credentials-late",
        60,
        format!(
            "credentials have not been looked up for {} s: {cause}. Revocations are not heard of, and keys and settings that are not known are 503",
            late.by.as_secs(),
        ),
        remedy,
    )
}

fn held_back(hub: &Hub) -> Option<Issue> {
    let watermark = hub.tail().watermark;
    let lag = watermark.newest.saturating_sub(watermark.safe);
    (lag > LAG_EVENTS).then(|| {
        issue(
            "watermark-lag",
            20,
            format!("{lag} events are held back"),
            "see log.held_by and the view tidewire.writers",
        )
    })
}

fn open_writer(holder: &Holder) -> Option<Issue> {
    let open_s = holder.open_s.filter(|s| *s > HELD_S)?;
    let (who, advice) = match holder.pid {
        Some(pid) => (
            format!(
                "the transaction of process {pid}{}{}",
                holder
                    .application
                    .as_ref()
                    .map_or_else(String::new, |name| format!(" ({name})")),
                holder
                    .state
                    .as_ref()
                    .map_or_else(String::new, |state| format!(", {state},"))
            ),
            format!("commit it, or SELECT pg_terminate_backend({pid})"),
        ),
        None => (
            "a prepared transaction".to_owned(),
            "COMMIT PREPARED or ROLLBACK PREPARED it".to_owned(),
        ),
    };
    let cause =
        format!("{who} wrote events and has been open for {open_s:.0} s: it holds readers back");
    Some(issue("open-writer", 20, cause, &advice))
}

fn filling(appender: &Appender) -> Option<Issue> {
    let (groups, bytes) = appender.waiting();
    let is_half = groups > APPEND_QUEUE_MAX / 2 || bytes > APPEND_QUEUE_BYTES_MAX / 2;
    is_half.then(|| {
        issue(
            "append-queue-filling",
            20,
            format!("{groups} requests with {bytes} bytes wait to be stored; low priorities are refused first"),
            "send less, or find out what makes the database slow: tidewire_batch_seconds, pg_stat_activity",
        )
    })
}

fn polling(app: &App) -> Option<Issue> {
    let tail = app.hub.tail();
    let is_wanted = app.notify == NotifyMode::Never;
    let is_unwanted = tail.is_up && tail.wake_up == WakeUp::Polling && !is_wanted;
    is_unwanted.then(|| {
        issue(
            "not-listening",
            10,
            "there is no LISTEN connection: the server polls, which costs latency",
            "see --listen-database-url: a pooler breaks LISTEN",
        )
    })
}

fn behind(hub: &Hub) -> Option<Issue> {
    let behind = hub.behind();
    (behind > BEHIND).then(|| {
        issue(
            "readers-behind",
            10,
            format!("{behind} readers wait for history"),
            "after a restart this passes; else raise --window-events or --window-bytes",
        )
    })
}

fn memory(app: &App) -> Option<Issue> {
    let (bodies, messages) = (app.bodies.taken(), app.messages.taken());
    let is_tight = bodies > BODIES_BYTES_MAX / 5 * 4 || messages > MESSAGES_BYTES_MAX / 5 * 4;
    is_tight.then(|| {
        issue(
            "requests-fill-memory",
            10,
            format!("{bodies} bytes of bodies and {messages} of messages are being received"),
            "send smaller requests, or fewer at once",
        )
    })
}

fn notify_queue(database: &Database) -> Option<Issue> {
    (database.notification_queue_usage > 0.5).then(|| {
        issue(
            "notify-queue",
            20,
            format!("the NOTIFY queue is {:.0} % full", database.notification_queue_usage * 100.0),
            "a session that listens sits in a transaction: SELECT pid FROM pg_stat_activity WHERE state LIKE 'idle in%'",
        )
    })
}

fn clocks(database: &Database) -> Option<Issue> {
    let ahead = database.clock_ahead_s;
    (ahead.abs() > CLOCKS_S).then(|| {
        issue(
            "clocks-apart",
            10,
            format!("the database's clock is {ahead:.1} s ahead of this machine's"),
            "set both right (NTP): recorded_at is the database's, and tokens expire by this machine's",
        )
    })
}

/// Somebody holds what the log goes by, and is not at its work.
fn undue_locks(database: &Database) -> Option<Issue> {
    let held = |lock: &UndueLock| {
        let who = lock.pid.map_or_else(
            || "a prepared transaction".to_owned(),
            |pid| format!("process {pid}"),
        );
        format!("{who} holds that of {}", lock.purpose)
    };
    let held: Vec<String> = database.undue_locks.iter().map(held).collect();
    (!held.is_empty()).then(|| {
        issue(
            "locks-held",
            40,
            format!(
                "advisory locks of the log are held by somebody who is not at its work, and what they stand for does not happen: {}",
                held.join(", "),
            ),
            "SELECT * FROM tidewire.undue_locks(), end these processes with pg_terminate_backend, and run sql/roles/locks.sql",
        )
    })
}

/// Later events would bear earlier times.
fn gone_back(database: &Database) -> Option<Issue> {
    let behind = database.clock_behind_s;
    (behind > CLOCK_BACK_S).then(|| {
        issue(
            "clock-went-back",
            20,
            format!("the database's clock stands {behind:.0} s behind that of the newest events: it was set back, or ran ahead before"),
            "set it right (NTP). Places and cursors keep their order; recorded_at goes back as far as the clock did. Far behind, appends are refused: see Troubleshooting",
        )
    })
}

/// Nobody has written for some time who appended in SQL.
fn late_audit(database: &Database, late_after: Duration) -> Option<Issue> {
    let waiting = &database.unaudited;
    (waiting.oldest_s > late_after.as_secs_f64()).then(|| {
        issue(
            "audit-late",
            10,
            format!("what was appended in SQL {:.0} s ago is in no audit yet ({} statements wait)", waiting.oldest_s, waiting.statements),
            "see the server's log, and run `SELECT tidewire.record_sql_appends()` until it returns 0",
        )
    })
}
