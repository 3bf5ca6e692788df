//! A running node never goes back: neither in what it has applied, nor in its term.

use std::collections::BTreeMap;

use super::{Invariant, Moment};

#[derive(Default)]
pub(crate) struct MonotonicApplied {
    /// By host and start: index and term.
    seen: BTreeMap<(usize, u64), (u64, u64)>,
}

impl Invariant for MonotonicApplied {
    fn name(&self) -> &'static str {
        "monotonic applied index"
    }

    fn check(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        for seen in moment.nodes {
            let now = (seen.applied, seen.ballot.0);
            let before = self.seen.insert((seen.host, seen.start), now).unwrap_or_default();
            if now.0 < before.0 || now.1 < before.1 {
                return Err(format!(
                    "node {} went back from index and term {before:?} to {now:?}",
                    seen.node
                ));
            }
        }
        Ok(())
    }
}
