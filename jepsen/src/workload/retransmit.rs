//! One request, octet for octet, at all nodes at once and several times, and again much later: it has one
//! verdict, whoever leads by then.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::Value;

use super::client::{Party, Racer};
use super::users::Pool;
use super::{Stage, Workload, logins};
use crate::checker::{Check, Checker};
use crate::client::radius::{Flight, Question, Reply};
use crate::generator::Generator;
use crate::rng::Rng;

pub(super) const NAME: &str = "retransmit";
const CLIENTS: usize = 2;
const GAP: Duration = Duration::from_millis(30);
/// Copies that a node gets that does not answer.
const COPIES: usize = 3;
/// How long after the first copy a late one is sent. An answer is remembered for a minute of the cluster's
/// time, which wrong clocks may have run ahead.
const LATE_MAX: Duration = Duration::from_secs(30);
/// Passcodes of one token before the next one's turn.
const COUNTERS_MAX: u64 = 60;

/// See the module.
pub(super) struct Retransmit(Pool);

#[derive(Clone, Copy)]
enum Act {
    Now,
    Late,
}

/// A request that was sent before.
struct Answered {
    at: Instant,
    key: String,
    flight: Flight,
}

/// Copies of a request for one node.
fn copy<'r>(key: &'r str, flight: &Flight, host: usize) -> Racer<'r> {
    let flight = Flight { request: flight.request.clone(), route: vec![host; COPIES] };
    Racer { f: "request", key, value: Value::Null, flight }
}

impl Retransmit {
    pub(super) fn new(rng: &Rng) -> Self {
        Self(Pool::new(NAME, 500, rng))
    }
}

impl Workload for Retransmit {
    fn name(&self) -> &'static str {
        NAME
    }

    fn about(&self) -> &'static str {
        "a request that is sent again has the same verdict, at every node"
    }

    fn users(&self) -> String {
        self.0.rows()
    }

    fn clients(&self) -> usize {
        CLIENTS
    }

    fn client(&self, stage: &Stage<'_>, number: usize) -> Result<()> {
        let mut party = Party::new(stage, NAME, number)?;
        let mix = [(3, Act::Now), (1, Act::Late)];
        let mut generator = Generator::new(stage.phase, party.rng.fork("acts"), GAP, &mix);
        let mut user = self.0.take()?;
        let mut counter = 0;
        let mut answered = VecDeque::new();
        while let Some(act) = generator.draw() {
            if matches!(act, Act::Late) {
                answered.retain(|first: &Answered| first.at.elapsed() < LATE_MAX);
                if let Some(first) = answered.pop_front() {
                    let host = party.rng.below(stage.db.size());
                    party.race(vec![copy(&first.key, &first.flight, host)])?;
                    answered.push_back(first);
                }
                continue;
            }
            let key = format!("{NAME}/{}/{counter}", user.name);
            let passcode = user.key.passcode(counter);
            let flight = party.flight_anywhere(&Question::of(&user.name, &passcode));
            let racers = flight.route.iter().map(|&host| copy(&key, &flight, host)).collect();
            let at = Instant::now();
            let accepted = party.race(racers)?.contains(&Some(Reply::Accept));
            answered.push_back(Answered { at, key, flight });
            counter += 1;
            if !accepted || counter == COUNTERS_MAX {
                (user, counter) = (self.0.take()?, 0);
            }
        }
        Ok(())
    }

    fn checks(&self, _nodes: usize) -> Vec<Check> {
        logins("retransmit/", Checker::Verdicts)
    }
}
