//! What was acknowledged is there at the end, at every node, whatever died in between.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::{Anomaly, Finding};
use crate::history::Kind;
use crate::operation::{Malformed, Operation, by_key};

/// Checks the operations `add` (an integer) and `final` (a list, read at a node). Every key to which
/// something was added must have been read at every node of `nodes`.
///
/// # Errors
/// When a value has the wrong shape.
pub fn check(operations: &[Operation<'_>], nodes: &BTreeSet<String>) -> Result<Finding, Malformed> {
    let keys = by_key(operations, &["add", "final"]);
    let mut anomalies = Vec::new();
    let mut unread: BTreeSet<&str> = BTreeSet::new();
    let (mut acknowledged, mut finals, mut recovered) = (0, 0, 0);
    for (key, operations) in &keys {
        let mut adds: HashMap<i64, Operation<'_>> = HashMap::new();
        for add in operations.iter().filter(|one| one.f() == "add") {
            if adds.insert(add.integer()?, *add).is_some() {
                return Err(add.malformed("the value is added twice"));
            }
        }
        let known = adds.values().filter(|add| add.is_ok()).count();
        acknowledged += known;
        let mut read = BTreeSet::new();
        for last in operations.iter().filter(|one| one.f() == "final" && one.is_ok()) {
            finals += 1;
            read.insert(last.node());
            let listed = last.integers()?;
            let mut present = HashSet::new();
            for value in listed {
                if !present.insert(value) {
                    let what =
                        format!("the value {value} is there twice at node {:?}", last.node());
                    let shown: Vec<_> =
                        adds.get(&value).copied().into_iter().chain([*last]).collect();
                    anomalies.push(Anomaly::of(key, what, &shown));
                }
            }
            check_final(key, last, &adds, &present, &mut anomalies);
            let unknown =
                |value: &&i64| adds.get(value).is_some_and(|add| add.kind() == Kind::Info);
            recovered += present.iter().filter(unknown).count();
        }
        if known > 0 {
            unread.extend(nodes.iter().map(String::as_str).filter(|node| !read.contains(node)));
        }
    }
    let unread: Vec<&str> = unread.into_iter().collect();
    let summary = format!(
        "{acknowledged} acknowledged additions, {finals} final reads at {} nodes",
        nodes.len()
    );
    let checked = acknowledged.min(finals);
    let finding = if anomalies.is_empty() && !unread.is_empty() {
        let summary = format!("{summary}; not everything was read at {}", unread.join(", "));
        Finding::unknown("durability", summary, Vec::new())
    } else {
        Finding::conclude("durability", checked, summary, anomalies)
    };
    Ok(finding
        .figure("acknowledged", acknowledged)
        .figure("final_reads", finals)
        .figure("unknown_but_there", recovered))
}

fn check_final(
    key: &str,
    last: &Operation<'_>,
    adds: &HashMap<i64, Operation<'_>>,
    present: &HashSet<i64>,
    anomalies: &mut Vec<Anomaly>,
) {
    let node = last.node();
    let mut wrong: Vec<(i64, &str)> = Vec::new();
    for (value, add) in adds {
        if add.is_ok() && add.returned() < last.called() && !present.contains(value) {
            wrong.push((*value, "was acknowledged, and is lost"));
        }
    }
    for value in present {
        match adds.get(value).map(Operation::kind) {
            None => wrong.push((*value, "was never added, and is there")),
            Some(Kind::Fail) => wrong.push((*value, "was not added, they said, and is there")),
            Some(Kind::Ok | Kind::Info | Kind::Invoke) => {}
        }
    }
    // In order, so that two checks of one history say the same.
    wrong.sort_unstable();
    for (value, why) in wrong {
        let shown: Vec<_> = adds.get(&value).copied().into_iter().chain([*last]).collect();
        anomalies.push(Anomaly::of(
            key,
            format!("the value {value} {why} at node {node:?}"),
            &shown,
        ));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::checker::Validity;
    use crate::sample::Sample;

    fn added() -> Sample {
        let mut sample = Sample::new();
        sample.done("add", "", 1);
        let failed = sample.invoke("add", "", 2);
        sample.fail(failed);
        let unknown = sample.invoke("add", "", 3);
        sample.info(unknown);
        sample
    }

    fn finding(present: Value, nodes: &[&str]) -> Finding {
        let mut sample = added();
        sample.done_at("n1", "final", "", present);
        let nodes = nodes.iter().map(|node| (*node).to_owned()).collect();
        check(&sample.operations(), &nodes).expect("well-formed")
    }

    #[test]
    fn what_was_acknowledged_must_be_there_and_what_is_unknown_may() {
        for present in [json!([1]), json!([1, 3])] {
            assert_eq!(finding(present, &["n1"]).validity, Validity::Valid);
        }
    }

    #[test]
    fn a_lost_addition_is_found() {
        let found = finding(json!([3]), &[]);
        let what = &found.anomalies[0].what;
        assert_eq!(what, "the value 1 was acknowledged, and is lost at node \"n1\"");
    }

    #[test]
    fn what_failed_or_came_from_nowhere_is_found() {
        assert_eq!(finding(json!([1, 2, 9]), &[]).anomalies.len(), 2);
    }

    #[test]
    fn what_is_there_twice_is_found() {
        let found = finding(json!([1, 1]), &[]);
        assert_eq!(found.anomalies[0].what, "the value 1 is there twice at node \"n1\"");
    }

    #[test]
    fn a_node_that_was_not_read_leaves_it_open() {
        assert_eq!(finding(json!([1]), &["n1", "n2"]).validity, Validity::Unknown);
        let unread = check(&added().operations(), &BTreeSet::new()).expect("well-formed");
        assert_eq!(unread.validity, Validity::Unknown);
    }
}
