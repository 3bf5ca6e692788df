//! Log matching: entries of two logs that have the same index and leader are the same, and so is everything
//! before them.
//!
//! The latter is so if what stands right before the same entry is always the same.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use watchword_cluster::{Inspected, NodeId};

use super::{Invariant, Moment};
use crate::observe::Seen;

/// A leader, by its term and its id.
type Ballot = (u64, NodeId);
/// An index, and the leader that made the entry there.
type Place = (u64, Ballot);

#[derive(Default)]
pub(crate) struct LogMatching {
    /// The digest of what stands at an index by a leader, in whatever log, and who has shown it first.
    entries: BTreeMap<Place, ([u8; 32], NodeId)>,
    /// Who made the entry before, and whose log has shown it first.
    before: BTreeMap<Place, (Ballot, NodeId)>,
    /// The last logs of the hosts, as ballots by index.
    logs: BTreeMap<usize, BTreeMap<u64, Ballot>>,
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
    fn check_before(&mut self, seen: &Seen, entry: &Inspected) -> Result<(), String> {
        let log = self.logs.entry(seen.host).or_default();
        log.insert(entry.index, entry.leader);
        let before = entry.index.checked_sub(1).and_then(|index| log.get(&index).copied());
        let Some(before) = before.filter(|_| entry.index > seen.bounds.0 + 1) else {
            return Ok(());
        };
        let place = (entry.index, entry.leader);
        let (first, by) = *self.before.entry(place).or_insert((before, seen.node));
        if first != before {
            return Err(format!(
                "before index {} of ballot {:?} stands {first:?} in the log of node {by}, and {before:?} in \
                 that of node {}",
                entry.index, entry.leader, seen.node
            ));
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
            let from = changed.first().map_or(seen.bounds.1 + 1, |entry| entry.index);
            self.logs.entry(seen.host).or_default().split_off(&from);
            for entry in changed {
                self.check_content(seen, entry)?;
                self.check_before(seen, entry)?;
            }
        }
        Ok(())
    }
}
