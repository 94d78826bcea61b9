//! A line becomes an event.
//!
//! # Invariants
//! - A line that is none is answered under its number, and holds up no other.
//! - What the tenant has decided is asked when an event is there, and before it is taken. Where that cannot be read, that event's
//!   line says so: whatever came before is stored, and who has sent all is told of no line that there is not.

use super::{Numbered, Reader};
use crate::event::NewEvent;
use crate::event::limits::LINE_BYTES_MAX;
use crate::http::ingest;
use crate::http::policy;
use crate::http::problem::{Kind, Problem};

/// Why no more lines are taken.
enum Taken {
    /// The chunk is full.
    Full,
    /// There are no more.
    All,
    /// What the tenant has decided is to be asked first.
    Unasked,
}

impl Reader {
    /// Makes events of the lines that are complete; whether the chunk has room for more. What has been read stays if this is
    /// dropped.
    pub(super) async fn take_lines(&mut self) -> bool {
        let mut is_asked = false;
        let has_room = loop {
            match self.take_complete(is_asked) {
                Taken::Full => break false,
                Taken::All => break true,
                Taken::Unasked => {}
            }
            match policy::of(&self.app, &self.upload.policy.principal).await {
                Ok(policy) => (self.upload.policy, is_asked) = (policy, true),
                Err(problem) => {
                    if let Some((number, _)) = self.unasked.take() {
                        self.cut_at(number, problem);
                    }
                }
            }
        };
        self.count();
        has_room
    }

    fn take_complete(&mut self, is_asked: bool) -> Taken {
        let (events_max, bytes_max) = self.chunk_max;
        loop {
            if let Some((number, event)) = self.unasked.take_if(|_| is_asked) {
                let event = self.admit(event);
                self.chunk.push((number, event));
            }
            if self.unasked.is_some() {
                return Taken::Unasked;
            }
            if self.chunk.len() >= events_max || self.chunk_bytes >= bytes_max {
                return Taken::Full;
            }
            let line = match self.lines.next_line() {
                None if self.ended && !self.is_broken => self.lines.finish(),
                line => line,
            };
            let Some(line) = line else {
                return Taken::All;
            };
            let bytes = line.as_ref().map_or(0, |line| line.bytes.len());
            self.chunk_bytes = self.chunk_bytes.saturating_add(bytes);
            match self.event(line) {
                (number, Ok(event)) => self.unasked = Some((number, event)),
                (number, Err(problem)) => self.chunk.push((number, Err(problem))),
            }
        }
    }

    /// Checks an event, now or, once much has been checked of the lines at hand, when they are taken.
    fn admit(&mut self, event: NewEvent) -> Result<NewEvent, Problem> {
        let policy = &self.upload.policy;
        if self.unchecked.keeps(policy.cost(&event), self.chunk.len()) {
            return Ok(event);
        }
        policy::admit_at_once(policy, event)
    }

    /// What the line says, with its id and trace, or why it is no event.
    fn event(&self, line: Result<ingest::Line, ingest::LineTooLong>) -> Numbered {
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
