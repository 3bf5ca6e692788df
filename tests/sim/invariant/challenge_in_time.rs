//! A challenge is answered in time, or not at all.

use super::{Invariant, Moment};

pub(crate) struct ChallengeInTime;

impl Invariant for ChallengeInTime {
    fn name(&self) -> &'static str {
        "a challenge is answered in time"
    }

    fn check(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        match moment.accepted().find(|number| moment.history.logins[*number].is_late) {
            Some(number) => Err(format!("login {number} was accepted long after it was asked for")),
            None => Ok(()),
        }
    }
}
