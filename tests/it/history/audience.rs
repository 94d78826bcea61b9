//! Who reads, what, and how.

use serde_json::{Value, json};

/// How it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Page,
    LongPoll,
    Sse,
    Ws,
    WsMsgpack,
    Sql,
}

/// What it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    All,
    Topics,
    Subjects,
}

impl Filter {
    /// For the URL.
    pub fn query(self) -> &'static str {
        match self {
            Self::All => "topics=*",
            Self::Topics => "topics=history.a.*,history.end",
            Self::Subjects => "subjects=s1,s4,end",
        }
    }

    /// For a frame.
    pub fn subscribe(self, after: &str) -> Value {
        let mut frame = json!({"type": "subscribe", "id": "s", "after": after});
        let (name, list) = self.query().split_once('=').unwrap();
        frame[name] = list.split(',').collect();
        frame
    }

    /// For SQL.
    pub fn predicate(self) -> &'static str {
        match self {
            Self::All => "true",
            Self::Topics => "(topic LIKE 'history.a.%' OR topic = 'history.end')",
            Self::Subjects => "subject IN ('s1', 's4', 'end')",
        }
    }
}

/// The readers of a history.
pub fn audience() -> Vec<(Transport, Filter)> {
    vec![
        (Transport::Page, Filter::All),
        (Transport::Page, Filter::Subjects),
        (Transport::LongPoll, Filter::All),
        (Transport::LongPoll, Filter::Topics),
        (Transport::Sse, Filter::All),
        (Transport::Sse, Filter::Topics),
        (Transport::Ws, Filter::All),
        (Transport::Ws, Filter::Subjects),
        (Transport::WsMsgpack, Filter::All),
        (Transport::WsMsgpack, Filter::Topics),
        (Transport::Sql, Filter::All),
        (Transport::Sql, Filter::Topics),
    ]
}
