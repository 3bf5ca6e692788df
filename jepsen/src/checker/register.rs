//! Registers: every history of writes, reads and compare-and-sets is linearizable, key by key.
//!
//! Two algorithms that share nothing decide: the search of [`super::wgl`] and the intervals of
//! [`super::zones`]. Where both are complete they must agree; if they do not, one of the checkers is
//! broken, and that is an anomaly of its own: a harness that cannot be trusted must not say *valid*.
//!
//! Values are positive integers, each written once, and 0 is *absent*. An unknown write whose value
//! nobody saw is dropped before the search. That is sound because values are unique: had it taken
//! effect, nobody could have noticed before the next write, so its absence explains as much. It is
//! also decisive: each unknown operation doubles what must be searched.

use std::collections::HashSet;

use super::{Anomaly, Finding, wgl, zones};
use crate::history::Kind;
use crate::operation::{Malformed, Operation, by_key};

/// How an anomaly begins that is not the cluster's.
const DISAGREEMENT: &str = "the checkers disagree, which is a defect of a checker";

/// What an operation does to a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Answers this value.
    Read(i64),
    /// Puts this value.
    Write(i64),
    /// Puts the second value where the first was.
    Cas(i64, i64),
}

impl Action {
    /// The value that it leaves behind, if it writes.
    pub fn written(self) -> Option<i64> {
        match self {
            Self::Read(_) => None,
            Self::Write(new) | Self::Cas(_, new) => Some(new),
        }
    }

    /// The value that it found, if it looks.
    pub fn seen(self) -> Option<i64> {
        match self {
            Self::Write(_) => None,
            Self::Read(old) | Self::Cas(old, _) => Some(old),
        }
    }
}

/// An operation on one register.
#[derive(Clone, Copy, Debug)]
pub struct Access<'a> {
    /// What it does.
    pub action: Action,
    /// Where it stands in the history.
    pub operation: Operation<'a>,
}

/// Checks the operations `write`, `read` and `cas`.
///
/// # Errors
/// When a value has the wrong shape, or is written twice.
pub fn check(operations: &[Operation<'_>]) -> Result<Finding, Malformed> {
    let keys = by_key(operations, &["write", "read", "cas"]);
    let (mut reads, mut dropped, mut states) = (0, 0, 0);
    let (mut anomalies, mut given_up) = (Vec::new(), Vec::new());
    for (key, operations) in &keys {
        let mut accesses = accesses(operations)?;
        dropped += prune(&mut accesses);
        reads += accesses.iter().filter(|access| access.action.seen().is_some()).count();
        let is_cas = |access: &Access<'_>| matches!(access.action, Action::Cas(..));
        let zones_are_complete = !accesses.iter().any(is_cas);
        let (search, conflict) = (wgl::check(&accesses), zones::check(&accesses));
        if let Some((what, shown)) = judge(search, conflict, zones_are_complete) {
            anomalies.push(Anomaly::of(key, what, &shown));
        } else if let wgl::Search::Linearizable { states: searched } = search {
            states += searched;
        } else {
            let what = "too many operations of unknown outcome to search all orders";
            given_up.push(Anomaly::of(key, what.to_owned(), &[]));
        }
    }
    let checked: usize = keys.values().map(Vec::len).sum();
    let summary = format!("{} registers, {checked} operations, {reads} of them look", keys.len());
    let finding = if anomalies.is_empty() && !given_up.is_empty() {
        Finding::unknown("register", summary, given_up)
    } else {
        Finding::conclude("register", reads, summary, anomalies)
    };
    Ok(finding
        .figure("registers", keys.len())
        .figure("operations", checked)
        .figure("unseen_unknown_writes", dropped)
        .figure("states", states))
}

/// What is wrong with a register by the word of both algorithms, and the operations that show it.
fn judge<'a>(
    search: wgl::Search<'a>,
    conflict: Option<zones::Conflict<'a>>,
    zones_are_complete: bool,
) -> Option<(String, Vec<Operation<'a>>)> {
    use wgl::Search::{GivenUp, Linearizable, Stuck};
    match (search, conflict) {
        (Linearizable { .. } | GivenUp, None) => None,
        (Linearizable { .. }, Some(conflict)) => {
            let what = format!("{DISAGREEMENT}: the search finds an order, but {}", conflict.what);
            Some((what, conflict.operations))
        }
        (Stuck { at }, None) => {
            let what = if zones_are_complete {
                format!("{DISAGREEMENT}: the search finds no order, the zones find no conflict")
            } else {
                "not linearizable: no order of the operations explains this answer".to_owned()
            };
            Some((what, vec![at]))
        }
        (Stuck { .. } | GivenUp, Some(conflict)) => {
            Some((format!("not linearizable: {}", conflict.what), conflict.operations))
        }
    }
}

