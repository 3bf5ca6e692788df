//! A request stands in the record of attempts once, and whoever was accepted or refused stands there.

use std::collections::BTreeSet;

use super::{Invariant, Moment};

#[derive(Default)]
pub(crate) struct RecordedOnce {
    next: u64,
    requests: BTreeSet<[u8; 16]>,
}

impl Invariant for RecordedOnce {
    fn name(&self) -> &'static str {
        "one attempt per request"
    }

    fn check(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        let Some(furthest) = moment.furthest() else { return Ok(()) };
        for (number, attempt) in furthest.state.attempts().iter_from(self.next) {
            self.next = number + 1;
            if !self.requests.insert(attempt.request.0) {
                return Err(format!("attempt {number} is of a request that was decided before"));
            }
        }
        Ok(())
    }
}
