//! Zones: linearizability of a register from intervals alone, without any search.
//!
//! All operations on one value form a cluster: its write and the reads that saw it. From the
//! earliest return to the latest call of the cluster the register must have held that value; such a
//! *forward* zone belongs to it alone. Where all operations of a cluster overlap there is no such
//! time; then its *backward* zone, from latest call to earliest return, must have a moment that no
//! forward zone owns. That is all there is to it when each value is written once: O(n log n), and
//! the two values that contradict each other are known by name.
//!
//! P. Gibbons and E. Korach, "Testing shared memories" (1997).
//!
//! A compare-and-set counts as a read and a write with the same interval. That forgets that nothing
//! may come between the two, so with compare-and-set a conflict is still one, but its absence proves
//! nothing.

use std::collections::BTreeMap;

use super::register::Access;
use crate::operation::{NEVER, Operation};

/// Operations that no order explains.
#[derive(Clone, Debug)]
pub struct Conflict<'a> {
    /// Why, with the values.
    pub what: String,
    /// The operations that show it.
    pub operations: Vec<Operation<'a>>,
}

/// All operations on one value.
#[derive(Default)]
struct Cluster<'a> {
    write: Option<Operation<'a>>,
    /// The operation that returned first; none for *absent*, which was there before everything.
    first_returned: Option<Operation<'a>>,
    /// The operation that was called last.
    last_called: Option<Operation<'a>>,
}

impl<'a> Cluster<'a> {
    fn add(&mut self, operation: Operation<'a>) {
        if self.first_returned.is_none_or(|first| operation.returned() < first.returned()) {
            self.first_returned = Some(operation);
        }
        if self.last_called.is_none_or(|last| operation.called() > last.called()) {
            self.last_called = Some(operation);
        }
    }

    fn operations(&self) -> Vec<Operation<'a>> {
        [self.write, self.first_returned, self.last_called].into_iter().flatten().collect()
    }
}

/// The time that a value owns, or needs a moment of.
struct Zone<'a> {
    value: i64,
    low: u64,
    high: u64,
    cluster: Cluster<'a>,
}

/// A conflict among the accesses of one register, if there is any.
pub fn check<'a>(accesses: &[Access<'a>]) -> Option<Conflict<'a>> {
    let mut clusters: BTreeMap<i64, Cluster<'a>> = BTreeMap::new();
    for access in accesses {
        if let Some(new) = access.action.written() {
            let cluster = clusters.entry(new).or_default();
            cluster.write = Some(access.operation);
            cluster.add(access.operation);
        }
        if let Some(seen) = access.action.seen() {
            clusters.entry(seen).or_default().add(access.operation);
        }
    }
    let (mut forward, mut backward) = (Vec::new(), Vec::new());
    for (value, cluster) in clusters {
        if let Some(conflict) = without_cause(value, &cluster) {
            return Some(conflict);
        }
        // Positions are moved by one, so that *absent* was written, and that returned, before all.
        let after = |position: u64| if position == NEVER { NEVER } else { position + 1 };
        let called = cluster.last_called.map_or(0, |operation| after(operation.called()));
        let returned = match cluster.first_returned {
            Some(operation) if value != 0 => after(operation.returned()),
            _ => 0,
        };
        if returned < called {
            forward.push(Zone { value, low: returned, high: called, cluster });
        } else {
            backward.push(Zone { value, low: called, high: returned, cluster });
        }
    }
    forward.sort_unstable_by_key(|zone| zone.low);
    let overlap = forward.windows(2).find_map(|pair| match pair {
        [first, second] if second.low < first.high => Some((first, second)),
        _ => None,
    });
    // Forward zones are disjoint from here on, so only the nearest can contain a backward one.
    let contained = || {
        backward.iter().find_map(|inner| {
            let nearest = forward.partition_point(|zone| zone.low < inner.low).checked_sub(1)?;
            let outer = &forward[nearest];
            (inner.high < outer.high).then_some((outer, inner))
        })
    };
    let (first, second) = overlap.or_else(contained)?;
    let what = format!("the values {} and {} exclude each other", first.value, second.value);
    Some(Conflict {
        what,
        operations: [first.cluster.operations(), second.cluster.operations()].concat(),
    })
}

/// A value that was seen before it was written, or without being written.
fn without_cause<'a>(value: i64, cluster: &Cluster<'a>) -> Option<Conflict<'a>> {
    if value == 0 {
        return None;
    }
    let Some(write) = cluster.write else {
        let what = format!("the value {value} was seen, but nobody wrote it");
        return Some(Conflict { what, operations: cluster.operations() });
    };
    let first = cluster.first_returned?;
    (first.returned() < write.called()).then(|| {
        let what = format!("the value {value} was seen before it was written");
        Conflict { what, operations: vec![first, write] }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::register::accesses;
    use crate::sample::Sample;

    fn conflict(sample: &Sample) -> Option<String> {
        let accesses = accesses(&sample.operations()).expect("well-formed");
        check(&accesses).map(|conflict| conflict.what)
    }

    #[test]
    fn values_that_take_turns_are_fine() {
        let mut sample = Sample::new();
        sample.done("read", "u1", 0);
        let write = sample.invoke("write", "u1", 1);
        sample.done("read", "u1", 0);
        sample.done("read", "u1", 1);
        sample.done("write", "u1", 2);
        sample.ok(write, 1);
        sample.done("read", "u1", 2);
        assert_eq!(conflict(&sample), None);
    }

    #[test]
    fn two_values_at_the_same_time_exclude_each_other() {
        let mut sample = Sample::new();
        sample.done("write", "u1", 1);
        sample.done("write", "u1", 2);
        sample.done("read", "u1", 1);
        sample.done("read", "u1", 2);
        assert_eq!(conflict(&sample).expect("found"), "the values 1 and 2 exclude each other");
    }

    #[test]
    fn a_value_within_the_time_of_another_is_found() {
        let mut sample = Sample::new();
        sample.done("write", "u1", 1);
        sample.done("write", "u1", 2);
        sample.done("read", "u1", 1);
        assert_eq!(conflict(&sample).expect("found"), "the values 1 and 2 exclude each other");
    }

    #[test]
    fn absent_after_a_write_is_found() {
        let mut sample = Sample::new();
        sample.done("write", "u1", 1);
        sample.done("read", "u1", 0);
        assert_eq!(conflict(&sample).expect("found"), "the values 0 and 1 exclude each other");
    }

    #[test]
    fn values_without_a_write_or_before_it_are_found() {
        let mut sample = Sample::new();
        sample.done("read", "u1", 1);
        assert_eq!(conflict(&sample).expect("found"), "the value 1 was seen, but nobody wrote it");
        sample.done("write", "u1", 1);
        assert_eq!(conflict(&sample).expect("found"), "the value 1 was seen before it was written");
    }
}
