//! Which attempt decided a request: a log-structured index.
//!
//! Decisions come in the order of their numbers, are looked up by a request's random id, and go in
//! that order with the attempts that they name. A search tree would pay for every entry with a copied
//! path of nodes, because readers share the old version. Instead the newest entries are an unsorted
//! tail; full tails become sorted runs, and four runs of one size are merged into one of the next.
//! Runs never change, so versions share them; a run goes as a whole when its last entry is forgotten.
//!
//! ```text
//!   oldest                                                        newest
//!   [16384] [16384] [4096] [4096] [1024] [256] [256] [256] [64] tail
//! ```

use std::sync::Arc;

use crate::id::RequestId;

/// Entries of the tail, and of the smallest run.
const TAIL: usize = 64;
/// Runs of one size that become one of the next.
const FAN_IN: usize = 4;
/// Longest run: a merge must not hold up `apply` for long.
const RUN_MAX: usize = TAIL * FAN_IN.pow(4);

/// Entries that share a bucket of a run on average.
const PER_BUCKET: usize = 8;

/// Entries sorted by id, and by number where ids are equal, with an index of where each bucket of
/// ids begins. Starts are 16 bits wide: no run is longer than [`RUN_MAX`].
///
/// Nearly every look-up is of an id that no run holds. The marks, 16 bits of each id side by side,
/// rule it out without fetching the entries from memory.
#[derive(Clone)]
struct Run {
    entries: Arc<[(RequestId, u64)]>,
    marks: Arc<[u16]>,
    starts: Arc<[u16]>,
    bits: u32,
}

/// The index. A clone shares nearly everything.
#[derive(Clone, Default)]
pub(crate) struct Decisions {
    /// Oldest first.
    runs: Arc<Vec<Run>>,
    tail: Arc<Vec<(RequestId, u64)>>,
    /// Numbers below this one are forgotten.
    oldest: u64,
}

impl Decisions {
    /// Number of the latest attempt that decided `request`, unless it is forgotten.
    pub(crate) fn find(&self, request: RequestId) -> Option<u64> {
        let in_tail = self.tail.iter().rev().find(|(id, _)| *id == request);
        let found = match in_tail {
            Some(&(_, number)) => Some(number),
            None => self.runs.iter().rev().find_map(|run| run.find(request)),
        };
        found.filter(|&number| number >= self.oldest)
    }

    /// Adds an entry; numbers only rise.
    pub(crate) fn insert(&mut self, request: RequestId, number: u64) {
        let tail = Arc::make_mut(&mut self.tail);
        tail.push((request, number));
        if tail.len() == TAIL {
            let run = Run::new(std::mem::take(tail));
            let runs = Arc::make_mut(&mut self.runs);
            runs.push(run);
            merge(runs);
        }
    }

    /// Forgets every number below `number`.
    pub(crate) fn forget_before(&mut self, number: u64) {
        self.oldest = self.oldest.max(number);
        let oldest = self.oldest;
        // The usual answer comes from the first entry that is looked at.
        let is_kept = |run: &Run| run.entries.iter().any(|&(_, number)| number >= oldest);
        while self.runs.first().is_some_and(|run| !is_kept(run)) {
            Arc::make_mut(&mut self.runs).remove(0);
        }
    }
}

/// Merges runs of one size as long as there are enough.
fn merge(runs: &mut Vec<Run>) {
    while let Some(at) = runs.len().checked_sub(FAN_IN) {
        let same = runs.get(at..).unwrap_or_default();
        let length = same.first().map_or(0, |run| run.entries.len());
        if length >= RUN_MAX || same.iter().any(|run| run.entries.len() != length) {
            return;
        }
        let merged = same.iter().flat_map(|run| run.entries.iter().copied()).collect();
        runs.truncate(at);
        runs.push(Run::new(merged));
    }
}

