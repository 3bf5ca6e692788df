//! Wrong passcodes, spread over all nodes at once: no more than the limit are ever examined.
//!
//! Each user is attacked once. More guesses than allowed are sent in parallel; then the right
//! passcode, which must be refused when enough guesses were; then the record of attempts tells how
//! many were compared with the right one.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::client::{Operator, Party, Racer};
use super::users::{Pool, User};
use super::{Stage, Workload, logins};
use crate::checker::{Check, Checker};
use crate::client::radius::Question;
use crate::db::{HOTP_LOOK_AHEAD, LOCKOUT_LIMIT};
use crate::generator::Generator;
use crate::rng::Rng;

pub(super) const NAME: &str = "lockout";
const CLIENTS: usize = 2;
const GAP: Duration = Duration::from_millis(250);
/// Guesses beyond the limit.
const EXCESS: usize = 4;

/// See the module.
pub(super) struct Lockout(Pool);

impl Lockout {
    pub(super) fn new(rng: &Rng) -> Self {
        Self(Pool::new(NAME, 1_000, rng))
    }
}

impl Workload for Lockout {
    fn name(&self) -> &'static str {
        NAME
    }

    fn about(&self) -> &'static str {
        "nobody gets more guesses than the limit, at all nodes together"
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
        while generator.draw().is_some() {
            let user = self.0.take()?;
            let key = format!("{NAME}/{}", user.name);
            let count = usize::try_from(LOCKOUT_LIMIT)? + EXCESS;
            let guesses = wrong_passcodes(user, count, &mut party.rng);
            let routes = party.routes(count);
            let racers = routes.into_iter().zip(&guesses).map(|(route, passcode)| {
                let flight = party.flight(&Question::of(&user.name, passcode), route);
                Racer { f: "guess", key: &key, value: Value::Null, flight }
            });
            let racers = racers.collect();
            let refused = party.race(racers)?.into_iter().flatten().count();
            // An accept would start the count anew. It is asked for only where it must be refused.
            if refused >= usize::try_from(LOCKOUT_LIMIT)? {
                let passcode = user.key.passcode(0);
                let flight = party.flight_anywhere(&Question::of(&user.name, &passcode));
                party.race(vec![Racer { f: "try", key: &key, value: Value::Null, flight }])?;
            }
            let host = party.rng.below(stage.db.size());
            let arguments = ["attempts", "--user", &user.name, "--limit", "1000"];
            operator.read("failures", &key, host, &arguments, |attempts| {
                let reasons = attempts.as_array()?.iter().filter_map(|one| one.get("reason"));
                let examined = reasons.filter(|reason| *reason == "wrong passcode").count();
                Some((json!(examined), ()))
            })?;
        }
        Ok(())
    }

    fn checks(&self, _nodes: usize) -> Vec<Check> {
        logins("lockout/", Checker::Lockout { limit: LOCKOUT_LIMIT })
    }
}

/// Passcodes that the token does not show within its look-ahead window.
fn wrong_passcodes(user: &User, count: usize, rng: &mut Rng) -> Vec<String> {
    let right: HashSet<String> =
        (0..HOTP_LOOK_AHEAD).map(|counter| user.key.passcode(counter)).collect();
    let guesses = std::iter::repeat_with(|| format!("{:08}", rng.below(100_000_000)));
    guesses.filter(|guess| !right.contains(guess)).take(count).collect()
}
