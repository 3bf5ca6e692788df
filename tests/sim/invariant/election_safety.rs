//! Election safety: at most one leader in a term.

use std::collections::BTreeMap;

use watchword_cluster::{NodeId, Role};

use super::{Invariant, Moment};

#[derive(Default)]
pub(crate) struct ElectionSafety {
    leaders: BTreeMap<u64, NodeId>,
}

impl Invariant for ElectionSafety {
    fn name(&self) -> &'static str {
        "election safety"
    }

    fn check(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        for seen in moment.nodes.iter().filter(|seen| seen.role == Role::Leader) {
            let leader = *self.leaders.entry(seen.term).or_insert(seen.node);
            if leader != seen.node {
                return Err(format!("nodes {leader} and {} lead in term {}", seen.node, seen.term));
            }
        }
        Ok(())
    }
}
