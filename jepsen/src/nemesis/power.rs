//! Power cuts: what was written and not synced is lost, too, and the file system recovers its
//! journal.

use anyhow::Result;
use serde_json::json;

use super::field::Target;
use super::{Field, Nemesis, Outcome};
use crate::rng::Rng;

/// Hosts that may be without power.
pub(super) struct PowerCut {
    name: &'static str,
    target: Target,
    dark: Vec<usize>,
}

impl PowerCut {
    /// A cut of the power of `target`.
    pub(super) fn new(name: &'static str, target: Target) -> Self {
        Self { name, target, dark: Vec::new() }
    }
}

impl Nemesis for PowerCut {
    fn name(&self) -> &'static str {
        self.name
    }

    fn start(&mut self, field: &Field, rng: &mut Rng) -> Result<Outcome> {
        if !self.dark.is_empty() {
            return Ok(Outcome::skipped("it is in force"));
        }
        let hosts = field.claim_nodes(self.target, rng);
        if hosts.is_empty() {
            return Ok(Outcome::skipped("nobody has power"));
        }
        self.dark.extend(&hosts);
        field.cut_power(&hosts)?;
        let evidence = json!({"hosts": field.names(&hosts)});
        Ok(Outcome::of(self.target.hit(hosts.len(), field.lab.hosts()), evidence))
    }

    fn stop(&mut self, field: &Field) -> Result<Outcome> {
        if self.dark.is_empty() {
            return Ok(Outcome::skipped("nobody is without power"));
        }
        // Stay dark, and claimed, until the next try if this fails.
        let recovered = field.restore_power(&self.dark)?;
        let hosts = std::mem::take(&mut self.dark);
        field.restart(&hosts)?;
        Ok(Outcome::done(json!({"hosts": field.names(&hosts), "journals": recovered})))
    }
}
