//! Maintenance: every node is drained, stopped and started, one after the other. Nothing may be
//! noticed.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::field::Resource;
use super::{Field, Nemesis, Outcome};
use crate::rng::Rng;
use crate::wait;

/// How long a node may take to be ready again.
const READY: Duration = Duration::from_secs(30);

/// A rolling restart. It is over when it was started.
pub(super) struct Rolling;

impl Nemesis for Rolling {
    fn name(&self) -> &'static str {
        "rolling-restart"
    }

    fn start(&mut self, field: &Field, rng: &mut Rng) -> Result<Outcome> {
        let Ok(mut hosts) = field.system.members() else {
            return Ok(Outcome::skipped("nobody tells who the members are"));
        };
        rng.shuffle(&mut hosts);
        let mut restarted = Vec::new();
        for host in hosts {
            let Some(before) = field.system.pid(host) else { continue };
            if !field.claim(Resource::Node(host)) {
                continue;
            }
            // One that cannot be drained now, because nobody leads, is left alone as an operator
            // would.
            if let Err(error) = field.system.drain(host) {
                field.restart(&[host])?;
                return Ok(Outcome::Indeterminate { why: format!("{error:#}") });
            }
            let stopped = field.system.stop(host);
            let started = field.restart(&[host]);
            stopped.and(started)?;
            if field.system.pid(host).is_some_and(|pid| pid != before) {
                restarted.push(host);
            }
            // The next is not touched before this one is back.
            if !wait::holds(READY, || field.system.is_ready(host)) {
                let why = format!("{} was restarted and is not ready", field.name(host));
                return Ok(Outcome::Indeterminate { why });
            }
        }
        if restarted.is_empty() {
            return Ok(Outcome::skipped("nobody to restart"));
        }
        let evidence = json!({"hosts": field.names(&restarted)});
        Ok(Outcome::of(restarted.len() as u64, evidence))
    }

    fn stop(&mut self, _: &Field) -> Result<Outcome> {
        Ok(Outcome::skipped("a rolling restart leaves nothing to undo"))
    }
}
