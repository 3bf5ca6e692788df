//! A one-time bypass, and several nodes at which its user logs in at once: it lets in once.

use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use super::client::{Operator, Party, Racer};
use super::users::Pool;
use super::{Stage, Workload, logins};
use crate::checker::{Check, Checker};
use crate::client::radius::{Question, Reply};
use crate::generator::Generator;
use crate::history::Kind;
use crate::rng::Rng;

pub(super) const NAME: &str = "bypass";
const CLIENTS: usize = 2;
const GAP: Duration = Duration::from_millis(250);
/// Bypasses of one user before the next one's turn.
const BYPASSES_MAX: u64 = 40;
/// What a user types who has left the token at home.
const NO_PASSCODE: &str = "none";

/// See the module.
pub(super) struct Bypass(Pool);

impl Bypass {
    pub(super) fn new(rng: &Rng) -> Self {
        Self(Pool::new(NAME, 500, rng))
    }
}

impl Workload for Bypass {
    fn name(&self) -> &'static str {
        NAME
    }

    fn about(&self) -> &'static str {
        "a one-time bypass lets in once"
    }

    fn users(&self) -> String {
        self.0.rows()
    }

    fn clients(&self) -> usize {
        CLIENTS
    }

    fn client(&self, stage: &Stage<'_>, number: usize) -> Result<()> {
        let mut party = Party::new(stage, NAME, number)?;
        let mut operator = Operator::new(stage);
        let mut generator = Generator::new(stage.phase, party.rng.fork("acts"), GAP, &[(1, ())]);
        let mut user = self.0.take()?;
        let mut bypass = 0;
        while generator.draw().is_some() {
            let key = format!("{NAME}/{}/{bypass}", user.name);
            let host = party.rng.below(stage.db.size());
            let arguments =
                ["user", "bypass", &user.name, "--reason", "jepsen", "--seconds", "86400"];
            let granted = operator.change("grant", &key, Value::Null, host, &arguments)?;
            bypass += 1;
            if granted == Kind::Fail {
                continue;
            }
            let mut accepted = false;
            // One that may be granted later still has no race: whoever loses it has lost for no reason.
            if granted == Kind::Ok {
                let routes = party.routes(2 + stage.db.size() / 2);
                let question = Question::of(&user.name, NO_PASSCODE);
                let racers = routes.into_iter().map(|route| {
                    let flight = party.flight(&question, route);
                    Racer { f: "consume", key: &key, value: Value::Null, flight }
                });
                let racers = racers.collect();
                let replies = party.race(racers)?;
                // One that is still under way could use up the next one.
                accepted = replies.contains(&Some(Reply::Accept)) && !replies.contains(&None);
            }
            if !accepted || bypass == BYPASSES_MAX {
                (user, bypass) = (self.0.take()?, 0);
            }
        }
        Ok(())
    }

    fn checks(&self, _nodes: usize) -> Vec<Check> {
        logins("bypass/", Checker::Consume { budget: 1 })
    }
}
