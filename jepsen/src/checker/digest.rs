//! Nodes that have applied the same entries hold the same state.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

use super::{Anomaly, Finding};
use crate::operation::{Malformed, Operation};

/// Checks the operations `digest`, asked of a node: `{"index": 12, "digest": "hex"}`.
///
/// # Errors
/// When a value has another shape.
pub fn check(operations: &[Operation<'_>]) -> Result<Finding, Malformed> {
    let mut states: HashMap<u64, (&str, Operation<'_>, BTreeSet<&str>)> = HashMap::new();
    let mut anomalies = Vec::new();
    let mut count = 0;
    for seen in operations.iter().filter(|one| one.f() == "digest" && one.is_ok()) {
        let index = seen.value().get("index").and_then(Value::as_u64);
        let digest = seen.value().get("digest").and_then(Value::as_str);
        let Some((index, digest)) = index.zip(digest) else {
            return Err(seen.malformed("there is no index or no digest"));
        };
        count += 1;
        let (first, at, nodes) =
            states.entry(index).or_insert_with(|| (digest, *seen, BTreeSet::new()));
        nodes.insert(seen.node());
        if *first != digest {
            let what = format!(
                "after entry {index} node {:?} holds {first}, node {:?} holds {digest}",
                at.node(),
                seen.node()
            );
            anomalies.push(Anomaly::of("", what, &[*at, *seen]));
        }
    }
    let compared = states.values().filter(|(_, _, nodes)| nodes.len() > 1).count();
    let summary = format!("{count} digests, {compared} states compared between nodes");
    Ok(Finding::conclude("digest", compared, summary, anomalies)
        .figure("digests", count)
        .figure("states_compared", compared))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::checker::Validity;
    use crate::sample::Sample;

    fn finding(digests: &[(&str, u64, &str)]) -> Finding {
        let mut sample = Sample::new();
        for (node, index, digest) in digests {
            sample.done_at(node, "digest", "", json!({ "index": index, "digest": digest }));
        }
        check(&sample.operations()).expect("well-formed")
    }

    #[test]
    fn equal_states_are_fine_and_states_that_cannot_be_compared_prove_nothing() {
        assert_eq!(finding(&[("n1", 5, "aa"), ("n2", 5, "aa")]).validity, Validity::Valid);
        assert_eq!(finding(&[("n1", 5, "aa"), ("n1", 5, "aa")]).validity, Validity::Unknown);
        assert_eq!(finding(&[("n1", 5, "aa"), ("n2", 6, "bb")]).validity, Validity::Unknown);
    }

    #[test]
    fn two_states_after_one_entry_are_found() {
        let found = finding(&[("n1", 5, "aa"), ("n2", 5, "bb")]);
        assert_eq!(found.validity, Validity::Invalid);
        assert!(found.anomalies[0].what.contains("node \"n2\" holds bb"));
    }
}
