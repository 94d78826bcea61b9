//! An event as the log holds it, encoded once for every reader.
//!
//! # Invariants
//! - Immutable: the same bytes go to whoever reads it, whenever, over whatever transport.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;

use super::{Label, Position, Priority, Tenant, Topic, TraceParent};

/// When this server had an event, if it was this server that stored it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// When it came.
    pub received: Instant,
    /// When it was committed.
    pub committed: Instant,
}

/// An event of the log.
#[derive(Debug)]
pub struct Event {
    /// Its place.
    pub position: Position,
    /// The company that owns it.
    pub tenant: Tenant,
    /// What happened.
    pub topic: Topic,
    /// What it happened to.
    pub subject: Option<Label>,
    /// How long it might wait.
    pub priority: Priority,
    /// Its cursor's text.
    pub cursor: Box<str>,
    /// The JSON object of the contract.
    pub json: Bytes,
    /// Of an event that this server stored.
    pub receipt: Option<Receipt>,
    /// The trace it continues.
    pub trace: Option<Box<TraceParent>>,
    /// Ways on which somebody was the first to have it, a bit each.
    told: AtomicU8,
    msgpack: OnceLock<Bytes>,
}

impl Event {
    /// An event whose JSON form is `json`.
    #[must_use]
    pub const fn new(
        position: Position,
        tenant: Tenant,
        topic: Topic,
        subject: Option<Label>,
        priority: Priority,
        cursor: Box<str>,
        json: Bytes,
    ) -> Self {
        Self {
            position,
            tenant,
            topic,
            subject,
            priority,
            cursor,
            json,
            receipt: None,
            trace: None,
            told: AtomicU8::new(0),
            msgpack: OnceLock::new(),
        }
    }

    /// The same, stored by this server.
    #[must_use]
    pub const fn with_receipt(mut self, receipt: Receipt) -> Self {
        self.receipt = Some(receipt);
        self
    }

    /// The same, of this trace.
    #[must_use]
    pub fn with_trace(mut self, trace: Option<TraceParent>) -> Self {
        self.trace = trace.map(Box::new);
        self
    }

    /// Whether this is the first time it is said to have gone this way, one of eight.
    pub fn is_first_on(&self, way: u8) -> bool {
        let bit = 1_u8.checked_shl(u32::from(way)).unwrap_or_default();
        // Asked for each reader, set once.
        self.told.load(Ordering::Relaxed) & bit == 0
            && self.told.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }

    /// How long ago it was received, or recorded if another stored it: by the database's clock then, so about.
    #[must_use]
    pub fn age(&self, now: Instant, now_by_clock: SystemTime) -> Duration {
        self.receipt.map_or_else(
            || self.since_recorded(now_by_clock),
            |receipt| now.saturating_duration_since(receipt.received),
        )
    }

    /// How long ago it was recorded, by the database's clock; 0 if that is ahead of ours.
    #[must_use]
    pub fn since_recorded(&self, now_by_clock: SystemTime) -> Duration {
        let recorded = SystemTime::from(self.position.at());
        now_by_clock.duration_since(recorded).unwrap_or_default()
    }

    /// The same object as MessagePack; made when first asked for.
    pub fn msgpack(&self) -> &Bytes {
        self.msgpack
            .get_or_init(|| super::encode::json_to_msgpack(&self.json))
    }

    /// Bytes it takes in memory, about; a MessagePack form, if one is asked for, comes on top.
    #[must_use]
    pub const fn weight(&self) -> usize {
        self.json.len().saturating_add(EVENT_OVERHEAD_BYTES)
    }
}

/// What an event costs beside its JSON: the struct, its cursor, topic and subject, and a reference in a window.
const EVENT_OVERHEAD_BYTES: usize = 320;