/// The operations that say something: what failed did not happen, and a read without an answer saw
/// nothing.
///
/// # Errors
/// When a value has the wrong shape, or is written twice.
pub fn accesses<'a>(operations: &[Operation<'a>]) -> Result<Vec<Access<'a>>, Malformed> {
    let mut written = HashSet::new();
    let mut accesses = Vec::with_capacity(operations.len());
    for operation in operations {
        let action = match (operation.f(), operation.kind()) {
            (_, Kind::Fail) | ("read", Kind::Info) => continue,
            ("read", _) if operation.value().is_null() => Action::Read(0),
            ("read", _) => Action::Read(operation.integer()?),
            ("write", _) => Action::Write(operation.integer()?),
            _ => match operation.integers()?.as_slice() {
                [old, new] => Action::Cas(*old, *new),
                _ => return Err(operation.malformed("the value is no pair of integers")),
            },
        };
        if let Some(value) = action.written()
            && (value <= 0 || !written.insert(value))
        {
            return Err(operation.malformed("values must be positive, and each written once"));
        }
        accesses.push(Access { action, operation: *operation });
    }
    Ok(accesses)
}

/// Drops unknown writes whose values nobody saw, and returns how many.
pub fn prune(accesses: &mut Vec<Access<'_>>) -> usize {
    let mut seen: HashSet<i64> = accesses
        .iter()
        .filter(|access| access.operation.is_ok())
        .filter_map(|access| access.action.seen())
        .collect();
    // An unknown compare-and-set whose value was seen has happened, and so has seen its own.
    loop {
        let before = seen.len();
        for access in accesses.iter() {
            if access.action.written().is_some_and(|new| seen.contains(&new)) {
                seen.extend(access.action.seen());
            }
        }
        if seen.len() == before {
            break;
        }
    }
    let before = accesses.len();
    accesses.retain(|access| {
        access.operation.is_ok() || access.action.written().is_some_and(|new| seen.contains(&new))
    });
    before - accesses.len()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use serde_json::{Value, json};

    use super::*;
    use crate::checker::Validity;
    use crate::rng::Rng;
    use crate::sample::{Defect, Sample, register};

    fn checked(sample: &Sample) -> Finding {
        check(&sample.operations()).expect("well-formed")
    }

    #[test]
    fn overlapping_operations_may_be_ordered_either_way() {
        let mut sample = Sample::new();
        sample.done("read", "u1", 0);
        let write = sample.invoke("write", "u1", 1);
        sample.done("read", "u1", 1);
        sample.ok(write, 1);
        let cas = sample.invoke("cas", "u1", json!([1, 2]));
        sample.done("read", "u1", 1);
        sample.done("read", "u1", 2);
        sample.ok(cas, json!([1, 2]));
        assert_eq!(checked(&sample).validity, Validity::Valid);
    }

    #[test]
    fn a_lost_write_is_found() {
        let mut sample = Sample::new();
        sample.done("write", "u1", 1);
        sample.done("write", "u1", 2);
        sample.done("read", "u1", 1);
        let finding = checked(&sample);
        assert_eq!(finding.validity, Validity::Invalid);
        assert!(finding.anomalies[0].what.contains("1 and 2"), "{:?}", finding.anomalies);
    }

    #[test]
    fn a_failed_write_that_is_read_is_found() {
        let mut sample = Sample::new();
        let write = sample.invoke("write", "u1", 1);
        sample.fail(write);
        sample.done("read", "u1", 1);
        assert_eq!(checked(&sample).validity, Validity::Invalid);
    }

    #[test]
    fn two_compare_and_sets_of_one_value_are_found() {
        let mut sample = Sample::new();
        sample.done("write", "u1", 1);
        let first = sample.invoke("cas", "u1", json!([1, 2]));
        let second = sample.invoke("cas", "u1", json!([1, 3]));
        sample.ok(first, json!([1, 2]));
        sample.ok(second, json!([1, 3]));
        assert_eq!(checked(&sample).validity, Validity::Invalid);
    }

    #[test]
    fn an_unknown_write_may_show_itself_late_but_once() {
        let mut sample = Sample::new();
        let late = sample.invoke("write", "u1", 1);
        sample.info(late);
        let unseen = sample.invoke("write", "u1", 2);
        sample.info(unseen);
        sample.done("write", "u1", 3);
        sample.done("read", "u1", 3);
        sample.done("read", "u1", 1);
        let finding = checked(&sample);
        assert_eq!(finding.validity, Validity::Valid);
        assert_eq!(finding.figures["unseen_unknown_writes"], 1);
        sample.done("read", "u1", 3);
        assert_eq!(checked(&sample).validity, Validity::Invalid);
    }

    #[test]
    fn a_value_that_is_written_twice_is_refused() {
        let mut sample = Sample::new();
        sample.done("write", "u1", 1);
        sample.done("write", "u1", 1);
        assert_eq!(check(&sample.operations()).expect_err("refused").line, 4);
    }

    #[test]
    fn checkers_that_disagree_are_an_anomaly_of_their_own() {
        let mut sample = Sample::new();
        sample.done("write", "u1", 1);
        let operations = sample.operations();
        let conflict =
            || zones::Conflict { what: "…".to_owned(), operations: operations.clone() };
        let order = wgl::Search::Linearizable { states: 1 };
        let stuck = wgl::Search::Stuck { at: operations[0] };
        let disagree = |search, conflict, complete| {
            judge(search, conflict, complete).is_some_and(|(what, _)| what.contains("disagree"))
        };
        assert!(disagree(order, Some(conflict()), true));
        assert!(disagree(order, Some(conflict()), false));
        assert!(disagree(stuck, None, true));
        assert!(!disagree(stuck, None, false), "with compare-and-set the search sees more");
        assert!(!disagree(stuck, Some(conflict()), true));
    }

    const DEFECTS: [Defect; 3] = [Defect::StaleReads, Defect::LostWrites, Defect::FailedWritesAct];

    /// Verdicts of both checkers on a random history: linearizable, free of conflicts.
    fn both(seed: u64, with_cas: bool, defect: Defect) -> (bool, bool) {
        let mut sample = Sample::new();
        register(&mut sample, &mut Rng::new(seed), "u1", 40, with_cas, defect);
        let mut accesses = accesses(&sample.operations()).expect("well-formed");
        prune(&mut accesses);
        let search = wgl::check(&accesses);
        (matches!(search, wgl::Search::Linearizable { .. }), zones::check(&accesses).is_none())
    }

    #[test]
    fn search_and_zones_agree_on_random_histories_half_of_them_broken() {
        let mut found = 0;
        for seed in 0..2_000 {
            let defect = DEFECTS[seed as usize % 3];
            assert_eq!(both(seed, false, Defect::None), (true, true), "seed {seed}");
            let (search, zones) = both(seed, false, defect);
            assert_eq!(search, zones, "seed {seed}, {defect:?}");
            found += usize::from(!search);
        }
        assert!(found > 1_000, "only {found} of 2,000 broken histories were found");
    }

    #[test]
    fn zones_never_accuse_what_the_search_acquits_with_compare_and_set() {
        let mut found = 0;
        for seed in 0..1_000 {
            assert_eq!(both(seed, true, Defect::None), (true, true), "seed {seed}");
            let (search, zones) = both(seed, true, DEFECTS[seed as usize % 3]);
            assert!(zones || !search, "seed {seed}");
            found += usize::from(!search);
        }
        assert!(found > 500, "only {found} of 1,000 broken histories were found");
    }

    #[test]
    fn pruning_changes_no_verdict() {
        for seed in 0..300 {
            let mut sample = Sample::new();
            let defect = if seed % 2 == 0 { Defect::None } else { DEFECTS[seed as usize % 3] };
            register(&mut sample, &mut Rng::new(seed), "u1", 25, true, defect);
            let whole = accesses(&sample.operations()).expect("well-formed");
            let mut pruned = whole.clone();
            prune(&mut pruned);
            let sound = |accesses: &[Access<'_>]| {
                matches!(wgl::check(accesses), wgl::Search::Linearizable { .. })
            };
            assert_eq!(sound(&whole), sound(&pruned), "seed {seed}");
        }
    }

    #[test]
    fn a_run_of_ninety_thousand_operations_is_checked_as_a_whole() {
        let mut sample = Sample::new();
        let mut rng = Rng::new(1);
        for key in 0..300 {
            let key = format!("u{key}");
            register(&mut sample, &mut rng, &key, 313, key.ends_with('7'), Defect::None);
        }
        let begun = Instant::now();
        let finding = checked(&sample);
        println!("{}: {:?}", finding.summary, begun.elapsed());
        assert_eq!(finding.validity, Validity::Valid);
        assert!(finding.figures["operations"].as_u64() > Some(90_000));
        assert_ne!(finding.figures["states"], Value::Null);
    }
}
