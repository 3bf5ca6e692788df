//! Wrong passcodes are examined up to the limit, and then none, right ones included.
//!
//! A key is one *epoch* of one user: from an unlock to the next. `guess` is an attempt with a wrong
//! passcode, `try` one with the right one, `failures` a node's own count. With limit L:
//!
//! * No guess is accepted.
//! * At most L guesses are examined (`evaluated` is true). The limit is exact, in parallel too.
//! * Once L guesses have been refused, a try that begins is refused.
//! * A node's count n satisfies min(L, refused guesses that were over) ≤ n ≤ min(L, guesses begun
//!   that may have counted).
//!
//! A right passcode that is accepted starts the count anew, and one of unknown outcome may have.
//! Guesses therefore count together only if no such try was under way between them; what is left
//! are bounds that hold whatever the unknown attempts did.

use serde_json::Value;

use super::{Anomaly, Finding};
use crate::history::Kind;
use crate::operation::{Malformed, NEVER, Operation, by_key};

/// Checks the operations `guess` (`{"verdict": .., "evaluated": true | false | null}`), `try`
/// (`{"verdict": ..}`) and `failures` (a number). A user is locked after `limit` guesses.
///
/// # Errors
/// When a value has the wrong shape.
pub fn check(operations: &[Operation<'_>], limit: u64) -> Result<Finding, Malformed> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let keys = by_key(operations, &["guess", "try", "failures"]);
    let mut anomalies = Vec::new();
    let (mut guesses, mut locked, mut tries, mut judged) = (0, 0, 0, 0);
    for (key, operations) in &keys {
        let epoch = Epoch::new(key, operations, limit)?;
        epoch.check(&mut anomalies)?;
        guesses += epoch.guesses.len();
        tries += epoch.tries.len();
        judged += epoch.tries.iter().chain(&epoch.records).filter(|one| one.is_ok()).count();
        locked += usize::from(epoch.refused_between(0, NEVER).len() >= limit);
    }
    let summary = format!(
        "{} epochs with limit {limit}, {guesses} guesses, {tries} right passcodes, {locked} epochs \
         reached the limit",
        keys.len()
    );
    // Guesses alone show little: whether they were counted is seen by what comes after them.
    Ok(Finding::conclude("lockout", guesses.min(judged), summary, anomalies)
        .figure("epochs", keys.len())
        .figure("guesses", guesses)
        .figure("tries", tries)
        .figure("locked", locked))
}

/// A wrong passcode.
#[derive(Clone, Copy)]
struct Guess<'a> {
    operation: Operation<'a>,
    /// Whether it was compared with the right one, as far as the client was told.
    evaluated: Option<bool>,
}

/// What happened to a user between two unlocks.
struct Epoch<'a> {
    key: &'a str,
    limit: usize,
    guesses: Vec<Guess<'a>>,
    tries: Vec<Operation<'a>>,
    /// Tries that were accepted, or may have been: the count may start anew there.
    resets: Vec<Operation<'a>>,
    records: Vec<Operation<'a>>,
}

