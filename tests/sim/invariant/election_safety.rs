//! Election safety: whoever leads was voted for by a quorum, whose votes are on their disks; a vote on a disk
//! never goes back; and under a ballot, which is a term and a node, nobody but that node makes entries.
//!
//! Two nodes may win in one term, the one with the higher id later; the ballot of the first is over then.
//! That it decides nothing more is what log matching and leader completeness say.

use std::collections::{BTreeMap, BTreeSet};

use watchword_cluster::{NodeId, Role};

use super::{Invariant, Moment};
use crate::observe::Ballot;

#[derive(Default)]
pub(crate) struct ElectionSafety {
    /// Index and ballot of entries in the log of the node that the ballot names.
    made: BTreeSet<(u64, Ballot)>,
    /// The latest vote of each node.
    votes: BTreeMap<NodeId, Ballot>,
    /// Who has voted for a ballot.
    supporters: BTreeMap<Ballot, BTreeSet<NodeId>>,
    /// Ballots under which somebody was seen to lead.
    led: BTreeSet<Ballot>,
}

impl ElectionSafety {
    fn check_votes(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        for seen in moment.nodes {
            for vote in &seen.votes {
                self.supporters.entry(*vote).or_default().insert(seen.node);
                if let Some(before) = self.votes.insert(seen.node, *vote)
                    && *vote < before
                {
                    return Err(format!(
                        "node {} went back from vote {before:?} to {vote:?}",
                        seen.node
                    ));
                }
            }
        }
        Ok(())
    }

    fn check_leaders(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        for seen in moment.nodes.iter().filter(|seen| seen.role == Role::Leader) {
            if !self.led.insert(seen.ballot) {
                continue;
            }
            let supporters = self.supporters.get(&seen.ballot).cloned().unwrap_or_default();
            let is_majority =
                |voters: &BTreeSet<_>| supporters.intersection(voters).count() > voters.len() / 2;
            if !seen.configurations.iter().all(is_majority) {
                return Err(format!(
                    "node {} leads under ballot {:?} with the votes of {supporters:?} among {:?}",
                    seen.node, seen.ballot, seen.configurations
                ));
            }
        }
        Ok(())
    }

    fn check_entries(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        let entries = || {
            moment.nodes.iter().flat_map(|seen| {
                let changed = seen.changed.iter().flatten();
                changed.map(|entry| (seen.node, (entry.index, entry.leader)))
            })
        };
        self.made
            .extend(entries().filter(|(node, (_, ballot))| *node == ballot.1).map(|(_, one)| one));
        let foreign = entries().find(|(_, one)| !self.made.contains(one));
        foreign.map_or(Ok(()), |(node, (index, ballot))| {
            Err(format!(
                "node {node} holds entry {index} of ballot {ballot:?}, whose leader has not made it"
            ))
        })
    }
}

impl Invariant for ElectionSafety {
    fn name(&self) -> &'static str {
        "election safety"
    }

    fn check(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        self.check_votes(moment)?;
        self.check_leaders(moment)?;
        self.check_entries(moment)
    }
}
