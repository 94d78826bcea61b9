//! This server's own commits that wait for their turn to be handed on.
//!
//! # Invariants
//! - Only what follows a given place without a gap comes out: between two neighbouring places there is none that another
//!   transaction could still fill.
//! - Bounded as the inbox is: beyond, all is forgotten, and a look finds it in the log.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use tokio_postgres::Row;

use super::inbox::Commit;
use super::row;
use crate::event::limits::{INBOX_BYTES_MAX, INBOX_ROWS_MAX};
use crate::event::{Event, LogIdentity, Position, Receipt, Seq};

/// See the module.
#[derive(Debug, Default)]
pub struct Own {
    rows: BTreeMap<Seq, (Row, Receipt)>,
    bytes: usize,
    gap_since: Option<Instant>,
}

impl Own {
    /// Puts rows with those that wait; what lies at or below `after` has been handed on. `false` if there is no room: all
    /// is forgotten, and only a look can find it.
    ///
    /// # Errors
    /// If a row has no place.
    pub fn put(&mut self, commit: Commit, after: Position) -> Result<bool, tokio_postgres::Error> {
        let committed = commit.committed;
        for (row, received) in commit.rows.into_iter().zip(commit.received) {
            let seq: Seq = row.try_get(0)?;
            if seq > after.seq {
                self.bytes = self.bytes.saturating_add(row.raw_size_bytes());
                let receipt = Receipt {
                    received,
                    committed,
                };
                self.rows.insert(seq, (row, receipt));
            }
        }
        let has_room = self.rows.len() <= INBOX_ROWS_MAX && self.bytes <= INBOX_BYTES_MAX;
        if !has_room {
            self.clear();
        }
        Ok(has_room)
    }

    /// Takes the events that follow `after` without a gap.
    ///
    /// # Errors
    /// If a row is not of the type the schema says.
    pub fn take_after(
        &mut self,
        after: Position,
        identity: &LogIdentity,
    ) -> Result<Vec<Arc<Event>>, tokio_postgres::Error> {
        let mut events = Vec::new();
        let mut next = after.seq.saturating_add(1);
        while let Some((row, receipt)) = self.rows.remove(&next) {
            self.bytes = self.bytes.saturating_sub(row.raw_size_bytes());
            events.push(Arc::new(row::event(&row, identity)?.with_receipt(receipt)));
            next = next.saturating_add(1);
        }
        self.gap_since = if self.rows.is_empty() {
            None
        } else {
            self.gap_since.or_else(|| Some(Instant::now()))
        };
        Ok(events)
    }

    /// Since when a place has been missing before those that are left.
    #[must_use]
    pub const fn gap_since(&self) -> Option<Instant> {
        self.gap_since
    }

    /// Forgets what lies at or below `through`: a look has found it.
    pub fn forget_through(&mut self, through: Position) {
        self.rows = self.rows.split_off(&through.seq.saturating_add(1));
        let sizes = self.rows.values().map(|(row, _)| row.raw_size_bytes());
        self.bytes = sizes.sum();
        self.gap_since = None;
    }

    /// Forgets all: a look will find it.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}
