//! Whether the faults of a run were there at all.
//!
//! A cluster that was never hurt has not stood anything. Each required fault must have acted, by
//! evidence of its own; otherwise the run is *unknown*, however well everything else went.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::{Anomaly, Finding};
use crate::fault;
use crate::history::Event;

/// Checks that every fault of `required` has acted.
pub fn check(events: &[Event], required: &BTreeSet<String>) -> Finding {
    let mut faults: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for window in fault::windows(events).into_iter().filter(|window| window.fault != fault::HEAL) {
        let has_acted = window.has_acted();
        let (times, acted) = faults.entry(window.fault).or_default();
        *times += u64::from(has_acted);
        *acted += window.acted;
    }
    let acted = |name: &String| faults.get(name).is_some_and(|(times, _)| *times > 0);
    let missing: Vec<&String> = required.iter().filter(|name| !acted(name)).collect();
    let times: u64 = faults.values().map(|(times, _)| times).sum();
    let summary = format!(
        "{times} faults acted, {} of {} required kinds",
        required.len() - missing.len(),
        required.len()
    );
    let finding = if missing.is_empty() {
        Finding::conclude("coverage", required.len(), summary, Vec::new())
    } else {
        let anomaly = |name: &&String| {
            let what = format!("the fault `{name}` never acted");
            Anomaly { key: None, what, events: Vec::new() }
        };
        Finding::unknown("coverage", summary, missing.iter().map(anomaly).collect())
    };
    faults.into_iter().fold(finding.figure("faults", times), |finding, (name, (times, acted))| {
        finding.figure(&name, json!({ "times": times, "acted": acted }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::Validity;
    use crate::sample::Sample;

    #[test]
    fn a_required_fault_that_never_acted_leaves_the_run_unknown() {
        let mut sample = Sample::new();
        sample.nemesis("partition", "start", 0);
        sample.nemesis("partition", "stop", 12);
        sample.nemesis("pause", "start", 0);
        sample.nemesis("pause", "stop", 0);
        let finding = |names: &[&str]| {
            let required = names.iter().map(|name| (*name).to_owned()).collect();
            check(&sample.events, &required)
        };
        assert_eq!(finding(&["partition"]).validity, Validity::Valid);
        assert_eq!(finding(&["partition"]).figures["partition"], json!({"times": 1, "acted": 12}));
        let lacking = finding(&["partition", "pause", "clock"]);
        assert_eq!(lacking.validity, Validity::Unknown);
        assert_eq!(lacking.anomalies.len(), 2);
    }
}
