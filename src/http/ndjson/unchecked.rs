//! Lines of a chunk that are to be checked when the chunk is taken.
//!
//! # Invariants
//! - Of a chunk no more is checked on the thread that serves than of any other request.

use super::{Chunk, Upload};
use crate::access::COST_AT_ONCE_MAX;
use crate::http::app::App;
use crate::http::{caller, errors, policy};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Unchecked {
    /// What has been asked for, kept or not.
    cost: usize,
    /// Where they stand in the chunk, in order.
    places: Vec<usize>,
}

impl Unchecked {
    /// Whether the event that is to stand there is checked later, for what that costs.
    pub(super) fn keeps(&mut self, cost: usize, place: usize) -> bool {
        self.cost = self.cost.saturating_add(cost);
        let is_kept = cost > 0 && self.cost > COST_AT_ONCE_MAX;
        if is_kept {
            self.places.push(place);
        }
        is_kept
    }

    /// Checks them, as long as the credential lasts; whether it has.
    pub(super) async fn check(self, app: &App, upload: &Upload, chunk: &mut Chunk) -> bool {
        if self.places.is_empty() {
            return true;
        }
        let (mut lines, mut events) = (Vec::new(), Vec::new());
        for (place, (_, line)) in chunk.iter_mut().enumerate() {
            if self.places.binary_search(&place).is_ok() {
                let waits = Err(errors::unavailable("the event was not checked"));
                events.extend(std::mem::replace(line, waits));
                lines.push(line);
            }
        }
        let checking = policy::admit_each(app, &upload.policy, events);
        match upload.lease.run(checking).await {
            Ok(checked) => {
                for (line, checked) in lines.into_iter().zip(checked) {
                    *line = checked;
                }
                true
            }
            Err(denied) => {
                for line in lines {
                    *line = Err(caller::denied(&denied));
                }
                false
            }
        }
    }
}
