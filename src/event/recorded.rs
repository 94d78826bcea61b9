//! An event as the log holds it, encoded once for every reader.
//!
//! # Invariants
//! - Immutable: the same bytes go to whoever reads it, whenever, over whatever transport.

use std::sync::OnceLock;

use bytes::Bytes;

use super::{Label, Position, Priority, Tenant, Topic};

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
            msgpack: OnceLock::new(),
        }
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
