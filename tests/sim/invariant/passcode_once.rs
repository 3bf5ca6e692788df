//! A counter or time step is accepted for one request, whoever is asked.

use std::collections::BTreeMap;

use super::{Invariant, Moment};
use crate::history::Typed;

#[derive(Default)]
pub(crate) struct PasscodeOnce {
    /// The login that was accepted, by user and counter or step.
    accepted: BTreeMap<(usize, u64), usize>,
}

impl Invariant for PasscodeOnce {
    fn name(&self) -> &'static str {
        "a passcode is accepted once"
    }

    fn check(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        for number in moment.accepted() {
            let login = &moment.history.logins[number];
            let Typed::Right(used) = login.typed else { continue };
            let first = *self.accepted.entry((login.person, used)).or_insert(number);
            if first != number {
                return Err(format!(
                    "logins {first} and {number} of {} were both accepted by passcode {used}",
                    moment.history.name(login)
                ));
            }
        }
        Ok(())
    }
}
