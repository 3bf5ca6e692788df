//! From a history to a verdict.
//!
//! A checker reads events and nothing else, so that a stored history can be checked again. It answers
//! *valid*, *invalid* with the events that show it, or *unknown* when the history cannot tell:
//! a run whose faults did not act has not passed.
//!
//! Each checker is one file, takes operations, and is a pure function of them; only [`logs`] reads
//! files of its own. Which apply to a run, on which keys and with which bounds, is its [`Plan`].
//! None of them knows how the cluster works: they know what its users were promised.

pub mod answers;
pub mod append;
pub mod availability;
pub mod consume;
pub mod counter;
pub mod coverage;
pub mod digest;
pub mod durability;
pub mod gate;
pub mod lockout;
pub mod logs;
mod plan;
pub mod refusal;
pub mod register;
pub mod session;
pub mod verdicts;
pub mod wgl;
pub mod zones;

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use plan::{Check, Checker, Excuse, Plan};

use crate::history::Event;
use crate::operation::{self, Malformed, Operation};

/// What a finding about the history as a whole is called.
pub(crate) const HISTORY: &str = "history";

/// How many anomalies a finding keeps: what is broken through and through needs no longer list.
const ANOMALIES_MAX: usize = 100;

/// How many events of an anomaly are named in its sentence.
const EVENTS_SHOWN: usize = 8;

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

impl Validity {
    /// The status with which `jepsen` exits.
    pub fn exit_status(self) -> u8 {
        match self {
            Self::Valid => 0,
            Self::Invalid => 1,
            Self::Unknown => 3,
        }
    }

    /// As it is written in reports.
    pub fn word(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Unknown => "unknown",
            Self::Invalid => "invalid",
        }
    }
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

impl Anomaly {
    /// Something wrong with `key`, as these operations show.
    pub(crate) fn of(key: &str, what: String, operations: &[Operation<'_>]) -> Self {
        let mut events: Vec<u64> = operations.iter().flat_map(Operation::events).collect();
        events.sort_unstable();
        events.dedup();
        Self { key: (!key.is_empty()).then(|| key.to_owned()), what, events }
    }
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

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(key) = &self.key {
            write!(f, "{key}: ")?;
        }
        f.write_str(&self.what)?;
        if self.events.is_empty() {
            return Ok(());
        }
        let shown: Vec<String> =
            self.events.iter().take(EVENTS_SHOWN).map(u64::to_string).collect();
        let more = if self.events.len() > EVENTS_SHOWN { ", …" } else { "" };
        write!(f, " (events {}{more})", shown.join(", "))
    }
}

impl Finding {
    /// Invalid with anomalies, valid without, and unknown when nothing was there to check: a checker
    /// that has seen nothing has proved nothing.
    pub(crate) fn conclude(
        checker: &str,
        checked: usize,
        summary: String,
        anomalies: Vec<Anomaly>,
    ) -> Self {
        let validity = match (anomalies.len(), checked) {
            (0, 0) => Validity::Unknown,
            (0, _) => Validity::Valid,
            _ => Validity::Invalid,
        };
        let summary = match validity {
            Validity::Unknown => format!("nothing to check: {summary}"),
            Validity::Valid | Validity::Invalid => summary,
        };
        Self::new(checker, validity, summary, anomalies)
    }

    /// A verdict that the history does not allow to decide.
    pub(crate) fn unknown(checker: &str, summary: String, anomalies: Vec<Anomaly>) -> Self {
        Self::new(checker, Validity::Unknown, summary, anomalies)
    }

    /// What the run itself can say, which was there, and what no history tells.
    pub(crate) fn harness(checker: &str, validity: Validity, summary: String) -> Self {
        let anomalies = match validity {
            Validity::Valid | Validity::Unknown => Vec::new(),
            Validity::Invalid => {
                vec![Anomaly { key: None, what: summary.clone(), events: Vec::new() }]
            }
        };
        Self::new(checker, validity, summary, anomalies)
    }

    fn new(
        checker: &str,
        validity: Validity,
        summary: String,
        mut anomalies: Vec<Anomaly>,
    ) -> Self {
        let count = anomalies.len();
        anomalies.truncate(ANOMALIES_MAX);
        let checker = checker.to_owned();
        let finding = Self { checker, validity, summary, anomalies, figures: Map::new() };
        finding.figure("anomalies", count)
    }

    /// Adds a count.
    #[must_use]
    pub(crate) fn figure(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.figures.insert(name.to_owned(), value.into());
        self
    }
}

/// Runs every checker of `plan`. A history that is malformed is *unknown*, and nothing else: what
/// recorded it is broken, and the cluster may not be.
pub fn check_all(events: &[Event], plan: &Plan) -> Vec<Finding> {
    let operations = match operation::pairs(events) {
        Ok(operations) => operations,
        Err(malformed) => {
            let summary = format!("the history is malformed: {malformed}");
            return vec![Finding::unknown(HISTORY, summary, vec![anomaly(&malformed)])];
        }
    };
    plan.checks.iter().map(|check| run(check, events, &operations)).collect()
}

/// The worst of all; *unknown* when nothing was checked.
pub fn verdict(findings: &[Finding]) -> Validity {
    findings.iter().map(|finding| finding.validity).max().unwrap_or(Validity::Unknown)
}

