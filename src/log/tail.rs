//! Follows the end of the log for this server: the only place that turns new rows into deliverable events.
//!
//! # Invariants
//! - Nothing above the watermark is ever handed on, and nothing at or below it is left out: pages ascend, without a gap.
//! - It carries no event by notification: a wake-up, a commit of our own or the safety poll only make it look.
//! - It falls asleep only if no writer that took it for awake is still open, and looks once more before it does.
//! - A database that is away or silent costs time, never an event: it goes on after the last page.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio_postgres::{Client, Statement};

use super::error::Unavailable;
use super::identity::Identity;
use super::listener::Listener;
use super::row::{self, event_columns};
use crate::event::limits::{DATABASE_SILENCE_MAX, POLL_INTERVAL, TAIL_PAGE_EVENTS};
use crate::event::{Event, Position, Seq};
use crate::pg::Connector;
use crate::tasks::pause;

const WATERMARK: &str = "SELECT watermark, newest, holder FROM tidewire.watermark()";
/// Sent together with WATERMARK in one round trip; its snapshot is taken after that statement has ended. Rows above the
/// watermark are cut off here.
const NEW_EVENTS: &str = concat!(
    "SELECT ",
    event_columns!(),
    " FROM tidewire.events AS e
      WHERE e.seq > $1 AND e.recorded_at >= $2 ORDER BY e.seq LIMIT $3"
);
/// The newest event at or below a place: where to begin, and from when on to look.
const BEGIN_AT: &str =
    "SELECT seq, recorded_at FROM tidewire.events WHERE seq <= $1 ORDER BY seq DESC LIMIT 1";

/// Statements of this file, for the test that prepares each.
pub const STATEMENTS: &[&str] = &[WATERMARK, NEW_EVENTS, BEGIN_AT];

/// Events before the present end that are read at the start, so that readers who were here a moment ago find theirs in
/// the window.
const PRELOAD_EVENTS: Seq = 20_000;
/// Least time between two looks while there is something to read at each.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);
/// Awake, without a commit of our own: how often to look for other writers' events.
const AWAKE_POLL_MIN: Duration = Duration::from_millis(2);
const AWAKE_POLL_MAX: Duration = Duration::from_millis(16);
/// Without a LISTEN connection.
const DEAF_POLL: Duration = Duration::from_millis(25);
/// Quiet for this long: try to sleep.
const QUIET_BEFORE_SLEEP: Duration = Duration::from_millis(25);
/// Woken more often than this within `BUSY_WINDOW`: stay awake.
const BUSY_WAKEUPS: u32 = 20;
const BUSY_WINDOW: Duration = Duration::from_millis(100);
const RECONNECT_MIN: Duration = Duration::from_millis(20);
const RECONNECT_MAX: Duration = Duration::from_secs(1);

/// When writers have to notify. A setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum NotifyMode {
    /// When this server sleeps.
    #[default]
    Auto,
    /// Always: the server never says that it is awake.
    Always,
    /// Never: the server polls.
    Never,
}

/// What the tail is doing about wake-ups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WakeUp {
    /// Asleep: every writer notifies.
    Asleep,
    /// Awake: it looks often, writers need not notify.
    Awake,
    /// There is no LISTEN connection, or it is not wanted: it looks often.
    Polling,
}

/// How far the log can be read, and what holds it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermark {
    /// The watermark; its time is that of the newest event at or below it.
    pub position: Position,
    /// The newest place that was handed out.
    pub newest: Seq,
    /// The backend behind the lowest floor.
    pub holder: Option<i32>,
}

/// What one look found.
#[derive(Debug)]
pub struct TailPage {
    /// New events, ascending.
    pub events: Vec<Arc<Event>>,
    /// Everything up to here has now been handed on.
    pub watermark: Watermark,
    /// The log was cut (a restored backup, a failover): what was handed on before may no longer be in it.
    pub is_reset: bool,
    /// The database said that there was more than a page.
    is_full: bool,
}

/// What others may know of the tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TailStatus {
    /// The last look's watermark.
    pub watermark: Watermark,
    /// About wake-ups.
    pub wake_up: WakeUp,
    /// Whether the last look succeeded.
    pub is_up: bool,
}

struct Reading {
    client: Client,
    watermark: Statement,
    new_events: Statement,
}

/// Follows the log; see the module.
pub struct Tail {
    connector: Connector,
    identity: Identity,
    listener: Listener,
    /// Signalled by notifications, by commits of this server and by losses.
    wakeup: Arc<Notify>,
    mode: NotifyMode,
    status: watch::Sender<TailStatus>,
    after: Position,
    present: Seq,
    reading: Option<Reading>,
    must_reset: bool,
    wake_up: WakeUp,
    wakeups: u32,
    wakeups_since: Instant,
    quiet_since: Instant,
}

