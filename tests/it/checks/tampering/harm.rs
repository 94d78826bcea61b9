//! What is done to events on their way to a reader.

use serde_json::{Value, json};

/// By which way they are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// `GET /v1/events`.
    Pages,
    /// Server-sent events.
    Sse,
    /// WebSocket.
    Socket,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// The second event of every answer, stream or subscription does not come.
    Drops,
    /// It comes twice.
    Repeats,
    /// A word in the data of all of them is another.
    Alters,
    /// Another's event comes before the first.
    Foreign,
}

/// To one answer, stream or subscription.
#[derive(Debug)]
pub struct Doing {
    harm: Option<Harm>,
    seen: usize,
}

impl Doing {
    /// Nothing was seen yet.
    pub const fn new(harm: Option<Harm>) -> Self {
        Self { harm, seen: 0 }
    }

    /// What becomes of the next events.
    pub fn with(&mut self, events: Vec<Value>) -> Vec<Value> {
        let Some(harm) = self.harm else {
            return events;
        };
        let mut out = Vec::with_capacity(events.len() + 1);
        for event in events {
            self.seen += 1;
            match (harm, self.seen) {
                (Harm::Drops, 2) => {}
                (Harm::Repeats, 2) => out.extend([event.clone(), event]),
                (Harm::Alters, _) => out.push(altered(&event)),
                (Harm::Foreign, 1) => out.extend([foreign(&event), event]),
                _ => out.push(event),
            }
        }
        out
    }
}

fn altered(event: &Value) -> Value {
    serde_json::from_str(&event.to_string().replace("tide ", "ebb ")).unwrap()
}

fn foreign(event: &Value) -> Value {
    let mut foreign = event.clone();
    foreign["id"] = json!("of-another");
    foreign["subject"] = json!("another");
    foreign["data"] = json!("another's");
    foreign
}
