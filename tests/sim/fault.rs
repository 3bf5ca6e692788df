//! Who breaks things, and puts them right.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use fastrand::Rng;
use turmoil::Sim;

use crate::engineer::{Desk, Task};
use crate::entropy;
use crate::host::{Host, all_vote};
use crate::link::{Harm, Links, Way, between, towards};
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
    Mend(Vec<Way>, Harm),
    Clock(usize, i64),
    Nothing,
}

/// Breaks things.
pub(crate) struct Nemesis {
    hosts: Rc<Vec<Rc<Host>>>,
    /// The clients' hosts, by name.
    clients: Vec<String>,
    desk: Rc<Desk>,
    scenario: Scenario,
    random: Rng,
    next: Duration,
    links: Links,
    active: Vec<Active>,
    /// How often each fault has acted.
    pub(crate) acted: BTreeMap<Fault, u64>,
    /// What was done since somebody asked.
    pub(crate) news: Vec<String>,
}

impl Nemesis {
    /// Breaks what `scenario` allows.
    pub(crate) fn new(
        scenario: &Scenario,
        hosts: Rc<Vec<Rc<Host>>>,
        clients: Vec<String>,
        desk: Rc<Desk>,
    ) -> Self {
        Self {
            hosts,
            clients,
            desk,
            scenario: scenario.clone(),
            random: Rng::with_seed(scenario.seed ^ 0x6e65_6d65_7369_7300),
            next: Duration::ZERO,
            links: Links::new(scenario.latency),
            active: Vec::new(),
            acted: BTreeMap::new(),
            news: Vec::new(),
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
        if let Some(undo) = self.begin(sim, now, fault) {
            *self.acted.entry(fault).or_default() += 1;
            // A clock may also stay wrong.
            let stays = matches!(undo, Undo::Clock(..)) && self.random.u8(0..100) < 25;
            let lasts = Duration::from_millis(self.random.u64(100..3_000));
            let until = if stays { Duration::MAX } else { now + lasts };
            self.tell(format!("{fault:?} {undo:?} until {until:?}"));
            self.active.push(Active { until, undo });
        }
    }

    /// Ends everything.
    pub(crate) fn heal(&mut self, sim: &mut Sim<'_>) {
        for active in std::mem::take(&mut self.active) {
            self.undo(sim, active.undo);
        }
    }

    fn tell(&mut self, what: String) {
        tracing::info!("{what}");
        self.news.push(what);
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

    fn names(&self, hosts: &[usize]) -> Vec<String> {
        hosts.iter().map(|&host| self.hosts[host].name.clone()).collect()
    }

    /// Two groups of all members, neither empty.
    fn split(&mut self) -> Option<[Vec<String>; 2]> {
        let mut members = self.members();
        self.random.shuffle(&mut members);
        let at = self.random.usize(1..members.len().max(2));
        let rest = members.split_off(at.min(members.len()));
        (!rest.is_empty()).then(|| [self.names(&members), self.names(&rest)])
    }

    /// The link between two members, in both directions.
    fn pair(&mut self) -> Option<Vec<Way>> {
        let mut members = self.members();
        self.random.shuffle(&mut members);
        let (one, other) = (members.first()?, members.get(1)?);
        Some(between(&self.names(&[*one]), &self.names(&[*other])))
    }

    /// A member and a client, and the ways between them that are hit.
    fn link_of_client(&mut self) -> Option<Vec<Way>> {
        let client = self.random.choice(self.clients.clone())?;
        let mut members = self.members();
        self.random.shuffle(&mut members);
        members.truncate(self.random.usize(1..=members.len().max(1)));
        let (client, members) = ([client], self.names(&members));
        Some(match self.random.u8(0..3) {
            0 => towards(&client, &members),
            1 => towards(&members, &client),
            _ => between(&client, &members),
        })
    }

    /// Does `harm` to ways.
    fn harm(&mut self, sim: &mut Sim<'_>, ways: Vec<Way>, harm: Harm) -> Option<Undo> {
        self.links.harm(sim, &ways, harm);
        (!ways.is_empty()).then_some(Undo::Mend(ways, harm))
    }

    /// Lets hosts lose their power. Some go without a word: nobody is told that their connections have ended.
    fn crash(&mut self, sim: &mut Sim<'_>, now: Duration, hosts: &[usize]) {
        if self.random.bool() {
            let (dark, everybody) = (self.names(hosts), self.names(&self.members()));
            let others: Vec<_> = everybody
                .into_iter()
                .chain(self.clients.clone())
                .filter(|one| !dark.contains(one))
                .collect();
            let ways = between(&dark, &others);
            self.links.harm(sim, &ways, Harm::Cut);
            let until = now + Duration::from_millis(self.random.u64(100..3_000));
            self.active.push(Active { until, undo: Undo::Mend(ways, Harm::Cut) });
        }
        for &host in hosts {
            self.hosts[host].lose_power(&mut self.random);
            sim.crash(self.hosts[host].name.as_str());
        }
    }

    /// Puts a clock `ms` ahead.
    fn set_clock(&mut self, host: usize, ms: i64) -> Undo {
        entropy::add_skew(host, ms);
        Undo::Clock(host, ms)
    }

    /// What undoes the fault, if there is something that it can act on.
    fn begin(&mut self, sim: &mut Sim<'_>, now: Duration, fault: Fault) -> Option<Undo> {
        match fault {
            Fault::Crash => {
                let mut running = self.running();
                self.random.shuffle(&mut running);
                let at_once = self.random.usize(1..=running.len().div_ceil(2).max(1));
                running.truncate(at_once);
                self.crash(sim, now, &running);
                (!running.is_empty()).then_some(Undo::Start(running))
            }
            Fault::CrashAll => {
                let running = self.running();
                self.crash(sim, now, &running);
                (!running.is_empty()).then_some(Undo::Start(running))
            }
            Fault::Partition => {
                let [one, other] = self.split()?;
                self.harm(sim, between(&one, &other), Harm::Cut)
            }
            Fault::OneWay => {
                let [one, other] = self.split()?;
                self.harm(sim, towards(&one, &other), Harm::Cut)
            }
            Fault::IsolateLeader => {
                let leader = self.leader()?;
                let mut others = self.members();
                others.retain(|host| *host != leader);
                self.harm(sim, between(&self.names(&[leader]), &self.names(&others)), Harm::Cut)
            }
            Fault::Clients => {
                let ways = self.link_of_client()?;
                let slow = Duration::from_millis(self.random.u64(20..1_500));
                let harm = self.random.choice([Harm::Cut, Harm::Lossy, Harm::Slow(slow)])?;
                self.harm(sim, ways, harm)
            }
            Fault::Hold => {
                let [one, other] = self.split()?;
                self.harm(sim, towards(&one, &other), Harm::Held)
            }
            Fault::Slow => {
                let ways = self.pair()?;
                let slow = Duration::from_millis(self.random.u64(20..400));
                self.harm(sim, ways, Harm::Slow(slow))
            }
            Fault::Loss => {
                let ways = self.pair()?;
                self.harm(sim, ways, Harm::Lossy)
            }
            Fault::Skew => {
                let host = self.random.choice(self.members())?;
                let ms = self.random.i64(-4_000..4_000);
                Some(self.set_clock(host, ms))
            }
            Fault::Jump => {
                // One at a time: while most of the voters' clocks are right, whoever sees them knows the time.
                let is_off = |active: &Active| matches!(active.undo, Undo::Clock(..));
                let host = self.random.choice(self.members())?;
                if self.active.iter().any(is_off) {
                    return None;
                }
                let ms = self.random.i64(-900_000..900_000);
                Some(self.set_clock(host, ms))
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
                self.crash(sim, now, &[host]);
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

    fn undo(&mut self, sim: &mut Sim<'_>, undo: Undo) {
        self.tell(format!("no more {undo:?}"));
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
            Undo::Mend(ways, harm) => self.links.mend(sim, &ways, harm),
            Undo::Clock(host, ms) => entropy::add_skew(host, -ms),
            Undo::Nothing => {}
        }
    }
}
