//! No more wrong passcodes or passwords are tried than the limit, whatever is sent to whichever nodes at once,
//! and whoever is locked is accepted by nothing.

use std::collections::BTreeMap;

use watchword_core::attempt::{Reason, Verdict};

use super::{Invariant, Moment};
use crate::history::Class;

pub(crate) struct LockoutBound {
    limit: u64,
    next: u64,
    /// Failed passcodes and passwords since the last accept, by user name.
    failures: BTreeMap<String, [u64; 2]>,
    /// From which event on a user is known to be locked.
    locked: BTreeMap<String, usize>,
}

impl LockoutBound {
    /// Of a cluster that locks after `limit` failures.
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit, next: 0, failures: BTreeMap::new(), locked: BTreeMap::new() }
    }
}

impl Invariant for LockoutBound {
    fn name(&self) -> &'static str {
        "failures never exceed the limit"
    }

    fn check(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        let Some(furthest) = moment.furthest() else { return Ok(()) };
        for (number, attempt) in furthest.state.attempts().iter_from(self.next) {
            self.next = number + 1;
            let name = attempt.username.to_string();
            // Failures of those are forgotten when an administrator lets them in again.
            let people = moment.history.people.iter();
            if people.into_iter().any(|one| one.class == Class::Managed && one.name == name) {
                continue;
            }
            let failures = self.failures.entry(name.clone()).or_default();
            match attempt.verdict {
                Verdict::Accepted(_) => *failures = [0; 2],
                Verdict::Refused(Reason::PasscodeWrong) => failures[0] += 1,
                Verdict::Refused(Reason::PasswordWrong) => failures[1] += 1,
                Verdict::Refused(_) => {}
            }
            if failures.iter().any(|count| *count > self.limit) {
                return Err(format!(
                    "attempt {number}: {failures:?} wrong passcodes and passwords of {name} were \
                     compared; {} lock",
                    self.limit
                ));
            }
            if failures.contains(&self.limit) {
                self.locked.entry(name).or_insert(moment.history.events.len());
            }
        }
        for number in moment.accepted() {
            let login = &moment.history.logins[number];
            let name = moment.history.name(login);
            if self.locked.get(name).is_some_and(|locked| login.sent >= *locked) {
                return Err(format!("login {number} was accepted, though {name} was locked"));
            }
        }
        Ok(())
    }
}
