//! A field of a user's record, written and read by the command line of every node: a register.
//!
//! Every value is written once, so that a read says which write it has seen. What was never written
//! reads as 0.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::client::Operator;
use super::users::Pool;
use super::{Stage, Workload};
use crate::checker::{Check, Checker};
use crate::generator::Generator;
use crate::rng::Rng;

pub(super) const NAME: &str = "register";
const CLIENTS: usize = 4;
const GAP: Duration = Duration::from_millis(200);
/// Operations on one register before the next one's turn, which all clients take together.
const OPERATIONS_MAX: u64 = 60;

/// See the module.
pub(super) struct Register {
    pool: Pool,
    operations: AtomicU64,
    values: AtomicU64,
}

#[derive(Clone, Copy)]
enum Act {
    Read,
    Write,
}

impl Register {
    pub(super) fn new(rng: &Rng) -> Self {
        let (operations, values) = (AtomicU64::new(0), AtomicU64::new(1));
        Self { pool: Pool::new(NAME, 1_000, rng), operations, values }
    }
}

impl Workload for Register {
    fn name(&self) -> &'static str {
        NAME
    }

    fn about(&self) -> &'static str {
        "a user's record is linearizable, read at any node"
    }

    fn users(&self) -> String {
        self.pool.rows()
    }

    fn clients(&self) -> usize {
        CLIENTS
    }

    fn client(&self, stage: &Stage<'_>, number: usize) -> Result<()> {
        let mut operator = Operator::new(stage);
        let mix = [(1, Act::Write), (2, Act::Read)];
        let rng = stage.rng_of(NAME, number);
        let mut generator = Generator::new(stage.phase, rng, GAP, &mix);
        while let Some(act) = generator.draw() {
            let done = self.operations.fetch_add(1, Ordering::Relaxed);
            let user = self.pool.at(usize::try_from(done / OPERATIONS_MAX)?)?;
            let (key, name) = (format!("{NAME}/{}", user.name), user.name.as_str());
            let host = generator.rng().below(stage.db.size());
            match act {
                Act::Write => {
                    let value = self.values.fetch_add(1, Ordering::Relaxed);
                    let text = value.to_string();
                    let arguments = ["user", "edit", name, "--full-name", &text];
                    operator.change("write", &key, json!(value), host, &arguments)?;
                }
                Act::Read => {
                    read(&mut operator, NAME, name, host)?;
                }
            }
        }
        Ok(())
    }

    fn final_reads(&self, stage: &Stage<'_>) -> Result<()> {
        let mut operator = Operator::new(stage);
        let turns = self.operations.load(Ordering::Relaxed).div_ceil(OPERATIONS_MAX);
        for turn in 0..usize::try_from(turns)? {
            for host in 0..stage.db.size() {
                let user = &self.pool.at(turn)?.name;
                let show = ["user", "show", user];
                operator.read_at_last("read", &format!("{NAME}/{user}"), host, &show, register)?;
            }
        }
        Ok(())
    }

    fn checks(&self, _nodes: usize) -> Vec<Check> {
        vec![Check::new("register/", Checker::Register)]
    }
}

/// Reads the register of `user` at a node.
pub(super) fn read(
    operator: &mut Operator<'_>,
    workload: &str,
    user: &str,
    host: usize,
) -> Result<()> {
    let key = format!("{workload}/{user}");
    let value = |user: &Value| Some((register(user)?, ()));
    operator.read("read", &key, host, &["user", "show", user], value).map(drop)
}

/// What a user's record holds: a number that was written, or nothing.
fn register(user: &Value) -> Option<Value> {
    match user.get("full_name")?.as_str()? {
        "" => Some(json!(0)),
        text => text.parse::<u64>().ok().map(|value| json!(value)),
    }
}
