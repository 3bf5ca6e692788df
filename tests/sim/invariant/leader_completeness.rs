//! Leader completeness: what was committed stands, for ever the same, in the log of every later leader.
//!
//! Committed is here what somebody has applied: what a node calls committed runs ahead of its log while a
//! truncation waits for the disk.

use std::collections::BTreeMap;

use watchword_cluster::Role;

use super::{Invariant, Logs, Moment};
use crate::observe::Ballot;

#[derive(Default)]
pub(crate) struct LeaderCompleteness {
    logs: Logs,
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
            let log = self.logs.follow(seen);
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