impl Tail {
    /// Connects, and finds where to begin.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn open(
        connector: Connector,
        identity: Identity,
        listener: Listener,
        wakeup: Arc<Notify>,
        mode: NotifyMode,
    ) -> Result<(Self, watch::Receiver<TailStatus>), Unavailable> {
        let reading = connect(&connector).await?;
        let (begin, present) = begin_at(&reading, identity.known().retained)
            .await
            .map_err(Unavailable::Lost)?;
        let watermark = Watermark {
            position: begin,
            newest: begin.seq,
            holder: None,
        };
        let (status, receiver) = watch::channel(TailStatus {
            watermark,
            wake_up: WakeUp::Polling,
            is_up: true,
        });
        let now = Instant::now();
        let tail = Self {
            connector,
            identity,
            listener,
            wakeup,
            mode,
            status,
            after: begin,
            present,
            reading: Some(reading),
            must_reset: false,
            wake_up: WakeUp::Polling,
            wakeups: 0,
            wakeups_since: now,
            quiet_since: now,
        };
        Ok((tail, receiver))
    }

    /// Where the tail begins: what it hands on lies after this.
    #[must_use]
    pub const fn begins_at(&self) -> Position {
        self.after
    }

    /// The end of the log when the tail was opened: before it has handed on all up to there, `latest` is the past.
    #[must_use]
    pub const fn present(&self) -> Seq {
        self.present
    }

    /// Hands page after page to `sink`, for ever.
    pub async fn run(mut self, mut sink: impl FnMut(TailPage)) {
        let mut backoff = RECONNECT_MIN;
        loop {
            let looked_at = Instant::now();
            match self.look().await {
                Ok(page) => {
                    backoff = RECONNECT_MIN;
                    let (is_full, found) = (page.is_full, !page.events.is_empty());
                    self.after = page.watermark.position;
                    self.report(page.watermark, true);
                    sink(page);
                    if !is_full {
                        self.wait(looked_at, found).await;
                    }
                }
                Err(error) => {
                    self.reading = None;
                    let last = self.status.borrow().watermark;
                    self.report(last, false);
                    tracing::warn!(%error, "the tail cannot read: trying again");
                    pause(backoff).await;
                    backoff = backoff.saturating_mul(2).min(RECONNECT_MAX);
                }
            }
        }
    }

    fn report(&self, watermark: Watermark, is_up: bool) {
        let status = TailStatus {
            watermark,
            wake_up: self.wake_up,
            is_up,
        };
        self.status
            .send_if_modified(|last| std::mem::replace(last, status) != status);
    }

    async fn look(&mut self) -> Result<TailPage, Unavailable> {
        if self.reading.is_none() {
            let reading = connect(&self.connector).await?;
            self.identity
                .reload(&reading.client)
                .await
                .map_err(Unavailable::Lost)?;
            self.reading = Some(reading);
        }
        let Some(reading) = &self.reading else {
            return Err(Unavailable::Silent);
        };
        let known = self.identity.known();
        let look = read(reading, self.after, known.disorder_s);
        let (watermark, rows) = tokio::time::timeout(DATABASE_SILENCE_MAX, look)
            .await
            .map_err(|_| Unavailable::Silent)?
            .map_err(Unavailable::Lost)?;
        let (safe, newest, holder) = watermark;
        if newest < self.after.seq {
            // Places are never given back: this is another history.
            self.must_reset = true;
            return self.reset().await;
        }
        let mut events = Vec::with_capacity(rows.len());
        let mut position = self.after;
        let is_full = rows.len() >= TAIL_PAGE_EVENTS;
        for row in &rows {
            let event = row::event(row, &known.identity).map_err(Unavailable::Lost)?;
            if event.position.seq > safe {
                break;
            }
            debug_assert!(event.position.seq > position.seq, "pages ascend");
            position = event.position;
            events.push(Arc::new(event));
        }
        let is_full = is_full && events.len() == rows.len();
        if !is_full {
            // All that is committed at or below the watermark has been read.
            position.seq = position.seq.max(safe);
        }
        Ok(TailPage {
            events,
            watermark: Watermark {
                position,
                newest,
                holder,
            },
            is_reset: false,
            is_full,
        })
    }

    /// Begins anew at the end of the log as it is now.
    async fn reset(&mut self) -> Result<TailPage, Unavailable> {
        let Some(reading) = &self.reading else {
            return Err(Unavailable::Silent);
        };
        self.identity
            .reload(&reading.client)
            .await
            .map_err(Unavailable::Lost)?;
        let (begin, _) = begin_at(reading, self.identity.known().retained)
            .await
            .map_err(Unavailable::Lost)?;
        tracing::warn!(
            event.seq = begin.seq,
            "the log has begun a new life: cursors beyond its newest event are unknown"
        );
        self.must_reset = false;
        let watermark = Watermark {
            position: begin,
            newest: begin.seq,
            holder: None,
        };
        Ok(TailPage {
            events: Vec::new(),
            watermark,
            is_reset: true,
            is_full: true,
        })
    }

    /// Waits for a reason to look again.
    async fn wait(&mut self, looked_at: Instant, found: bool) {
        if found {
            self.quiet_since = Instant::now();
        }
        let patience = self.patience(found).await;
        if tokio::time::timeout(patience, self.wakeup.notified())
            .await
            .is_ok()
        {
            self.count_wakeup().await;
        }
        // As many commits as come within this time are read at once.
        if found && let Some(rest) = LOOK_INTERVAL.checked_sub(looked_at.elapsed()) {
            pause(rest).await;
        }
    }

    /// How long to wait for a wake-up, after settling whether to sleep.
    async fn patience(&mut self, found: bool) -> Duration {
        let ear = if self.mode == NotifyMode::Never {
            None
        } else {
            self.listener.ear()
        };
        let Some(ear) = ear else {
            self.wake_up = WakeUp::Polling;
            return DEAF_POLL;
        };
        if self.wake_up == WakeUp::Asleep {
            return POLL_INTERVAL;
        }
        let quiet = self.quiet_since.elapsed();
        let wants_sleep = self.mode == NotifyMode::Always || quiet >= QUIET_BEFORE_SLEEP;
        if wants_sleep && ear.sleep().await {
            self.wake_up = WakeUp::Asleep;
            // Once more: what was committed before the lock was taken has notified nobody.
            return Duration::ZERO;
        }
        self.wake_up = WakeUp::Awake;
        if found {
            AWAKE_POLL_MIN
        } else {
            (quiet / 4).clamp(AWAKE_POLL_MIN, AWAKE_POLL_MAX)
        }
    }

    /// Asleep and woken again and again: better stay awake, so that writers need not notify.
    async fn count_wakeup(&mut self) {
        if self.wake_up != WakeUp::Asleep {
            return;
        }
        let Some(ear) = self.listener.ear() else {
            // The lock went with the connection.
            self.wake_up = WakeUp::Polling;
            return;
        };
        if self.mode == NotifyMode::Always {
            return;
        }
        let now = Instant::now();
        if now.duration_since(self.wakeups_since) > BUSY_WINDOW {
            self.wakeups_since = now;
            self.wakeups = 0;
        }
        self.wakeups = self.wakeups.saturating_add(1);
        if self.wakeups > BUSY_WAKEUPS {
            ear.wake().await;
            self.wake_up = WakeUp::Awake;
            self.quiet_since = now;
            self.wakeups = 0;
        }
    }
}

