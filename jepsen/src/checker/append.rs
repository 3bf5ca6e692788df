//! Lists that only grow: the record of attempts is the same at every node, and complete.
//!
//! Reads show the order of appends themselves, so nothing has to be searched. The longest read of a
//! key is the list; every other read must be a beginning of it. Then one walk in real time suffices:
//! what is over requires that the list has at least some length, and whatever begins later (a read,
//! or an append by its place) must be at or beyond that length. A key that passes is linearizable.

use std::collections::HashMap;

use super::{Anomaly, Finding};
use crate::history::Kind;
use crate::operation::{Malformed, Operation, Step, by_key, steps};

/// Checks the operations `append` (an integer, appended once) and `read` (a list).
///
/// # Errors
/// When a value has the wrong shape, or is appended twice.
pub fn check(operations: &[Operation<'_>]) -> Result<Finding, Malformed> {
    let mut keys = by_key(operations, &["append", "read"]);
    // Registers are read by the same name; they are no lists.
    keys.retain(|_, operations| operations.iter().any(|one| one.f() == "append"));
    let mut anomalies = Vec::new();
    let (mut appends, mut reads) = (0, 0);
    for (key, operations) in &keys {
        let list = List::new(key, operations)?;
        appends += list.appends.len();
        reads += list.reads.len();
        if list.elements_are_sound(&mut anomalies) && list.reads_agree(&mut anomalies) {
            list.check_real_time(&mut anomalies);
        }
    }
    let summary = format!("{} lists, {appends} appends, {reads} reads", keys.len());
    Ok(Finding::conclude("append", reads, summary, anomalies)
        .figure("lists", keys.len())
        .figure("appends", appends)
        .figure("reads", reads))
}

/// One list as its clients saw it.
struct List<'a> {
    key: &'a str,
    appends: HashMap<i64, Operation<'a>>,
    /// By invocation.
    reads: HashMap<u64, Vec<i64>>,
    /// The read that saw most.
    longest: Option<Operation<'a>>,
    operations: Vec<Operation<'a>>,
}

