//! Who breaks things: one file per fault, and the schedule that mixes them.
//!
//! Every fault proves that it acted, by counters, states and what the nodes say, and never by having
//! been asked to; what it needs to undo it undoes in [`Nemesis::stop`]. In reading order:
//!
//! * [`system`]: what a nemesis needs of the cluster under test.
//! * [`field`]: what it acts on, whom it may hit, how it proves.
//! * [`schedule`]: many of them, one after the other and at once.
//! * the faults: network, processes, power, clocks, disks, membership.

mod churn;
mod clock;
mod damage;
mod disk_error;
mod disk_full;
pub mod field;
mod kill;
mod link;
mod partition;
mod pause;
mod power;
mod rolling;
pub mod schedule;
mod snapshot;
pub mod system;

use anyhow::Result;
use serde::Serialize;
use serde_json::{Value, json};

pub use field::Field;
pub use schedule::{Action, Schedule};
pub use system::System;

use crate::rng::Rng;
use field::Target;

/// What came of breaking something, or of undoing it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "outcome", rename_all = "lowercase")]
pub enum Outcome {
    /// It acted.
    Acted {
        /// What proves it. `acted` counts in the fault's own unit, and is above 0.
        evidence: Value,
    },
    /// It was done, and proves no fault: a fault was undone, or was only prepared.
    Done {
        /// What there is to show.
        evidence: Value,
    },
    /// Nothing was done: there was nobody to hit, or nothing to undo.
    Skipped {
        /// Why.
        why: String,
    },
    /// It was done, and cannot be shown to have acted.
    Indeterminate {
        /// Why.
        why: String,
    },
}

impl Outcome {
    /// An outcome that acted `acted` times, with what else there is to show; indeterminate at 0.
    pub fn of(acted: u64, mut evidence: Value) -> Self {
        if acted == 0 {
            return Self::Indeterminate { why: format!("no effect was seen: {evidence}") };
        }
        if let Value::Object(fields) = &mut evidence {
            fields.insert("acted".to_owned(), json!(acted));
        }
        Self::Acted { evidence }
    }

    /// An outcome that is right and proves nothing.
    pub fn done(evidence: Value) -> Self {
        Self::Done { evidence }
    }

    /// An outcome without a deed.
    pub fn skipped(why: impl Into<String>) -> Self {
        Self::Skipped { why: why.into() }
    }
}

/// A fault that can be made and undone.
pub trait Nemesis: Send {
    /// What it is called on the command line and in histories.
    fn name(&self) -> &'static str;

    /// Breaks something.
    ///
    /// # Errors
    /// When the laboratory or the cluster's administration fails. What was broken by then stays for
    /// [`stop`](Self::stop) to undo.
    fn start(&mut self, field: &Field, rng: &mut Rng) -> Result<Outcome>;

    /// Undoes it. Again, it is skipped. `acted` in its evidence counts the fault's effects from its start.
    ///
    /// # Errors
    /// When the laboratory fails, or a node does not come back.
    fn stop(&mut self, field: &Field) -> Result<Outcome>;
}

