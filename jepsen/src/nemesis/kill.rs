//! `kill -9`: what was not written is lost, what was written and not synced is not.

use anyhow::Result;
use serde_json::json;

use super::field::Target;
use super::{Field, Nemesis, Outcome};
use crate::rng::Rng;

/// Nodes that may be dead.
pub(super) struct Kill {
    name: &'static str,
    target: Target,
    killed: Vec<usize>,
}

impl Kill {
    /// A kill of `target`.
    pub(super) fn new(name: &'static str, target: Target) -> Self {
        Self { name, target, killed: Vec::new() }
    }
}

impl Nemesis for Kill {
    fn name(&self) -> &'static str {
        self.name
    }

    fn start(&mut self, field: &Field, rng: &mut Rng) -> Result<Outcome> {
        if !self.killed.is_empty() {
            return Ok(Outcome::skipped("it is in force"));
        }
        let hosts = field.claim_nodes(self.target, rng);
        if hosts.is_empty() {
            return Ok(Outcome::skipped("nobody to kill"));
        }
        self.killed.extend(&hosts);
        let leader = field.system.leader();
        for host in &hosts {
            field.system.kill(*host)?;
        }
        let dead = hosts.iter().filter(|host| field.system.pid(**host).is_none()).count();
        let led = leader.filter(|leader| hosts.contains(leader)).map(|leader| field.name(leader));
        let evidence = json!({"hosts": field.names(&hosts), "led": led});
        Ok(Outcome::of(self.target.hit(dead, field.lab.hosts()), evidence))
    }

    fn stop(&mut self, field: &Field) -> Result<Outcome> {
        let hosts = std::mem::take(&mut self.killed);
        if hosts.is_empty() {
            return Ok(Outcome::skipped("nobody is dead"));
        }
        field.restart(&hosts)?;
        Ok(Outcome::done(json!({"hosts": field.names(&hosts)})))
    }
}
