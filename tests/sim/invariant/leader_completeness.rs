//! Leader completeness: what was committed stands, for ever the same, in the log of every later leader.

use std::collections::BTreeMap;

use watchword_cluster::Role;

use super::{Invariant, Moment};

#[derive(Default)]
pub(crate) struct LeaderCompleteness {
    /// The log of each host, as terms by index.
    logs: BTreeMap<usize, BTreeMap<u64, u64>>,
    /// The terms of the committed entries.
    committed: BTreeMap<u64, u64>,
    /// The latest term in which each host was seen to lead.
    led: BTreeMap<usize, u64>,
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
                log.extend(changed.iter().map(|entry| (entry.index, entry.term)));
            }
            // What a snapshot has covered may never have been committed as it stood here.
            while log.first_key_value().is_some_and(|(index, _)| *index <= seen.bounds.0) {
                log.pop_first();
            }
            let known = self.committed.last_key_value().map_or(0, |(index, _)| *index);
            let news = log.range(known + 1..).take_while(|(index, _)| **index <= seen.committed);
            self.committed.extend(news);
            // What this node calls committed must be what another has called so.
            for (index, term) in log.range(seen.committed.saturating_sub(8)..=seen.committed) {
                match self.committed.get(index) {
                    Some(other) if other != term => {
                        return Err(format!(
                            "node {} calls index {index} of term {term} committed; another of term \
                             {other} is",
                            seen.node
                        ));
                    }
                    _ => {}
                }
            }
            if seen.role == Role::Leader && self.led.insert(seen.host, seen.term) != Some(seen.term) {
                let first = seen.bounds.0 + 1;
                let missing = self
                    .committed
                    .range(first..)
                    .find(|(index, term)| **term < seen.term && log.get(index) != Some(*term));
                if let Some((index, term)) = missing {
                    return Err(format!(
                        "node {} leads in term {} without index {index} of term {term}, which is \
                         committed",
                        seen.node, seen.term
                    ));
                }
            }
        }
        Ok(())
    }
}
