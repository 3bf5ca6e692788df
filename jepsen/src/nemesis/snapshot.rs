//! A node that was away so long that only a snapshot brings it up, and that dies while it gets it.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::field::{Resource, Target};
use super::{Field, Nemesis, Outcome};
use crate::rng::Rng;
use crate::wait;

/// How long the others may take to go on far enough.
const GOING_ON: Duration = Duration::from_secs(20);
/// How long it may take to be brought up.
const CATCHING_UP: Duration = Duration::from_secs(10);

/// A node that may be away, and where it and the others were.
#[derive(Default)]
pub(super) struct Snapshot {
    away: Option<(usize, u64)>,
}

impl Nemesis for Snapshot {
    fn name(&self) -> &'static str {
        "snapshot"
    }

    fn start(&mut self, field: &Field, rng: &mut Rng) -> Result<Outcome> {
        if self.away.is_some() {
            return Ok(Outcome::skipped("a node is away already"));
        }
        let Some(host) = field.claim_nodes(Target::One, rng).pop() else {
            return Ok(Outcome::skipped("nobody to send away"));
        };
        let Some(applied) = field.system.applied(host) else {
            field.release(Resource::Node(host));
            return Ok(Outcome::skipped("the node does not say where it is"));
        };
        self.away = Some((host, applied));
        field.system.kill(host)?;
        // The fault is that it comes back too late for the log.
        Ok(Outcome::done(json!({"host": field.name(host), "applied": applied})))
    }

    fn stop(&mut self, field: &Field) -> Result<Outcome> {
        let Some((host, applied)) = self.away.take() else {
            return Ok(Outcome::skipped("nobody is away"));
        };
        let furthest =
            || (0..field.lab.hosts()).filter_map(|host| field.system.applied(host)).max();
        let mut missed = 0;
        let enough = wait::holds(GOING_ON, || {
            missed = furthest().unwrap_or(0).saturating_sub(applied);
            missed > field.system.snapshot_lag()
        });
        // Once more in the middle of it: as soon as it serves, it is being brought up.
        let interrupted = field.system.start(host).and_then(|()| field.system.kill(host));
        let restarted = field.restart(&[host]);
        interrupted.and(restarted)?;
        // What it lacked is in nobody's log any more.
        let has_caught_up = enough
            && wait::holds(CATCHING_UP, || {
                field.system.applied(host).is_some_and(|now| now >= applied + missed)
            });
        let evidence = json!({
            "host": field.name(host),
            "entries_missed": missed,
            "has_caught_up": has_caught_up,
        });
        Ok(Outcome::of(u64::from(has_caught_up), evidence))
    }
}
