//! A line becomes an event.
//!
//! # Invariants
//! - A line that is none is answered under its number, and holds up no other.

use super::{Numbered, Reader};
use crate::event::limits::LINE_BYTES_MAX;
use crate::http::ingest;
use crate::http::problem::{Kind, Problem};

impl Reader {
    /// What the line says, with its id and trace, or why it is no event.
    pub(super) fn event(&self, line: Result<ingest::Line, ingest::LineTooLong>) -> Numbered {
        let line = match line {
            Ok(line) => line,
            Err(long) => {
                let detail = format!("a line is at most {LINE_BYTES_MAX} bytes");
                return (long.number, Err(Problem::new(Kind::TooLarge, detail)));
            }
        };
        let event = ingest::decode_line(&line.bytes, &self.app.ingest)
            .map_err(|refusal| Problem::refused(0, &refusal));
        let event = event.map(|event| {
            let mut one = [event];
            if let Some(key) = &self.key {
                let first = usize::try_from(line.number.saturating_sub(1)).unwrap_or(usize::MAX);
                ingest::assign_ids(&mut one, key, first);
            }
            if let Some(trace) = &self.trace {
                ingest::apply_trace(&mut one, trace);
            }
            let [event] = one;
            event
        });
        (line.number, event)
    }
}
