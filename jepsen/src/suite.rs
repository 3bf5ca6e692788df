//! Suites: runs that belong together, and how a seed makes options of them.
//!
//! A suite is a TOML file. The shipped ones are part of the program; any other is named by its path.
//! Each run has a process of its own, inside namespaces of its own, so that two may go on at once and
//! nothing of one reaches the next.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::nemesis;
use crate::rng::Rng;
use crate::workload;

/// The suites that are part of the program.
pub const SHIPPED: [(&str, &str); 6] = [
    ("smoke", include_str!("../suites/smoke.toml")),
    ("ci", include_str!("../suites/ci.toml")),
    ("power", include_str!("../suites/power.toml")),
    ("soak", include_str!("../suites/soak.toml")),
    ("release", include_str!("../suites/release.toml")),
    ("control", include_str!("../suites/control.toml")),
];

/// A suite.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suite {
    /// What it is for, in a sentence.
    pub about: String,
    /// Its runs.
    #[serde(rename = "run")]
    pub runs: Vec<Run>,
}

/// A run, before a seed has decided what is left open.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// Its name.
    pub name: String,
    /// How many nodes.
    #[serde(default = "five")]
    pub nodes: usize,
    /// How long things are broken.
    pub seconds: u64,
    /// What the clients may do.
    pub workloads: Vec<String>,
    /// How many of these, drawn by the seed; all when absent.
    pub workloads_drawn: Option<usize>,
    /// What may be broken.
    #[serde(default)]
    pub nemeses: Vec<String>,
    /// How many of these, drawn by the seed; all when absent.
    pub nemeses_drawn: Option<usize>,
    /// The shortest and the longest time between two steps of one nemesis, in seconds.
    #[serde(default = "pace")]
    pub pace: (f64, f64),
    /// Seconds after everything was made right until the cluster must be right, too.
    #[serde(default = "heal_seconds")]
    pub heal_seconds: u64,
}

fn five() -> usize {
    5
}

fn pace() -> (f64, f64) {
    (3.0, 8.0)
}

fn heal_seconds() -> u64 {
    30
}

/// The shortest time between two steps of one nemesis, in seconds.
const PACE_MIN: f64 = 0.1;

impl Suite {
    /// A shipped suite by its name, or one from a file.
    ///
    /// # Errors
    /// When there is none, or it names what does not exist.
    pub fn find(name: &str) -> Result<Self> {
        let shipped: BTreeMap<&str, &str> = SHIPPED.into_iter().collect();
        let text = match shipped.get(name) {
            Some(text) => (*text).to_owned(),
            None if Path::new(name).exists() => {
                fs::read_to_string(name).with_context(|| format!("suite {name}"))?
            }
            None => {
                let names: Vec<&str> = shipped.keys().copied().collect();
                bail!(
                    "there is no suite {name:?}; there are {}, or the path of a file",
                    names.join(", ")
                )
            }
        };
        let suite: Self = toml::from_str(&text).with_context(|| format!("suite {name}"))?;
        ensure!(!suite.runs.is_empty(), "suite {name} has no runs");
        suite.runs.iter().try_for_each(Run::check)?;
        Ok(suite)
    }
}

impl Run {
    fn check(&self) -> Result<()> {
        for name in &self.workloads {
            let known = workload::NAMES.contains(&name.as_str());
            ensure!(known, "run {:?}: there is no workload {name:?}", self.name);
        }
        for name in &self.nemeses {
            let known = nemesis::list().any(|known| known == name);
            ensure!(known, "run {:?}: there is no nemesis {name:?}", self.name);
        }
        let (min, max) = self.pace;
        ensure!(
            PACE_MIN <= min && min <= max,
            "run {:?}: a pace has a shortest and a longest time, of {PACE_MIN} s at least",
            self.name
        );
        Ok(())
    }

    /// The workloads and the nemeses that `seed` draws.
    pub fn drawn(&self, seed: u64) -> (Vec<String>, Vec<String>) {
        let draw = |names: &[String], count: Option<usize>, what: &str| {
            let mut names = names.to_vec();
            if let Some(count) = count {
                Rng::new(seed).fork(what).shuffle(&mut names);
                names.truncate(count);
                names.sort();
            }
            names
        };
        (
            draw(&self.workloads, self.workloads_drawn, "workloads"),
            draw(&self.nemeses, self.nemeses_drawn, "nemeses"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_suite_names_only_what_exists() {
        for (name, _) in SHIPPED {
            let suite = Suite::find(name).expect(name);
            assert!(!suite.runs.is_empty(), "{name}");
        }
        assert!(Suite::find("no-such-suite").is_err());
    }

    #[test]
    fn a_seed_draws_the_same_part_and_another_seed_another() {
        let suite = Suite::find("soak").expect("there");
        let run = &suite.runs[0];
        assert_eq!(run.drawn(1), run.drawn(1));
        assert!((2..20).any(|seed| run.drawn(seed) != run.drawn(1)));
    }
}
