//! The dead-man watch: who has given no sign of life for longer than its tenant allows is told of in the log, once, and once more
//! when it is heard of again.
//!
//! # Invariants
//! - A sign of life counts from when it was recorded, by the database's clock. What the watch itself says is none.
//! - Nobody stalls by a sign that is only late to be read: who is due has all events up to the watermark counted, and is looked up
//!   once more among those that are committed beyond it. An open transaction thus causes no alarm, and holds none back.
//! - A spell is told of once: the event, the mark and the place change in one transaction.
//! - Time in which nobody looked, since the database or all servers were away, is nobody's silence (`clock`).
//! - While it looks no watch changes, and nobody is erased: it takes note of nothing that is gone.

pub mod clock;
pub mod signs;
pub mod store;
pub mod verdict;

use std::time::{Duration, Instant};

use tokio_postgres::Transaction;

use self::signs::Declared;
use super::runner::{Consumer, Next, Place, Step};
use crate::event::Position;
use crate::log::{Unavailable, facts};
use crate::telemetry::Metrics;

/// How often those who have stalled are counted, for whoever scrapes.
const COUNT_INTERVAL: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug)]
pub struct Watch {
    metrics: Metrics,
    /// All watches as of a change, which is known by its number.
    declared: Option<(i64, Declared)>,
    counted_at: Option<Instant>,
}

impl Watch {
    /// One that knows nothing yet.
    #[must_use]
    pub const fn new(metrics: Metrics) -> Self {
        Self {
            metrics,
            declared: None,
            counted_at: None,
        }
    }

    async fn count(&mut self, transaction: &Transaction<'_>) -> Result<(), Unavailable> {
        let is_due = |at: Instant| at.elapsed() >= COUNT_INTERVAL;
        if self.counted_at.is_none_or(is_due) {
            let stalled = store::stalled(transaction).await?;
            self.metrics.consumers.stalled.set(stalled);
            self.counted_at = Some(Instant::now());
        }
        Ok(())
    }
}

impl Consumer for Watch {
    const NAME: &'static str = "watch";
    const PURPOSE: &'static str = "watch";

    async fn step(
        &mut self,
        transaction: &Transaction<'_>,
        place: &Place,
    ) -> Result<Step, Unavailable> {
        // Before anything is read that a change of a watch or an erasure would change.
        let (change, now) = store::hold(transaction).await?;
        let declared = match self.declared.take() {
            Some((of, declared)) if of == change => declared,
            _ => store::declared(transaction).await?,
        };
        let (_, declared) = self.declared.insert((change, declared));
        let Some(begin) = declared.begin() else {
            self.metrics.consumers.stalled.set(0);
            return Ok(Step {
                through: place.after,
                next: Next::Later,
            });
        };
        let clock = store::clock(transaction, now).await?;
        let after = if begin.seq > place.after.seq {
            begin
        } else {
            place.after
        };
        let asked = facts::Asked {
            after,
            disorder_s: place.disorder_s,
            watermark: place.watermark,
            tenants: declared.tenants(),
        };
        let page = facts::page(transaction, &asked).await?;
        let through = page
            .last()
            .map_or(after, |last| Position::new(last.seq, last.recorded_at));
        let signs = signs::gather(declared, &page, &clock);
        store::note(transaction, &signs).await?;
        let is_behind = page.len() >= facts::PAGE_MAX;
        let has_more = is_behind || store::judge(transaction, &clock, through, place).await?;
        store::looked(transaction, &clock).await?;
        self.count(transaction).await?;
        Ok(Step {
            through,
            next: if has_more { Next::AtOnce } else { Next::Soon },
        })
    }

    fn forget(&mut self) {
        self.declared = None;
        self.counted_at = None;
        self.metrics.consumers.stalled.set(0);
    }
}
