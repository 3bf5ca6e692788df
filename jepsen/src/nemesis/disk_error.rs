//! A disk that fails, is slow, or loses its host in the middle of a write.
//!
//! After a failed sync nobody knows what is on the disk: the node must give up, and must not try again.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::field::{Resource, Target};
use super::{Field, Nemesis, Outcome};
use crate::lab::{Injection, Trace};
use crate::rng::Rng;

/// What the disk does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Syncs fail with EIO.
    Sync,
    /// Writes fail with ENOSPC.
    Write,
    /// Syncs take long.
    Slow,
    /// The node is killed in one of its next writes.
    KillInWrite,
}

/// A disk that may fail.
pub(super) struct DiskError {
    kind: Kind,
    at_work: Option<(usize, Option<Trace>)>,
    /// How often it has acted, and whether the node has ended of it.
    effect: (u64, bool),
}

impl DiskError {
    /// A fault of that kind, not made yet.
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, at_work: None, effect: (0, false) }
    }
}

impl Nemesis for DiskError {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Sync => "disk-sync-error",
            Kind::Write => "disk-write-error",
            Kind::Slow => "disk-slow",
            Kind::KillInWrite => "kill-in-write",
        }
    }

    fn start(&mut self, field: &Field, rng: &mut Rng) -> Result<Outcome> {
        if self.at_work.is_some() {
            return Ok(Outcome::skipped("it is in force"));
        }
        let leader = if rng.one_in(2) { Target::Leader } else { Target::One };
        let Some(host) = field.claim_nodes(leader, rng).pop() else {
            return Ok(Outcome::skipped("nobody whose disk to break"));
        };
        self.at_work = Some((host, None));
        self.effect = (0, false);
        let Some(pid) = field.system.pid(host) else {
            self.at_work = None;
            field.release(Resource::Node(host));
            return Ok(Outcome::skipped("the node has just ended"));
        };
        let injection = match self.kind {
            Kind::Sync => Injection::SyncFails,
            Kind::Write => Injection::WriteFindsNoRoom,
            Kind::Slow => Injection::SyncIsSlow(Duration::from_millis(50 + rng.below(450) as u64)),
            Kind::KillInWrite => Injection::WriteKills { nth: 1 + rng.below(20) as u32 },
        };
        let output = field.lab.dir(host)?.join(format!("{}.strace", self.name()));
        let trace = Trace::start(pid, injection, &output)?;
        let injected = field.proof(|| trace.injected().unwrap_or(0));
        self.at_work = Some((host, Some(trace)));
        let evidence = json!({"host": field.name(host), "injection": format!("{injection:?}")});
        Ok(Outcome::of(injected, evidence))
    }

    fn stop(&mut self, field: &Field) -> Result<Outcome> {
        // Whatever fails here is left for the next try, with the claim.
        let Some((host, trace)) = &mut self.at_work else {
            return Ok(Outcome::skipped("no disk fails"));
        };
        let host = *host;
        let loses_power = self.kind == Kind::Sync;
        if loses_power {
            // What a failed sync should have written was never on the disk: only a loss of power shows it, and
            // only if it comes before the node may sync again.
            field.halt(&[host])?;
            self.effect.1 |= field.system.take_end(host)?;
            field.cut_power(&[host])?;
        }
        if let Some(trace) = trace.take() {
            self.effect.0 += trace.stop()?;
        }
        // A slow disk explains no end.
        self.effect.1 |= self.kind != Kind::Slow && field.system.take_end(host)?;
        field.restore_power(&[host])?;
        self.at_work = None;
        field.restart(&[host])?;
        let (injected, ended) = self.effect;
        Ok(Outcome::of(injected, json!({"host": field.name(host), "node_ended": ended})))
    }
}
