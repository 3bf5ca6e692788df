//! The record of attempts is one list, in one order, with every decision in it once.
//!
//! Each login names a place of its own (Calling-Station-Id), which the record keeps: deciding a login
//! appends that place to the user's list, and the command line of any node reads the list.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::client::{Operator, Party, Racer};
use super::users::Pool;
use super::{Stage, Workload};
use crate::checker::{Check, Checker};
use crate::client::radius::Question;
use crate::generator::Generator;
use crate::rng::Rng;

pub(super) const NAME: &str = "attempts";
const WRITERS: usize = 2;
const READERS: usize = 2;
const APPEND_GAP: Duration = Duration::from_millis(12);
const READ_GAP: Duration = Duration::from_millis(250);
/// Logins of one user before the next one's turn, which all clients take together.
const LOGINS_MAX: u64 = 250;

/// See the module.
pub(super) struct Attempts {
    pool: Pool,
    logins: AtomicU64,
}

impl Attempts {
    pub(super) fn new(rng: &Rng) -> Self {
        Self { pool: Pool::new(NAME, 500, rng), logins: AtomicU64::new(0) }
    }

    fn append(&self, stage: &Stage<'_>, number: usize) -> Result<()> {
        let mut party = Party::new(stage, NAME, number)?;
        let acts = party.rng.fork("acts");
        let mut generator = Generator::new(stage.phase, acts, APPEND_GAP, &[(1, ())]);
        while generator.draw().is_some() {
            let login = self.logins.fetch_add(1, Ordering::Relaxed);
            let user = self.pool.at(usize::try_from(login / LOGINS_MAX)?)?;
            let (key, place) = (format!("{NAME}/{}", user.name), login.to_string());
            // Good or used already: both are decisions, and only those that lie in the record count.
            let passcode = user.key.passcode(login % LOGINS_MAX);
            let question =
                Question { station: Some(&place), ..Question::of(&user.name, &passcode) };
            let flight = party.flight_anywhere(&question);
            party.race(vec![Racer { f: "append", key: &key, value: json!(login), flight }])?;
        }
        Ok(())
    }

    fn read(&self, stage: &Stage<'_>, number: usize) -> Result<()> {
        let mut operator = Operator::new(stage);
        let rng = stage.rng_of(NAME, number);
        let mut generator = Generator::new(stage.phase, rng, READ_GAP, &[(3, 0), (1, 1)]);
        while let Some(back) = generator.draw() {
            let login = self.logins.load(Ordering::Relaxed);
            let turn = (login / LOGINS_MAX).saturating_sub(back);
            let user = self.pool.at(usize::try_from(turn)?)?;
            let host = generator.rng().below(stage.db.size());
            read_places(&mut operator, "read", NAME, &user.name, host)?;
        }
        Ok(())
    }
}

impl Workload for Attempts {
    fn name(&self) -> &'static str {
        NAME
    }

    fn about(&self) -> &'static str {
        "every decision is recorded once, in the same order at every node"
    }

    fn users(&self) -> String {
        self.pool.rows()
    }

    fn clients(&self) -> usize {
        WRITERS + READERS
    }

    fn client(&self, stage: &Stage<'_>, number: usize) -> Result<()> {
        if number < WRITERS { self.append(stage, number) } else { self.read(stage, number) }
    }

    fn final_reads(&self, stage: &Stage<'_>) -> Result<()> {
        let mut operator = Operator::new(stage);
        let turns = usize::try_from(self.logins.load(Ordering::Relaxed).div_ceil(LOGINS_MAX))?;
        for turn in 0..turns {
            for host in 0..stage.db.size() {
                last_places(&mut operator, "read", NAME, &self.pool.at(turn)?.name, host)?;
            }
        }
        Ok(())
    }

    fn checks(&self, _nodes: usize) -> Vec<Check> {
        vec![Check::new("attempts/", Checker::Append)]
    }
}

/// Reads the places of a user's attempts, in the order of the record.
pub(super) fn read_places(
    operator: &mut Operator<'_>,
    f: &str,
    workload: &str,
    user: &str,
    host: usize,
) -> Result<()> {
    let value = |attempts: &Value| Some((places(attempts)?, ()));
    operator.read(f, &format!("{workload}/{user}"), host, &listing(user), value).map(drop)
}

/// The same of a cluster that is whole.
pub(super) fn last_places(
    operator: &mut Operator<'_>,
    f: &str,
    workload: &str,
    user: &str,
    host: usize,
) -> Result<()> {
    operator.read_at_last(f, &format!("{workload}/{user}"), host, &listing(user), places)
}

/// The command that lists a user's attempts.
fn listing(user: &str) -> [&str; 5] {
    ["attempts", "--user", user, "--limit", "1000"]
}

fn places(attempts: &Value) -> Option<Value> {
    let place = |attempt: &Value| attempt.get("remote")?.as_str()?.parse::<u64>().ok();
    let places: Option<Vec<u64>> = attempts.as_array()?.iter().map(place).collect();
    Some(json!(places?))
}
