//! One passcode, typed at several nodes in the same moment: it lets in once.
//!
//! The passcode of one counter of a token is a key. Now and then one that was accepted before is sent
//! once more, to whichever node may not know of it yet.

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

pub(super) const NAME: &str = "passcode";
const CLIENTS: usize = 4;
const GAP: Duration = Duration::from_millis(12);
/// Counters of one token before the next one's turn.
const COUNTERS_MAX: u64 = 40;

/// See the module.
pub(super) struct Passcode(Pool);

#[derive(Clone, Copy)]
enum Act {
    Race,
    Replay,
}

impl Passcode {
    pub(super) fn new(rng: &Rng) -> Self {
        Self(Pool::new(NAME, 3_000, rng))
    }
}

impl Workload for Passcode {
    fn name(&self) -> &'static str {
        NAME
    }

    fn about(&self) -> &'static str {
        "a passcode is accepted once, however many nodes it is typed at"
    }

    fn users(&self) -> String {
        self.0.rows()
    }

    fn clients(&self) -> usize {
        CLIENTS
    }

    fn client(&self, stage: &Stage<'_>, number: usize) -> Result<()> {
        let mut party = Party::new(stage, NAME, number)?;
        let mix = [(9, Act::Race), (1, Act::Replay)];
        let mut generator = Generator::new(stage.phase, party.rng.fork("acts"), GAP, &mix);
        let mut user = self.0.take()?;
        let mut counter = 0;
        while let Some(act) = generator.draw() {
            let (counter_now, racers) = match act {
                Act::Replay if counter > 0 => (counter - 1, 1),
                Act::Race | Act::Replay => (counter, 2 + party.rng.below(3)),
            };
            let key = format!("{NAME}/{}/{counter_now}", user.name);
            let passcode = user.key.passcode(counter_now);
            let routes = party.routes(racers);
            let racers = routes.into_iter().map(|route| {
                let question =
                    Question { user: &user.name, passcode: &passcode, ..Question::default() };
                let flight = Flight { request: party.request(&question), route };
                Racer { f: "consume", key: &key, value: Value::Null, flight }
            });
            let racers = racers.collect();
            let accepted = party.race(racers)?.contains(&Some(Reply::Accept));
            if counter_now < counter {
                continue;
            }
            counter += 1;
            // A race that nobody has won may be won later. Only a token that is left alone cannot be
            // confused by that.
            if !accepted || counter == COUNTERS_MAX {
                (user, counter) = (self.0.take()?, 0);
            }
        }
        Ok(())
    }

    fn checks(&self, _nodes: usize) -> Vec<Check> {
        vec![Check::new("passcode/", Checker::Consume { budget: 1 })]
    }
}
