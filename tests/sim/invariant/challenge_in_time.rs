//! A challenge is answered in time, or not at all.
//!
//! While more than one clock is wrong the cluster itself may be wrong about the time.

use super::{Invariant, Moment};
use crate::entropy;

#[derive(Default)]
pub(crate) struct ChallengeInTime {
    /// How many events there were when more than one clock was wrong.
    unsure: usize,
}

impl Invariant for ChallengeInTime {
    fn name(&self) -> &'static str {
        "a challenge is answered in time"
    }

    fn check(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        if entropy::wrong_clocks() > 1 {
            self.unsure = moment.history.events.len();
        }
        let is_late = |number: &usize| {
            moment.history.logins[*number].late_for.is_some_and(|asked| asked >= self.unsure)
        };
        match moment.accepted().find(is_late) {
            Some(number) => Err(format!("login {number} was accepted long after it was asked for")),
            None => Ok(()),
        }
    }
}
