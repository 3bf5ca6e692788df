//! HOTP counters move forward only.
//!
//! Of one user no counter is accepted twice, and an accept that began when another was over has the
//! larger counter. Accepts that overlap may come in either order, and attempts of unknown outcome
//! say nothing.

use std::collections::{BTreeMap, HashMap};

use super::{Anomaly, Finding};
use crate::operation::{Malformed, Operation, Step, steps};

/// Checks all `ok` operations whose value is `{"verdict": "accept", "counter": c}`; keys are users.
///
/// # Errors
/// When a counter is no number.
pub fn check(operations: &[Operation<'_>]) -> Result<Finding, Malformed> {
    let mut users: BTreeMap<&str, Vec<Operation<'_>>> = BTreeMap::new();
    for operation in operations.iter().filter(|one| one.is_ok()) {
        if operation.value().get("counter").is_some() && operation.accepted()? {
            users.entry(operation.key()).or_default().push(*operation);
        }
    }
    let mut anomalies = Vec::new();
    for (user, accepts) in &users {
        check_user(user, accepts, &mut anomalies)?;
    }
    let accepts: usize = users.values().map(Vec::len).sum();
    let summary = format!("{} users, {accepts} counters accepted", users.len());
    Ok(Finding::conclude("counter", accepts, summary, anomalies)
        .figure("users", users.len())
        .figure("accepts", accepts))
}

fn check_user(
    user: &str,
    accepts: &[Operation<'_>],
    anomalies: &mut Vec<Anomaly>,
) -> Result<(), Malformed> {
    let mut by_counter: HashMap<u64, Operation<'_>> = HashMap::new();
    let mut largest: Option<(u64, Operation<'_>)> = None;
    for step in steps(accepts) {
        match step {
            Step::Call(accept) => {
                let counter = counter(&accept)?;
                if let Some(other) = by_counter.insert(counter, accept) {
                    let what = format!("the counter {counter} was accepted twice");
                    anomalies.push(Anomaly::of(user, what, &[other, accept]));
                } else if let Some((larger, other)) = largest.filter(|(past, _)| *past >= counter) {
                    let what =
                        format!("the counter {counter} was accepted after the counter {larger}");
                    anomalies.push(Anomaly::of(user, what, &[other, accept]));
                }
            }
            Step::Return(accept) => {
                let counter = counter(&accept)?;
                if largest.is_none_or(|(past, _)| counter > past) {
                    largest = Some((counter, accept));
                }
            }
        }
    }
    Ok(())
}

fn counter(accept: &Operation<'_>) -> Result<u64, Malformed> {
    let counter = accept.value().get("counter").and_then(serde_json::Value::as_u64);
    counter.ok_or_else(|| accept.malformed("the counter is no number"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::checker::Validity;
    use crate::sample::Sample;

    fn accept(counter: u64) -> Value {
        json!({ "verdict": "accept", "counter": counter })
    }

    fn checked(sample: &Sample) -> Finding {
        check(&sample.operations()).expect("well-formed")
    }

    #[test]
    fn counters_that_grow_are_fine_and_overlapping_ones_may_swap() {
        let mut sample = Sample::new();
        sample.done("consume", "u1", accept(1));
        let late = sample.invoke("consume", "u1", Value::Null);
        sample.done("consume", "u1", accept(5));
        sample.ok(late, accept(2));
        sample.done("consume", "u2", accept(1));
        assert_eq!(checked(&sample).validity, Validity::Valid);
    }

    #[test]
    fn a_counter_that_is_accepted_twice_is_found_even_in_a_race() {
        let mut sample = Sample::new();
        let late = sample.invoke("consume", "u1", Value::Null);
        sample.done("consume", "u1", accept(5));
        sample.ok(late, accept(5));
        let finding = checked(&sample);
        assert_eq!(finding.validity, Validity::Invalid);
        assert!(finding.anomalies[0].what.ends_with("twice"));
    }

    #[test]
    fn a_counter_that_goes_back_is_found() {
        let mut sample = Sample::new();
        sample.done("consume", "u1", accept(5));
        sample.done("consume", "u1", accept(4));
        let finding = checked(&sample);
        assert_eq!(finding.anomalies[0].what, "the counter 4 was accepted after the counter 5");
    }

    #[test]
    fn refused_counters_do_not_count() {
        let mut sample = Sample::new();
        sample.done("consume", "u1", accept(5));
        sample.done("consume", "u1", json!({"verdict": "reject", "counter": 5}));
        assert_eq!(checked(&sample).validity, Validity::Valid);
    }
}
