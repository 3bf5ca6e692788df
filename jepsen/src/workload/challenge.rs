//! A challenge that one node has issued is answered at others, several times at once: it lets in once.
//!
//! Each answer holds another passcode, all of them good by themselves, so that it is the challenge
//! that is used up and not a passcode. The node that issued it may be dead by then.

use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use super::client::{Party, Racer};
use super::users::Pool;
use super::{Stage, Workload, logins};
use crate::checker::{Check, Checker};
use crate::client::radius::{Question, Reply};
use crate::generator::Generator;
use crate::rng::Rng;

pub(super) const NAME: &str = "challenge";
const CLIENTS: usize = 2;
const GAP: Duration = Duration::from_millis(20);
const ANSWERS: u64 = 3;
/// Challenges of one user before the next one's turn.
const CHALLENGES_MAX: u64 = 30;

/// See the module.
pub(super) struct Challenge(Pool);

impl Challenge {
    pub(super) fn new(rng: &Rng) -> Self {
        Self(Pool::new(NAME, 1_500, rng))
    }
}

impl Workload for Challenge {
    fn name(&self) -> &'static str {
        NAME
    }

    fn about(&self) -> &'static str {
        "a challenge is answered at any node, once"
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
        let mut challenge = 0;
        while generator.draw().is_some() {
            let key = format!("{NAME}/{}/{challenge}", user.name);
            let flight = party.flight_anywhere(&Question::of(&user.name, ""));
            let issue = Racer { f: "issue", key: &key, value: Value::Null, flight };
            let issued = party.race(vec![issue])?.pop().flatten();
            let Some(Reply::Challenge(state)) = issued else { continue };
            let first = challenge * ANSWERS;
            let counters: Vec<u64> = (first..first + ANSWERS).collect();
            let routes = party.routes(counters.len());
            let racers = routes.into_iter().zip(&counters).map(|(route, &counter)| {
                let passcode = user.key.passcode(counter);
                let question =
                    Question { state: Some(&state), ..Question::of(&user.name, &passcode) };
                let flight = party.flight(&question, route);
                Racer { f: "consume", key: &key, value: Value::Null, flight }
            });
            let racers = racers.collect();
            let accepted = party.race(racers)?.contains(&Some(Reply::Accept));
            challenge += 1;
            if !accepted || challenge == CHALLENGES_MAX {
                (user, challenge) = (self.0.take()?, 0);
            }
        }
        Ok(())
    }

    fn checks(&self, _nodes: usize) -> Vec<Check> {
        logins("challenge/", Checker::Consume { budget: 1 })
    }
}
