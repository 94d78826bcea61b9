//! Result lines of an NDJSON upload.

use std::io::Write as _;

use bytes::{Bytes, BytesMut};
use serde::Serialize;

use crate::http::append::Answer;
use crate::http::problem::{Kind, Problem};
use crate::log::{Appended, Identity};

#[derive(Serialize)]
struct Stored {
    line: u64,
    #[serde(flatten)]
    answer: Answer,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Summary {
    stored: usize,
    duplicates: usize,
    refused: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

/// Writes result lines.
pub(super) struct Reporter {
    pub(super) is_minimal: bool,
    pub(super) summary: Summary,
}

impl Reporter {
    /// The result lines of a chunk, and whether the stream must end.
    pub(super) fn report(
        &mut self,
        committed: Vec<(u64, Result<Appended, Problem>)>,
        identity: &Identity,
    ) -> (Bytes, bool) {
        let mut out = BytesMut::with_capacity(committed.len().saturating_mul(128));
        let mut is_over = false;
        let mut last = None;
        for (line, outcome) in committed {
            match outcome {
                Ok(appended) => {
                    let counter = if appended.duplicate {
                        &mut self.summary.duplicates
                    } else {
                        &mut self.summary.stored
                    };
                    *counter = counter.saturating_add(1);
                    last = Some(appended.position);
                    if !self.is_minimal {
                        let answer = Answer::new(&appended, identity);
                        write_line(&mut out, &Stored { line, answer });
                    }
                }
                Err(problem) => {
                    self.summary.refused = self.summary.refused.saturating_add(1);
                    is_over |= problem.kind.is_transient() || problem.kind == Kind::Unauthenticated;
                    out.extend_from_slice(
                        format!("{{\"line\":{line},\"error\":{}}}\n", problem.to_json()).as_bytes(),
                    );
                }
            }
        }
        if let Some(position) = last {
            self.summary.cursor = Some(identity.encode(position));
        }
        (out.freeze(), is_over)
    }
}

fn write_line(out: &mut BytesMut, line: &impl Serialize) {
    use bytes::BufMut as _;
    let mut writer = out.writer();
    // Writing to memory cannot fail, and these types always serialise.
    let _ = serde_json::to_writer(&mut writer, line);
    let _ = writer.write_all(b"\n");
}
