//! One request, octet for octet, at all nodes at once and several times: it has one verdict.

use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use super::client::{Party, Racer};
use super::users::Pool;
use super::{Stage, Workload};
use crate::checker::{Check, Checker};
use crate::client::radius::{Flight, Question, Reply};
use crate::generator::Generator;
use crate::rng::Rng;

pub(super) const NAME: &str = "retransmit";
const CLIENTS: usize = 2;
const GAP: Duration = Duration::from_millis(30);
/// Copies that a node gets that does not answer.
const COPIES: usize = 3;
/// Passcodes of one token before the next one's turn.
const COUNTERS_MAX: u64 = 60;

/// See the module.
pub(super) struct Retransmit(Pool);

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
        let mut generator = Generator::new(stage.phase, party.rng.fork("acts"), GAP, &[(1, ())]);
        let mut user = self.0.take()?;
        let mut counter = 0;
        while generator.draw().is_some() {
            let key = format!("{NAME}/{}/{counter}", user.name);
            let passcode = user.key.passcode(counter);
            let question =
                Question { user: &user.name, passcode: &passcode, ..Question::default() };
            let request = party.request(&question);
            let racers = party.route().into_iter().map(|host| {
                let flight = Flight { request: request.clone(), route: vec![host; COPIES] };
                Racer { f: "request", key: &key, value: Value::Null, flight }
            });
            let racers = racers.collect();
            let accepted = party.race(racers)?.contains(&Some(Reply::Accept));
            counter += 1;
            if !accepted || counter == COUNTERS_MAX {
                (user, counter) = (self.0.take()?, 0);
            }
        }
        Ok(())
    }

    fn checks(&self, _nodes: usize) -> Vec<Check> {
        vec![Check::new("retransmit/", Checker::Verdicts)]
    }
}
