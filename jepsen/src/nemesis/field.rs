//! What a nemesis acts on, whom it may hit, and how long it looks for the proof.
//!
//! Faults overlap, except where one would spoil the other's undoing: a node that one fault has
//! taken down must not be started by another. So a fault claims what it takes, and gives it back in
//! its `stop`.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};

use super::System;
use crate::lab::{Lab, wait};
use crate::rng::Rng;

/// How long a fault may take to show an effect.
const PROOF: Duration = Duration::from_secs(5);

/// What belongs to one fault at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// The node and the disk of a host.
    Node(usize),
    /// The clock of a host.
    Clock(usize),
}

/// Whom to hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The leader.
    Leader,
    /// Anyone.
    One,
    /// As many as may fail without harm.
    Minority,
    /// One more than may fail.
    Majority,
    /// All at once.
    All,
}

/// The laboratory, and the cluster in it.
pub struct Field<'a> {
    /// Where things are broken.
    pub lab: &'a Lab,
    /// What runs there.
    pub system: &'a dyn System,
    claims: Mutex<BTreeSet<Resource>>,
}

impl<'a> Field<'a> {
    /// A field where nothing is broken.
    pub fn new(lab: &'a Lab, system: &'a dyn System) -> Self {
        Self { lab, system, claims: Mutex::default() }
    }

    /// Takes `resource` for one fault; false when another has it.
    pub fn claim(&self, resource: Resource) -> bool {
        self.claims().insert(resource)
    }

    /// Gives it back.
    pub fn release(&self, resource: Resource) {
        self.claims().remove(&resource);
    }

    /// Claims running nodes as `target` says; fewer than it says when others are down already.
    /// Empty when there is nobody to hit.
    pub fn claim_nodes(&self, target: Target, rng: &mut Rng) -> Vec<usize> {
        let mut running: Vec<_> = (0..self.lab.hosts()).filter(|host| self.runs(*host)).collect();
        rng.shuffle(&mut running);
        if target == Target::Leader {
            let leader = self.system.leader();
            running.retain(|host| leader == Some(*host));
        }
        running.retain(|host| self.claim(Resource::Node(*host)));
        for host in running.split_off(running.len().min(target.size(self.lab.hosts()))) {
            self.release(Resource::Node(host));
        }
        running.sort_unstable();
        running
    }

    /// Claims one member whose data may be lost, or whose vote may be taken away: a majority is
    /// ready without it. None when there is no such member, or nobody tells who the members are.
    pub fn claim_expendable(&self, rng: &mut Rng) -> Option<usize> {
        let mut members = self.system.members().ok()?;
        rng.shuffle(&mut members);
        let ready: BTreeSet<_> =
            (members.iter().copied()).filter(|host| self.system.is_ready(*host)).collect();
        members.iter().copied().find(|host| {
            let others = ready.iter().filter(|other| *other != host).count();
            others > members.len() / 2 && self.runs(*host) && self.claim(Resource::Node(*host))
        })
    }

    /// Starts nodes and gives back the claims on them, also on those that do not start.
    ///
    /// # Errors
    /// The first failure; the others were tried.
    pub fn restart(&self, hosts: &[usize]) -> Result<()> {
        let mut result = Ok(());
        for host in hosts {
            let started = self.system.start(*host);
            self.release(Resource::Node(*host));
            let started = started.with_context(|| format!("starting {}", self.name(*host)));
            result = result.and(started);
        }
        result
    }

    /// Waits until `count` is above 0, as long as a fault may take, and returns it.
    pub fn proof(&self, mut count: impl FnMut() -> u64) -> u64 {
        let mut seen = 0;
        wait::until(PROOF, || {
            seen = count();
            seen > 0
        });
        seen
    }

    /// What a host is called in histories.
    pub fn name(&self, host: usize) -> String {
        self.lab.name(host).map_or_else(|_| format!("#{host}"), str::to_owned)
    }

    /// What hosts are called in histories.
    pub fn names(&self, hosts: &[usize]) -> Vec<String> {
        hosts.iter().map(|host| self.name(*host)).collect()
    }

    fn runs(&self, host: usize) -> bool {
        self.system.pid(host).is_some()
    }

    fn claims(&self) -> MutexGuard<'_, BTreeSet<Resource>> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Target {
    /// How many of `hosts`.
    fn size(self, hosts: usize) -> usize {
        match self {
            Self::Leader | Self::One => 1,
            Self::Minority => (hosts.saturating_sub(1) / 2).max(1),
            Self::Majority => hosts / 2 + 1,
            Self::All => hosts,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minority_leaves_a_majority_and_a_majority_does_not() {
        for hosts in [3, 4, 5, 7] {
            let majority = hosts / 2 + 1;
            assert!(hosts - Target::Minority.size(hosts) >= majority);
            assert!(hosts - Target::Majority.size(hosts) < majority);
        }
    }
}
