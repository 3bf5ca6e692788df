//! The search of Wing and Gong with Lowe's cache: is there an order of the operations, each between
//! its call and its return, that a register could have answered?
//!
//! Operations are tried in the order of their calls. Whatever is put in order is lifted out of a
//! doubly linked list, so that undoing it is cheap; which set of operations left which value behind
//! is remembered, so that nothing is searched twice. Operations of unknown outcome never return:
//! the search ends as soon as all others are in order.
//!
//! J. Wing and C. Gong, "Testing and verifying concurrent objects" (1993); G. Lowe, "Testing for
//! linearizability" (2017).

use std::collections::HashSet;

use super::register::{Access, Action};
use crate::operation::{NEVER, Operation};

/// States after which the search is given up: a second or so, and some hundred megabytes.
const STATES_MAX: usize = 2_000_000;

/// What the search found.
#[derive(Clone, Copy, Debug)]
pub enum Search<'a> {
    /// An order.
    Linearizable {
        /// How many states it took.
        states: usize,
    },
    /// None.
    Stuck {
        /// The first return that no order reaches.
        at: Operation<'a>,
    },
    /// Neither, in reasonable time.
    GivenUp,
}

/// Searches an order of the accesses of one register.
pub fn check<'a>(accesses: &[Access<'a>]) -> Search<'a> {
    let mut list = List::new(accesses);
    let mut ordered = Set::new(accesses.len());
    let mut cache: HashSet<(Set, i64)> = HashSet::new();
    let mut undo: Vec<(usize, i64)> = Vec::new();
    let mut value = 0;
    let mut pending = accesses.iter().filter(|access| access.operation.returned() != NEVER).count();
    let mut furthest = 0;
    let mut at = list.first();
    while pending > 0 {
        if let Entry::Call(index) = list.entries[at] {
            ordered.flip(index);
            match step(accesses[index].action, value) {
                Some(next) if cache.insert((ordered.clone(), next)) => {
                    undo.push((at, value));
                    value = next;
                    pending -= list.lift(at, index);
                    at = list.first();
                }
                _ => {
                    ordered.flip(index);
                    at = list.next[at];
                }
            }
            if cache.len() > STATES_MAX {
                return Search::GivenUp;
            }
        } else {
            // What returns here must come earlier in the order, and everything was tried.
            furthest = furthest.max(at);
            let Some((entry, former)) = undo.pop() else {
                let (Entry::Call(index) | Entry::Return(index)) = list.entries[furthest];
                return Search::Stuck { at: accesses[index].operation };
            };
            let (Entry::Call(index) | Entry::Return(index)) = list.entries[entry];
            value = former;
            ordered.flip(index);
            pending += list.unlift(entry, index);
            at = list.next[entry];
        }
    }
    Search::Linearizable { states: cache.len() }
}

/// The value afterwards, if the register could have done this.
fn step(action: Action, value: i64) -> Option<i64> {
    match action {
        Action::Read(seen) => (seen == value).then_some(value),
        Action::Write(new) => Some(new),
        Action::Cas(old, new) => (old == value).then_some(new),
    }
}

/// Which accesses are in order.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Set(Vec<u64>);

impl Set {
    fn new(len: usize) -> Self {
        Self(vec![0; len.div_ceil(64)])
    }

    fn flip(&mut self, index: usize) {
        self.0[index / 64] ^= 1 << (index % 64);
    }
}

/// A call or a return, with the number of its access.
#[derive(Clone, Copy)]
enum Entry {
    Call(usize),
    Return(usize),
}

/// Calls and returns that are not in order yet, as they stand in the history. The place behind the
/// last entry links both ends. As long as a return is pending, a walk meets it before that place.
struct List {
    entries: Vec<Entry>,
    next: Vec<usize>,
    prev: Vec<usize>,
    /// Where each access returns, if ever.
    returns: Vec<Option<usize>>,
}

