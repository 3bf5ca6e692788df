//! A request stands in the record of attempts once, and whoever was accepted or refused stands there so.

use std::collections::{BTreeMap, BTreeSet};

use watchword::radius::packet::Code;
use watchword_core::attempt::Verdict;

use super::{Invariant, Moment};
use crate::history::Event;

#[derive(Default)]
pub(crate) struct RecordedOnce {
    next: u64,
    requests: BTreeSet<[u8; 16]>,
    /// Attempts that were accepted, and that were refused, by user name.
    recorded: BTreeMap<String, [usize; 2]>,
    /// Logins that were answered so.
    answered: BTreeSet<(usize, bool)>,
}

impl RecordedOnce {
    fn note(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        let verdict = |event| match event {
            Event::Replied(login, Code::AccessAccept) => Some((login, true)),
            Event::Replied(login, Code::AccessReject) => Some((login, false)),
            _ => None,
        };
        self.answered.extend(moment.events().filter_map(|(_, event)| verdict(event)));
        let Some(furthest) = moment.furthest() else { return Ok(()) };
        for (number, attempt) in furthest.state.attempts().iter_from(self.next) {
            self.next = number + 1;
            if !self.requests.insert(attempt.request.0) {
                return Err(format!("attempt {number} is of a request that was decided before"));
            }
            let recorded = self.recorded.entry(attempt.username.to_string()).or_default();
            recorded[usize::from(!matches!(attempt.verdict, Verdict::Accepted(_)))] += 1;
        }
        Ok(())
    }
}

impl Invariant for RecordedOnce {
    fn name(&self) -> &'static str {
        "one attempt per request"
    }

    fn check(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        self.note(moment)
    }

    fn finish(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        self.note(moment)?;
        let mut answered: BTreeMap<&str, [usize; 2]> = BTreeMap::new();
        for (login, is_accepted) in &self.answered {
            let name = moment.history.name(&moment.history.logins[*login]);
            answered.entry(name).or_default()[usize::from(!is_accepted)] += 1;
        }
        for (name, answered) in answered {
            let recorded = self.recorded.get(name).copied().unwrap_or_default();
            if answered[0] > recorded[0] || answered[1] > recorded[1] {
                return Err(format!(
                    "{name} was accepted and refused {answered:?} times; recorded are {recorded:?}"
                ));
            }
        }
        Ok(())
    }
}
