//! All copies of a request get one verdict.
//!
//! A question is none: it stands in no log, so a copy that reaches another node after an administrator
//! has changed something may be decided.

use std::collections::BTreeMap;

use watchword::radius::packet::Code;

use super::{Invariant, Moment};
use crate::history::Event;

#[derive(Default)]
pub(crate) struct OneVerdict {
    verdicts: BTreeMap<usize, Code>,
}

impl Invariant for OneVerdict {
    fn name(&self) -> &'static str {
        "one verdict per request"
    }

    fn check(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        for (_, event) in moment.events() {
            let Event::Replied(login, code) = event else { continue };
            if code == Code::AccessChallenge {
                continue;
            }
            let first = *self.verdicts.entry(login).or_insert(code);
            if first != code {
                return Err(format!("login {login} was answered {first:?} and {code:?}"));
            }
        }
        Ok(())
    }
}
