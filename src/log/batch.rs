//! A batch as the database takes it: parallel arrays, one place an event.

use std::time::Instant;

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use tokio_postgres::types::ToSql;

use super::group::Group;
use crate::event::{Label, NewEvent, Payload, Seq};

/// One event of a batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member<'a> {
    tenant: &'a str,
    id: &'a str,
    event: &'a NewEvent,
    /// The place of the subject's newest event, as the writer knows it; 0 for none.
    pub(super) expected: Option<Seq>,
    /// Members with the same number are stored together or not at all.
    pub(super) unit: i32,
    /// When its request came.
    pub(super) received: Instant,
}

/// The members of a batch, in order, with the numbers of their units.
pub(super) fn members(batch: &[Group]) -> Vec<Member<'_>> {
    let mut members = Vec::with_capacity(batch.iter().map(|group| group.events.len()).sum());
    let mut unit = 0_i32;
    for group in batch {
        unit = unit.saturating_add(1);
        for ((event, id), expected) in group.events.iter().zip(&group.ids).zip(&group.expected) {
            members.push(Member {
                tenant: group.tenant.as_str(),
                id: id.as_str(),
                event,
                expected: *expected,
                unit,
                received: group.received,
            });
            if !group.is_atomic {
                unit = unit.saturating_add(1);
            }
        }
    }
    members
}

/// Where a new unit begins, nearest behind the middle; `None` if there is one unit only.
pub(super) fn middle(members: &[Member<'_>]) -> Option<usize> {
    let half = members.len().div_euclid(2);
    let begins = |at: &usize| {
        let pair = at
            .checked_sub(1)
            .map(|before| (members.get(before), members.get(*at)));
        matches!(pair, Some((Some(a), Some(b))) if a.unit != b.unit)
    };
    (half..members.len())
        .find(begins)
        .or_else(|| (1..half).rev().find(begins))
}

/// The batch as the parallel arrays of one statement.
pub(super) struct Columns<'a> {
    tenants: Vec<&'a str>,
    ids: Vec<&'a str>,
    topics: Vec<&'a str>,
    subjects: Vec<Option<&'a str>>,
    sources: Vec<Option<&'a str>>,
    priorities: Vec<&'static str>,
    occurred_ats: Vec<Option<DateTime<Utc>>>,
    regions: Vec<Option<&'a str>>,
    gdprs: Vec<Option<&'a str>>,
    traces: Vec<Option<&'a str>>,
    datas: Vec<Option<&'a str>>,
    bytess: Vec<Option<&'a [u8]>>,
    content_types: Vec<Option<&'a str>>,
    units: Vec<i32>,
    expected: Vec<Option<Seq>>,
}

impl<'a> Columns<'a> {
    pub(super) fn of(members: &[Member<'a>]) -> Self {
        let texts = |read: fn(&'a NewEvent) -> Option<&'a str>| {
            members.iter().map(|m| read(m.event)).collect::<Vec<_>>()
        };
        Self {
            tenants: members.iter().map(|m| m.tenant).collect(),
            ids: members.iter().map(|m| m.id).collect(),
            topics: members.iter().map(|m| m.event.topic.as_str()).collect(),
            subjects: texts(|e| e.subject.as_ref().map(Label::as_str)),
            sources: texts(|e| e.source.as_ref().map(Label::as_str)),
            priorities: members.iter().map(|m| m.event.priority.as_str()).collect(),
            occurred_ats: members.iter().map(|m| m.event.occurred_at).collect(),
            regions: texts(|e| e.region.as_ref().map(Label::as_str)),
            gdprs: texts(|e| e.gdpr.as_deref().map(RawValue::get)),
            traces: texts(|e| e.trace.as_deref()),
            datas: texts(|e| match &e.payload {
                Payload::Json(text) => Some(text.get()),
                _ => None,
            }),
            bytess: members
                .iter()
                .map(|m| match &m.event.payload {
                    Payload::Bytes { bytes, .. } => Some(bytes.as_ref()),
                    _ => None,
                })
                .collect(),
            content_types: texts(|e| match &e.payload {
                Payload::Bytes { content_type, .. } => Some(content_type.as_str()),
                _ => None,
            }),
            units: members.iter().map(|m| m.unit).collect(),
            expected: members.iter().map(|m| m.expected).collect(),
        }
    }

    fn plain(&self) -> Vec<&(dyn ToSql + Sync)> {
        vec![
            &self.tenants,
            &self.ids,
            &self.topics,
            &self.subjects,
            &self.sources,
            &self.priorities,
            &self.occurred_ats,
            &self.regions,
            &self.gdprs,
            &self.traces,
            &self.datas,
            &self.bytess,
            &self.content_types,
        ]
    }

    pub(super) fn of_slot<'b>(&'b self, own_slot: &'b String) -> Vec<&'b (dyn ToSql + Sync)> {
        let mut columns = self.plain();
        columns.push(own_slot);
        columns
    }

    pub(super) fn with_expectations(&self) -> Vec<&(dyn ToSql + Sync)> {
        let mut columns = self.plain();
        columns.push(&self.units);
        columns.push(&self.expected);
        columns
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Priority, Topic};

    #[test]
    fn the_middle_lies_where_a_unit_ends() {
        let event = NewEvent {
            id: None,
            topic: Topic::parse("a").unwrap(),
            subject: None,
            source: None,
            priority: Priority::Normal,
            names_priority: false,
            occurred_at: None,
            region: None,
            gdpr: None,
            trace: None,
            payload: Payload::None,
            expect: None,
        };
        let of_units = |units: &[i32]| -> Vec<Member<'_>> {
            let member = |unit: &i32| Member {
                tenant: "t",
                id: "i",
                event: &event,
                expected: None,
                unit: *unit,
                received: Instant::now(),
            };
            units.iter().map(member).collect()
        };
        for (units, expected) in [
            (&[1, 2, 3, 4][..], Some(2)),
            (&[1, 1, 1, 2], Some(3)),
            (&[1, 2, 2, 2], Some(1)),
            (&[1, 2], Some(1)),
            (&[1, 1, 1], None),
            (&[1], None),
            (&[], None),
        ] {
            assert_eq!(middle(&of_units(units)), expected, "{units:?}");
        }
    }
}
