//! One run: everything is put together, broken, checked after every tick, healed, and checked again.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{anyhow, bail};
use sha2::{Digest, Sha256};
use turmoil::{Builder, Sim};
use watchword::radius::packet::Code;
use watchword_cluster::Role;
use watchword_core::node::FOUNDER;

use crate::engineer::{self, Desk, Hand, Task};
use crate::entropy;
use crate::fault::Nemesis;
use crate::history::{Event, SharedHistory};
use crate::host::{Host, all_vote, software};
use crate::invariant::{self, Invariant, Moment};
use crate::nas::{Manner, Nas, Orders};
use crate::observe::{Observer, Seen};
use crate::operator::{Office, Operator};
use crate::scenario::{Fault, Scenario, TICK};

/// How long making the cluster may take.
const SETUP_TICKS: u64 = 30_000;
/// How long a healed cluster may take until all nodes are ready and equal, and users get in.
const HEAL_TICKS: u64 = 15_000;
/// Logins that must be accepted after everything was healed.
const ACCEPTS_AFTER_HEALING: usize = 5;

/// What a run came to.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// The digest of everything that happened.
    pub(crate) trace: String,
    /// Ticks in all.
    pub(crate) ticks: u64,
    /// Logins sent, accepted and refused.
    pub(crate) logins: [usize; 3],
    /// Changes acknowledged.
    pub(crate) changes: usize,
    /// Entries in the log at the end.
    pub(crate) entries: u64,
    /// Terms.
    pub(crate) terms: u64,
    /// Nodes added and removed.
    pub(crate) churn: (u64, u64),
    /// Ticks until the cluster was whole again.
    pub(crate) heal_ticks: u64,
    /// How often each fault has acted.
    pub(crate) acted: BTreeMap<Fault, u64>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [sent, accepted, refused] = self.logins;
        write!(
            f,
            "{} ticks, {sent} logins, {accepted} accepted, {refused} refused, {} changes, {} entries, \
             {} terms, {} nodes added, {} removed, healed after {} ms, faults {:?}, trace {}",
            self.ticks,
            self.changes,
            self.entries,
            self.terms,
            self.churn.0,
            self.churn.1,
            self.heal_ticks * u64::try_from(TICK.as_millis()).unwrap_or(1),
            self.acted,
            self.trace
        )
    }
}

/// A run under way.
struct World<'a> {
    sim: Sim<'a>,
    now: Duration,
    ticks: u64,
    hosts: Rc<Vec<Rc<Host>>>,
    history: SharedHistory,
    orders: Rc<Orders>,
    desk: Rc<Desk>,
    is_set_up: Rc<Cell<bool>>,
    observer: Observer,
    invariants: Vec<Box<dyn Invariant>>,
    nodes: Vec<Seen>,
    news: usize,
    trace: Trace,
    terms: u64,
}

/// Everything that happens, as a digest, and as text for those who look for the first difference.
struct Trace {
    digest: Sha256,
    file: Option<BufWriter<File>>,
}

impl Trace {
    fn new(path: Option<&Path>) -> anyhow::Result<Self> {
        let file = path.map(File::create).transpose()?.map(BufWriter::new);
        Ok(Self { digest: Sha256::new(), file })
    }

    fn add(&mut self, line: &str) -> anyhow::Result<()> {
        self.digest.update(line);
        self.file.as_mut().map_or(Ok(()), |file| file.write_all(line.as_bytes()))?;
        Ok(())
    }
}

/// Runs `scenario` from beginning to end.
///
/// # Errors
/// When an invariant does not hold, or the cluster does not heal.
pub(crate) fn run(scenario: &Scenario, trace: Option<&Path>) -> anyhow::Result<Report> {
    entropy::simulate(scenario.seed);
    let mut world = World::new(scenario, trace)?;
    world.set_up()?;
    let mut nemesis = Nemesis::new(scenario, world.hosts.clone(), world.desk.clone());
    for _ in 0..scenario.ticks {
        nemesis.act(&mut world.sim, world.now);
        world.tick()?;
    }
    nemesis.heal(&mut world.sim);
    let heal_ticks = world.heal()?;
    world.finish()?;
    Ok(world.report(heal_ticks, nemesis.acted))
}

