//! The attributes of a CloudEvent and the fields of an event that they become.

use serde_json::value::RawValue;

use super::refuse;
use crate::event::new_event::{Draft, Refusal};
use crate::event::{EventId, Label, Topic};

/// Attributes as they are read.
#[derive(Debug, Default)]
pub(super) struct Attributes {
    /// What the data is.
    pub(super) content_type: Option<Label>,
    draft: Draft,
    has_version: bool,
    partition_key: Option<Label>,
    consent: Option<bool>,
    basis: Option<String>,
}

impl Attributes {
    /// Whether an attribute has a place in an event. `recordedtime` and `sequence` have none: the log gives them.
    pub(super) fn knows(name: &str) -> bool {
        matches!(
            name,
            "specversion"
                | "id"
                | "source"
                | "type"
                | "subject"
                | "time"
                | "datacontenttype"
                | "partitionkey"
                | "priority"
                | "region"
                | "gdprconsent"
                | "gdprbasis"
                | "traceparent"
                | "expect"
        )
    }

    /// Reads one attribute; one that it does not know is passed over.
    pub(super) fn set(&mut self, name: &str, text: &str) -> Result<(), Refusal> {
        match name {
            "specversion" if text != "1.0" => {
                return Err(refuse(name, "must be 1.0"));
            }
            "specversion" => self.has_version = true,
            "id" => self.draft.id = Some(EventId::parse(text).map_err(|e| refuse(name, e))?),
            "type" => self.draft.topic = Some(topic(text)?),
            "source" => self.draft.source = Some(label(name, text)?),
            "subject" => self.draft.subject = Some(label(name, text)?),
            "partitionkey" => self.partition_key = Some(label(name, text)?),
            "datacontenttype" => self.content_type = Some(label(name, text)?),
            "time" => self.draft.set_occurred_at("time", text)?,
            "priority" => self.draft.set_priority(text)?,
            "region" => self.draft.set_region("region", text)?,
            "traceparent" => self.draft.set_trace("traceparent", text)?,
            "expect" => self.draft.set_expect(text.to_owned()),
            "gdprbasis" => self.basis = Some(text.to_owned()),
            "gdprconsent" => {
                self.consent = Some(match text {
                    "true" => true,
                    "false" => false,
                    _ => return Err(refuse(name, "must be true or false")),
                });
            }
            _ => {}
        }
        Ok(())
    }

    /// The event so far, if nothing that CloudEvents requires is missing. Its data is still to be set.
    pub(super) fn finish(self) -> Result<Draft, Refusal> {
        let mut draft = self.draft;
        for (name, is_there) in [
            ("specversion", self.has_version),
            ("id", draft.id.is_some()),
            ("source", draft.source.is_some()),
            ("type", draft.topic.is_some()),
        ] {
            if !is_there {
                return Err(refuse(name, "is missing: CloudEvents requires it"));
            }
        }
        draft.subject = draft.subject.or(self.partition_key);
        if self.consent.is_some() || self.basis.is_some() {
            let gdpr = gdpr(self.consent, self.basis.as_deref());
            let gdpr = RawValue::from_string(gdpr).map_err(|e| refuse("gdprbasis", e))?;
            draft.set("gdpr", &gdpr, 0).map_err(|refusal| Refusal {
                field: "gdprbasis".into(),
                ..refusal
            })?;
        }
        Ok(draft)
    }
}

fn gdpr(consent: Option<bool>, basis: Option<&str>) -> String {
    let consent = consent.map(|consent| format!("\"consent\":{consent}"));
    let basis = basis.map(|basis| {
        let mut text = "\"basis\":".to_owned();
        crate::event::encode::push_string(&mut text, basis);
        text
    });
    let members: Vec<String> = consent.into_iter().chain(basis).collect();
    format!("{{{}}}", members.join(","))
}

fn label(name: &str, text: &str) -> Result<Label, Refusal> {
    Label::parse(text).map_err(|e| refuse(name, e))
}

fn topic(text: &str) -> Result<Topic, Refusal> {
    Topic::parse(text).map_err(|err| {
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            refuse(
                "type",
                "has upper-case letters; the type becomes the topic, which is lower-case \
                 (com.example.order.created, not com.example.Order.created)",
            )
        } else {
            refuse(
                "type",
                format_args!("the type becomes the topic, and {err}"),
            )
        }
    })
}
