//! Turns a row of the log into an event, encoded once.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use postgres_types::{FromSql, Type};
use tokio_postgres::Row;

use crate::event::encode::{self, Stored};
use crate::event::{
    Event, Label, LogIdentity, Position, Priority, Seq, Tenant, Topic, TraceParent,
};

/// The columns of every statement whose rows [`event`] reads, in this order.
macro_rules! event_columns {
    () => {
        "e.seq, e.recorded_at, e.tenant, e.id, e.topic, e.subject, e.source, e.priority::text, e.occurred_at, e.region, \
         e.gdpr, e.trace, e.data, e.bytes, e.content_type, e.erased_at"
    };
}
pub(crate) use event_columns;

/// `jsonb` as its text, as the database prints it: parsing it would make its numbers inexact.
struct JsonText<'a>(&'a str);

impl<'a> FromSql<'a> for JsonText<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        // The binary form is a version byte, 1, and the text.
        match raw.split_first() {
            Some((1, text)) => Ok(Self(std::str::from_utf8(text)?)),
            _ => Err("unknown jsonb version".into()),
        }
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::JSONB
    }
}

/// Reads one row.
///
/// # Errors
/// If a column is not of the type the schema says.
pub fn event(row: &Row, identity: &LogIdentity) -> Result<Event, tokio_postgres::Error> {
    let seq: Seq = row.try_get(0)?;
    let recorded_at: DateTime<Utc> = row.try_get(1)?;
    let position = Position::new(seq, recorded_at);
    let cursor = identity.encode(position);
    let topic: &str = row.try_get(4)?;
    let subject: Option<&str> = row.try_get(5)?;
    let priority: &str = row.try_get(7)?;
    let gdpr: Option<JsonText<'_>> = row.try_get(10)?;
    let data: Option<JsonText<'_>> = row.try_get(12)?;
    let trace: Option<&str> = row.try_get(11)?;
    let json: Bytes = encode::json(&Stored {
        id: row.try_get(3)?,
        cursor: &cursor,
        topic,
        subject,
        source: row.try_get(6)?,
        priority,
        occurred_at: row.try_get(8)?,
        recorded_at,
        region: row.try_get(9)?,
        gdpr: gdpr.as_ref().map(|text| text.0),
        trace,
        data: data.as_ref().map(|text| text.0),
        bytes: row.try_get(13)?,
        content_type: row.try_get(14)?,
        erased_at: row.try_get(15)?,
    });
    Ok(Event::new(
        position,
        stored_tenant(row.try_get(2)?),
        stored_topic(topic),
        subject.and_then(|text| Label::parse(text).ok()),
        Priority::parse(priority).unwrap_or_default(),
        cursor.into_boxed_str(),
        json,
    )
    .with_trace(trace.and_then(TraceParent::parse)))
}

/// The table's constraints are those of the type; what breaks them nonetheless belongs to nobody.
fn stored_tenant(text: &str) -> Tenant {
    Tenant::parse(text).unwrap_or_else(|_| Tenant::nobody())
}

fn stored_topic(text: &str) -> Topic {
    Topic::parse(text).unwrap_or_else(|_| Topic::unreadable())
}
