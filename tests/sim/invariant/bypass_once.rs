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
            let logins = &moment.history.logins;
            // One that was granted and not used gives way to the next: from any moment on, no more logins are let
            // in than by the one of before and those that may have been granted since.
            let since = |at: usize| {
                let after = used.iter().filter(|number| logins[**number].sent >= at).count();
                let granted = moment.history.changes.iter();
                let granted = granted.filter(|change| {
                    let is_after = match change.ended {
                        Some(End::Refused) => false,
                        Some(End::Done(_)) => change.ended_at.is_some_and(|ended| ended >= at),
                        Some(End::Unknown) | None => true,
                    };
                    change.wish == Wish::Bypass(login.person) && is_after
                });
                (after, granted.count())
            };
            let begun = used.iter().map(|number| logins[*number].sent);
            let windows = begun.map(|at| (since(at), 1)).chain([(since(0), 0)]);
            for ((used, granted), before) in windows {
                if used > granted + before {
                    return Err(format!(
                        "{} was let in {used} times by {before} + {granted} bypasses",
                        moment.history.name(login)
                    ));
                }
            }
        }
        Ok(())
    }
}