impl List {
    fn new(accesses: &[Access<'_>]) -> Self {
        let mut entries: Vec<(u64, Entry)> = Vec::with_capacity(2 * accesses.len());
        for (index, access) in accesses.iter().enumerate() {
            entries.push((access.operation.called(), Entry::Call(index)));
            if access.operation.returned() != NEVER {
                entries.push((access.operation.returned(), Entry::Return(index)));
            }
        }
        entries.sort_unstable_by_key(|(position, _)| *position);
        let entries: Vec<Entry> = entries.into_iter().map(|(_, entry)| entry).collect();
        let mut returns = vec![None; accesses.len()];
        for (at, entry) in entries.iter().enumerate() {
            if let Entry::Return(index) = entry {
                returns[*index] = Some(at);
            }
        }
        let places = entries.len() + 1;
        let next = (0..places).map(|at| (at + 1) % places).collect();
        let prev = (0..places).map(|at| (at + places - 1) % places).collect();
        Self { entries, next, prev, returns }
    }

    fn first(&self) -> usize {
        self.next[self.entries.len()]
    }

    /// Takes out the access that is called at `at`; returns the number of returns taken out.
    fn lift(&mut self, at: usize, index: usize) -> usize {
        self.unlink(at);
        let Some(returned) = self.returns[index] else { return 0 };
        self.unlink(returned);
        1
    }

    /// Undoes the latest lift.
    fn unlift(&mut self, at: usize, index: usize) -> usize {
        let returned = self.returns[index];
        if let Some(returned) = returned {
            self.link(returned);
        }
        self.link(at);
        usize::from(returned.is_some())
    }

    fn unlink(&mut self, at: usize) {
        let (prev, next) = (self.prev[at], self.next[at]);
        self.next[prev] = next;
        self.prev[next] = prev;
    }

    fn link(&mut self, at: usize) {
        let (prev, next) = (self.prev[at], self.next[at]);
        self.next[prev] = at;
        self.prev[next] = at;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::checker::register::{accesses, prune};
    use crate::rng::Rng;
    use crate::sample::{Defect, Sample, register};

    /// Every order, one after the other: whatever is called before all others return may be next.
    fn some_order_explains(rest: &[Access<'_>], value: i64) -> bool {
        let Some(first_return) = rest.iter().map(|access| access.operation.returned()).min() else {
            return true;
        };
        first_return == NEVER
            || (0..rest.len()).filter(|at| rest[*at].operation.called() < first_return).any(|at| {
                let mut others = rest.to_vec();
                let next = others.remove(at);
                step(next.action, value).is_some_and(|value| some_order_explains(&others, value))
            })
    }

    #[test]
    fn the_search_agrees_with_trying_every_order() {
        let mut found = 0;
        for seed in 0..2_000 {
            let defect = [Defect::None, Defect::StaleReads, Defect::LostWrites][seed as usize % 3];
            let mut sample = Sample::new();
            register(&mut sample, &mut Rng::new(seed), "u1", 9, true, defect);
            let accesses = accesses(&sample.operations()).expect("well-formed");
            let explained = matches!(check(&accesses), Search::Linearizable { .. });
            assert_eq!(explained, some_order_explains(&accesses, 0), "seed {seed}");
            found += usize::from(!explained);
        }
        assert!(found > 150, "only {found} histories were found");
    }

    #[test]
    fn it_is_stuck_at_the_first_answer_that_no_order_explains() {
        let mut sample = Sample::new();
        sample.done("write", "u1", 1);
        sample.done("cas", "u1", json!([1, 2]));
        sample.done("cas", "u1", json!([1, 3]));
        sample.done("read", "u1", 3);
        let accesses = accesses(&sample.operations()).expect("well-formed");
        let Search::Stuck { at } = check(&accesses) else { panic!("an order was found") };
        assert_eq!(at.called(), 4);
    }

    #[test]
    fn unknown_operations_that_were_pruned_cost_nothing() {
        let mut sample = Sample::new();
        for value in 1..=60 {
            let unknown = sample.invoke("write", "u1", value);
            sample.info(unknown);
        }
        sample.done("write", "u1", 100);
        for _ in 0..50 {
            sample.done("read", "u1", 100);
        }
        sample.done("read", "u1", 17);
        let mut accesses = accesses(&sample.operations()).expect("well-formed");
        assert_eq!(prune(&mut accesses), 59);
        let Search::Linearizable { states } = check(&accesses) else {
            panic!("no order was found")
        };
        assert!(states < 200, "{states}");
    }
}
