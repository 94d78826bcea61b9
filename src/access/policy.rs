//! Whether an event may be written: the one place that is asked, by whichever way it comes.
//!
//! # Invariants
//! - Asked before anything is stored or waited for. What is refused here has cost nobody else anything.

use std::sync::Arc;

use serde_json::Value;

use super::Principal;
use super::schema::{self, Amount, Fault, Schema};
use super::settings::{Consent, Declared, Settings, TopicMode};
use crate::event::{NewEvent, Payload, Priority};

/// Why an event is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// The credential may not write the topic.
    Forbidden,
    /// The tenant has not declared the topic.
    Undeclared,
    /// The data is not what the topic's schema says.
    Schema(Vec<Fault>),
    /// The tenant takes no events without consent.
    NoConsent,
}

/// Who writes, and what the tenant has decided.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Who writes.
    pub principal: Principal,
    settings: Arc<Settings>,
    /// Whether there is a schema at all.
    has_schemas: bool,
}

/// What may be checked on a thread that serves others as well, in the units of [`Policy::cost`]: some two milliseconds at
/// worst.
pub const COST_AT_ONCE_MAX: usize = 40_000;

impl Policy {
    /// For events of this principal.
    #[must_use]
    pub fn new(principal: Principal, settings: Arc<Settings>) -> Self {
        let has_schemas = settings.declared.iter().any(|one| one.schema.is_some());
        Self {
            principal,
            settings,
            has_schemas,
        }
    }

    /// What it may cost at most to check the event: values of the schemas times values of the data. None for a tenant
    /// without schemas.
    #[must_use]
    pub fn cost(&self, event: &NewEvent) -> usize {
        if !self.has_schemas {
            return 0;
        }
        let amount = Amount::within(match &event.payload {
            Payload::Json(text) => text.get().len(),
            Payload::None | Payload::Bytes { .. } => 0,
        });
        let declared = self.settings.declared.len();
        sum(self.schemas(event), amount)
            .min(schema::COST_MAX)
            .saturating_add(declared)
    }

    fn schemas(&self, event: &NewEvent) -> impl Iterator<Item = &Arc<Schema>> {
        let topic = event.topic.as_str();
        let declared = self.settings.declared.iter();
        declared
            .filter(move |one| one.schema.is_some() && one.pattern.matches(topic))
            .filter_map(|one| one.schema.as_ref())
    }

    /// Whether it may be written. Names its source if it names none, and takes its data away where the tenant has decided so.
    ///
    /// # Errors
    /// Why not.
    pub fn admit(&self, event: &mut NewEvent) -> Result<(), Refused> {
        if !self.principal.may_write(&event.topic) {
            return Err(Refused::Forbidden);
        }
        let topic = event.topic.as_str();
        let mut declared = self.settings.declared.iter();
        if self.settings.topic_mode == TopicMode::Declared
            && !declared.any(|one| one.pattern.matches(topic))
        {
            return Err(Refused::Undeclared);
        }
        if self.has_schemas && self.schemas(event).next().is_some() {
            let data = data(&event.payload)?;
            if sum(self.schemas(event), Amount::of(&data)) > schema::COST_MAX {
                return Err(Refused::Schema(schema::too_much()));
            }
            for schema in self.schemas(event) {
                schema.check(&data).map_err(Refused::Schema)?;
            }
        }
        self.ask_consent(event)?;
        if !event.names_priority {
            event.priority = self.default_priority(event).unwrap_or_default();
        }
        let name = &self.principal.name;
        event.source.get_or_insert_with(|| name.clone());
        Ok(())
    }

    /// That of the most exact declared pattern which has one.
    fn default_priority(&self, event: &NewEvent) -> Option<Priority> {
        let topic = event.topic.as_str();
        let mut declared = self.settings.declared.iter();
        let is_meant = |one: &&Declared| one.priority.is_some() && one.pattern.matches(topic);
        declared.find(is_meant).and_then(|one| one.priority)
    }

    fn ask_consent(&self, event: &mut NewEvent) -> Result<(), Refused> {
        let settings = &self.settings;
        let topic = event.topic.as_str();
        if settings.consent == Consent::Optional
            || has_consent(event)
            || !settings.consent_topics.iter().any(|one| one.matches(topic))
        {
            return Ok(());
        }
        if settings.consent == Consent::Require {
            return Err(Refused::NoConsent);
        }
        event.payload = Payload::None;
        Ok(())
    }
}

/// What all these cost together.
fn sum<'a>(schemas: impl Iterator<Item = &'a Arc<Schema>>, amount: Amount) -> usize {
    schemas.fold(0, |sum, one| sum.saturating_add(one.cost(amount)))
}

/// The data as it is checked: none is null. Bytes are what no schema speaks of.
fn data(payload: &Payload) -> Result<Value, Refused> {
    let fault = |reason: &str| {
        let (pointer, reason) = (String::new(), reason.to_owned());
        Refused::Schema(vec![Fault { pointer, reason }])
    };
    match payload {
        Payload::None => Ok(Value::Null),
        Payload::Json(text) => serde_json::from_str(text.get())
            .map_err(|_| fault("holds a number that cannot be compared with a schema")),
        Payload::Bytes { .. } => Err(fault("must be JSON, since the topic has a schema")),
    }
}

fn has_consent(event: &NewEvent) -> bool {
    let said = event
        .gdpr
        .as_ref()
        .map(|gdpr| serde_json::from_str::<Value>(gdpr.get()));
    said.is_some_and(|said| said.is_ok_and(|said| said.get("consent") == Some(&Value::Bool(true))))
}