async fn connect(connector: &Connector) -> Result<Reading, Unavailable> {
    let client = connector.connect("tail").await?;
    let prepared = async {
        // Chunks come and go, and the bound on time is what keeps old ones out of the plan.
        client
            .batch_execute("SET plan_cache_mode = force_custom_plan; SET jit = off")
            .await?;
        let (watermark, new_events) = (
            client.prepare(WATERMARK).await?,
            client.prepare(NEW_EVENTS).await?,
        );
        Ok::<_, tokio_postgres::Error>((watermark, new_events))
    };
    let (watermark, new_events) = tokio::time::timeout(DATABASE_SILENCE_MAX, prepared)
        .await
        .map_err(|_| Unavailable::Silent)?
        .map_err(Unavailable::Lost)?;
    Ok(Reading {
        client,
        watermark,
        new_events,
    })
}

async fn begin_at(
    reading: &Reading,
    retained: Position,
) -> Result<(Position, Seq), tokio_postgres::Error> {
    let row = reading.client.query_one(&reading.watermark, &[]).await?;
    let watermark: Seq = row.try_get(0)?;
    let wanted = watermark.saturating_sub(PRELOAD_EVENTS);
    let Some(row) = reading.client.query_opt(BEGIN_AT, &[&wanted]).await? else {
        return Ok((retained, watermark));
    };
    let (seq, at) = (row.try_get(0)?, row.try_get(1)?);
    Ok((Position::new(seq, at).max(retained), watermark))
}

type Look = ((Seq, Seq, Option<i32>), Vec<tokio_postgres::Row>);

async fn read(
    reading: &Reading,
    after: Position,
    disorder_s: i64,
) -> Result<Look, tokio_postgres::Error> {
    let since = Position {
        at_ms: after.at_ms.saturating_sub(disorder_s.saturating_mul(1000)),
        ..after
    }
    .at();
    let limit = i64::try_from(TAIL_PAGE_EVENTS).unwrap_or(i64::MAX);
    // Both are sent at once and run one after the other, each with a snapshot of its own.
    let params: [&(dyn tokio_postgres::types::ToSql + Sync); 3] = [&after.seq, &since, &limit];
    let (row, rows) = tokio::try_join!(
        reading.client.query_one(&reading.watermark, &[]),
        reading.client.query(&reading.new_events, &params),
    )?;
    Ok(((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?), rows))
}