impl<'a> List<'a> {
    fn new(key: &'a str, operations: &[Operation<'a>]) -> Result<Self, Malformed> {
        let (mut appends, mut reads) = (HashMap::new(), HashMap::new());
        let mut longest: Option<(usize, Operation<'a>)> = None;
        for operation in operations {
            if operation.f() == "append" {
                if appends.insert(operation.integer()?, *operation).is_some() {
                    return Err(operation.malformed("the value is appended twice"));
                }
            } else if operation.is_ok() {
                let elements = operation.integers()?;
                if longest.is_none_or(|(len, _)| elements.len() > len) {
                    longest = Some((elements.len(), *operation));
                }
                reads.insert(operation.called(), elements);
            }
        }
        let longest = longest.map(|(_, operation)| operation);
        Ok(Self { key, appends, reads, longest, operations: operations.to_vec() })
    }

    fn seen(&self, read: &Operation<'_>) -> &[i64] {
        self.reads.get(&read.called()).map_or(&[], Vec::as_slice)
    }

    fn list(&self) -> &[i64] {
        self.longest.as_ref().map_or(&[], |read| self.seen(read))
    }

    /// Every element was appended, by an append that did not fail, and is there once.
    fn elements_are_sound(&self, anomalies: &mut Vec<Anomaly>) -> bool {
        let before = anomalies.len();
        let Some(longest) = self.longest else { return true };
        let mut places: HashMap<i64, usize> = HashMap::new();
        for (place, element) in self.list().iter().enumerate() {
            let append = self.appends.get(element);
            let what = match append.map(Operation::kind) {
                None => format!("the element {element} was never appended"),
                Some(Kind::Fail) => format!("the append of {element} failed, but it is there"),
                Some(_) if places.insert(*element, place).is_some() => {
                    format!("the element {element} is there twice")
                }
                Some(_) => continue,
            };
            let shown: Vec<_> = append.copied().into_iter().chain([longest]).collect();
            anomalies.push(Anomaly::of(self.key, what, &shown));
        }
        anomalies.len() == before
    }

    /// Every read is a beginning of the longest.
    fn reads_agree(&self, anomalies: &mut Vec<Anomaly>) -> bool {
        let before = anomalies.len();
        let Some(longest) = self.longest else { return true };
        for read in self.operations.iter().filter(|one| one.f() == "read" && one.is_ok()) {
            let seen = self.seen(read);
            if !self.list().starts_with(seen) {
                let place = seen.iter().zip(self.list()).take_while(|(one, other)| one == other);
                let what = format!("two reads differ at place {}", place.count());
                anomalies.push(Anomaly::of(self.key, what, &[*read, longest]));
            }
        }
        anomalies.len() == before
    }

    /// Nothing is where it cannot be yet, or lacks what was there before.
    fn check_real_time(&self, anomalies: &mut Vec<Anomaly>) {
        let places: HashMap<i64, usize> =
            self.list().iter().enumerate().map(|(place, element)| (*element, place)).collect();
        let place = |append: &Operation<'_>| {
            append.integer().ok().and_then(|element| places.get(&element).copied())
        };
        let mut begun = vec![false; self.list().len()];
        let mut first_not_begun = 0;
        let mut required: Option<(usize, Operation<'a>)> = None;
        let mut lost: Vec<Operation<'a>> = Vec::new();
        let mut report = |what: String, shown: &[Operation<'_>]| {
            anomalies.push(Anomaly::of(self.key, what, shown));
        };
        for step in steps(&self.operations) {
            match step {
                Step::Call(append) if append.f() == "append" => {
                    let Some(place) = place(&append) else { continue };
                    begun[place] = true;
                    while begun.get(first_not_begun) == Some(&true) {
                        first_not_begun += 1;
                    }
                    if let Some((_, other)) = required.filter(|(length, _)| place < *length) {
                        let what = "appended later, but placed before what was there".to_owned();
                        report(what, &[other, append]);
                    }
                }
                Step::Call(read) if read.is_ok() => {
                    let length = self.seen(&read).len();
                    if let Some((_, other)) = required.filter(|(needed, _)| length < *needed) {
                        report("a later read lacks what was there".to_owned(), &[other, read]);
                    }
                    if !lost.is_empty() {
                        let what = format!("acknowledged appends are lost: {}", lost.len());
                        lost.push(read);
                        report(what, &lost);
                        lost.clear();
                    }
                }
                Step::Return(done) if done.is_ok() => {
                    let length = match (done.f(), place(&done)) {
                        ("read", _) => self.seen(&done).len(),
                        (_, Some(place)) => place + 1,
                        (_, None) => {
                            lost.push(done);
                            continue;
                        }
                    };
                    if done.f() == "read" && length > first_not_begun {
                        report("an element was read before it was appended".to_owned(), &[done]);
                        continue;
                    }
                    if required.is_none_or(|(needed, _)| length > needed) {
                        required = Some((length, done));
                    }
                }
                Step::Call(_) | Step::Return(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::checker::Validity;
    use crate::rng::Rng;
    use crate::sample::Sample;

    fn wrong(sample: &Sample) -> String {
        let finding = check(&sample.operations()).expect("well-formed");
        finding.anomalies.first().map(|anomaly| anomaly.what.clone()).unwrap_or_default()
    }

    #[test]
    fn reads_that_are_beginnings_of_one_another_are_fine() {
        let mut sample = Sample::new();
        sample.done("append", "u1", 1);
        let unknown = sample.invoke("append", "u1", 2);
        let read = sample.invoke("read", "u1", Value::Null);
        sample.info(unknown);
        sample.done("append", "u1", 3);
        sample.ok(read, json!([1]));
        sample.done("read", "u1", json!([1, 3, 2]));
        assert_eq!(wrong(&sample), "");
    }

    #[test]
    fn a_lost_append_is_found() {
        let mut sample = Sample::new();
        sample.done("append", "u1", 1);
        sample.done("append", "u1", 2);
        sample.done("read", "u1", json!([1]));
        assert_eq!(wrong(&sample), "acknowledged appends are lost: 1");
    }

    #[test]
    fn a_stale_read_is_found() {
        let mut sample = Sample::new();
        sample.done("append", "u1", 1);
        sample.done("read", "u1", json!([1]));
        sample.done("read", "u1", json!([]));
        assert_eq!(wrong(&sample), "a later read lacks what was there");
    }

    #[test]
    fn two_orders_are_found() {
        let mut sample = Sample::new();
        let one = sample.invoke("append", "u1", 1);
        let two = sample.invoke("append", "u1", 2);
        sample.ok(one, 1);
        sample.ok(two, 2);
        sample.done("read", "u1", json!([1, 2]));
        sample.done("read", "u1", json!([2, 1]));
        assert_eq!(wrong(&sample), "two reads differ at place 0");
    }

    #[test]
    fn an_order_against_real_time_is_found() {
        let mut sample = Sample::new();
        sample.done("append", "u1", 1);
        sample.done("append", "u1", 2);
        sample.done("read", "u1", json!([2, 1]));
        assert_eq!(wrong(&sample), "appended later, but placed before what was there");
    }

    #[test]
    fn elements_from_nowhere_from_failures_twice_or_too_early_are_found() {
        let mut sample = Sample::new();
        let failed = sample.invoke("append", "u1", 1);
        sample.fail(failed);
        let early = sample.invoke("read", "u2", Value::Null);
        sample.ok(early, json!([3]));
        sample.done("append", "u2", 3);
        sample.done("append", "u3", 4);
        sample.done("read", "u1", json!([1]));
        sample.done("read", "u3", json!([4, 4, 5]));
        let finding = check(&sample.operations()).expect("well-formed");
        let what: Vec<&str> = finding.anomalies.iter().map(|one| one.what.as_str()).collect();
        assert_eq!(
            what,
            [
                "the append of 1 failed, but it is there",
                "an element was read before it was appended",
                "the element 4 is there twice",
                "the element 5 was never appended",
            ]
        );
        assert_eq!(finding.validity, Validity::Invalid);
    }

    /// Clients append to and read a list that may answer reads from the past.
    fn random(seed: u64, stale: bool) -> Sample {
        let mut rng = Rng::new(seed);
        let (mut sample, mut list) = (Sample::new(), Vec::new());
        let mut open: Vec<(usize, Value)> = Vec::new();
        for element in 0..30 {
            let handle = if rng.one_in(2) {
                let handle = sample.invoke("append", "u1", element);
                list.push(element);
                (handle, json!(element))
            } else {
                let length =
                    if stale && rng.one_in(3) { rng.below(list.len()) } else { list.len() };
                (sample.invoke("read", "u1", Value::Null), json!(list[..length]))
            };
            open.push(handle);
            while open.len() > rng.below(4) {
                let (handle, result) = open.swap_remove(rng.below(open.len()));
                sample.ok(handle, result);
            }
        }
        sample
    }

    /// The same as a register that holds the length of the list, where appends are compare-and-sets:
    /// another checker's view of it.
    fn as_register(sample: &Sample) -> Sample {
        let mut other = Sample { events: sample.events.clone() };
        let mut lengths = HashMap::new();
        for event in &mut other.events {
            if event.f == "append" {
                let next = lengths.len() as i64;
                let length = *lengths.entry(event.value.as_i64()).or_insert(next);
                (event.f, event.value) = ("cas".to_owned(), json!([length, length + 1]));
            } else {
                event.value = json!(event.value.as_array().map_or(0, Vec::len));
            }
        }
        other
    }

    #[test]
    fn lists_and_registers_agree_on_random_histories() {
        let mut found = 0;
        for seed in 0..1_000 {
            let sample = random(seed, seed % 2 == 1);
            let register = as_register(&sample);
            let register = crate::checker::register::check(&register.operations());
            let broken = register.expect("well-formed").validity == Validity::Invalid;
            assert_eq!(!wrong(&sample).is_empty(), broken, "seed {seed}");
            assert!(seed % 2 == 1 || !broken, "seed {seed}");
            found += usize::from(broken);
        }
        assert!(found > 100, "only {found} of 500 broken histories were found");
    }
}
