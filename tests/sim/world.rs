//! One run: everything is put together, broken, checked after every tick, healed, and checked again.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::panic;
use std::path::Path;
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{anyhow, bail};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use turmoil::{Builder, Sim};
use watchword::radius::packet::Code;
use watchword_cluster::Role;
use watchword_core::node::FOUNDER;

use crate::engineer::{self, Desk, Hand, Task};
use crate::entropy;
use crate::fault::Nemesis;
use crate::history::{Class, End, Event, Login, SharedHistory};
use crate::host::{Host, all_vote, software};
use crate::invariant::{self, Invariant, Moment};
use crate::nas::{Manner, Nas, Orders};
use crate::observe::{Observer, Seen};
use crate::operator::{OPERATORS, Office, Operator};
use crate::scenario::{Fault, Scenario, TICK};

/// How long making the cluster may take.
const SETUP_TICKS: u64 = 30_000;
/// How long a healed cluster may take until all nodes are ready and equal, users get in, and each node serves
/// its administrators: ten seconds.
const HEAL_TICKS: u64 = 5_000;
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
    /// Snapshots that a node was brought up by.
    pub(crate) installed: u64,
    /// Logins with a passcode that others send at the same time.
    pub(crate) raced: usize,
}

impl Report {
    /// What can be added up over many runs.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (String, u64)> {
        let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let [sent, accepted, refused] = self.logins.map(number);
        let counts = [
            ("logins", sent),
            ("accepted", accepted),
            ("refused", refused),
            ("raced", number(self.raced)),
            ("changes", number(self.changes)),
            ("entries", self.entries),
            ("snapshots-installed", self.installed),
            ("nodes-added", self.churn.0),
            ("nodes-removed", self.churn.1),
        ];
        let faults = self.acted.iter().map(|(fault, times)| (format!("{fault:?}"), *times));
        counts.into_iter().map(|(name, count)| (name.to_owned(), count)).chain(faults)
    }
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
    installed: u64,
    /// The bounds of each host's log, by its start.
    bounds: BTreeMap<(usize, u64), (u64, u64)>,
    /// The nodes' files. Removed with the run.
    _dir: TempDir,
}

/// What has panicked, wherever it was caught.
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Has panics written down, of nodes, too, whose tasks nobody waits for.
fn watch_panics() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        PANICS.lock().unwrap_or_else(PoisonError::into_inner).push(info.to_string());
        before(info);
    }));
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

/// The clients' hosts.
fn clients() -> impl Iterator<Item = String> {
    (0..Manner::ALL.len()).map(|number| format!("nas{number}"))
}

/// Runs `scenario` from beginning to end.
///
/// # Errors
/// When an invariant does not hold, or the cluster does not heal.
pub(crate) fn run(scenario: &Scenario, trace: Option<&Path>) -> anyhow::Result<Report> {
    watch_panics();
    // Before anything is simulated: its name depends on what other processes are doing.
    let dir = tempfile::tempdir()?;
    entropy::simulate(scenario.seed);
    let mut world = World::new(scenario, trace, dir)?;
    world.set_up()?;
    let clients = clients().collect();
    let mut nemesis = Nemesis::new(scenario, world.hosts.clone(), clients, world.desk.clone());
    for _ in 0..scenario.ticks {
        nemesis.act(&mut world.sim, world.now);
        for what in nemesis.news.drain(..) {
            world.trace.add(&format!("{} {what}\n", world.ticks))?;
        }
        world.tick()?;
    }
    nemesis.heal(&mut world.sim);
    let heal_ticks = world.heal()?;
    world.finish()?;
    Ok(world.report(heal_ticks, nemesis.acted))
}

