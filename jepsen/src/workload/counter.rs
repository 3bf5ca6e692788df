//! The counters of a token go forward only, whichever nodes their passcodes reach, in whatever order.
//!
//! Three neighbouring counters of one token are sent at once to different nodes. Any of them may win;
//! none may win that lies before one that has won already.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::client::{Party, Racer};
use super::users::Pool;
use super::{Stage, Workload, logins};
use crate::checker::{Check, Checker};
use crate::client::radius::{Question, Reply};
use crate::generator::Generator;
use crate::rng::Rng;

pub(super) const NAME: &str = "counter";
const CLIENTS: usize = 2;
const GAP: Duration = Duration::from_millis(12);
const NEIGHBOURS: u64 = 3;
/// Counters of one token before the next one's turn.
const COUNTERS_MAX: u64 = 90;

/// See the module.
pub(super) struct Counter(Pool);

impl Counter {
    pub(super) fn new(rng: &Rng) -> Self {
        Self(Pool::new(NAME, 1_000, rng))
    }
}

impl Workload for Counter {
    fn name(&self) -> &'static str {
        NAME
    }

    fn about(&self) -> &'static str {
        "a token's counter never goes back"
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
            let key = format!("{NAME}/{}", user.name);
            let mut counters: Vec<u64> = (counter..counter + NEIGHBOURS).collect();
            party.rng.shuffle(&mut counters);
            let routes = party.routes(counters.len());
            let racers = routes.into_iter().zip(&counters).map(|(route, &counter)| {
                let passcode = user.key.passcode(counter);
                let flight = party.flight(&Question::of(&user.name, &passcode), route);
                Racer { f: "login", key: &key, value: json!({ "counter": counter }), flight }
            });
            let racers = racers.collect();
            let replies = party.race(racers)?;
            let accepted = replies.contains(&Some(Reply::Accept));
            // Where nobody knows, the token stands somewhere in the look-ahead window; after a few such
            // rounds it might be outside.
            counter += NEIGHBOURS;
            if !accepted || counter >= COUNTERS_MAX {
                (user, counter) = (self.0.take()?, 0);
            }
        }
        Ok(())
    }

    fn checks(&self, _nodes: usize) -> Vec<Check> {
        logins("counter/", Checker::Counter)
    }
}
