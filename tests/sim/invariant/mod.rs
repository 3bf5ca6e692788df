//! What must hold after every tick, whatever happens: one file each.

use std::collections::BTreeMap;

use watchword::radius::packet::Code;

use crate::history::{Event, History};
use crate::observe::{Ballot, Seen};

mod acknowledged;
mod both_factors;
mod bypass_once;
mod challenge_in_time;
mod digest_equality;
mod election_safety;
mod leader_completeness;
mod lockout_bound;
mod log_matching;
mod monotonic_applied;
mod no_false_refusal;
mod one_verdict;
mod passcode_once;
mod recorded_once;
mod shut_out;

/// The moment at which invariants are checked.
pub(crate) struct Moment<'a> {
    /// The running nodes.
    pub(crate) nodes: &'a [Seen],
    /// What the outside has seen.
    pub(crate) history: &'a History,
    /// The first event that was not there at the last check.
    pub(crate) news: usize,
}

impl Moment<'_> {
    /// The events since the last check, with their places.
    pub(crate) fn events(&self) -> impl Iterator<Item = (usize, Event)> {
        self.history.events.iter().copied().enumerate().skip(self.news)
    }

    /// The numbers of the logins that were accepted since the last check.
    pub(crate) fn accepted(&self) -> impl Iterator<Item = usize> {
        self.events().filter_map(|(_, event)| match event {
            Event::Replied(login, Code::AccessAccept) => Some(login),
            _ => None,
        })
    }

    /// The node that has applied most.
    pub(crate) fn furthest(&self) -> Option<&Seen> {
        self.nodes.iter().max_by_key(|seen| seen.applied)
    }
}

/// The logs of the hosts, as far as they were seen: by index, who has made the entry.
#[derive(Default)]
struct Logs(BTreeMap<usize, BTreeMap<u64, Ballot>>);

impl Logs {
    /// Takes over what has changed in a host's log, and gives the log. What a snapshot has covered is not in
    /// it: it may never have been committed as it stood there.
    fn follow(&mut self, seen: &Seen) -> &BTreeMap<u64, Ballot> {
        let log = self.0.entry(seen.host).or_default();
        if let Some(changed) = &seen.changed {
            let from = changed.first().map_or(seen.bounds.1 + 1, |entry| entry.index);
            log.split_off(&from);
            log.extend(changed.iter().map(|entry| (entry.index, entry.leader)));
        }
        while log.first_key_value().is_some_and(|(index, _)| *index <= seen.bounds.0) {
            log.pop_first();
        }
        log
    }
}

/// Something that must hold.
pub(crate) trait Invariant {
    /// Its name.
    fn name(&self) -> &'static str;

    /// Looks whether it holds.
    ///
    /// # Errors
    /// What has happened that must not.
    fn check(&mut self, moment: &Moment<'_>) -> Result<(), String>;

    /// Looks once more, when everything has come to rest and every node has applied everything.
    ///
    /// # Errors
    /// As [`Invariant::check`].
    fn finish(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        self.check(moment)
    }
}

/// All of them, of a cluster that locks users after so many failures.
pub(crate) fn all(failures_max: u64) -> Vec<Box<dyn Invariant>> {
    vec![
        Box::new(election_safety::ElectionSafety::default()),
        Box::new(log_matching::LogMatching::default()),
        Box::new(leader_completeness::LeaderCompleteness::default()),
        Box::new(digest_equality::DigestEquality::default()),
        Box::new(monotonic_applied::MonotonicApplied::default()),
        Box::new(passcode_once::PasscodeOnce::default()),
        Box::new(both_factors::BothFactors),
        Box::new(one_verdict::OneVerdict::default()),
        Box::new(recorded_once::RecordedOnce::default()),
        Box::new(lockout_bound::LockoutBound::new(failures_max)),
        Box::new(shut_out::ShutOut::default()),
        Box::new(bypass_once::BypassOnce::default()),
        Box::new(challenge_in_time::ChallengeInTime::default()),
        Box::new(acknowledged::Acknowledged::default()),
        Box::new(no_false_refusal::NoFalseRefusal),
    ]
}
