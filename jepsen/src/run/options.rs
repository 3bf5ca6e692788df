//! Everything that makes a run what it is, decided before it begins.
//!
//! Options follow from a suite and a seed, and are stored before anything else, so that a run that
//! broke can be repeated, and its history checked again by the same plan.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::checker::Plan;
use crate::suite::SHIPPED;

/// Their file in the directory of a run.
const FILE: &str = "options.json";

/// See the module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// The suite that it belongs to.
    pub suite: String,
    /// Its name in the suite.
    pub name: String,
    /// What everything random follows from.
    pub seed: u64,
    /// When it was begun, as `20260131T235959`.
    pub begun: String,
    /// The program under test.
    pub watchword: PathBuf,
    /// How many nodes.
    pub nodes: usize,
    /// How long things are broken.
    pub seconds: u64,
    /// What the clients do, all at the same time.
    pub workloads: Vec<String>,
    /// What is broken, each at its own pace.
    pub nemeses: Vec<String>,
    /// The shortest and the longest time between two steps of one nemesis, in seconds.
    pub pace: (f64, f64),
    /// Seconds after everything was made right until the cluster must be right, too.
    pub heal_seconds: u64,
    /// How its history is checked.
    pub plan: Plan,
}

impl Options {
    /// The options of the run that is stored in `dir`.
    ///
    /// # Errors
    /// When there are none.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE);
        let text = fs::read(&path).with_context(|| path.display().to_string())?;
        serde_json::from_slice(&text).with_context(|| path.display().to_string())
    }

    /// Stores them in `dir`, which is made.
    ///
    /// # Errors
    /// When it cannot be written, or there is a run already.
    pub fn write(&self, dir: &Path) -> Result<()> {
        fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        let file =
            fs::File::create_new(dir.join(FILE)).with_context(|| dir.display().to_string())?;
        Ok(serde_json::to_writer_pretty(file, self)?)
    }

    /// The command that does it again.
    pub fn reproduce(&self) -> String {
        let Self { suite, name, seed, watchword, .. } = self;
        if !SHIPPED.iter().any(|(shipped, _)| shipped == suite) {
            return "jepsen replay, with the directory that holds this".to_owned();
        }
        let watchword = watchword.display();
        format!("jepsen run {suite} --only {name} --exactly {seed} --watchword {watchword}")
    }
}
