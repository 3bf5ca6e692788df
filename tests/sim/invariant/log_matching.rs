//! Log matching: entries of two logs that have the same index and leader are the same, and so is everything
//! before them.
//!
//! The latter is so if what stands right before the same entry is always the same.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use watchword_cluster::{Inspected, NodeId};

use super::{Invariant, Logs, Moment};
use crate::observe::{Ballot, Seen};

/// An index, and the leader that made the entry there.
type Place = (u64, Ballot);

#[derive(Default)]
pub(crate) struct LogMatching {
    /// The digest of what stands at an index by a leader, in whatever log, and who has shown it first.
    entries: BTreeMap<Place, ([u8; 32], NodeId)>,
    /// Who made the entry before, and whose log has shown it first.
    before: BTreeMap<Place, (Ballot, NodeId)>,
    logs: Logs,
}

impl LogMatching {
    fn check_content(&mut self, seen: &Seen, entry: &Inspected) -> Result<(), String> {
        let digest: [u8; 32] = Sha256::digest(&entry.content).into();
        let place = (entry.index, entry.leader);
        let (first, by) = *self.entries.entry(place).or_insert((digest, seen.node));
        if first != digest {
            return Err(format!(
                "nodes {by} and {} have different entries at index {} of ballot {:?}",
                seen.node, entry.index, entry.leader
            ));
        }
        Ok(())
    }

    /// What stands before may be unknown: a snapshot has covered it.
    fn check_before(&mut self, seen: &Seen, changed: &[Inspected]) -> Result<(), String> {
        let log = self.logs.follow(seen);
        for Inspected { index, leader, .. } in changed {
            let before = index.checked_sub(1).and_then(|index| log.get(&index).copied());
            let Some(before) = before else { continue };
            let (first, by) = *self.before.entry((*index, *leader)).or_insert((before, seen.node));
            if first != before {
                return Err(format!(
                    "before index {index} of ballot {leader:?} stands {first:?} in the log of node {by}, \
                     and {before:?} in that of node {}",
                    seen.node
                ));
            }
        }
        Ok(())
    }
}

impl Invariant for LogMatching {
    fn name(&self) -> &'static str {
        "log matching"
    }

    fn check(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        for seen in moment.nodes {
            let Some(changed) = &seen.changed else { continue };
            changed.iter().try_for_each(|entry| self.check_content(seen, entry))?;
            self.check_before(seen, changed)?;
        }
        Ok(())
    }
}