impl World<'_> {
    fn new(scenario: &Scenario, trace: Option<&Path>) -> anyhow::Result<Self> {
        let mut builder = Builder::new();
        builder
            .tick_duration(TICK)
            .simulation_duration(Duration::from_secs(1_000_000))
            .rng_seed(scenario.seed)
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(scenario.latency)
            .tcp_capacity(65_536)
            .udp_capacity(4_096)
            .enable_random_order();
        let mut sim = builder.build();
        let hosts: Vec<_> = (0..scenario.nodes + scenario.spares)
            .map(|number| Rc::new(Host::new(number, scenario)))
            .collect();
        let hosts = Rc::new(hosts);
        let history = SharedHistory::default();
        let (orders, desk) = (Rc::new(Orders::default()), Rc::new(Desk::default()));
        orders.is_over.set(true);
        let is_set_up = Rc::new(Cell::new(false));
        let office = Rc::new(Office::new()?);
        office.appoint(&hosts[0], FOUNDER)?;
        for host in hosts.iter() {
            let one = host.clone();
            sim.host(host.name.as_str(), move || software(one.clone()));
        }
        let mut addresses = Vec::new();
        for number in 0..Manner::ALL.len() {
            let name = format!("nas{number}");
            addresses.push(sim.lookup(name.as_str()).to_string());
            let shared = (hosts.clone(), history.clone(), orders.clone());
            let seed = scenario.seed ^ (number as u64 + 1) << 32;
            sim.host(name.as_str(), move || {
                let (hosts, history, orders) = shared.clone();
                Nas::run(number, hosts, history, orders, seed)
            });
        }
        let shared = (hosts.clone(), history.clone(), orders.clone());
        let seed = scenario.seed ^ 0x6f70;
        sim.host("operator", move || {
            let (hosts, history, orders) = shared.clone();
            Operator::new(hosts, history, orders, seed).run()
        });
        let (shared, done) = ((hosts.clone(), history.clone(), desk.clone()), is_set_up.clone());
        let scenario = scenario.clone();
        sim.host("office", {
            let scenario = scenario.clone();
            move || {
                let ((hosts, history, desk), done) = (shared.clone(), done.clone());
                let (office, addresses) = (office.clone(), addresses.clone());
                let scenario = scenario.clone();
                async move {
                    office.found(&scenario, &hosts, &addresses, &history).await?;
                    desk.tasks.borrow_mut().extend((1..scenario.nodes).map(Task::Add));
                    done.set(true);
                    engineer::work(&desk, &office, &hosts).await
                }
            }
        });
        Ok(Self {
            sim,
            now: Duration::ZERO,
            ticks: 0,
            observer: Observer::new(hosts.clone()),
            hosts,
            history,
            orders,
            desk,
            is_set_up,
            invariants: invariant::all(scenario.failures_max),
            nodes: Vec::new(),
            news: 0,
            trace: Trace::new(trace)?,
            terms: 0,
        })
    }

    /// Makes the cluster; then the clients begin.
    fn set_up(&mut self) -> anyhow::Result<()> {
        for _ in 0..SETUP_TICKS {
            self.tick()?;
            if self.is_set_up.get() && self.desk.is_clear() && self.is_whole() {
                self.desk.done.set((0, 0));
                self.orders.is_over.set(false);
                return Ok(());
            }
        }
        bail!("the cluster is not made after {SETUP_TICKS} ticks: {}", self.describe())
    }

    /// One tick of everything, then every invariant.
    fn tick(&mut self) -> anyhow::Result<()> {
        // Before the step: what a host has done in its last tick has been looked at.
        let hands = std::mem::take(&mut *self.desk.hands.borrow_mut());
        for hand in hands {
            match hand {
                Hand::Start(host) => self.sim.bounce(self.hosts[host].name.as_str()),
                Hand::Stop(host) => {
                    let host = self.hosts[host].clone();
                    host.lose_power(&mut fastrand::Rng::with_seed(self.ticks));
                    host.wipe();
                    self.sim.crash(host.name.as_str());
                }
            }
        }
        self.sim.step().map_err(|error| anyhow!("a host failed: {error}"))?;
        self.ticks += 1;
        self.now += TICK;
        entropy::set_now(self.now);
        self.nodes = self.observer.look();
        self.check(|invariant, moment| invariant.check(moment))?;
        self.note()
    }

    fn check(
        &mut self,
        check: impl Fn(&mut dyn Invariant, &Moment<'_>) -> Result<(), String>,
    ) -> anyhow::Result<()> {
        let history = self.history.borrow();
        let moment = Moment { nodes: &self.nodes, history: &history, news: self.news };
        for invariant in &mut self.invariants {
            check(invariant.as_mut(), &moment)
                .map_err(|what| anyhow!("{}: {what}", invariant.name()))?;
        }
        Ok(())
    }

    /// Adds what has happened to the trace.
    fn note(&mut self) -> anyhow::Result<()> {
        let history = self.history.borrow();
        for event in &history.events[self.news..] {
            self.trace.add(&format!("{} {event:?}\n", self.ticks))?;
        }
        self.news = history.events.len();
        for seen in self.nodes.iter().filter(|seen| seen.has_applied) {
            self.terms = self.terms.max(seen.ballot.0);
            self.trace.add(&format!(
                "{} {} {:?} {} {} {:?}\n",
                self.ticks, seen.node, seen.role, seen.ballot.0, seen.applied, seen.bounds
            ))?;
        }
        Ok(())
    }

    /// Whether every node that belongs here is ready, and no two of them differ.
    fn is_whole(&self) -> bool {
        let members = self.hosts.iter().filter(|host| host.node().is_some()).count();
        let mut applied: Vec<_> = self.nodes.iter().map(|seen| seen.applied).collect();
        applied.dedup();
        all_vote(&self.hosts) && applied.len() == 1 && self.nodes.len() == members
    }

    /// Without faults: the cluster must become whole, and let users in. Gives the ticks it took.
    fn heal(&mut self) -> anyhow::Result<u64> {
        // Who is down comes back, whoever had to start it.
        for host in self.hosts.clone().iter() {
            if host.running.borrow().is_none() && host.node().is_some() {
                self.sim.bounce(host.name.as_str());
            }
        }
        self.orders.is_calm.set(true);
        let healed = self.history.borrow_mut().note(Event::Healed);
        for tick in 0..HEAL_TICKS {
            self.tick()?;
            self.retire();
            if self.accepted_since(healed) >= ACCEPTS_AFTER_HEALING && self.desk.is_clear() {
                self.orders.is_over.set(true);
                if self.is_whole() {
                    return Ok(tick);
                }
            }
        }
        bail!(
            "the cluster has not healed after {HEAL_TICKS} ticks; {} logins were accepted: {}",
            self.accepted_since(healed),
            self.describe()
        )
    }

    /// Takes down the hosts whose nodes were removed, though nobody was told so at the time.
    fn retire(&mut self) {
        let Some(furthest) = self.nodes.iter().max_by_key(|seen| seen.applied) else { return };
        let is_removed = |node| furthest.state.nodes().is_removed(node);
        let removed = self.hosts.iter().filter(|host| host.node().is_some_and(is_removed));
        self.desk.hands.borrow_mut().extend(removed.map(|host| Hand::Stop(host.number)));
    }

    /// Everything once more, at rest.
    fn finish(&mut self) -> anyhow::Result<()> {
        let mut states = self.nodes.iter().map(|seen| (seen.node, seen.state.digest()));
        if let Some((first, digest)) = states.next() {
            let digest = digest?;
            for (node, other) in states {
                if other? != digest {
                    bail!("nodes {first} and {node} hold different states at the end");
                }
            }
        }
        self.check(|invariant, moment| invariant.finish(moment))
    }

    fn count(&self, code: Code) -> usize {
        let history = self.history.borrow();
        let replies = history.events.iter();
        replies.filter(|event| matches!(event, Event::Replied(_, of) if *of == code)).count()
    }

    /// Logins that were sent after an event and accepted.
    fn accepted_since(&self, event: usize) -> usize {
        let history = self.history.borrow();
        let accepted = history.events.iter().skip(event).filter(|one| match one {
            Event::Replied(login, Code::AccessAccept) => history.logins[*login].sent > event,
            _ => false,
        });
        accepted.count()
    }

    /// How all hosts are.
    fn describe(&self) -> String {
        let mut text = Vec::new();
        for host in self.hosts.iter() {
            let Some(node) = host.node() else { continue };
            let running = host.running.borrow();
            let Some(handles) = running.as_ref() else {
                text.push(format!("{} (node {node}) is down", host.name));
                continue;
            };
            let status = handles.cluster.status();
            text.push(format!(
                "{} (node {node}) is {:?} of term {}, applied {}, ready {}: {:?}",
                host.name,
                status.role,
                status.term,
                status.applied.unwrap_or(0),
                host.is_ready.get(),
                status.unready()
            ));
        }
        let leaders = self.nodes.iter().filter(|seen| seen.role == Role::Leader).count();
        let voters = self.hosts.iter().find_map(|host| host.voters());
        format!(
            "{leaders} leaders, voters {voters:?}, tasks {:?}, busy {}; {}",
            self.desk.tasks,
            self.desk.is_busy.get(),
            text.join("; ")
        )
    }

    fn report(self, heal_ticks: u64, acted: BTreeMap<Fault, u64>) -> Report {
        let [accepted, refused] =
            [Code::AccessAccept, Code::AccessReject].map(|code| self.count(code));
        let history = self.history.borrow();
        let acknowledged = history
            .changes
            .iter()
            .filter(|change| matches!(change.ended, Some(crate::history::End::Done(_))));
        Report {
            trace: data_encoding::HEXLOWER.encode(&self.trace.digest.clone().finalize()[..8]),
            ticks: self.ticks,
            logins: [history.logins.len(), accepted, refused],
            changes: acknowledged.count(),
            entries: self.nodes.iter().map(|seen| seen.applied).max().unwrap_or(0),
            terms: self.terms,
            churn: self.desk.done.get(),
            heal_ticks,
            acted,
        }
    }
}
