//! A disk without room. The node may end, or refuse; what it has acknowledged must stay.

use anyhow::Result;
use serde_json::json;

use super::field::Target;
use super::{Field, Nemesis, Outcome};
use crate::rng::Rng;

/// A host whose disk may be full.
#[derive(Default)]
pub(super) struct DiskFull {
    host: Option<usize>,
}

impl Nemesis for DiskFull {
    fn name(&self) -> &'static str {
        "disk-full"
    }

    fn start(&mut self, field: &Field, rng: &mut Rng) -> Result<Outcome> {
        if self.host.is_some() {
            return Ok(Outcome::skipped("it is in force"));
        }
        let Some(host) = field.claim_nodes(Target::One, rng).pop() else {
            return Ok(Outcome::skipped("nobody whose disk to fill"));
        };
        self.host = Some(host);
        let disk = field.lab.disk(host)?;
        // Has tried to write, and failed.
        let filled = disk.fill()?;
        let evidence = json!({"host": field.name(host), "filled": filled, "usage": disk.usage()?});
        Ok(Outcome::of(1, evidence))
    }

    fn stop(&mut self, field: &Field) -> Result<Outcome> {
        let Some(host) = self.host else {
            return Ok(Outcome::skipped("no disk is full"));
        };
        let disk = field.lab.disk(host)?;
        disk.free()?;
        let ended = field.system.take_end(host)?;
        self.host = None;
        field.restart(&[host])?;
        let usage = disk.usage()?;
        let evidence = json!({"host": field.name(host), "node_ended": ended, "usage": usage});
        Ok(Outcome::done(evidence))
    }
}