impl<'a> Epoch<'a> {
    fn new(key: &'a str, operations: &[Operation<'a>], limit: usize) -> Result<Self, Malformed> {
        let (guesses, tries, resets, records) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut epoch = Self { key, limit, guesses, tries, resets, records };
        for operation in operations.iter().filter(|one| one.kind() != Kind::Fail) {
            match operation.f() {
                "guess" => {
                    let evaluated = operation.value().get("evaluated").and_then(Value::as_bool);
                    epoch.guesses.push(Guess { operation: *operation, evaluated });
                }
                "try" => {
                    epoch.tries.push(*operation);
                    if !operation.is_ok() || operation.accepted()? {
                        epoch.resets.push(*operation);
                    }
                }
                _ => epoch.records.push(*operation),
            }
        }
        Ok(epoch)
    }

    fn check(&self, anomalies: &mut Vec<Anomaly>) -> Result<(), Malformed> {
        for guess in self.guesses.iter().filter(|guess| guess.operation.is_ok()) {
            if guess.operation.accepted()? {
                let what = "a wrong passcode was accepted".to_owned();
                anomalies.push(Anomaly::of(self.key, what, &[guess.operation]));
            }
        }
        for (from, until) in self.spans() {
            let examined = self.certain(from, until, |guess| guess.evaluated == Some(true));
            if examined.len() > self.limit {
                let what = format!(
                    "{} wrong passcodes were examined, {} allowed",
                    examined.len(),
                    self.limit
                );
                anomalies.push(Anomaly::of(self.key, what, &examined));
            }
        }
        for attempt in self.tries.iter().filter(|one| one.is_ok()) {
            let refused = self.refused_between(self.reset_before(attempt), attempt.called());
            if refused.len() >= self.limit && attempt.accepted()? {
                let what = format!("accepted after {} refused guesses: not locked", refused.len());
                let shown = [refused.as_slice(), &[*attempt]].concat();
                anomalies.push(Anomaly::of(self.key, what, &shown));
            }
        }
        self.check_records(anomalies)
    }

    fn check_records(&self, anomalies: &mut Vec<Anomaly>) -> Result<(), Malformed> {
        for record in self.records.iter().filter(|one| one.is_ok()) {
            let count = usize::try_from(record.integer()?)
                .map_err(|_| record.malformed("a count of failures is not negative"))?;
            let refused = self.refused_between(self.reset_before(record), record.called());
            let least = refused.len().min(self.limit);
            let begun =
                self.guesses.iter().filter(|one| one.operation.called() < record.returned());
            let most = begun.filter(|guess| guess.evaluated != Some(false)).count().min(self.limit);
            if !(least..=most).contains(&count) {
                let what = format!(
                    "node {:?} counts {count} failures, which must be {least} to {most}",
                    record.node()
                );
                anomalies.push(Anomaly::of(self.key, what, &[*record]));
            }
        }
        Ok(())
    }

    /// The longest stretches in which the count cannot have started anew.
    fn spans(&self) -> Vec<(u64, u64)> {
        let mut from = 0;
        let mut spans = Vec::new();
        for reset in &self.resets {
            if reset.called() > from {
                spans.push((from, reset.called()));
            }
            from = from.max(reset.returned());
        }
        spans.push((from, NEVER));
        spans
    }

    /// When the count started anew for the last time, at the latest, as seen by `operation`.
    fn reset_before(&self, operation: &Operation<'_>) -> u64 {
        let earlier = self.resets.iter().filter(|reset| reset.called() < operation.called());
        earlier.map(Operation::returned).max().unwrap_or(0)
    }

    /// Guesses that were certainly refused, or found the user locked, between two moments.
    fn refused_between(&self, from: u64, until: u64) -> Vec<Operation<'a>> {
        self.certain(from, until, |guess| guess.evaluated != Some(false))
    }

    fn certain(&self, from: u64, until: u64, which: fn(&Guess<'a>) -> bool) -> Vec<Operation<'a>> {
        let within = |one: &Operation<'_>| {
            one.is_ok() && (from == 0 || one.called() > from) && one.returned() < until
        };
        let chosen = self.guesses.iter().filter(|guess| which(guess));
        chosen.map(|guess| guess.operation).filter(within).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::checker::Validity;
    use crate::rng::Rng;
    use crate::sample::Sample;

    fn guess(sample: &mut Sample, evaluated: Value) {
        sample.done("guess", "u1#0", json!({"verdict": "reject", "evaluated": evaluated}));
    }

    fn checked(sample: &Sample) -> Finding {
        check(&sample.operations(), 3).expect("well-formed")
    }

    #[test]
    fn a_user_is_locked_after_the_limit_and_not_before() {
        let mut sample = Sample::new();
        for evaluated in [json!(true), json!(true)] {
            guess(&mut sample, evaluated);
        }
        sample.done("failures", "u1#0", 2);
        guess(&mut sample, json!(true));
        guess(&mut sample, json!(false));
        sample.done("try", "u1#0", json!({"verdict": "reject"}));
        sample.done("failures", "u1#0", 3);
        let finding = checked(&sample);
        assert_eq!(finding.validity, Validity::Valid, "{finding:?}");
        assert_eq!(finding.figures["locked"], 1);
    }

    #[test]
    fn a_guess_beyond_the_limit_is_found() {
        let mut sample = Sample::new();
        for _ in 0..4 {
            guess(&mut sample, json!(true));
        }
        assert!(checked(&sample).anomalies[0].what.starts_with("4 wrong passcodes were examined"));
    }

    #[test]
    fn a_right_passcode_that_is_accepted_when_locked_is_found() {
        let mut sample = Sample::new();
        for _ in 0..3 {
            guess(&mut sample, Value::Null);
        }
        sample.done("try", "u1#0", json!({"verdict": "accept"}));
        assert!(checked(&sample).anomalies[0].what.ends_with("not locked"));
    }

    #[test]
    fn a_right_passcode_may_be_accepted_while_the_last_guess_is_under_way() {
        let mut sample = Sample::new();
        guess(&mut sample, Value::Null);
        guess(&mut sample, Value::Null);
        let last = sample.invoke("guess", "u1#0", Value::Null);
        sample.done("try", "u1#0", json!({"verdict": "accept"}));
        sample.ok(last, json!({"verdict": "reject", "evaluated": true}));
        assert_eq!(checked(&sample).validity, Validity::Valid);
    }

    #[test]
    fn an_accepted_passcode_starts_the_count_anew_and_an_unknown_one_may_have() {
        for unknown in [false, true] {
            let mut sample = Sample::new();
            guess(&mut sample, json!(true));
            guess(&mut sample, json!(true));
            let reset = sample.invoke("try", "u1#0", Value::Null);
            if unknown {
                sample.info(reset);
            } else {
                sample.ok(reset, json!({"verdict": "accept"}));
            }
            guess(&mut sample, json!(true));
            guess(&mut sample, json!(true));
            sample.done("try", "u1#0", json!({"verdict": "accept"}));
            assert_eq!(checked(&sample).validity, Validity::Valid, "unknown: {unknown}");
        }
    }

    #[test]
    fn a_record_that_forgot_a_guess_or_counts_beyond_the_limit_is_found() {
        for count in [1, 4] {
            let mut sample = Sample::new();
            guess(&mut sample, json!(true));
            guess(&mut sample, json!(true));
            let unknown = sample.invoke("guess", "u1#0", Value::Null);
            sample.info(unknown);
            sample.done("failures", "u1#0", count);
            let what = &checked(&sample).anomalies[0].what;
            assert!(what.ends_with("must be 2 to 3"), "{what}");
        }
    }

    /// Attempts that overlap at random; a broken service forgets a failure now and then.
    fn random(seed: u64, broken: bool) -> Sample {
        let mut rng = Rng::new(seed);
        let mut sample = Sample::new();
        let mut open: Vec<(usize, Option<Value>)> = Vec::new();
        let mut failures = 0;
        for _ in 0..12 {
            let (f, result) = match rng.below(6) {
                0 => ("failures", json!(failures)),
                1 if failures >= 3 => ("try", json!({"verdict": "reject"})),
                1 => {
                    failures = 0;
                    ("try", json!({"verdict": "accept"}))
                }
                _ => {
                    let evaluated = failures < 3;
                    let forgotten = broken && rng.one_in(3);
                    failures += i64::from(evaluated && !forgotten);
                    let told = if rng.one_in(4) { Value::Null } else { json!(evaluated) };
                    ("guess", json!({"verdict": "reject", "evaluated": told}))
                }
            };
            let handle = sample.invoke(f, "u1#0", Value::Null);
            open.push((handle, (!rng.one_in(8)).then_some(result)));
            while open.len() > rng.below(4) {
                match open.swap_remove(rng.below(open.len())) {
                    (handle, Some(result)) => sample.ok(handle, result),
                    (handle, None) => sample.info(handle),
                }
            }
        }
        sample
    }

    #[test]
    fn a_sound_service_is_never_accused_and_a_forgetful_one_often() {
        let mut found = 0;
        for seed in 0..2_000 {
            let accused = !checked(&random(seed, seed % 2 == 1)).anomalies.is_empty();
            assert!(!accused || seed % 2 == 1, "seed {seed}");
            found += usize::from(accused);
        }
        assert!(found > 150, "only {found} of 1,000 broken histories were found");
    }

    #[test]
    fn a_wrong_passcode_that_is_accepted_is_found() {
        let mut sample = Sample::new();
        sample.done("guess", "u1#0", json!({"verdict": "accept", "evaluated": true}));
        assert_eq!(checked(&sample).validity, Validity::Invalid);
    }
}
