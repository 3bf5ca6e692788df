//! Nodes that stand still and go on, not knowing that time has passed.

use anyhow::Result;
use serde_json::json;

use super::field::{Resource, Target};
use super::{Field, Nemesis, Outcome};
use crate::lab::process;
use crate::rng::Rng;

/// Nodes that may stand still, with their processes.
pub(super) struct Pause {
    name: &'static str,
    target: Target,
    paused: Vec<(usize, u32)>,
}

impl Pause {
    /// A pause of `target`.
    pub(super) fn new(name: &'static str, target: Target) -> Self {
        Self { name, target, paused: Vec::new() }
    }
}

impl Nemesis for Pause {
    fn name(&self) -> &'static str {
        self.name
    }

    fn start(&mut self, field: &Field, rng: &mut Rng) -> Result<Outcome> {
        if !self.paused.is_empty() {
            return Ok(Outcome::skipped("it is in force"));
        }
        let hosts = field.claim_nodes(self.target, rng);
        if hosts.is_empty() {
            return Ok(Outcome::skipped("nobody to pause"));
        }
        for host in &hosts {
            match field.system.pid(*host) {
                Some(pid) => self.paused.push((*host, pid)),
                None => field.release(Resource::Node(*host)),
            }
        }
        for (_, pid) in &self.paused {
            // Returns when every thread is in state T.
            process::pause(*pid)?;
        }
        let evidence = json!({"hosts": field.names(&hosts), "state": "T"});
        Ok(Outcome::of(self.target.hit(self.paused.len(), field.lab.hosts()), evidence))
    }

    fn stop(&mut self, field: &Field) -> Result<Outcome> {
        if self.paused.is_empty() {
            return Ok(Outcome::skipped("nobody stands still"));
        }
        let hosts: Vec<_> = self.paused.iter().map(|(host, _)| *host).collect();
        let mut result = Ok(());
        // Who does not go on stays, and is tried again.
        self.paused.retain(|(host, pid)| match process::resume(*pid) {
            Ok(()) => {
                field.release(Resource::Node(*host));
                false
            }
            Err(error) => {
                result = Err(error);
                true
            }
        });
        result?;
        Ok(Outcome::done(json!({"hosts": field.names(&hosts)})))
    }
}
