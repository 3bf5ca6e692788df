//! A user is disabled at one node while logging in at others: from then on nobody lets the user in.
//!
//! Clients come in pairs that share a user. One disables and enables; the other logs in with one good
//! passcode after another.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::client::{Operator, Party, Racer};
use super::users::{Pool, User};
use super::{Stage, Workload, logins};
use crate::checker::{Check, Checker};
use crate::client::radius::{Question, Reply};
use crate::db::HOTP_LOOK_AHEAD;
use crate::generator::Generator;
use crate::history::Kind;
use crate::rng::Rng;

pub(super) const NAME: &str = "gate";
const PAIRS: usize = 2;
const LOGIN_GAP: Duration = Duration::from_millis(12);
const TURN_GAP: Duration = Duration::from_millis(250);
/// Logins of one user before the next one's turn.
const LOGINS_MAX: usize = 250;

/// See the module.
pub(super) struct Gate {
    pool: Pool,
    /// Whom each pair is busy with, by place in the pool's order.
    users: [Mutex<usize>; PAIRS],
}

impl Gate {
    pub(super) fn new(rng: &Rng) -> Self {
        Self { pool: Pool::new(NAME, 1_000, rng), users: [Mutex::new(0), Mutex::new(1)] }
    }

    fn user(&self, pair: usize) -> Result<&User> {
        let place = self.users.get(pair).context("a pair")?;
        let place = *place.lock().unwrap_or_else(PoisonError::into_inner);
        self.pool.at(place)
    }

    /// Both of the pair go on with another user than `former`.
    fn go_on(&self, pair: usize, former: &User) -> Result<()> {
        let place = self.users.get(pair).context("a pair")?;
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        if self.pool.at(*place)?.name == former.name {
            *place += PAIRS;
        }
        Ok(())
    }

    fn turn(&self, stage: &Stage<'_>, pair: usize) -> Result<()> {
        let mut operator = Operator::new(stage);
        let rng = stage.rng_of("gate-turn", pair);
        let mix = [(1, "disable"), (1, "enable")];
        let mut generator = Generator::new(stage.phase, rng, TURN_GAP, &mix);
        while let Some(turn) = generator.draw() {
            let user = self.user(pair)?;
            let key = format!("{NAME}/{}", user.name);
            let host = generator.rng().below(stage.db.size());
            let arguments = ["user", turn, &user.name];
            let turned = operator.change(turn, &key, Value::Null, host, &arguments)?;
            // One that may come about later still would explain everything that follows.
            if turned == Kind::Info {
                self.go_on(pair, user)?;
            }
        }
        Ok(())
    }

    fn log_in(&self, stage: &Stage<'_>, pair: usize) -> Result<()> {
        let mut party = Party::new(stage, "gate-login", pair)?;
        let acts = party.rng.fork("acts");
        let mut generator = Generator::new(stage.phase, acts, LOGIN_GAP, &[(1, ())]);
        let mut former = self.user(pair)?;
        let (mut counter, mut unknown, mut logins) = (0, 0, 0);
        while generator.draw().is_some() {
            let user = self.user(pair)?;
            if user.name != former.name {
                former = user;
                (counter, unknown, logins) = (0, 0, 0);
            }
            let key = format!("{NAME}/{}", user.name);
            let passcode = user.key.passcode(counter);
            let flight = party.flight_anywhere(&Question::of(&user.name, &passcode));
            let login = Racer { f: "login", key: &key, value: Value::Null, flight };
            match party.race(vec![login])?.pop().flatten() {
                Some(Reply::Accept) => (counter, unknown) = (counter + 1, 0),
                // A refusal for being disabled uses nothing up.
                Some(_) => {}
                // It may have used the passcode up, or may yet.
                None => (counter, unknown) = (counter + 1, unknown + 1),
            }
            logins += 1;
            // Too many unknown ones in a row, and the token could be ahead of its window.
            if logins == LOGINS_MAX || unknown > HOTP_LOOK_AHEAD / 2 {
                self.go_on(pair, user)?;
            }
        }
        Ok(())
    }
}

impl Workload for Gate {
    fn name(&self) -> &'static str {
        NAME
    }

    fn about(&self) -> &'static str {
        "who was disabled is let in nowhere, who was enabled everywhere"
    }

    fn users(&self) -> String {
        self.pool.rows()
    }

    fn clients(&self) -> usize {
        2 * PAIRS
    }

    fn client(&self, stage: &Stage<'_>, number: usize) -> Result<()> {
        let pair = number / 2;
        if number.is_multiple_of(2) { self.turn(stage, pair) } else { self.log_in(stage, pair) }
    }

    fn checks(&self, _nodes: usize) -> Vec<Check> {
        logins("gate/", Checker::Gate)
    }
}
