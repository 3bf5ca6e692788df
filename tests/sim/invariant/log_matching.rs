//! Log matching: entries of two logs that have the same index and leader are the same.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use watchword_cluster::NodeId;

use super::{Invariant, Moment};

/// An index, and the leader that made the entry there.
type Place = (u64, (u64, NodeId));

#[derive(Default)]
pub(crate) struct LogMatching {
    /// The digest of what stands at an index by a leader, in whatever log, and who has shown it first.
    entries: BTreeMap<Place, ([u8; 32], NodeId)>,
}

impl Invariant for LogMatching {
    fn name(&self) -> &'static str {
        "log matching"
    }

    fn check(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        for seen in moment.nodes {
            for entry in seen.changed.iter().flatten() {
                let digest: [u8; 32] = Sha256::digest(&entry.content).into();
                let place = (entry.index, entry.leader);
                let (first, by) = *self.entries.entry(place).or_insert((digest, seen.node));
                if first != digest {
                    return Err(format!(
                        "nodes {by} and {} have different entries at index {} of ballot {:?}",
                        seen.node, entry.index, entry.leader
                    ));
                }
            }
        }
        Ok(())
    }
}
