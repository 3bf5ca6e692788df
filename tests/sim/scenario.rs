//! What a seed stands for: everything about a run is drawn here, once, before it begins.
//!
//! Each run enables some of the faults only (swarm testing): what one fault brings to light,
//! another may hide.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;

/// Length of a tick.
pub(crate) const TICK: Duration = Duration::from_millis(2);

/// By how much a clock may be wrong whose node goes on.
pub(crate) const CLOCK_ERROR_SECONDS_MAX: u64 = 3;
/// How long a challenge holds.
pub(crate) const CHALLENGE_SECONDS: u64 = 10;

/// What can happen to nodes and network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// The power of some nodes fails: what was not synced is lost.
    Crash,
    /// The power of all nodes fails at once.
    CrashAll,
    /// Two groups of nodes do not hear each other.
    Partition,
    /// One group does not hear the other, which hears it.
    OneWay,
    /// Nobody hears the leader.
    IsolateLeader,
    /// Clients and nodes do not hear each other, or only now and then, or late.
    Clients,
    /// Messages wait, and arrive later.
    Hold,
    /// A link is slow.
    Slow,
    /// A link fails now and then by itself.
    Loss,
    /// A clock is some seconds off.
    Skew,
    /// A clock jumps by minutes.
    Jump,
    /// A node is added, a node is removed.
    Churn,
    /// A node's disk is empty: it is replaced by a new node.
    Wipe,
    /// The leader is asked to hand over.
    Transfer,
}

impl Fault {
    /// All of them.
    pub(crate) const ALL: [Self; 14] = [
        Self::Crash,
        Self::CrashAll,
        Self::Partition,
        Self::OneWay,
        Self::IsolateLeader,
        Self::Clients,
        Self::Hold,
        Self::Slow,
        Self::Loss,
        Self::Skew,
        Self::Jump,
        Self::Churn,
        Self::Wipe,
        Self::Transfer,
    ];
}

/// A run.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    /// The seed that all of it follows from.
    pub(crate) seed: u64,
    /// Ticks with faults.
    pub(crate) ticks: u64,
    /// Nodes that the cluster begins with.
    pub(crate) nodes: usize,
    /// Hosts that nodes may be added on.
    pub(crate) spares: usize,
    /// Longest time that a message takes, in an undisturbed network.
    pub(crate) latency: Duration,
    /// How long a disk takes to sync.
    pub(crate) sync: Duration,
    /// Entries between two snapshots.
    pub(crate) snapshot_after: u64,
    /// Wrong passcodes that lock a user.
    pub(crate) failures_max: u64,
    /// Mean time between two faults.
    pub(crate) pause: Duration,
    /// What can happen.
    pub(crate) faults: Vec<Fault>,
}

impl Scenario {
    /// The run of `seed`.
    pub(crate) fn new(seed: u64, ticks: u64) -> Self {
        let mut random = Rng::with_seed(seed ^ 0x7761_7463_6877_6f72);
        let mut faults: Vec<_> =
            Fault::ALL.into_iter().filter(|_| random.u8(0..100) < 45).collect();
        if faults.is_empty() {
            faults.push(Fault::Crash);
        }
        let ms = |random: &mut Rng, choices: &[u64]| {
            Duration::from_millis(random.choice(choices).copied().unwrap_or(1))
        };
        Self {
            seed,
            ticks,
            nodes: if random.u8(0..100) < 60 { 3 } else { 5 },
            spares: 3,
            latency: ms(&mut random, &[1, 2, 5, 20, 40]),
            sync: ms(&mut random, &[1, 2, 5, 20]),
            snapshot_after: random.choice([20, 50, 200, 400_000]).unwrap_or(50),
            failures_max: random.u64(2..6),
            pause: ms(&mut random, &[600, 1_200, 2_500]),
            faults,
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "seed {}: {} ticks, {} nodes, latency up to {:?}, sync {:?}, snapshot after {}, \
             {} failures lock, a fault every {:?} of {:?}",
            self.seed,
            self.ticks,
            self.nodes,
            self.latency,
            self.sync,
            self.snapshot_after,
            self.failures_max,
            self.pause,
            self.faults
        )
    }
}
