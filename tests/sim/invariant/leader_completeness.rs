//! Leader completeness: what was committed stands, for ever the same, in the log of every later leader.
//!
//! Committed is here what somebody has applied: what a node calls committed runs ahead of its log while a
//! truncation waits for the disk.

use std::collections::BTreeMap;

use watchword_cluster::{NodeId, Role};

use super::{Invariant, Moment};

/// A leader, by its term and its id.
type Ballot = (u64, NodeId);

#[derive(Default)]
pub(crate) struct LeaderCompleteness {
    /// The log of each host, as ballots by index.
    logs: BTreeMap<usize, BTreeMap<u64, Ballot>>,
    /// The ballots of the committed entries.
    committed: BTreeMap<u64, Ballot>,
    /// How far each host had applied when it was looked at last, by its start.
    applied: BTreeMap<(usize, u64), u64>,
    /// The latest ballot under which each host was seen to lead.
    led: BTreeMap<usize, Ballot>,
}

impl Invariant for LeaderCompleteness {
    fn name(&self) -> &'static str {
        "leader completeness"
    }

    fn check(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        for seen in moment.nodes {
            let log = self.logs.entry(seen.host).or_default();
            if let Some(changed) = &seen.changed {
                let from = changed.first().map_or(seen.bounds.1 + 1, |entry| entry.index);
                log.split_off(&from);
                log.extend(changed.iter().map(|entry| (entry.index, entry.leader)));
            }
            // What a snapshot has covered may never have been committed as it stood here.
            while log.first_key_value().is_some_and(|(index, _)| *index <= seen.bounds.0) {
                log.pop_first();
            }
            let known = self.committed.last_key_value().map_or(0, |(index, _)| *index);
            let news = log.range(known + 1..).take_while(|(index, _)| **index <= seen.applied);
            self.committed.extend(news);
            // What this node calls committed must be what another has called so.
            let before = self.applied.insert((seen.host, seen.start), seen.applied).unwrap_or(0);
            for (index, ballot) in log.range(before.min(seen.applied)..=seen.applied) {
                match self.committed.get(index) {
                    Some(other) if other != ballot => {
                        return Err(format!(
                            "node {} has applied index {index} of ballot {ballot:?}; another node that \
                             of {other:?}",
                            seen.node
                        ));
                    }
                    _ => {}
                }
            }
            if seen.role == Role::Leader
                && self.led.insert(seen.host, seen.ballot) != Some(seen.ballot)
            {
                let first = seen.bounds.0 + 1;
                let missing = self.committed.range(first..).find(|(index, ballot)| {
                    **ballot < seen.ballot && log.get(index) != Some(*ballot)
                });
                if let Some((index, ballot)) = missing {
                    return Err(format!(
                        "node {} leads under ballot {:?} without index {index} of {ballot:?}, which is \
                         committed",
                        seen.node, seen.ballot
                    ));
                }
            }
        }
        Ok(())
    }
}
