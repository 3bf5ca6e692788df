//! What was decided stays decided, though all nodes die at once.
//!
//! Logins are added to the record of attempts as fast as the nodes take them. When the clients have
//! stopped, the power of all hosts is cut at the same moment; then the record is read
//! at each of them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::attempts::last_places;
use super::client::{Operator, Party, Racer};
use super::users::Pool;
use super::{Stage, Workload};
use crate::checker::{Check, Checker};
use crate::client::radius::Question;
use crate::generator::Generator;
use crate::rng::Rng;

pub(super) const NAME: &str = "durability";
const CLIENTS: usize = 3;
const GAP: Duration = Duration::from_millis(8);
/// Logins of one user, all of which one listing shows.
const LOGINS_MAX: u64 = 900;

/// See the module.
pub(super) struct Durability {
    pool: Pool,
    logins: AtomicU64,
}

impl Durability {
    pub(super) fn new(rng: &Rng) -> Self {
        Self { pool: Pool::new(NAME, 200, rng), logins: AtomicU64::new(0) }
    }
}

impl Workload for Durability {
    fn name(&self) -> &'static str {
        NAME
    }

    fn about(&self) -> &'static str {
        "nothing that was answered is lost, though all nodes die at once"
    }

    fn users(&self) -> String {
        self.pool.rows()
    }

    fn clients(&self) -> usize {
        CLIENTS
    }

    fn client(&self, stage: &Stage<'_>, number: usize) -> Result<()> {
        let mut party = Party::new(stage, NAME, number)?;
        let mut generator = Generator::new(stage.phase, party.rng.fork("acts"), GAP, &[(1, ())]);
        while generator.draw().is_some() {
            let login = self.logins.fetch_add(1, Ordering::Relaxed);
            let user = self.pool.at(usize::try_from(login / LOGINS_MAX)?)?;
            let (key, place) = (format!("{NAME}/{}", user.name), login.to_string());
            let passcode = user.key.passcode(login % LOGINS_MAX);
            let question =
                Question { station: Some(&place), ..Question::of(&user.name, &passcode) };
            let flight = party.flight_anywhere(&question);
            party.race(vec![Racer { f: "add", key: &key, value: json!(login), flight }])?;
        }
        Ok(())
    }

    fn final_reads(&self, stage: &Stage<'_>) -> Result<()> {
        let mut operator = Operator::new(stage);
        let turns = usize::try_from(self.logins.load(Ordering::Relaxed).div_ceil(LOGINS_MAX))?;
        for host in 0..stage.db.size() {
            for turn in 0..turns {
                last_places(&mut operator, "final", NAME, &self.pool.at(turn)?.name, host)?;
            }
        }
        Ok(())
    }

    fn checks(&self, nodes: usize) -> Vec<Check> {
        let nodes = (1..=nodes).map(|number| format!("n{number}")).collect();
        vec![Check::new("durability/", Checker::Durability { nodes })]
    }
}
