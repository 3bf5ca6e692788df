//! Nobody is accepted without both factors: a right password where the node checks it, and a right
//! passcode or a bypass.

use super::{Invariant, Moment};
use crate::history::{Typed, Wish};

pub(crate) struct BothFactors;

impl Invariant for BothFactors {
    fn name(&self) -> &'static str {
        "no accept without both factors"
    }

    fn check(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        for number in moment.accepted() {
            let login = &moment.history.logins[number];
            let is_bypassed = || {
                let changes = &moment.history.changes;
                changes.iter().any(|change| change.wish == Wish::Bypass(login.person))
            };
            let second = match login.typed {
                Typed::Right(_) => true,
                Typed::Wrong => false,
                Typed::Nothing => is_bypassed(),
            };
            if login.password == Some(false) || !second {
                return Err(format!(
                    "login {number} of {} was accepted with password {:?} and passcode {:?}",
                    moment.history.name(login),
                    login.password,
                    login.typed
                ));
            }
        }
        Ok(())
    }
}
