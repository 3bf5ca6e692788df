//! One passcode, typed at several nodes in the same moment: it lets in once.
//!
//! The passcode of one counter of a token is a key. Now and then one that was accepted before is sent
//! once more, to whichever node may not know of it yet; and at the end, when all have been dead.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;

use super::client::{Party, Racer};
use super::users::Pool;
use super::{Stage, Workload, logins};
use crate::checker::{Check, Checker};
use crate::client::radius::{Question, Reply};
use crate::generator::Generator;
use crate::rng::Rng;

pub(super) const NAME: &str = "passcode";
const CLIENTS: usize = 4;
const GAP: Duration = Duration::from_millis(12);
/// Counters of one token before the next one's turn.
const COUNTERS_MAX: u64 = 40;
/// How many of those that were accepted are sent once more at the end, the latest.
const REPLAYED_MAX: usize = 500;

/// See the module.
pub(super) struct Passcode {
    pool: Pool,
    /// What was accepted: place of the user in the pool, and counter.
    used: Mutex<Vec<(usize, u64)>>,
}

#[derive(Clone, Copy)]
enum Act {
    Race,
    Replay,
}

impl Passcode {
    pub(super) fn new(rng: &Rng) -> Self {
        Self { pool: Pool::new(NAME, 3_000, rng), used: Mutex::default() }
    }

    fn used(&self) -> MutexGuard<'_, Vec<(usize, u64)>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
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
        self.pool.rows()
    }

    fn clients(&self) -> usize {
        CLIENTS
    }

    fn client(&self, stage: &Stage<'_>, number: usize) -> Result<()> {
        let mut party = Party::new(stage, NAME, number)?;
        let mix = [(9, Act::Race), (1, Act::Replay)];
        let mut generator = Generator::new(stage.phase, party.rng.fork("acts"), GAP, &mix);
        let mut user = self.pool.take()?;
        let mut counter = 0;
        while let Some(act) = generator.draw() {
            let (counter_now, racers) = match act {
                Act::Replay if counter > 0 => (counter - 1, 1),
                Act::Race | Act::Replay => (counter, 2 + party.rng.below(3)),
            };
            let key = format!("{NAME}/{}/{counter_now}", user.name);
            let passcode = user.key.passcode(counter_now);
            let question = Question::of(&user.name, &passcode);
            let routes = party.routes(racers);
            let racers = routes.into_iter().map(|route| {
                let flight = party.flight(&question, route);
                Racer { f: "consume", key: &key, value: Value::Null, flight }
            });
            let racers = racers.collect();
            let accepted = party.race(racers)?.contains(&Some(Reply::Accept));
            if counter_now < counter {
                continue;
            }
            if accepted {
                self.used().push((user.place, counter));
            }
            counter += 1;
            // A race that nobody has won may be won later. Only a token that is left alone cannot be
            // confused by that.
            if !accepted || counter == COUNTERS_MAX {
                (user, counter) = (self.pool.take()?, 0);
            }
        }
        Ok(())
    }

    fn final_reads(&self, stage: &Stage<'_>) -> Result<()> {
        let mut party = Party::new(stage, NAME, self.clients())?;
        let used = std::mem::take(&mut *self.used());
        for (place, counter) in used.into_iter().rev().take(REPLAYED_MAX) {
            let user = self.pool.at(place)?;
            let key = format!("{NAME}/{}/{counter}", user.name);
            let passcode = user.key.passcode(counter);
            let flight = party.flight_anywhere(&Question::of(&user.name, &passcode));
            let racer = Racer { f: "consume", key: &key, value: Value::Null, flight };
            let answers = party.race(vec![racer])?;
            ensure!(answers.iter().all(Option::is_some), "a passcode typed again has no answer");
        }
        Ok(())
    }

    fn checks(&self, _nodes: usize) -> Vec<Check> {
        logins("passcode/", Checker::Consume { budget: 1 })
    }
}
