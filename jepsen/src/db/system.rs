//! What a nemesis needs of the cluster: its operators' orders.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use super::node::{ORDER_PATIENCE, SNAPSHOT_AFTER};
use super::{Db, text};
use crate::nemesis::System;
use crate::wait;

/// How long a new node may take until it votes.
const VOTE_PATIENCE: Duration = Duration::from_secs(45);

impl System for Db {
    fn leader(&self) -> Option<usize> {
        self.leading()
    }

    fn members(&self) -> Result<Vec<usize>> {
        let mut why = anyhow!("no node runs");
        for host in (0..self.size()).filter(|&host| self.pid(host).is_some()) {
            match self.admin(host)?.json(&["members"]) {
                Ok(members) => return Ok(self.voters_of(&members)),
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    fn pid(&self, host: usize) -> Option<u32> {
        self.node(host).ok()?.pid()
    }

    fn take_end(&self, host: usize) -> Result<bool> {
        self.node(host)?.take_end()
    }

    fn is_ready(&self, host: usize) -> bool {
        self.ready(host).is_ok()
    }

    fn applied(&self, host: usize) -> Option<u64> {
        self.status(host).ok()?.get("applied")?.as_u64()
    }

    fn last_log(&self, host: usize) -> Option<u64> {
        self.status(host).ok()?.get("last_log")?.as_u64()
    }

    fn clock_offset(&self, host: usize) -> Option<f64> {
        Some(self.status(host).ok()?.get("clock_error_ms")?.as_f64()? / 1000.0)
    }

    fn snapshot_lag(&self) -> u64 {
        2 * SNAPSHOT_AFTER
    }

    fn store(&self, host: usize) -> Result<PathBuf> {
        Ok(self.node(host)?.store())
    }

    fn kill(&self, host: usize) -> Result<()> {
        self.node(host)?.kill()
    }

    fn start(&self, host: usize) -> Result<()> {
        self.node(host)?.start(&self.lab)
    }

    fn stop(&self, host: usize) -> Result<()> {
        self.node(host)?.stop()
    }

    fn start_refused(&self, host: usize) -> Result<Option<String>> {
        self.node(host)?.start_damaged(&self.lab)
    }

    fn drain(&self, host: usize) -> Result<()> {
        self.node(host)?.drain()
    }

    fn transfer(&self, host: usize) -> Result<()> {
        let leader = self.leading().context("nobody leads")?;
        let id = self.id(host)?;
        self.node(leader)?.order(&["transfer", &id.to_string()])
    }

    fn remove(&self, host: usize) -> Result<()> {
        let id = self.id(host)?;
        let other = self.other(host)?;
        // Whether or not the answer arrives.
        self.node(host)?.forfeit();
        self.node(other)?.order(&["remove", &id.to_string(), "--yes"])?;
        self.kill(host)
    }

    fn add(&self, host: usize) -> Result<()> {
        if self.node(host)?.is_joining() {
            return self.come_in(host);
        }
        let other = self.other(host)?;
        let token = self.admin(other)?.json(&["token", "create"])?;
        self.join(host, other, text(&token, "token")?)
    }

    fn replace(&self, host: usize) -> Result<()> {
        if self.node(host)?.is_joining() {
            return self.come_in(host);
        }
        self.kill(host)?;
        let (id, other) = (self.id(host)?.to_string(), self.other(host)?);
        self.node(host)?.forfeit();
        let said = self.admin(other)?.run_for(&["replace", &id, "--yes"], "", ORDER_PATIENCE)?;
        if let Some(error) = said.error() {
            bail!("replace {id} on {}: {error}", self.name(other));
        }
        let token = said.stdout.split_whitespace().skip_while(|word| *word != "--token").nth(1);
        self.join(host, other, token.context("`replace` printed no token")?)
    }
}

impl Db {
    /// Empties the host, has a new node join from there, and waits until it votes.
    fn join(&self, host: usize, other: usize, token: &str) -> Result<()> {
        let node = self.node(host)?;
        node.wipe()?;
        node.will_join(self.node(other)?.peers(), token);
        self.come_in(host)
    }

    /// Goes on with a join, which may have been cut off: only the same one finishes it.
    fn come_in(&self, host: usize) -> Result<()> {
        let node = self.node(host)?;
        node.start(&self.lab)?;
        wait::until(VOTE_PATIENCE, || match self.members()?.contains(&host) {
            true => Ok(()),
            false => Err(anyhow!("{} does not vote", self.name(host))),
        })
    }

    /// A node that may speak for the cluster when something is done to `host`: its leader, or any that
    /// is ready.
    fn other(&self, host: usize) -> Result<usize> {
        let leader = self.leading().filter(|&leader| leader != host);
        let ready = || (0..self.size()).find(|&other| other != host && self.is_ready(other));
        leader.or_else(ready).context("no other node is ready")
    }

    fn voters_of(&self, members: &Value) -> Vec<usize> {
        let members = members.as_array().map(Vec::as_slice).unwrap_or_default();
        let votes = |member: &&Value| matches!(text(member, "role"), Ok("leader" | "voter"));
        let host = |member: &Value| {
            let address = text(member, "address").ok()?;
            self.nodes.iter().position(|node| node.peers().to_string() == address)
        };
        members.iter().filter(votes).filter_map(host).collect()
    }

    fn id(&self, host: usize) -> Result<u64> {
        self.node(host)?.id().with_context(|| format!("{} has no id", self.name(host)))
    }
}
