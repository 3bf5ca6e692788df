//! Somebody who changes a user at one node sees the change at the next, and never an older one again.
//!
//! Each client is a session of its own with a register of its own, whose values grow. Whatever stands
//! between it and the cluster may send each of its questions to another node.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::client::Operator;
use super::register::read;
use super::users::Pool;
use super::{Stage, Workload};
use crate::checker::{Check, Checker};
use crate::generator::Generator;
use crate::history::Kind;
use crate::rng::Rng;

pub(super) const NAME: &str = "session";
const CLIENTS: usize = 2;
const GAP: Duration = Duration::from_millis(150);

/// See the module.
pub(super) struct Session(Pool);

#[derive(Clone, Copy)]
enum Act {
    Read,
    Write,
}

impl Session {
    pub(super) fn new(rng: &Rng) -> Self {
        Self(Pool::new(NAME, 500, rng))
    }
}

impl Workload for Session {
    fn name(&self) -> &'static str {
        NAME
    }

    fn about(&self) -> &'static str {
        "who has seen a change sees it at every node from then on"
    }

    fn users(&self) -> String {
        self.0.rows()
    }

    fn clients(&self) -> usize {
        CLIENTS
    }

    fn client(&self, stage: &Stage<'_>, number: usize) -> Result<()> {
        let mut operator = Operator::new(stage);
        let rng = stage.rng_of(NAME, number);
        let mix = [(1, Act::Write), (2, Act::Read)];
        let mut generator = Generator::new(stage.phase, rng, GAP, &mix);
        let mut user = self.0.take()?;
        let mut value: u64 = 0;
        while let Some(act) = generator.draw() {
            let host = generator.rng().below(stage.db.size());
            match act {
                Act::Read => read(&mut operator, NAME, &user.name, host)?,
                Act::Write => {
                    value += 1;
                    let (key, text) = (format!("{NAME}/{}", user.name), value.to_string());
                    let arguments = ["user", "edit", &user.name, "--full-name", &text];
                    let written = operator.change("write", &key, json!(value), host, &arguments)?;
                    // One that comes about after the next would look like a step back.
                    if written == Kind::Info {
                        (user, value) = (self.0.take()?, 0);
                    }
                }
            }
        }
        Ok(())
    }

    fn checks(&self, _nodes: usize) -> Vec<Check> {
        vec![Check::new("session/", Checker::Session), Check::new("session/", Checker::Register)]
    }
}