/// A name, and what it stands for.
type Entry = (&'static str, fn() -> Box<dyn Nemesis>);

/// Every nemesis.
const ALL: &[Entry] = &[
    ("partition-halves", || Box::new(partition::Partition::new(partition::Shape::Halves))),
    ("partition-ring", || Box::new(partition::Partition::new(partition::Shape::Ring))),
    ("partition-one-way", || Box::new(partition::Partition::new(partition::Shape::OneWay))),
    ("partition-leader", || Box::new(partition::Partition::new(partition::Shape::Leader))),
    ("partition-random", || Box::new(partition::Partition::new(partition::Shape::Random))),
    ("partition-clients", || Box::new(partition::Partition::new(partition::Shape::Clients))),
    ("kill-leader", || Box::new(kill::Kill::new("kill-leader", Target::Leader))),
    ("kill-random", || Box::new(kill::Kill::new("kill-random", Target::One))),
    ("kill-minority", || Box::new(kill::Kill::new("kill-minority", Target::Minority))),
    ("kill-majority", || Box::new(kill::Kill::new("kill-majority", Target::Majority))),
    ("pause-leader", || Box::new(pause::Pause::new("pause-leader", Target::Leader))),
    ("pause-random", || Box::new(pause::Pause::new("pause-random", Target::One))),
    ("pause-minority", || Box::new(pause::Pause::new("pause-minority", Target::Minority))),
    ("pause-majority", || Box::new(pause::Pause::new("pause-majority", Target::Majority))),
    ("power-one", || Box::new(power::PowerCut::new("power-one", Target::One))),
    ("power-leader", || Box::new(power::PowerCut::new("power-leader", Target::Leader))),
    ("power-all", || Box::new(power::PowerCut::new("power-all", Target::All))),
    ("clock-jump", || Box::new(clock::ClockFault::new(clock::Kind::Jump))),
    ("clock-leap", || Box::new(clock::ClockFault::new(clock::Kind::Leap))),
    ("clock-strobe", || Box::new(clock::ClockFault::new(clock::Kind::Strobe))),
    ("disk-full", || Box::new(disk_full::DiskFull::default())),
    ("disk-sync-error", || Box::new(disk_error::DiskError::new(disk_error::Kind::Sync))),
    ("disk-write-error", || Box::new(disk_error::DiskError::new(disk_error::Kind::Write))),
    ("disk-slow", || Box::new(disk_error::DiskError::new(disk_error::Kind::Slow))),
    ("kill-in-write", || Box::new(disk_error::DiskError::new(disk_error::Kind::KillInWrite))),
    ("link-delay", || Box::new(link::LinkFault::new(link::Kind::Delay))),
    ("link-jitter", || Box::new(link::LinkFault::new(link::Kind::Jitter))),
    ("link-loss", || Box::new(link::LinkFault::new(link::Kind::Loss))),
    ("link-duplicate", || Box::new(link::LinkFault::new(link::Kind::Duplicate))),
    ("link-reorder", || Box::new(link::LinkFault::new(link::Kind::Reorder))),
    ("link-corrupt", || Box::new(link::LinkFault::new(link::Kind::Corrupt))),
    ("link-rate", || Box::new(link::LinkFault::new(link::Kind::Rate))),
    ("member-remove", || Box::new(churn::Churn::new(churn::Kind::Remove))),
    ("member-replace", || Box::new(churn::Churn::new(churn::Kind::Replace))),
    ("leader-transfer", || Box::new(churn::Churn::new(churn::Kind::Transfer))),
    ("snapshot", || Box::new(snapshot::Snapshot::default())),
    ("damage-flip", || Box::new(damage::Damage::new(damage::Kind::Flip))),
    ("damage-truncate", || Box::new(damage::Damage::new(damage::Kind::Truncate))),
    ("rolling-restart", || Box::new(rolling::Rolling)),
];

/// The names of all.
pub fn list() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|(name, _)| *name)
}

/// A fresh nemesis of that name.
pub fn by_name(name: &str) -> Option<Box<dyn Nemesis>> {
    ALL.iter().find(|(known, _)| *known == name).map(|(_, make)| make())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_nemesis_is_found_under_the_name_it_gives_itself() {
        for name in list() {
            assert_eq!(by_name(name).map(|nemesis| nemesis.name()), Some(name));
        }
        assert!(by_name("no-such-fault").is_none());
    }

    #[test]
    fn what_was_not_seen_to_act_has_not_acted() {
        let seen = Outcome::of(3, json!({"host": "n1"}));
        assert_eq!(seen, Outcome::Acted { evidence: json!({"host": "n1", "acted": 3}) });
        assert!(matches!(Outcome::of(0, json!({})), Outcome::Indeterminate { .. }));
    }
}
