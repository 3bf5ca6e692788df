//! A bypass lets in once.

use std::collections::{BTreeMap, BTreeSet};

use super::{Invariant, Moment};
use crate::history::{End, Typed, Wish};

#[derive(Default)]
pub(crate) struct BypassOnce {
    used: BTreeMap<usize, BTreeSet<usize>>,
}

impl Invariant for BypassOnce {
    fn name(&self) -> &'static str {
        "a bypass is used once"
    }

    fn check(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        for number in moment.accepted() {
            let login = &moment.history.logins[number];
            if login.typed != Typed::Nothing {
                continue;
            }
            let used = self.used.entry(login.person).or_default();
            used.insert(number);
            let granted = moment.history.changes.iter();
            let granted = granted.filter(|change| {
                change.wish == Wish::Bypass(login.person) && change.ended != Some(End::Refused)
            });
            let granted = granted.count();
            if used.len() > granted {
                return Err(format!(
                    "{} was let in {} times by {granted} bypasses",
                    moment.history.name(login),
                    used.len()
                ));
            }
        }
        Ok(())
    }
}
