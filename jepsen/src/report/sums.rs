//! What many runs come to: how much was asked, how often each fault acted, what was found.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use super::Results;
use crate::checker::{Finding, Validity};

/// Faults that cut the power, of one host or of all.
const CUTS_OF_ONE: [&str; 3] = ["power-one", "power-leader", "disk-sync-error"];
const CUTS_OF_ALL: [&str; 2] = ["power-all", "power-ending"];

/// The sums over runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    runs: u64,
    valid: u64,
    invalid: u64,
    attempted: u64,
    succeeded: u64,
    racing: u64,
    acknowledged: u64,
    /// By name, how often each acted.
    faults: BTreeMap<String, u64>,
    /// By checker, how many anomalies.
    anomalies: BTreeMap<String, u64>,
}

impl Sums {
    /// Adds a run.
    pub fn add(&mut self, results: &Results) {
        self.runs += 1;
        self.valid += u64::from(results.verdict == Validity::Valid);
        self.invalid += u64::from(results.verdict == Validity::Invalid);
        for finding in &results.findings {
            let figure =
                |name: &str| finding.figures.get(name).and_then(Value::as_u64).unwrap_or(0);
            self.attempted += figure("attempted");
            self.succeeded += figure("succeeded");
            self.racing += figure("racing");
            self.acknowledged += figure("acknowledged");
            if finding.validity == Validity::Invalid {
                *self.anomalies.entry(finding.checker.clone()).or_default() += figure("anomalies");
            }
            self.add_faults(finding);
        }
    }

    fn add_faults(&mut self, coverage: &Finding) {
        for (name, figure) in &coverage.figures {
            if let Some(times) = figure.get("times").and_then(Value::as_u64) {
                *self.faults.entry(name.clone()).or_default() += times;
            }
        }
    }

    fn of(&self, names: &[&str]) -> u64 {
        names.iter().filter_map(|name| self.faults.get(*name)).sum()
    }
}

impl fmt::Display for Sums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unknown = self.runs - self.valid - self.invalid;
        writeln!(
            f,
            "{} runs: {} valid, {} invalid, {unknown} unknown",
            self.runs, self.valid, self.invalid
        )?;
        writeln!(f, "{} operations, {} of them answered", self.attempted, self.succeeded)?;
        writeln!(f, "{} racing attempts to use what may be used once", self.racing)?;
        writeln!(f, "{} acknowledged additions looked for at the end", self.acknowledged)?;
        let (one, all) = (self.of(&CUTS_OF_ONE), self.of(&CUTS_OF_ALL));
        writeln!(f, "{one} power cuts of one node, {all} of all at once")?;
        writeln!(f, "{} faults acted", self.faults.values().sum::<u64>())?;
        for (name, times) in &self.faults {
            writeln!(f, "  {name:20} {times:6}")?;
        }
        for (checker, count) in &self.anomalies {
            writeln!(f, "  {checker}: {count} ANOMALIES")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::report::RunSummary;

    #[test]
    fn runs_add_up() {
        let finding = |checker: &str, figures: Value| Finding {
            checker: checker.to_owned(),
            figures: figures.as_object().expect("figures").clone(),
            ..Finding::harness("", Validity::Valid, String::new())
        };
        let run = |verdict| Results {
            verdict,
            run: RunSummary::default(),
            findings: vec![
                finding("consume", json!({"racing": 7, "attempts": 9})),
                finding("coverage", json!({"faults": 3, "power-one": {"times": 2, "acted": 5}})),
            ],
        };
        let mut sums = Sums::default();
        sums.add(&run(Validity::Valid));
        sums.add(&run(Validity::Unknown));
        let text = sums.to_string();
        assert!(text.starts_with("2 runs: 1 valid, 0 invalid, 1 unknown\n"), "{text}");
        assert!(text.contains("14 racing") && text.contains("4 power cuts of one"), "{text}");
        assert!(!text.contains("ANOMALIES"), "{text}");
    }
}