fn run(check: &Check, events: &[Event], operations: &[Operation<'_>]) -> Finding {
    let chosen = |operation: &&Operation<'_>| operation.key().starts_with(&check.keys);
    let mut operations: Vec<Operation<'_>> = operations.iter().filter(chosen).copied().collect();
    let mut refused = Vec::new();
    // A key that cannot be checked hides nothing that is wrong with the others.
    let mut finding = loop {
        match judge(check, events, &operations) {
            Ok(finding) => break finding,
            Err(malformed) => {
                let key = key_at(&operations, &malformed);
                refused.push(anomaly(&malformed));
                operations.retain(|one| Some(one.key()) != key);
                if key.is_none() {
                    break Finding::unknown("", String::new(), Vec::new());
                }
            }
        }
    };
    finding.checker = check.to_string();
    if !refused.is_empty() {
        let first = refused.first().map(ToString::to_string).unwrap_or_default();
        let summary = format!("the history is malformed: {first}; {}", finding.summary);
        let validity = finding.validity.max(Validity::Unknown);
        finding = Finding { validity, summary, ..finding };
        finding.anomalies.extend(refused);
    }
    finding
}

/// The key of the operation that `malformed` is about.
fn key_at<'a>(operations: &[Operation<'a>], malformed: &Malformed) -> Option<&'a str> {
    let index = malformed.line.saturating_sub(1);
    operations.iter().find(|one| one.events().contains(&index)).map(Operation::key)
}

fn judge(
    check: &Check,
    events: &[Event],
    operations: &[Operation<'_>],
) -> Result<Finding, Malformed> {
    match &check.checker {
        Checker::Answers => Ok(answers::check(operations)),
        Checker::Register => register::check(operations),
        Checker::Consume { budget } => consume::check(operations, *budget),
        Checker::Counter => counter::check(operations),
        Checker::Lockout { limit } => lockout::check(operations, *limit),
        Checker::Gate => gate::check(operations),
        Checker::Verdicts => verdicts::check(operations),
        Checker::Append => append::check(operations),
        Checker::Durability { nodes } => durability::check(operations, nodes),
        Checker::Session => session::check(operations),
        Checker::Digest => digest::check(operations),
        Checker::Availability { bound_ms } => {
            Ok(availability::check(events, operations, *bound_ms))
        }
        Checker::Refusal => Ok(refusal::check(events)),
        Checker::Coverage { required } => Ok(coverage::check(events, required)),
        Checker::Logs { paths, excuses } => Ok(logs::check(events, paths, excuses)),
    }
}

fn anomaly(malformed: &Malformed) -> Anomaly {
    let events = vec![malformed.line.saturating_sub(1)];
    Anomaly { key: None, what: malformed.to_string(), events }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::sample::Sample;

    fn plan(checks: Value) -> Plan {
        serde_json::from_value(json!({ "checks": checks })).expect("a plan")
    }

    #[test]
    fn each_checker_sees_its_own_keys_and_the_worst_verdict_counts() {
        let mut sample = Sample::new();
        sample.done("write", "name/u1", 1);
        sample.done("read", "name/u1", 1);
        for _ in 0..2 {
            sample.done("consume", "bypass/u1", json!({"verdict": "accept"}));
        }
        let checks = json!([
            {"checker": "register", "keys": "name/"},
            {"checker": "consume", "keys": "bypass/", "budget": 2},
        ]);
        let findings = check_all(&sample.events, &plan(checks));
        assert_eq!(verdict(&findings), Validity::Valid, "{findings:#?}");
        assert_eq!(findings[1].checker, "consume bypass/");
        let findings = check_all(&sample.events, &plan(json!([{"checker": "consume"}])));
        assert_eq!(verdict(&findings), Validity::Invalid);
    }

    #[test]
    fn what_checked_nothing_has_not_passed() {
        let findings = check_all(&[], &plan(json!([{"checker": "register"}])));
        assert_eq!(verdict(&findings), Validity::Unknown);
        assert_eq!(verdict(&[]), Validity::Unknown);
    }

    #[test]
    fn a_malformed_history_is_unknown_and_names_the_line() {
        let mut sample = Sample::new();
        sample.invoke_as(1, "read", "u1", 0);
        sample.invoke_as(1, "read", "u1", 0);
        let findings = check_all(&sample.events, &plan(json!([{"checker": "register"}])));
        assert_eq!(verdict(&findings), Validity::Unknown);
        assert!(findings[0].summary.contains("line 2"), "{}", findings[0].summary);
    }

    #[test]
    fn a_value_of_the_wrong_shape_is_unknown_and_hides_nothing() {
        let mut sample = Sample::new();
        sample.done("consume", "u1", json!({"verdict": "perhaps"}));
        let plan = plan(json!([{"checker": "consume"}]));
        let findings = check_all(&sample.events, &plan);
        assert_eq!(verdict(&findings), Validity::Unknown);
        assert!(findings[0].summary.contains("line 2"), "{}", findings[0].summary);
        for _ in 0..2 {
            sample.done("consume", "u2", json!({"verdict": "accept"}));
        }
        let findings = check_all(&sample.events, &plan);
        assert_eq!(verdict(&findings), Validity::Invalid);
        assert_eq!(findings[0].anomalies.len(), 2);
    }
}