impl Run {
    fn new(mut entries: Vec<(RequestId, u64)>) -> Self {
        // The stable sort finds sorted stretches and merges them in linear time.
        entries.sort();
        let bits = (entries.len() / PER_BUCKET).max(1).ilog2();
        let mut starts = vec![0u16; (1 << bits) + 1];
        for &(id, _) in &entries {
            if let Some(next) = starts.get_mut(bucket(id, bits) + 1) {
                *next += 1;
            }
        }
        let mut sum = 0;
        for start in &mut starts {
            sum += *start;
            *start = sum;
        }
        let marks = entries.iter().map(|&(id, _)| mark(id)).collect();
        Self { entries: entries.into(), marks, starts: starts.into(), bits }
    }

    /// The highest number under `request`.
    fn find(&self, request: RequestId) -> Option<u64> {
        let at = bucket(request, self.bits);
        let bucket = usize::from(*self.starts.get(at)?)..usize::from(*self.starts.get(at + 1)?);
        let mark = mark(request);
        if !self.marks.get(bucket.clone())?.contains(&mark) {
            return None;
        }
        let found = self.entries.get(bucket)?.iter().rev().find(|(id, _)| *id == request);
        found.map(|&(_, number)| number)
    }
}

/// The first `bits` bits of an id, which is uniformly random.
fn bucket(id: RequestId, bits: u32) -> usize {
    let [a, b, c, d, ..] = id.0;
    let prefix = u64::from(u32::from_be_bytes([a, b, c, d]));
    (prefix >> (32 - bits)) as usize
}

/// Bits of an id that have no part in choosing its bucket.
fn mark(id: RequestId) -> u16 {
    let [.., a, b] = id.0;
    u16::from_be_bytes([a, b])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Spreads small numbers over all ids, as the hash that makes them does.
    fn id(n: u32) -> RequestId {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&n.wrapping_mul(0x9e37_79b9).to_be_bytes());
        RequestId(bytes)
    }

    #[test]
    fn a_long_history_is_found_whole_and_costs_few_runs() {
        let mut index = Decisions::default();
        for number in 0..100_000u32 {
            index.insert(id(number), u64::from(number));
        }
        assert!(index.runs.len() <= 100_000 / RUN_MAX + 4 * FAN_IN, "{}", index.runs.len());
        for number in 0..100_000u32 {
            assert_eq!(index.find(id(number)), Some(u64::from(number)));
        }
        assert_eq!(index.find(id(100_000)), None);
    }

    #[test]
    fn forgotten_runs_are_dropped() {
        let mut index = Decisions::default();
        for number in 0..100_000u32 {
            index.insert(id(number), u64::from(number));
            index.forget_before(u64::from(number.saturating_sub(1_000)));
        }
        let held: usize = index.runs.iter().map(|run| run.entries.len()).sum();
        assert!(held < 1_000 + 2 * RUN_MAX, "{held}");
        assert_eq!(index.find(id(98_000)), None);
        assert_eq!(index.find(id(99_500)), Some(99_500));
    }

    proptest! {
        /// Against a map: few ids, so that they repeat, and ids of any distribution.
        #[test]
        fn agrees_with_a_map(
            steps in prop::collection::vec((any::<u8>(), any::<u8>(), 0..20u64), 1..3_000),
            spread in any::<bool>(),
        ) {
            let mut index = Decisions::default();
            let mut model = BTreeMap::new();
            let mut oldest = 0;
            for (number, (a, b, forget)) in (0u64..).zip(steps) {
                let request = if spread { id(u32::from(a)) } else { RequestId([b; 16]) };
                index.insert(request, number);
                model.insert(request, number);
                if forget == 0 {
                    oldest = number.saturating_sub(u64::from(b));
                    index.forget_before(oldest);
                }
                let expected = |id| model.get(&id).copied().filter(|&found| found >= index.oldest);
                for probe in [request, id(u32::from(b)), RequestId([a; 16])] {
                    prop_assert_eq!(index.find(probe), expected(probe));
                }
            }
            prop_assert!(index.oldest >= oldest);
        }
    }
}
