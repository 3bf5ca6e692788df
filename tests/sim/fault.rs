//! Who breaks things, and puts them right.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use fastrand::Rng;
use turmoil::Sim;

use crate::engineer::{Desk, Task};
use crate::entropy;
use crate::host::{Host, all_vote};
use crate::scenario::{Fault, Scenario};
use watchword_cluster::Role;

/// A fault that acts.
struct Active {
    until: Duration,
    undo: Undo,
}

/// How a fault is undone.
#[derive(Debug)]
enum Undo {
    Start(Vec<usize>),
    Repair(Vec<usize>, Vec<usize>),
    Release(Vec<usize>, Vec<usize>),
    Quicken(usize, usize),
    Mend(usize, usize),
    Clock(usize),
    Nothing,
}

/// Breaks things.
pub(crate) struct Nemesis {
    hosts: Rc<Vec<Rc<Host>>>,
    desk: Rc<Desk>,
    scenario: Scenario,
    random: Rng,
    next: Duration,
    active: Vec<Active>,
    /// How often each fault has acted.
    pub(crate) acted: BTreeMap<Fault, u64>,
}

impl Nemesis {
    /// Breaks what `scenario` allows.
    pub(crate) fn new(scenario: &Scenario, hosts: Rc<Vec<Rc<Host>>>, desk: Rc<Desk>) -> Self {
        Self {
            hosts,
            desk,
            scenario: scenario.clone(),
            random: Rng::with_seed(scenario.seed ^ 0x6e65_6d65_7369_7300),
            next: Duration::ZERO,
            active: Vec::new(),
            acted: BTreeMap::new(),
        }
    }

    /// Begins and ends what is due at `now`.
    pub(crate) fn act(&mut self, sim: &mut Sim<'_>, now: Duration) {
        let (due, active) = self.active.drain(..).partition(|active| active.until <= now);
        self.active = active;
        let due: Vec<Active> = due;
        for active in due {
            self.undo(sim, active.undo);
        }
        if now < self.next {
            return;
        }
        let pause = u64::try_from(self.scenario.pause.as_millis()).unwrap_or(1_000);
        self.next = now + Duration::from_millis(self.random.u64(pause / 2..pause * 2));
        let Some(fault) = self.random.choice(self.scenario.faults.clone()) else { return };
        if let Some(undo) = self.begin(sim, fault) {
            *self.acted.entry(fault).or_default() += 1;
            let until = now + Duration::from_millis(self.random.u64(100..3_000));
            tracing::info!(?now, ?fault, ?undo, ?until, "fault");
            self.active.push(Active { until, undo });
        }
    }

    /// Ends everything.
    pub(crate) fn heal(&mut self, sim: &mut Sim<'_>) {
        for active in std::mem::take(&mut self.active) {
            self.undo(sim, active.undo);
        }
    }

    /// The hosts on which a node belongs.
    fn members(&self) -> Vec<usize> {
        let hosts = self.hosts.iter().filter(|host| host.node().is_some());
        hosts.map(|host| host.number).collect()
    }

    fn running(&self) -> Vec<usize> {
        let hosts = self.hosts.iter().filter(|host| host.running.borrow().is_some());
        hosts.map(|host| host.number).collect()
    }

    fn leader(&self) -> Option<usize> {
        let mut leaders: Vec<_> = self
            .hosts
            .iter()
            .filter_map(|host| {
                let status = host.running.borrow().as_ref()?.cluster.status();
                (status.role == Role::Leader).then_some((status.term, host.number))
            })
            .collect();
        leaders.sort_unstable();
        leaders.last().map(|(_, host)| *host)
    }

    /// Does something to each link between two groups.
    fn pairs(&self, one: &[usize], other: &[usize], mut change: impl FnMut(&str, &str)) {
        for &a in one {
            for &b in other {
                change(&self.hosts[a].name, &self.hosts[b].name);
            }
        }
    }

    /// Two groups of all members, neither empty.
    fn split(&mut self) -> Option<(Vec<usize>, Vec<usize>)> {
        let mut members = self.members();
        self.random.shuffle(&mut members);
        let at = self.random.usize(1..members.len().max(2));
        let rest = members.split_off(at.min(members.len()));
        (!rest.is_empty()).then_some((members, rest))
    }

    /// Lets `host` lose its power.
    fn crash(&mut self, sim: &mut Sim<'_>, host: usize) {
        self.hosts[host].lose_power(&mut self.random);
        sim.crash(self.hosts[host].name.as_str());
    }

