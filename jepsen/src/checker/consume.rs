//! What may be used once is accepted once: passcodes, bypasses, answers to a challenge.
//!
//! The promise is about everything, not about what the clients know: a key is accepted as often as
//! its budget allows, ever, at all nodes together. An unknown attempt may have used the key up
//! (then it is *burnt*), which is allowed; a key that was refused to everybody is not, unless some
//! attempt is unknown. A refusal before anybody can have used the key up is counted, not accused: a
//! node that lags may refuse what another accepts a moment later.

use super::{Anomaly, Finding};
use crate::history::Kind;
use crate::operation::{Malformed, Operation, by_key};

/// Checks the operations `consume`: the value of an `ok` one is `{"verdict": "accept" | "reject"}`.
/// No key may be accepted more than `budget` times.
///
/// # Errors
/// When a verdict is neither.
pub fn check(operations: &[Operation<'_>], budget: u64) -> Result<Finding, Malformed> {
    let keys = by_key(operations, &["consume"]);
    let mut anomalies = Vec::new();
    let (mut attempts, mut racing, mut accepts) = (0, 0, 0);
    let (mut refused, mut early, mut burnt) = (0, 0, 0);
    for (key, operations) in &keys {
        let acting: Vec<Operation<'_>> =
            operations.iter().filter(|one| one.kind() != Kind::Fail).copied().collect();
        let mut accepted = Vec::new();
        let mut known = 0;
        for operation in acting.iter().filter(|one| one.is_ok()) {
            known += 1;
            if operation.accepted()? {
                accepted.push(*operation);
            }
        }
        let unknown = acting.len() - known;
        attempts += acting.len();
        racing += overlapping(&acting);
        accepts += accepted.len();
        let allowed = usize::try_from(budget).unwrap_or(usize::MAX);
        early += refused_early(&acting, &accepted, allowed);
        if accepted.len() > allowed {
            anomalies.push(accepted_too_often(key, &mut accepted, allowed));
        } else if unknown == 0 && accepted.len() < allowed.min(known) {
            refused += 1;
            let what = format!(
                "refused without reason: {} of {known} attempts were accepted, {} had to be",
                accepted.len(),
                allowed.min(known)
            );
            anomalies.push(Anomaly::of(key, what, &acting));
        } else if accepted.is_empty() && unknown > 0 {
            burnt += 1;
        }
    }
    let summary = format!(
        "{} keys, {attempts} attempts, {racing} of them raced, {accepts} accepted; {burnt} keys \
         perhaps burnt by an unknown attempt",
        keys.len()
    );
    Ok(Finding::conclude("consume", attempts, summary, anomalies)
        .figure("keys", keys.len())
        .figure("attempts", attempts)
        .figure("racing", racing)
        .figure("accepts", accepts)
        .figure("refused_keys", refused)
        .figure("refused_early", early)
        .figure("burnt_keys", burnt))
}

/// Says whether the accepts raced, or one came when all others were over: the first is a window
/// between check and use, the second a use that was forgotten.
fn accepted_too_often(key: &str, accepted: &mut [Operation<'_>], allowed: usize) -> Anomaly {
    accepted.sort_unstable_by_key(Operation::returned);
    let used_up = allowed.checked_sub(1).and_then(|at| accepted.get(at)).map(Operation::returned);
    let after = used_up.and_then(|at| accepted.iter().find(|one| one.called() > at));
    let count = accepted.len();
    let what = match after {
        Some(late) => format!(
            "accepted {count} times, {allowed} allowed: the attempt of event {} began when it was \
             used up",
            late.called()
        ),
        None => format!("accepted {count} times, {allowed} allowed: the attempts raced"),
    };
    Anomaly::of(key, what, accepted)
}

/// How many attempts were refused before the key can have been used up.
fn refused_early(acting: &[Operation<'_>], accepted: &[Operation<'_>], allowed: usize) -> usize {
    let is_accepted =
        |one: &Operation<'_>| accepted.iter().any(|other| other.called() == one.called());
    // Once all uses are known, no unknown attempt can have been one.
    let may_use =
        |one: &&Operation<'_>| is_accepted(one) || (!one.is_ok() && accepted.len() < allowed);
    let uses: Vec<u64> = acting.iter().filter(may_use).map(Operation::called).collect();
    let refused = acting.iter().filter(|one| one.is_ok() && !is_accepted(one));
    refused.filter(|one| uses.partition_point(|at| *at < one.returned()) < allowed).count()
}

/// How many attempts were under way together with another one.
fn overlapping(attempts: &[Operation<'_>]) -> usize {
    let mut latest_end = None;
    let mut count = 0;
    for (at, attempt) in attempts.iter().enumerate() {
        let before = latest_end.is_some_and(|end| end > attempt.called());
        let after = attempts.get(at + 1).is_some_and(|next| next.called() < attempt.ended());
        count += usize::from(before || after);
        latest_end = latest_end.max(Some(attempt.ended()));
    }
    count
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::checker::Validity;
    use crate::checker::register::Action;
    use crate::rng::Rng;
    use crate::sample::Sample;

    fn verdict(verdict: &str) -> Value {
        json!({ "verdict": verdict })
    }

    fn checked(sample: &Sample, budget: u64) -> Finding {
        check(&sample.operations(), budget).expect("well-formed")
    }

    #[test]
    fn one_of_several_racing_attempts_is_accepted() {
        let mut sample = Sample::new();
        let first = sample.invoke("consume", "u17/42", Value::Null);
        let second = sample.invoke("consume", "u17/42", Value::Null);
        sample.ok(second, verdict("accept"));
        sample.ok(first, verdict("reject"));
        sample.done("consume", "u17/42", verdict("reject"));
        let finding = checked(&sample, 1);
        assert_eq!(finding.validity, Validity::Valid);
        assert_eq!(
            (&finding.figures["racing"], &finding.figures["accepts"]),
            (&json!(2), &json!(1))
        );
    }

    #[test]
    fn two_accepts_that_raced_are_found() {
        let mut sample = Sample::new();
        let first = sample.invoke("consume", "u17/42", Value::Null);
        let second = sample.invoke("consume", "u17/42", Value::Null);
        sample.ok(second, verdict("accept"));
        sample.ok(first, verdict("accept"));
        let finding = checked(&sample, 1);
        assert_eq!(finding.validity, Validity::Invalid);
        assert!(finding.anomalies[0].what.ends_with("raced"), "{:?}", finding.anomalies);
        assert_eq!(finding.anomalies[0].events, [0, 1, 2, 3]);
    }

    #[test]
    fn an_accept_after_an_accept_is_called_that() {
        let mut sample = Sample::new();
        sample.done("consume", "u17/42", verdict("accept"));
        sample.done("consume", "u17/42", verdict("accept"));
        let finding = checked(&sample, 1);
        assert!(finding.anomalies[0].what.contains("began when it was used up"));
    }

    #[test]
    fn a_budget_may_be_used_but_not_exceeded() {
        let mut sample = Sample::new();
        for _ in 0..3 {
            sample.done("consume", "u17", verdict("accept"));
        }
        assert_eq!(checked(&sample, 3).validity, Validity::Valid);
        assert_eq!(checked(&sample, 2).validity, Validity::Invalid);
    }

    #[test]
    fn a_passcode_that_is_refused_to_everybody_is_found() {
        let mut sample = Sample::new();
        sample.done("consume", "u17/42", verdict("reject"));
        let finding = checked(&sample, 1);
        assert_eq!(finding.validity, Validity::Invalid);
        assert!(finding.anomalies[0].what.starts_with("refused without reason"));
    }

    /// Attempts that overlap at random, at a service that now and then forgets or refuses.
    fn random(seed: u64, broken: bool) -> Sample {
        let mut rng = Rng::new(seed);
        let mut sample = Sample::new();
        let mut open: Vec<(usize, Option<bool>)> = Vec::new();
        let mut used = false;
        for _ in 0..6 {
            let attempt = sample.invoke("consume", "u17/42", Value::Null);
            let accepts = if broken && rng.one_in(4) { used } else { !used };
            used |= accepts;
            open.push((attempt, (!rng.one_in(5)).then_some(accepts)));
            while open.len() > rng.below(4) {
                match open.swap_remove(rng.below(open.len())) {
                    (attempt, Some(true)) => sample.ok(attempt, verdict("accept")),
                    (attempt, Some(false)) => sample.ok(attempt, verdict("reject")),
                    (attempt, None) => sample.info(attempt),
                }
            }
        }
        sample
    }

    /// The same as a register: whoever is accepted sets it, whoever is refused finds it set.
    fn is_linearizable(sample: &Sample) -> bool {
        sample.is_linearizable(|operation| match operation.value()["verdict"] == "reject" {
            true => Action::Read(1),
            false => Action::Cas(0, 1),
        })
    }

    #[test]
    fn verdicts_are_those_of_a_search_on_random_histories() {
        let mut found = 0;
        for seed in 0..1_000 {
            let sample = random(seed, seed % 2 == 1);
            let finding = checked(&sample, 1);
            let sound = finding.anomalies.is_empty() && finding.figures["refused_early"] == 0;
            assert_eq!(sound, is_linearizable(&sample), "seed {seed}: {finding:?}");
            assert!(sound || seed % 2 == 1, "seed {seed}");
            found += usize::from(!sound);
        }
        assert!(found > 250, "only {found} of 500 broken histories were found");
    }

    #[test]
    fn an_unknown_attempt_may_have_burnt_the_passcode() {
        let mut sample = Sample::new();
        let unknown = sample.invoke("consume", "u17/42", Value::Null);
        sample.info(unknown);
        sample.done("consume", "u17/42", verdict("reject"));
        let finding = checked(&sample, 1);
        assert_eq!(finding.validity, Validity::Valid);
        assert_eq!(finding.figures["burnt_keys"], 1);
    }
}
