//! Which checkers apply to a run, on which keys and with which bounds.
//!
//! The plan is stored among the options of a run, so that its history can be checked again in the
//! same way, by whoever doubts it.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// All checks of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// In the order in which they are reported.
    pub checks: Vec<Check>,
}

/// One checker on a part of the keys. Workloads that run side by side each have their own prefix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// How the keys begin; empty for all, and for operations without key.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub keys: String,
    /// What is checked.
    #[serde(flatten)]
    pub checker: Checker,
}

impl Check {
    /// `checker` on the keys that begin with `keys`.
    pub fn new(keys: &str, checker: Checker) -> Self {
        Self { keys: keys.to_owned(), checker }
    }
}

/// A checker with its parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "checker", rename_all = "lowercase")]
pub enum Checker {
    /// [`super::answers`].
    Answers,
    /// [`super::register`].
    Register,
    /// [`super::consume`].
    Consume {
        /// How many accepts a key has.
        #[serde(default = "one")]
        budget: u64,
    },
    /// [`super::counter`].
    Counter,
    /// [`super::lockout`].
    Lockout {
        /// Wrong passcodes that are examined before a user is locked.
        limit: u64,
    },
    /// [`super::gate`].
    Gate,
    /// [`super::verdicts`].
    Verdicts,
    /// [`super::append`].
    Append,
    /// [`super::durability`].
    Durability {
        /// Nodes each of which must have been read at the end.
        #[serde(default)]
        nodes: BTreeSet<String>,
    },
    /// [`super::session`].
    Session,
    /// [`super::availability`].
    Availability {
        /// Milliseconds from a heal to the next `ok`, at most; none for figures only.
        #[serde(default)]
        bound_ms: Option<u64>,
    },
    /// [`super::digest`].
    Digest,
    /// [`super::refusal`].
    Refusal,
    /// [`super::coverage`].
    Coverage {
        /// Faults each of which must have acted.
        required: BTreeSet<String>,
    },
    /// [`super::logs`].
    Logs {
        /// Files, or directories of files.
        paths: Vec<PathBuf>,
        /// Errors that faults explain.
        #[serde(default)]
        excuses: Vec<Excuse>,
    },
}

/// What nodes may say in their logs that one of some faults has hit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Excuse {
    /// The faults.
    pub faults: Vec<String>,
    /// Parts of the lines.
    pub parts: Vec<String>,
}

impl Excuse {
    /// From words.
    pub fn new(faults: &[&str], parts: &[&str]) -> Self {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Self { faults: owned(faults), parts: owned(parts) }
    }
}

fn one() -> u64 {
    1
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.checker {
            Checker::Answers => "answers",
            Checker::Register => "register",
            Checker::Consume { .. } => "consume",
            Checker::Counter => "counter",
            Checker::Lockout { .. } => "lockout",
            Checker::Gate => "gate",
            Checker::Verdicts => "verdicts",
            Checker::Append => "append",
            Checker::Durability { .. } => "durability",
            Checker::Session => "session",
            Checker::Availability { .. } => "availability",
            Checker::Digest => "digest",
            Checker::Refusal => "refusal",
            Checker::Coverage { .. } => "coverage",
            Checker::Logs { .. } => "logs",
        };
        f.write_str(name)?;
        if self.keys.is_empty() { Ok(()) } else { write!(f, " {}", self.keys) }
    }
}

impl Plan {
    /// The same with relative paths taken from `dir`, the directory of the run.
    #[must_use]
    pub fn within(mut self, dir: &Path) -> Self {
        for check in &mut self.checks {
            if let Checker::Logs { paths, .. } = &mut check.checker {
                *paths = paths.iter().map(|path| dir.join(path)).collect();
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_plan_is_read_as_it_was_written() {
        let paths = vec![PathBuf::from("nodes")];
        let plan = Plan {
            checks: vec![
                Check::new("name/", Checker::Register),
                Check::new("bypass/", Checker::Consume { budget: 3 }),
                Check::new("", Checker::Coverage { required: BTreeSet::from(["kill".to_owned()]) }),
                Check::new("", Checker::Logs { paths, excuses: Vec::new() }),
            ],
        };
        let text = serde_json::to_value(&plan).expect("JSON");
        assert_eq!(text["checks"][0], json!({"keys": "name/", "checker": "register"}));
        assert_eq!(serde_json::from_value::<Plan>(text).expect("a plan"), plan);
        let Checker::Logs { paths, .. } = &plan.within(Path::new("run")).checks[3].checker else {
            panic!("the logs");
        };
        assert_eq!(paths, &[PathBuf::from("run/nodes")]);
    }

    #[test]
    fn a_misspelt_checker_is_refused() {
        let text = json!({"checks": [{"checker": "regsiter"}]});
        assert!(serde_json::from_value::<Plan>(text).is_err());
    }
}
