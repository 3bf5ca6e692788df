//! What a nemesis acts on, whom it may hit, and how long it looks for the proof.
//!
//! Faults overlap, except where one would spoil the other's undoing: a node that one fault has
//! taken down must not be started by another. So a fault claims what it takes, and gives it back in
//! its `stop`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};

use super::System;
use crate::lab::{Disk, Lab, process};
use crate::rng::Rng;
use crate::wait;

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
    /// What is taken, and whether its member may be lost.
    claims: Mutex<BTreeMap<Resource, bool>>,
    /// The hosts without power.
    dark: Mutex<BTreeSet<usize>>,
    /// Held by whoever waits for many nodes: two who each have some of them would wait for ever.
    gathering: Mutex<()>,
}

impl<'a> Field<'a> {
    /// A field where nothing is broken.
    pub fn new(lab: &'a Lab, system: &'a dyn System) -> Self {
        Self {
            lab,
            system,
            claims: Mutex::default(),
            dark: Mutex::default(),
            gathering: Mutex::default(),
        }
    }

    /// Takes `resource` for one fault; false when another has it.
    pub fn claim(&self, resource: Resource) -> bool {
        let mut claims = self.claims();
        let is_free = !claims.contains_key(&resource);
        if is_free {
            claims.insert(resource, false);
        }
        is_free
    }

    /// Takes the clock of `host` for one fault; false when another has it, or when too few clocks would be
    /// right: the cluster goes by the majority of them, and promises nothing when that is wrong.
    pub fn claim_clock(&self, host: usize) -> bool {
        let mut claims = self.claims();
        let wrong = claims.keys().filter(|one| matches!(one, Resource::Clock(_))).count();
        let is_free = wrong < Target::Minority.size(self.lab.hosts())
            && !claims.contains_key(&Resource::Clock(host));
        if is_free {
            claims.insert(Resource::Clock(host), false);
        }
        is_free
    }

    /// Gives it back.
    pub fn release(&self, resource: Resource) {
        self.claims().remove(&resource);
    }

    /// Claims running nodes as `target` says, and waits a while for them when other faults have them. A majority,
    /// or all, are not touched unless they are enough. Empty when there is nobody to hit.
    pub fn claim_nodes(&self, target: Target, rng: &mut Rng) -> Vec<usize> {
        let wanted = target.size(self.lab.hosts());
        let is_large = matches!(target, Target::Majority | Target::All);
        let _gathering = is_large.then(|| locked(&self.gathering));
        let mut claimed = Vec::new();
        wait::holds(target.patience(), || {
            let mut running: Vec<_> =
                (0..self.lab.hosts()).filter(|host| self.runs(*host)).collect();
            rng.shuffle(&mut running);
            if target == Target::Leader {
                let leader = self.system.leader();
                running.retain(|host| leader == Some(*host));
            }
            let free = running.into_iter().filter(|host| self.claim(Resource::Node(*host)));
            claimed.extend(free.take(wanted - claimed.len()));
            claimed.len() == wanted
        });
        if target.hit(claimed.len(), self.lab.hosts()) == 0 {
            claimed.drain(..).for_each(|host| self.release(Resource::Node(host)));
        }
        claimed.sort_unstable();
        claimed
    }

    /// Claims one member whose data may be lost, or whose vote may be taken away: a majority is
    /// ready without it, and without those that were claimed so before. None when there is no such
    /// member, or nobody tells who the members are.
    pub fn claim_expendable(&self, rng: &mut Rng) -> Option<usize> {
        let mut members = self.system.members().ok()?;
        let voters = members.len();
        rng.shuffle(&mut members);
        let ready: BTreeSet<_> =
            (members.iter().copied()).filter(|host| self.system.is_ready(*host)).collect();
        members.retain(|host| self.runs(*host));
        let mut claims = self.claims();
        let is_spared = |host: &usize| claims.get(&Resource::Node(*host)) != Some(&true);
        let stay: Vec<_> = ready.into_iter().filter(is_spared).collect();
        let free = |host: &usize| {
            let others = stay.iter().filter(|other| *other != host).count();
            others > voters / 2 && !claims.contains_key(&Resource::Node(*host))
        };
        let host = members.iter().copied().find(free)?;
        claims.insert(Resource::Node(host), true);
        Some(host)
    }

    /// Cuts the power of hosts, all at one moment, until it is [restored](Self::restore_power).
    ///
    /// # Errors
    /// When the kernel refuses. None of the nodes runs then either.
    pub fn cut_power(&self, hosts: &[usize]) -> Result<()> {
        // Without power nobody runs: not one may act on what the others, or its disk, still say.
        let mut result = self.halt(hosts);
        for host in hosts {
            // Whoever was cut off before has lost what there was to lose.
            if result.is_ok() && self.dark().insert(*host) {
                result = self.lab.disk(*host).and_then(Disk::cut);
            }
        }
        for host in hosts {
            result = result.and(self.system.kill(*host));
        }
        result
    }

    /// Stops the nodes of hosts for good: what is left to them is to be killed.
    ///
    /// # Errors
    /// When one does not stop.
    pub fn halt(&self, hosts: &[usize]) -> Result<()> {
        hosts.iter().filter_map(|host| self.system.pid(*host)).try_for_each(process::halt)
    }

    /// Gives hosts their power back, and tells how many journals there were to recover. Those that have power
    /// are left alone.
    ///
    /// # Errors
    /// The first failure; the others were tried, and those that failed stay dark.
    pub fn restore_power(&self, hosts: &[usize]) -> Result<u64> {
        let mut recovered = Ok(0);
        for host in hosts.iter().filter(|host| self.dark().contains(host)) {
            let mounted = self.lab.disk(*host).and_then(Disk::remount);
            let mounted = mounted.with_context(|| format!("the disk of {}", self.name(*host)));
            if mounted.is_ok() {
                self.dark().remove(host);
            }
            recovered = recovered.and_then(|count: u64| Ok(count + u64::from(mounted?)));
        }
        recovered
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
        wait::holds(PROOF, || {
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

    fn dark(&self) -> MutexGuard<'_, BTreeSet<usize>> {
        locked(&self.dark)
    }

    fn claims(&self) -> MutexGuard<'_, BTreeMap<Resource, bool>> {
        locked(&self.claims)
    }
}

/// A nemesis that panics leaves nothing half done in here.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Target {
    /// How long it is worth waiting for: faults last some seconds.
    fn patience(self) -> Duration {
        match self {
            Self::Leader | Self::One | Self::Minority => Duration::from_secs(5),
            Self::Majority | Self::All => Duration::from_secs(15),
        }
    }

    /// How many of `hit` nodes count, of `hosts`: where all or a majority are meant, fewer are another fault.
    pub(super) fn hit(self, hit: usize, hosts: usize) -> u64 {
        let is_whole = match self {
            Self::Leader | Self::One | Self::Minority => true,
            Self::Majority | Self::All => hit >= self.size(hosts),
        };
        if is_whole { hit as u64 } else { 0 }
    }

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
            assert_eq!(Target::All.hit(hosts - 1, hosts), 0);
            assert_eq!(Target::All.hit(hosts, hosts), hosts as u64);
            assert_eq!(Target::Minority.hit(1, hosts), 1);
        }
    }
}
