//! What a run found, for people: one page that needs no network and no scripts, and the plots and
//! results beside it.
//!
//! A report decides nothing. It shows what the checkers said and where in the history to look.

mod frame;
mod html;
mod sums;
mod svg;
mod timeline;

pub use sums::Sums;

use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::checker::{self, Finding, Validity};
use crate::fault;
use crate::history::Event;
use crate::operation;

/// The file with [`Results`] in the directory of a run.
pub const RESULTS: &str = "results.json";

/// What a reader must know of a run besides its history.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunSummary {
    /// The suite that the run belongs to.
    pub suite: String,
    /// The run within the suite.
    pub name: String,
    /// Everything random follows from it.
    pub seed: u64,
    /// The command that does the same again.
    pub reproduce: String,
    /// When it began, as people write it.
    pub begun: String,
    /// What was tested, as it calls itself.
    pub version: String,
}

/// What is stored of a run that was checked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// The worst of the findings.
    pub verdict: Validity,
    /// The run.
    pub run: RunSummary,
    /// One of each checker.
    pub findings: Vec<Finding>,
}

/// Writes results, plots, timelines and the page into the directory of the run.
///
/// # Errors
/// When a file cannot be written.
pub fn write(
    dir: &Path,
    run: &RunSummary,
    events: &[Event],
    findings: &[Finding],
) -> anyhow::Result<()> {
    let verdict = checker::verdict(findings);
    let results = Results { verdict, run: run.clone(), findings: findings.to_vec() };
    // A malformed history is among the findings; there is nothing to draw then.
    let operations = operation::pairs(events).unwrap_or_default();
    let windows = fault::windows(events);
    let latency = svg::latency(&operations, &windows);
    let rate = svg::rate(&operations, &windows);
    let timelines = timeline::timelines(&operations, findings);
    let page = html::report(&results, &windows, [&latency, &rate], &timelines);
    let files = [
        (RESULTS, serde_json::to_string_pretty(&results)?),
        ("latency.svg", latency),
        ("rate.svg", rate),
        ("timeline.html", html::page(&format!("{}: timelines", run.name), &timelines)),
        ("report.html", page),
    ];
    for (name, text) in files {
        let path = dir.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// `text` where markup is expected.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            // Neither HTML nor XML can hold these.
            control if control.is_control() && !"\n\t".contains(control) => {
                escaped.push('\u{fffd}')
            }
            other => escaped.push(other),
        }
    }
    escaped
}

/// Nanoseconds as seconds.
fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::checker::{Check, Checker, Plan};
    use crate::sample::Sample;

    #[test]
    fn a_report_is_one_page_without_scripts_or_anything_from_elsewhere() {
        let mut sample = Sample::new();
        sample.nemesis("partition", "start", 0);
        sample.done("consume", "u<1>", json!({"verdict": "accept"}));
        sample.done("consume", "u<1>", json!({"verdict": "accept"}));
        sample.nemesis("partition", "stop", 412);
        let plan = Plan { checks: vec![Check::new("", Checker::Consume { budget: 1 })] };
        let findings = checker::check_all(&sample.events, &plan);
        let run = RunSummary {
            name: "passcode & partition".to_owned(),
            seed: 7,
            reproduce: "jepsen run smoke --seed 7".to_owned(),
            ..RunSummary::default()
        };
        let dir = std::env::temp_dir().join(format!("jepsen-report-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory");
        write(&dir, &run, &sample.events, &findings).expect("written");
        let read = |name: &str| fs::read_to_string(dir.join(name)).expect("a file");
        let page = read("report.html");
        for part in ["passcode &amp; partition", "invalid", "--seed 7", "u&lt;1&gt;", "412", "<svg"]
        {
            assert!(page.contains(part), "{part} is missing");
        }
        for foreign in ["<script", "src=", "href=\"http", "@import"] {
            assert!(!page.contains(foreign), "{foreign} is there");
        }
        for name in ["latency.svg", "rate.svg", "timeline.html"] {
            assert!(!read(name).is_empty());
        }
        let results: Results = serde_json::from_str(&read(RESULTS)).expect("results");
        assert_eq!((results.verdict, results.run), (Validity::Invalid, run));
        fs::remove_dir_all(&dir).expect("removed");
    }

    #[test]
    fn what_is_no_text_is_escaped() {
        assert_eq!(escape("a<b & \"c\"\u{0}"), "a&lt;b &amp; &quot;c&quot;\u{fffd}");
    }
}
