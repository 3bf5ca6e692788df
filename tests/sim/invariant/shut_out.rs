//! After an administrator was told that a user is disabled, blocked, or without device, or that a client has
//! another secret, nothing that is sent later is accepted by what was so before.

use std::collections::BTreeMap;

use super::{Invariant, Moment};
use crate::history::{End, Event, Wish};

#[derive(Default)]
pub(crate) struct ShutOut {
    /// Since which event each user is certainly kept out.
    shut: BTreeMap<usize, usize>,
    /// Since which event each client's old secret is certainly of no use.
    rotated: BTreeMap<usize, usize>,
}

impl Invariant for ShutOut {
    fn name(&self) -> &'static str {
        "what was revoked is of no use"
    }

    fn check(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        for (place, event) in moment.events() {
            let (Event::Invoked(change) | Event::Ended(change)) = event else { continue };
            let change = &moment.history.changes[change];
            match (&change.wish, event, change.ended) {
                // From here on it may be open again at any time.
                (Wish::Open(person), Event::Invoked(_), _) => drop(self.shut.remove(person)),
                (Wish::Shut(person), Event::Ended(_), Some(End::Done(_))) => {
                    self.shut.insert(*person, place);
                }
                (Wish::Rotate(nas), Event::Ended(_), Some(End::Done(_))) => {
                    self.rotated.insert(*nas, place);
                }
                _ => {}
            }
        }
        for number in moment.accepted() {
            let login = &moment.history.logins[number];
            if self.shut.get(&login.person).is_some_and(|since| login.sent > *since) {
                let name = moment.history.name(login);
                return Err(format!("login {number} was accepted, though {name} was kept out"));
            }
            let since = self.rotated.get(&login.nas);
            if login.under_old_secret && since.is_some_and(|since| login.sent > *since) {
                return Err(format!("login {number} was accepted under a secret that is revoked"));
            }
        }
        Ok(())
    }
}
