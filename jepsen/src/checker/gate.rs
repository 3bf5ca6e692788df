//! A user who was disabled does not get in, at any node, from the moment at which the administrator
//! was told.
//!
//! A login that begins after an acknowledged `disable`, with no `enable` that may come between, is
//! not accepted. A login that begins after an acknowledged `enable`, or at the beginning, with no
//! `disable` that may come between, is not refused. What may come between is anything that did not
//! certainly fail, and was not over before the switch nor begun after the login.

use super::{Anomaly, Finding};
use crate::history::Kind;
use crate::operation::{Malformed, Operation, by_key};

/// Checks the operations `disable`, `enable` and `login` (`{"verdict": "accept" | "reject"}`); keys
/// are users, who are enabled at first.
///
/// # Errors
/// When a verdict is neither.
pub fn check(operations: &[Operation<'_>]) -> Result<Finding, Malformed> {
    let keys = by_key(operations, &["disable", "enable", "login"]);
    let mut anomalies = Vec::new();
    let (mut logins, mut denied, mut allowed) = (0, 0, 0);
    for (user, operations) in &keys {
        let disables = Switches::new(operations, "disable");
        let enables = Switches::new(operations, "enable");
        for login in operations.iter().filter(|one| one.f() == "login" && one.is_ok()) {
            logins += 1;
            let accepted = login.accepted()?;
            if let Some(disable) = disables.in_force(login)
                && !enables.may_follow(disable.called(), login)
            {
                denied += 1;
                if accepted {
                    let what = "accepted after the user had been disabled".to_owned();
                    anomalies.push(Anomaly::of(user, what, &[disable, *login]));
                }
                continue;
            }
            let enable = enables.in_force(login);
            if !disables.may_follow(enable.map_or(0, |one| one.called()), login) {
                allowed += 1;
                if !accepted {
                    let what = "refused although the user was enabled".to_owned();
                    let shown: Vec<_> = enable.into_iter().chain([*login]).collect();
                    anomalies.push(Anomaly::of(user, what, &shown));
                }
            }
        }
    }
    let summary = format!(
        "{} users, {logins} logins: {denied} had to be refused, {allowed} had to be accepted",
        keys.len()
    );
    Ok(Finding::conclude("gate", denied + allowed, summary, anomalies)
        .figure("logins", logins)
        .figure("had_to_be_refused", denied)
        .figure("had_to_be_accepted", allowed))
}

/// All operations that switch one user one way.
struct Switches<'a> {
    /// Acknowledged ones by return, each with the one among it and its predecessors that was called
    /// last.
    acknowledged: Vec<(u64, Operation<'a>)>,
    /// All that may have acted by call, each with the latest return among it and its predecessors.
    acting: Vec<(u64, u64)>,
}

impl<'a> Switches<'a> {
    fn new(operations: &[Operation<'a>], name: &str) -> Self {
        let mut acting: Vec<Operation<'a>> = operations
            .iter()
            .filter(|one| one.f() == name && one.kind() != Kind::Fail)
            .copied()
            .collect();
        let mut latest = 0;
        let by_call = acting.iter().map(|one| {
            latest = one.returned().max(latest);
            (one.called(), latest)
        });
        let by_call = by_call.collect();
        acting.retain(Operation::is_ok);
        acting.sort_unstable_by_key(Operation::returned);
        let mut last: Option<Operation<'a>> = None;
        let by_return = acting.iter().map(|one| {
            let latest = last.filter(|last| last.called() > one.called()).unwrap_or(*one);
            last = Some(latest);
            (one.returned(), latest)
        });
        Self { acknowledged: by_return.collect(), acting: by_call }
    }

    /// The acknowledged switch before `login` that leaves the least room for others after it.
    fn in_force(&self, login: &Operation<'_>) -> Option<Operation<'a>> {
        let before = self.acknowledged.partition_point(|(at, _)| *at < login.called());
        self.acknowledged.get(before.checked_sub(1)?).map(|(_, switch)| *switch)
    }

    /// Whether one of these may act after something that was called at `since`, and before `login`.
    fn may_follow(&self, since: u64, login: &Operation<'_>) -> bool {
        let before = self.acting.partition_point(|(at, _)| *at < login.returned());
        let latest = before.checked_sub(1).and_then(|at| self.acting.get(at));
        latest.is_some_and(|(_, returned)| *returned > since)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::checker::Validity;
    use crate::checker::register::Action;
    use crate::rng::Rng;
    use crate::sample::Sample;

    fn login(sample: &mut Sample, verdict: &str) {
        sample.done("login", "u1", json!({ "verdict": verdict }));
    }

    fn checked(sample: &Sample) -> Finding {
        check(&sample.operations()).expect("well-formed")
    }

    #[test]
    fn a_user_comes_and_goes() {
        let mut sample = Sample::new();
        login(&mut sample, "accept");
        sample.done("disable", "u1", Value::Null);
        login(&mut sample, "reject");
        sample.done("enable", "u1", Value::Null);
        login(&mut sample, "accept");
        let finding = checked(&sample);
        assert_eq!(finding.validity, Validity::Valid);
        assert_eq!(finding.figures["had_to_be_refused"], 1);
        assert_eq!(finding.figures["had_to_be_accepted"], 2);
    }

    #[test]
    fn an_accept_after_an_acknowledged_disable_is_found() {
        let mut sample = Sample::new();
        sample.done("disable", "u1", Value::Null);
        login(&mut sample, "accept");
        assert!(checked(&sample).anomalies[0].what.starts_with("accepted after"));
    }

    #[test]
    fn a_refusal_of_an_enabled_user_is_found() {
        let mut sample = Sample::new();
        sample.done("disable", "u1", Value::Null);
        sample.done("enable", "u1", Value::Null);
        login(&mut sample, "reject");
        assert!(checked(&sample).anomalies[0].what.starts_with("refused although"));
    }

    #[test]
    fn a_login_that_overlaps_the_switch_may_go_either_way() {
        for verdict in ["accept", "reject"] {
            let mut sample = Sample::new();
            let disable = sample.invoke("disable", "u1", Value::Null);
            login(&mut sample, verdict);
            sample.ok(disable, Value::Null);
            let finding = checked(&sample);
            assert!(finding.anomalies.is_empty(), "{verdict}: {finding:?}");
        }
    }

    #[test]
    fn an_unknown_enable_leaves_open_what_comes_later() {
        for verdict in ["accept", "reject"] {
            let mut sample = Sample::new();
            let enable = sample.invoke("enable", "u1", Value::Null);
            sample.info(enable);
            sample.done("disable", "u1", Value::Null);
            login(&mut sample, verdict);
            let finding = checked(&sample);
            assert!(finding.anomalies.is_empty(), "{verdict}: {finding:?}");
        }
    }

    /// Logins while an administrator switches; some nodes may lag behind.
    fn random(seed: u64, broken: bool) -> Sample {
        let mut rng = Rng::new(seed);
        let mut sample = Sample::new();
        let mut open: Vec<(usize, Option<Value>)> = Vec::new();
        let mut enabled = true;
        for _ in 0..20 {
            let switch = if rng.one_in(2) { "enable" } else { "disable" };
            let f = if rng.one_in(3) { switch } else { "login" };
            let handle = sample.invoke(f, "u1", Value::Null);
            let result = if f == "login" {
                let seen = if broken && rng.one_in(4) { !enabled } else { enabled };
                json!({"verdict": if seen { "accept" } else { "reject" }})
            } else {
                enabled = f == "enable";
                Value::Null
            };
            open.push((handle, (f == "login" || !rng.one_in(8)).then_some(result)));
            while open.len() > rng.below(3) {
                match open.swap_remove(rng.below(open.len())) {
                    (handle, Some(result)) => sample.ok(handle, result),
                    (handle, None) => sample.info(handle),
                }
            }
        }
        sample
    }

    /// The same as a register that is 0 while the user is enabled.
    fn is_linearizable(sample: &Sample) -> bool {
        sample.is_linearizable(|operation| match operation.f() {
            "enable" => Action::Write(0),
            "disable" => Action::Write(1),
            _ => Action::Read(i64::from(operation.value()["verdict"] == "reject")),
        })
    }

    #[test]
    fn what_a_search_acquits_is_never_accused_on_random_histories() {
        let mut found = 0;
        for seed in 0..1_000 {
            let sample = random(seed, seed % 2 == 1);
            let accused = !checked(&sample).anomalies.is_empty();
            assert!(!(accused && is_linearizable(&sample)), "seed {seed}");
            assert!(!accused || seed % 2 == 1, "seed {seed}");
            found += usize::from(accused);
        }
        assert!(found > 250, "only {found} of 500 broken histories were found");
    }

    #[test]
    fn a_failed_enable_changes_nothing() {
        let mut sample = Sample::new();
        sample.done("disable", "u1", Value::Null);
        let enable = sample.invoke("enable", "u1", Value::Null);
        sample.fail(enable);
        login(&mut sample, "accept");
        assert_eq!(checked(&sample).validity, Validity::Invalid);
    }
}
