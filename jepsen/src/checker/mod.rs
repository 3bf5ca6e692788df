//! From a history to a verdict.
//!
//! A checker reads events and nothing else, so that a stored history can be checked again. It answers
//! *valid*, *invalid* with the events that show it, or *unknown* when the history cannot tell:
//! a run whose faults did not act has not passed.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What a checker found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Validity {
    /// Nothing is wrong.
    Valid,
    /// Cannot be told.
    Unknown,
    /// Something is wrong.
    Invalid,
}

/// One thing that must not have happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Anomaly {
    /// What it is about.
    pub key: Option<String>,
    /// What is wrong, in a sentence.
    pub what: String,
    /// Indexes of the events that show it.
    pub events: Vec<u64>,
}

/// The answer of one checker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Which checker.
    pub checker: String,
    /// Its verdict.
    pub validity: Validity,
    /// What it is sure of, in a sentence with figures.
    pub summary: String,
    /// Why the verdict is not *valid*.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub anomalies: Vec<Anomaly>,
    /// Counts, by name.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub figures: Map<String, Value>,
}
