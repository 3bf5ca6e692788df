//! Whoever does everything right is never refused: at worst nobody answers.

use watchword::radius::packet::Code;

use super::{Invariant, Moment};
use crate::history::{Class, Event};

pub(crate) struct NoFalseRefusal;

impl Invariant for NoFalseRefusal {
    fn name(&self) -> &'static str {
        "nobody is refused wrongly"
    }

    fn check(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        for (_, event) in moment.events() {
            let Event::Replied(number, Code::AccessReject) = event else { continue };
            let login = &moment.history.logins[number];
            // A request whose client has given up may be decided after the user's next one.
            let latest = moment.history.logins.iter().rposition(|one| one.person == login.person);
            let is_plain = moment.history.people[login.person].class == Class::Plain;
            if is_plain && latest == Some(number) && login.late_for.is_none() {
                let name = moment.history.name(login);
                let recorded = moment.furthest().into_iter().flat_map(|seen| {
                    seen.state.attempts().iter_from(0).filter(|(_, one)| one.username == name)
                });
                let recorded: Vec<_> = recorded
                    .map(|(at, one)| format!("{at} {:?} {:?}", one.time, one.verdict))
                    .collect();
                return Err(format!(
                    "login {number} of {name} at client {} was refused, passcode {:?}; recorded: {}",
                    login.nas,
                    login.typed,
                    recorded.join(", ")
                ));
            }
        }
        Ok(())
    }
}
