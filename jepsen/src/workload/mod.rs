//! What the clients do to the cluster while it is being broken, and what must hold of it.
//!
//! A workload has users of its own, keys that begin with its name, and a plan of checkers for these
//! keys, so that several may run side by side. It asks through the product's public interfaces only
//! and judges nothing: it writes down what it asked and what it was told.

mod attempts;
mod bypass;
mod challenge;
mod client;
mod counter;
mod durability;
mod gate;
mod lockout;
mod passcode;
mod register;
mod retransmit;
mod session;
mod users;

pub use users::COLUMNS;

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::checker::{Check, Checker, Plan};
use crate::client::radius::Radius;
use crate::db::{Db, SECRET};
use crate::generator::Phase;
use crate::history::{Event, Recorder};
use crate::rng::Rng;

/// A NAS sends again after some seconds; the harness does sooner, so that a run holds more tries.
const RETRY: Duration = Duration::from_millis(400);

/// What clients and checkers of one kind do.
pub trait Workload: Send + Sync {
    /// Its name, which is what its keys begin with.
    fn name(&self) -> &'static str;
    /// What it shows, in a sentence.
    fn about(&self) -> &'static str;
    /// Rows of users to add before the run: name, and the key of a token if there is one.
    fn users(&self) -> String;
    /// How many client threads it has.
    fn clients(&self) -> usize;
    /// What client `number` does until the phase is over.
    ///
    /// # Errors
    /// When the harness is broken. What the cluster does is never an error.
    fn client(&self, stage: &Stage<'_>, number: usize) -> Result<()>;
    /// What is read when all is quiet again.
    ///
    /// # Errors
    /// When it cannot be read, though the cluster is healthy.
    fn final_reads(&self, _stage: &Stage<'_>) -> Result<()> {
        Ok(())
    }
    /// How its keys are checked.
    fn checks(&self, nodes: usize) -> Vec<Check>;
}

/// All workloads, by name.
pub const NAMES: [&str; 11] = [
    attempts::NAME,
    bypass::NAME,
    challenge::NAME,
    counter::NAME,
    durability::NAME,
    gate::NAME,
    lockout::NAME,
    passcode::NAME,
    register::NAME,
    retransmit::NAME,
    session::NAME,
];

/// The workload called `name`, its users and keys drawn from `rng`.
pub fn by_name(name: &str, rng: &Rng) -> Option<Box<dyn Workload>> {
    let rng = &rng.fork(name);
    Some(match name {
        attempts::NAME => Box::new(attempts::Attempts::new(rng)),
        bypass::NAME => Box::new(bypass::Bypass::new(rng)),
        challenge::NAME => Box::new(challenge::Challenge::new(rng)),
        counter::NAME => Box::new(counter::Counter::new(rng)),
        durability::NAME => Box::new(durability::Durability::new(rng)),
        gate::NAME => Box::new(gate::Gate::new(rng)),
        lockout::NAME => Box::new(lockout::Lockout::new(rng)),
        passcode::NAME => Box::new(passcode::Passcode::new(rng)),
        register::NAME => Box::new(register::Register::new(rng)),
        retransmit::NAME => Box::new(retransmit::Retransmit::new(rng)),
        session::NAME => Box::new(session::Session::new(rng)),
        _ => return None,
    })
}

/// What a history without options can be checked for, by the beginnings of its keys; none when they are of no
/// workload.
pub fn plan(events: &[Event]) -> Option<Plan> {
    let keys: BTreeSet<&str> =
        events.iter().filter_map(|event| event.key.as_deref()?.split('/').next()).collect();
    let nodes: BTreeSet<&str> = events.iter().filter_map(|event| event.node.as_deref()).collect();
    let workloads = NAMES.into_iter().filter(|name| keys.contains(name));
    let workloads = workloads.filter_map(|name| by_name(name, &Rng::new(0)));
    let mut checks: Vec<Check> =
        workloads.flat_map(|workload| workload.checks(nodes.len())).collect();
    if checks.is_empty() {
        return None;
    }
    let all = [Checker::Digest, Checker::Availability { bound_ms: None }];
    checks.extend(all.map(|checker| Check::new("", checker)));
    Some(Plan { checks })
}

/// The checks of logins under `keys`: the answers to them, and what `checker` finds.
fn logins(keys: &str, checker: Checker) -> Vec<Check> {
    vec![Check::new(keys, Checker::Answers), Check::new(keys, checker)]
}

/// Where a workload acts.
pub struct Stage<'a> {
    /// The cluster.
    pub db: &'a Db,
    /// The history.
    pub recorder: &'a Recorder,
    /// Until when.
    pub phase: &'a Phase,
    /// Random numbers of the run; a client forks its own.
    pub rng: Rng,
}

impl Stage<'_> {
    /// The random numbers of one client.
    fn rng_of(&self, workload: &str, client: usize) -> Rng {
        self.rng.fork(&format!("{workload}/{client}"))
    }

    /// A RADIUS client for one thread.
    fn radius(&self, rng: &Rng) -> Result<Radius> {
        let rng = rng.fork("radius");
        Radius::new(self.db.control(), self.db.radius(), SECRET, RETRY, rng).context("a socket")
    }
}
