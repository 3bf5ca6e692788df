//! What was acknowledged stands: in the states of all who have applied it, and in every fresh reading.

use std::collections::{BTreeMap, BTreeSet};

use watchword_core::name::UserName;

use super::{Invariant, Moment};
use crate::history::{End, Event, Wish};
use crate::observe::Seen;

#[derive(Default)]
pub(crate) struct Acknowledged {
    /// Users whose addition was acknowledged, and how far the cluster had got by then.
    added: Vec<(UserName, u64)>,
    /// Users whose addition was refused.
    refused: Vec<UserName>,
    checked: BTreeSet<(usize, u64, u64)>,
    /// The version of each full name that was acknowledged or read last. Whoever asks for one does nothing else
    /// meanwhile, and nobody else asks for it.
    names: BTreeMap<usize, u64>,
    /// Versions of full names of which nobody knows whether they are, or will be, in force.
    possible: BTreeSet<(usize, u64)>,
    /// How far the cluster was ever seen.
    furthest: u64,
}

impl Acknowledged {
    fn note(&mut self, moment: &Moment<'_>, event: Event) -> Result<(), String> {
        let (Event::Invoked(number) | Event::Ended(number)) = event else { return Ok(()) };
        let change = &moment.history.changes[number];
        match (&change.wish, event, change.ended) {
            (Wish::Rename(one, version), Event::Invoked(_), _) => {
                self.possible.insert((*one, *version));
            }
            (Wish::Rename(one, version), Event::Ended(_), Some(End::Done(_))) => {
                self.possible.remove(&(*one, *version));
                self.names.insert(*one, *version);
            }
            (Wish::Rename(one, version), Event::Ended(_), Some(End::Refused)) => {
                self.possible.remove(&(*one, *version));
            }
            (Wish::Read(one), Event::Ended(_), Some(End::Done(Some(version)))) => {
                let told = self.names.insert(*one, version).unwrap_or(0);
                if version != told && !self.possible.remove(&(*one, version)) {
                    return Err(format!("a reading gave version {version} after {told} was told"));
                }
            }
            (Wish::Add(name), Event::Ended(_), Some(end @ (End::Done(_) | End::Refused))) => {
                let name = UserName::canonical(name).map_err(|error| error.to_string())?;
                match end {
                    End::Refused => self.refused.push(name),
                    _ => self.added.push((name, self.furthest)),
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Invariant for Acknowledged {
    fn name(&self) -> &'static str {
        "what was acknowledged is not lost"
    }

    fn check(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        let applied = moment.furthest().map_or(0, |seen| seen.applied);
        // Whoever acknowledged it may be down by now.
        self.furthest = self.furthest.max(applied);
        for (_, event) in moment.events() {
            self.note(moment, event)?;
        }
        // Each state once in a while: it takes long.
        let checked = &mut self.checked;
        let due = moment.nodes.iter().filter(|seen| {
            seen.has_applied && checked.insert((seen.host, seen.start, seen.applied / 16))
        });
        due.into_iter().try_for_each(|seen| knows(&self.added, &self.refused, seen))
    }

    fn finish(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        self.check(moment)?;
        moment.nodes.iter().try_for_each(|seen| knows(&self.added, &self.refused, seen))
    }
}

/// Whether a node knows everybody whose addition it has applied, and nobody whose addition was refused.
fn knows(added: &[(UserName, u64)], refused: &[UserName], seen: &Seen) -> Result<(), String> {
    if let Some(name) = refused.iter().find(|name| seen.state.user_by_name(name).is_some()) {
        return Err(format!(
            "node {} knows {}, whose addition was refused",
            seen.node,
            name.text()
        ));
    }
    let due = added.iter().filter(|(_, by)| seen.applied >= *by);
    for (name, _) in due {
        if seen.state.user_by_name(name).is_none() {
            return Err(format!(
                "node {} at index {} does not know {}, whose addition was acknowledged",
                seen.node,
                seen.applied,
                name.text()
            ));
        }
    }
    Ok(())
}
