//! Power cuts: what was written and not synced is lost, too, and the file system recovers its
//! journal.

use anyhow::{Context, Result};
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
        let mut hosts = Vec::new();
        let mut recovered = 0;
        let mut result = Ok(());
        for host in std::mem::take(&mut self.dark) {
            let remounted = field.lab.disk(host).and_then(|disk| disk.remount());
            match remounted.with_context(|| format!("the disk of {}", field.name(host))) {
                Ok(journal) => {
                    recovered += u64::from(journal);
                    hosts.push(host);
                }
                Err(error) => {
                    // Stays dark, and claimed, until the next try.
                    self.dark.push(host);
                    result = result.and(Err(error));
                }
            }
        }
        result.and(field.restart(&hosts))?;
        Ok(Outcome::done(json!({"hosts": field.names(&hosts), "journals": recovered})))
    }
}
