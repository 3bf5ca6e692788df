//! Election safety: a ballot, which is a term and a node, elects nobody but that node, and nobody else makes
//! entries under it.
//!
//! Two nodes may win in one term, the one with the higher id later; the ballot of the first is over then.
//! That it decides nothing more is what log matching and leader completeness say.

use std::collections::BTreeSet;

use watchword_cluster::{NodeId, Role};

use super::{Invariant, Moment};

#[derive(Default)]
pub(crate) struct ElectionSafety {
    /// Index and ballot of entries in the log of the node that the ballot names.
    made: BTreeSet<(u64, (u64, NodeId))>,
}

impl Invariant for ElectionSafety {
    fn name(&self) -> &'static str {
        "election safety"
    }

    fn check(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        let entries = || {
            moment.nodes.iter().flat_map(|seen| {
                let changed = seen.changed.iter().flatten();
                changed.map(|entry| (seen.node, (entry.index, entry.leader)))
            })
        };
        self.made
            .extend(entries().filter(|(node, (_, ballot))| *node == ballot.1).map(|(_, one)| one));
        for (node, (index, ballot)) in entries() {
            if !self.made.contains(&(index, ballot)) {
                return Err(format!(
                    "node {node} holds entry {index} of ballot {ballot:?}, whose leader has not made it"
                ));
            }
        }
        let mut leaders: Vec<_> = moment
            .nodes
            .iter()
            .filter(|seen| seen.role == Role::Leader)
            .map(|seen| seen.ballot)
            .collect();
        leaders.sort_unstable();
        match leaders.windows(2).find(|two| two[0] == two[1]) {
            Some(two) => Err(format!("two nodes lead under ballot {:?}", two[0])),
            None => Ok(()),
        }
    }
}
