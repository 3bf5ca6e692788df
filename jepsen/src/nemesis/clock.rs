//! Wall clocks that are wrong.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::field::Resource;
use super::{Field, Nemesis, Outcome};
use crate::lab::Strobe;
use crate::rng::Rng;
use crate::wait;

/// How long the cluster may take to notice.
const NOTICING: Duration = Duration::from_secs(10);
/// How far what is measured may be from what was set, in seconds.
const TOLERANCE: f64 = 2.0;

/// How a clock goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// By up to 30 s: a time step of a passcode.
    Jump,
    /// By up to 10 minutes.
    Leap,
    /// To and fro, many times.
    Strobe,
}

/// A clock that may be wrong.
pub(super) struct ClockFault {
    kind: Kind,
    host: Option<usize>,
    strobe: Option<Strobe>,
}

impl ClockFault {
    /// A fault of that kind, not made yet.
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, host: None, strobe: None }
    }
}

impl Nemesis for ClockFault {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Jump => "clock-jump",
            Kind::Leap => "clock-leap",
            Kind::Strobe => "clock-strobe",
        }
    }

    fn start(&mut self, field: &Field, rng: &mut Rng) -> Result<Outcome> {
        if self.host.is_some() {
            return Ok(Outcome::skipped("it is in force"));
        }
        let mut hosts: Vec<_> = (0..field.lab.hosts()).collect();
        rng.shuffle(&mut hosts);
        // The leader, whose clock stamps the entries, every other time.
        let leader = field.system.leader().filter(|_| rng.one_in(2));
        let runs = |host: &usize| field.system.pid(*host).is_some();
        let free = |host: &usize| runs(host) && field.claim_clock(*host);
        let Some(host) = leader.into_iter().chain(hosts).find(free) else {
            return Ok(Outcome::skipped("no clock to set"));
        };
        self.host = Some(host);
        let ahead = if rng.one_in(2) { 1.0 } else { -1.0 };
        let range = if self.kind == Kind::Leap { 570.0 } else { 25.0 };
        // Never so little that a clock that is merely measured badly would do.
        let seconds = ahead * (5.0 + range * rng.unit());
        let clock = field.lab.clock(host)?;
        let name = field.name(host);
        if self.kind == Kind::Strobe {
            let period = Duration::from_millis(50 + rng.below(450) as u64);
            let strobe = clock.strobe(seconds, period);
            let shown = wait::holds(NOTICING, || {
                field.lab.clock_offset(host).is_ok_and(|shown| is_near(shown, seconds))
            });
            let flips = if shown { strobe.flips() } else { 0 };
            self.strobe = Some(strobe);
            return Ok(Outcome::of(flips, json!({"host": name, "seconds": seconds})));
        }
        clock.set(seconds)?;
        let shown = field.lab.clock_offset(host)?;
        let mut measured = None;
        let noticed = wait::holds(NOTICING, || {
            measured = field.system.clock_offset(host);
            measured.is_some_and(|measured| is_near(measured, seconds))
        });
        let evidence =
            json!({"host": name, "seconds": seconds, "shown": shown, "measured": measured});
        Ok(Outcome::of(u64::from(noticed), evidence))
    }

    fn stop(&mut self, field: &Field) -> Result<Outcome> {
        let Some(host) = self.host else {
            return Ok(Outcome::skipped("the clock is right"));
        };
        let flips = self.strobe.take().map(Strobe::stop).transpose()?;
        field.lab.clock(host)?.set(0.0)?;
        self.host = None;
        field.release(Resource::Clock(host));
        let right = is_near(field.lab.clock_offset(host)?, 0.0);
        Ok(Outcome::done(json!({"host": field.name(host), "flips": flips, "is_right": right})))
    }
}

fn is_near(measured: f64, set: f64) -> bool {
    (measured - set).abs() < TOLERANCE
}
