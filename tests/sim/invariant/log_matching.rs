//! Log matching: entries of two logs that have the same index and term are the same.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::{Invariant, Moment};

#[derive(Default)]
pub(crate) struct LogMatching {
    /// The digest of what stands at an index and a term, in whatever log, and who has shown it first.
    entries: BTreeMap<(u64, u64), ([u8; 32], u64)>,
}

impl Invariant for LogMatching {
    fn name(&self) -> &'static str {
        "log matching"
    }

    fn check(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        for seen in moment.nodes {
            for entry in seen.changed.iter().flatten() {
                let digest: [u8; 32] = Sha256::digest(&entry.content).into();
                let place = (entry.index, entry.term);
                let (first, by) = *self.entries.entry(place).or_insert((digest, seen.node));
                if first != digest {
                    return Err(format!(
                        "nodes {by} and {} have different entries at index {} of term {}",
                        seen.node, entry.index, entry.term
                    ));
                }
            }
        }
        Ok(())
    }
}
