//! One of the crowd: reads, is cut off, comes back with its cursor, and counts.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, timeout};

use super::{Drill, REST_MAX, Storm};
use crate::backoff::Backoff;
use crate::check::flaw::Flaw;
use crate::check::live::Live;
use crate::client::pause;

/// How soon who was refused comes back.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);
/// How long opening may take.
const OPEN_MAX: Duration = Duration::from_secs(10);

/// What one reader has seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Numbers, each counted once.
    pub(super) delivered: u64,
    /// The same, when writing ended.
    pub(super) delivered_in_time: u64,
    /// Numbers that came again.
    pub(super) duplicated: u64,
    /// Numbers that came after a greater one.
    pub(super) misplaced: u64,
    /// Numbers that never came.
    pub(super) missing: u64,
    /// From each cut until everything was there again.
    pub(super) recoveries: Vec<Duration>,
    /// Cuts after which that was not so before the next one, or the end.
    pub(super) unrecovered: u64,
    /// Times it was refused, or a connection broke that was not cut here.
    pub(super) failures: u64,
    /// Why, the last time.
    pub(super) last_failure: Option<String>,
    /// The next number that is expected.
    next: u64,
    skipped: HashSet<u64>,
    cut_at: Option<Instant>,
}

impl Seen {
    fn take(&mut self, events: &[Value]) {
        for n in events
            .iter()
            .filter_map(|event| event.pointer("/data/n")?.as_u64())
        {
            if n >= self.next {
                self.skipped.extend(self.next..n);
                self.next = n.saturating_add(1);
                self.delivered = self.delivered.saturating_add(1);
            } else if self.skipped.remove(&n) {
                self.misplaced = self.misplaced.saturating_add(1);
                self.delivered = self.delivered.saturating_add(1);
            } else {
                self.duplicated = self.duplicated.saturating_add(1);
            }
        }
    }

    /// The connection was cut.
    fn cut(&mut self, at: Option<Instant>) {
        if self.cut_at.is_some() {
            self.unrecovered = self.unrecovered.saturating_add(1);
        }
        self.cut_at = at;
    }

    /// Something came over a connection that is open: whether that is all there was.
    fn look(&mut self, storm: &Storm) {
        if self.next >= storm.acknowledged()
            && let Some(at) = self.cut_at.take()
        {
            self.recoveries.push(at.elapsed());
        }
    }

    fn fail(&mut self, flaw: Flaw) {
        self.failures = self.failures.saturating_add(1);
        self.last_failure = Some(match flaw {
            Flaw::Failed { cause, .. } => cause,
            Flaw::Skipped(why) => why,
        });
    }
}

/// Reads until it has everything, or time is up.
pub(super) async fn run(drill: &Drill, storm: &Storm, from: String) -> Seen {
    let (mut seen, mut at) = (Seen::default(), from);
    let mut total = storm.total.clone();
    let mut cut = storm.cut.clone();
    tokio::select! {
        () = read(drill, storm, &mut cut, &mut seen, &mut at) => {}
        _ = total.wait_for(Option::is_some) => {}
    }
    seen.delivered_in_time = seen.delivered;
    let total = total.borrow().unwrap_or_default();
    // Once more with all of its patience: what is missing now is lost.
    let rest = async {
        let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
        while seen.delivered < total && seen.next < total {
            match rest(drill, storm, &mut seen, &mut at, total).await {
                Ok(()) => {}
                Err(flaw) => {
                    seen.fail(flaw);
                    pause(backoff.next_delay()).await;
                }
            }
        }
    };
    let _ = timeout(REST_MAX, rest).await;
    if seen.cut_at.take().is_some() {
        seen.unrecovered = seen.unrecovered.saturating_add(1);
    }
    seen.missing = total.saturating_sub(seen.delivered);
    seen
}

/// Reads for as long as there is more to come.
async fn read(
    drill: &Drill,
    storm: &Storm,
    cut: &mut tokio::sync::watch::Receiver<Option<Instant>>,
    seen: &mut Seen,
    at: &mut String,
) {
    let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
    loop {
        tokio::select! {
            // Dropped, the connection is gone.
            flaw = stream(drill, storm, seen, at) => {
                seen.fail(flaw);
                pause(backoff.next_delay()).await;
                continue;
            }
            _ = cut.changed() => {}
        }
        let cut_at = *cut.borrow_and_update();
        seen.cut(cut_at);
        backoff.reset();
    }
}

/// Reads until the connection fails.
async fn stream(drill: &Drill, storm: &Storm, seen: &mut Seen, at: &mut String) -> Flaw {
    let mut live = match open(drill, storm, at).await {
        Ok(live) => live,
        Err(flaw) => return flaw,
    };
    loop {
        match live.step().await {
            Ok((events, cursor)) => {
                keep(seen, at, &events, cursor);
                seen.look(storm);
            }
            Err(flaw) => return flaw,
        }
    }
}

async fn rest(
    drill: &Drill,
    storm: &Storm,
    seen: &mut Seen,
    at: &mut String,
    total: u64,
) -> Result<(), Flaw> {
    let mut live = open(drill, storm, at).await?;
    while seen.next < total {
        let (events, cursor) = live.step().await?;
        keep(seen, at, &events, cursor);
        seen.look(storm);
    }
    Ok(())
}

async fn open(drill: &Drill, storm: &Storm, at: &str) -> Result<Live, Flaw> {
    let opening = Live::open(drill.wire, &drill.client, &storm.topic, at);
    let opened = timeout(OPEN_MAX, opening).await;
    opened.unwrap_or_else(|_| Err(Flaw::failed("opening took too long", "")))
}

/// Counts, and only then takes note of the cursor.
fn keep(seen: &mut Seen, at: &mut String, events: &[Value], cursor: String) {
    seen.take(events);
    if !cursor.is_empty() {
        *at = cursor;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn seen(numbers: &[u64]) -> Seen {
        let mut seen = Seen::default();
        let events: Vec<Value> = numbers.iter().map(|n| json!({"data": {"n": n}})).collect();
        seen.take(&events);
        seen
    }

    #[test]
    fn a_reader_counts_what_it_missed_and_saw_twice() {
        let good = seen(&[0, 1, 2, 3]);
        assert_eq!((good.delivered, good.duplicated, good.misplaced), (4, 0, 0));
        let twice = seen(&[0, 1, 1, 2, 0]);
        assert_eq!(
            (twice.delivered, twice.duplicated, twice.misplaced),
            (3, 2, 0)
        );
        let late = seen(&[0, 2, 1, 3]);
        assert_eq!((late.delivered, late.duplicated, late.misplaced), (4, 0, 1));
        let lost = seen(&[0, 3]);
        assert_eq!((lost.delivered, lost.next), (2, 4));
    }
}