impl World<'_> {
    fn new(scenario: &Scenario, trace: Option<&Path>, dir: TempDir) -> anyhow::Result<Self> {
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
        let office = Rc::new(Office::new(dir.path())?);
        office.appoint(&hosts[0], FOUNDER)?;
        for host in hosts.iter() {
            let one = host.clone();
            sim.host(host.name.as_str(), move || software(one.clone()));
        }
        let mut addresses = Vec::new();
        for (number, name) in clients().enumerate() {
            addresses.push(sim.lookup(name.as_str()).to_string());
            let shared = (hosts.clone(), history.clone(), orders.clone());
            let seed = scenario.seed ^ (number as u64 + 1) << 32;
            sim.host(name.as_str(), move || {
                let (hosts, history, orders) = shared.clone();
                Nas::run(number, hosts, history, orders, seed)
            });
        }
        for number in 0..OPERATORS {
            let shared = (hosts.clone(), history.clone(), orders.clone());
            let seed = scenario.seed ^ (0x6f70 + number as u64);
            sim.host(format!("operator{number}"), move || {
                let (hosts, history, orders) = shared.clone();
                Operator::new(number, hosts, history, orders, seed).run()
            });
        }
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
                    engineer::work(&desk, &office, &hosts, scenario.seed).await
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
            installed: 0,
            bounds: BTreeMap::new(),
            _dir: dir,
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
        if let Some(panic) = PANICS.lock().unwrap_or_else(PoisonError::into_inner).first() {
            bail!("something panicked: {panic}");
        }
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
            self.trace.add(&format!("{} {}\n", self.ticks, history.describe(*event)))?;
        }
        self.news = history.events.len();
        for seen in &self.nodes {
            let before = self.bounds.insert((seen.host, seen.start), seen.bounds);
            // Purged up to where its own log had not got yet.
            self.installed += u64::from(before.is_some_and(|before| before.1 < seen.bounds.0));
        }
        for seen in self.nodes.iter().filter(|seen| seen.has_applied) {
            self.terms = self.terms.max(seen.ballot.0);
            self.trace.add(&format!(
                "{} {} {:?} {} {} {:?}\n",
                self.ticks, seen.node, seen.role, seen.ballot.0, seen.applied, seen.bounds
            ))?;
        }
        Ok(())
    }

    /// Whether every node that belongs here is ready, and none is ahead of another.
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
            let is_served = self.accepted_since(healed) >= ACCEPTS_AFTER_HEALING;
            if is_served && self.desk.is_clear() && self.all_serve_since(healed) {
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

    /// Takes down the hosts whose nodes were removed, though nobody was told so at the time, once nobody counts on
    /// them.
    fn retire(&mut self) {
        let Some(furthest) = self.nodes.iter().max_by_key(|seen| seen.applied) else { return };
        let is_removed = |node| {
            let others = || self.nodes.iter().filter(|seen| seen.node != node);
            let counts =
                |seen: &Seen| seen.configurations.iter().any(|voters| voters.contains(&node));
            furthest.state.nodes().is_removed(node) && !others().any(counts)
        };
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

    /// Whether each node has made a change and given a fresh reading that were asked for after an event.
    fn all_serve_since(&self, event: usize) -> bool {
        let history = self.history.borrow();
        let serves = |host: usize, version: bool| {
            history.changes.iter().any(|change| {
                let is_done =
                    matches!(change.ended, Some(End::Done(of)) if of.is_some() == version);
                change.host == host && change.invoked > event && is_done
            })
        };
        let members = self.hosts.iter().filter(|host| host.node().is_some());
        members.into_iter().all(|host| serves(host.number, true) && serves(host.number, false))
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
        let voters = self.hosts.iter().find_map(|host| host.configurations());
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
        let acknowledged =
            history.changes.iter().filter(|change| matches!(change.ended, Some(End::Done(_))));
        let is_raced = |login: &&Login| history.people[login.person].class == Class::Raced;
        let raced = history.logins.iter().filter(is_raced);
        Report {
            trace: data_encoding::HEXLOWER.encode(&self.trace.digest.clone().finalize()[..8]),
            ticks: self.ticks,
            logins: [history.logins.len(), accepted, refused],
            raced: raced.count(),
            installed: self.installed,
            changes: acknowledged.count(),
            entries: self.nodes.iter().map(|seen| seen.applied).max().unwrap_or(0),
            terms: self.terms,
            churn: self.desk.done.get(),
            heal_ticks,
            acted,
        }
    }
}