    /// What undoes the fault, if there is something that it can act on.
    fn begin(&mut self, sim: &mut Sim<'_>, fault: Fault) -> Option<Undo> {
        match fault {
            Fault::Crash => {
                let mut running = self.running();
                self.random.shuffle(&mut running);
                let at_once = self.random.usize(1..=running.len().div_ceil(2).max(1));
                running.truncate(at_once);
                running.iter().for_each(|&host| self.crash(sim, host));
                (!running.is_empty()).then_some(Undo::Start(running))
            }
            Fault::CrashAll => {
                let running = self.running();
                running.iter().for_each(|&host| self.crash(sim, host));
                (!running.is_empty()).then_some(Undo::Start(running))
            }
            Fault::Partition => {
                let (one, other) = self.split()?;
                self.pairs(&one, &other, |a, b| sim.partition(a, b));
                Some(Undo::Repair(one, other))
            }
            Fault::OneWay => {
                let (one, other) = self.split()?;
                self.pairs(&one, &other, |a, b| sim.partition_oneway(a, b));
                Some(Undo::Repair(one, other))
            }
            Fault::IsolateLeader => {
                let leader = self.leader()?;
                let others: Vec<_> =
                    self.members().into_iter().filter(|host| *host != leader).collect();
                self.pairs(&[leader], &others, |a, b| sim.partition(a, b));
                (!others.is_empty()).then_some(Undo::Repair(vec![leader], others))
            }
            Fault::Hold => {
                let (one, other) = self.split()?;
                self.pairs(&one, &other, |a, b| sim.hold(a, b));
                Some(Undo::Release(one, other))
            }
            Fault::Slow => {
                let (one, other) = self.pair()?;
                let slow = Duration::from_millis(self.random.u64(20..400));
                let [a, b] = [one, other].map(|host| self.hosts[host].name.clone());
                sim.set_link_max_message_latency(a, b, slow);
                Some(Undo::Quicken(one, other))
            }
            Fault::Loss => {
                let (one, other) = self.pair()?;
                let [a, b] = [one, other].map(|host| self.hosts[host].name.clone());
                sim.set_link_fail_rate(a, b, 0.02);
                Some(Undo::Mend(one, other))
            }
            Fault::Skew => {
                let host = self.random.choice(self.members())?;
                entropy::set_skew(host, self.random.i64(-8_000..8_000));
                Some(Undo::Clock(host))
            }
            Fault::Jump => {
                // One at a time: while most of the voters' clocks are right, whoever sees them knows the time.
                let is_off = |active: &Active| matches!(active.undo, Undo::Clock(_));
                let host = self.random.choice(self.members())?;
                if self.active.iter().any(is_off) {
                    return None;
                }
                entropy::set_skew(host, self.random.i64(-900_000..900_000));
                Some(Undo::Clock(host))
            }
            Fault::Churn => {
                if !self.desk.is_clear() {
                    return None;
                }
                let members = self.members();
                let spare = self.hosts.iter().find(|host| host.node().is_none());
                let task = match spare {
                    Some(spare) if members.len() <= self.scenario.nodes => Task::Add(spare.number),
                    _ if members.len() > 3 => Task::Remove(self.random.choice(members)?),
                    _ => return None,
                };
                self.desk.tasks.borrow_mut().push_back(task);
                Some(Undo::Nothing)
            }
            Fault::Wipe => {
                // Never more than one at a time, and only while nobody else is missing: what a
                // majority has lost, nobody can bring back.
                let members = self.members();
                if !self.desk.is_clear() || members.len() < 3 || !all_vote(&self.hosts) {
                    return None;
                }
                let host = self.random.choice(members)?;
                let node = self.hosts[host].node()?;
                self.crash(sim, host);
                self.hosts[host].wipe();
                self.desk.tasks.borrow_mut().push_back(Task::Replace(host, node));
                Some(Undo::Nothing)
            }
            Fault::Transfer => {
                let host = self.hosts[self.leader()?].clone();
                // Handing over is the leader's own work; nobody waits for it here.
                host.spawn(async move |node| drop(node.cluster.transfer(None).await))?;
                Some(Undo::Nothing)
            }
        }
    }

    fn pair(&mut self) -> Option<(usize, usize)> {
        let mut members = self.members();
        self.random.shuffle(&mut members);
        Some((*members.first()?, *members.get(1)?))
    }

    fn undo(&mut self, sim: &mut Sim<'_>, undo: Undo) {
        tracing::info!(?undo, "mended");
        match undo {
            Undo::Start(hosts) => {
                for host in hosts {
                    // It may have been wiped, removed or started meanwhile.
                    let one = &self.hosts[host];
                    if one.running.borrow().is_none() && one.node().is_some() {
                        sim.bounce(one.name.as_str());
                    }
                }
            }
            Undo::Repair(one, other) => {
                self.pairs(&one, &other, |a, b| {
                    sim.repair_oneway(a, b);
                    sim.repair(a, b);
                });
            }
            Undo::Release(one, other) => {
                self.pairs(&one, &other, |a, b| sim.release(a, b));
            }
            Undo::Quicken(one, other) => {
                let [a, b] = [one, other].map(|host| self.hosts[host].name.clone());
                sim.set_link_max_message_latency(a, b, self.scenario.latency);
            }
            Undo::Mend(one, other) => {
                let [a, b] = [one, other].map(|host| self.hosts[host].name.clone());
                sim.set_link_fail_rate(a.clone(), b.clone(), 0.0);
                sim.repair(a, b);
            }
            Undo::Clock(host) => entropy::set_skew(host, 0),
            Undo::Nothing => {}
        }
    }
}
