//! State machine safety: replicas that have applied the same entries hold the same state.

use std::collections::BTreeMap;

use super::{Invariant, Moment};

/// Only states at a multiple of this index are digested: it takes long.
const EVERY: u64 = 8;

#[derive(Default)]
pub(crate) struct DigestEquality {
    digests: BTreeMap<u64, ([u8; 32], u64)>,
}

impl Invariant for DigestEquality {
    fn name(&self) -> &'static str {
        "digest equality"
    }

    fn check(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        for seen in moment.nodes {
            if !seen.has_applied || !seen.applied.is_multiple_of(EVERY) {
                continue;
            }
            let digest = seen.state.digest().map_err(|error| error.to_string())?;
            let (first, by) = *self.digests.entry(seen.applied).or_insert((digest, seen.node));
            if first != digest {
                return Err(format!(
                    "nodes {by} and {} hold different states at index {}",
                    seen.node, seen.applied
                ));
            }
        }
        Ok(())
    }
}
