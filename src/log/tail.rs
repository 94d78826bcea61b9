//! Follows the end of the log for this server: the only place that turns new rows into deliverable events.
//!
//! # Invariants
//! - Nothing above the watermark is ever handed on, and nothing at or below it is left out: pages ascend, without a gap.
//! - It carries no event by notification: a wake-up, a commit of our own or the safety poll only make it look.
//! - A database that is away or silent costs time, never an event: it goes on after the last page.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio_postgres::{Client, Statement};

use super::error::Unavailable;
use super::identity::Identity;
use super::listener::Listener;
use super::row::{self, event_columns};
use super::wakeup::{NotifyMode, Sleeper, WakeUp};
use crate::event::limits::{DATABASE_SILENCE_MAX, TAIL_PAGE_EVENTS};
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
pub const STATEMENTS: &[&str] = &[WATERMARK, NEW_EVENTS, BEGIN_AT, CHUNKS];

/// Events before the present end that are read at the start, so that readers who were here a moment ago find theirs in
/// the window.
const PRELOAD_EVENTS: Seq = 20_000;
/// Least time between two looks while there is something to read at each. A look that took longer is followed by a rest
/// as long as itself, so that looking never takes more than half of the database's time.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);
const LOOK_INTERVAL_MAX: Duration = Duration::from_millis(10);
/// With few chunks one plan for all looks is cheapest: making one anew takes longer than the look. With many, a plan
/// that knows the time leaves out the old chunks before it locks them.
const ONE_PLAN_CHUNKS_MAX: i64 = 16;
const CHUNKS: &str = "
    SELECT count(*) FROM timescaledb_information.chunks
     WHERE hypertable_schema = 'tidewire' AND hypertable_name = 'events'";
const RECONNECT_MIN: Duration = Duration::from_millis(20);
const RECONNECT_MAX: Duration = Duration::from_secs(1);

/// How far the log can be read, and what holds it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermark {
    /// The newest event at or below the watermark: how far readers get. Never a place without an event, since a
    /// database that crashes takes back places whose transaction was not committed, and gives them out again.
    pub position: Position,
    /// The watermark itself.
    pub safe: Seq,
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
    /// Signalled by notifications, by commits of this server and by losses.
    wakeup: Arc<Notify>,
    status: watch::Sender<TailStatus>,
    after: Position,
    present: Seq,
    reading: Option<Reading>,
    must_reset: bool,
    sleeper: Sleeper,
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
            safe: begin.seq,
            newest: begin.seq,
            holder: None,
        };
        let (status, receiver) = watch::channel(TailStatus {
            watermark,
            wake_up: WakeUp::Polling,
            is_up: true,
        });
        let tail = Self {
            connector,
            identity,
            wakeup,
            status,
            after: begin,
            present,
            reading: Some(reading),
            must_reset: false,
            sleeper: Sleeper::new(listener, mode),
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
            wake_up: self.sleeper.state(),
            is_up,
        };
        self.status
            .send_if_modified(|last| std::mem::replace(last, status) != status);
    }

    async fn look(&mut self) -> Result<TailPage, Unavailable> {
        if self.reading.is_none() {
            let reading = connect(&self.connector).await?;
            let before = self.identity.known().identity.epoch;
            self.identity
                .reload(&reading.client)
                .await
                .map_err(Unavailable::Lost)?;
            self.must_reset |= self.identity.known().identity.epoch != before;
            self.reading = Some(reading);
        }
        if self.must_reset {
            return self.reset().await;
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
        Ok(TailPage {
            events,
            watermark: Watermark {
                position,
                safe: if is_full { position.seq } else { safe },
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
            safe: begin.seq,
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
        let spacing = looked_at
            .elapsed()
            .saturating_mul(2)
            .clamp(LOOK_INTERVAL, LOOK_INTERVAL_MAX);
        let patience = self.sleeper.patience(found).await;
        if tokio::time::timeout(patience, self.wakeup.notified())
            .await
            .is_ok()
        {
            self.sleeper.woken().await;
        }
        // As many commits as come within this time are read at once.
        if found && let Some(rest) = spacing.checked_sub(looked_at.elapsed()) {
            pause(rest).await;
        }
    }
}

async fn connect(connector: &Connector) -> Result<Reading, Unavailable> {
    let client = connector.connect("tail").await?;
    let prepared = async {
        let chunks: i64 = client.query_one(CHUNKS, &[]).await?.try_get(0)?;
        let one_plan = "SET plan_cache_mode = force_generic_plan; SET jit = off";
        let plan_each = "SET plan_cache_mode = force_custom_plan; SET jit = off";
        let mode = if chunks <= ONE_PLAN_CHUNKS_MAX {
            one_plan
        } else {
            plan_each
        };
        client.batch_execute(mode).await?;
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
