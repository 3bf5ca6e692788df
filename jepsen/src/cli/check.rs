//! `jepsen check`: a stored history is checked again.
//!
//! Nothing but the history and the plan is used, so whoever doubts a verdict can repeat it, and a
//! new checker can be put to old histories.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use serde::Deserialize;

use super::stored;
use crate::checker::{self, Finding};
use crate::report::{self, RESULTS, Results};
use crate::run::Options;
use crate::workload;

/// How many anomalies of one checker are printed; the report has more.
const PRINTED_MAX: usize = 10;

/// Checks a stored history again.
///
/// Exits with 0 when it is valid, 1 when it is invalid, 3 when that cannot be told.
#[derive(Debug, Args)]
#[command(after_help = "Example: jepsen check store/smoke/20260214T101500-7")]
pub struct CheckArgs {
    /// Directory of a run, or a history alone.
    #[arg(value_name = "DIR|HISTORY")]
    path: PathBuf,
    /// What to check, as `{"checks": [..]}`, instead of the plan in the run's options.
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// Also write results and report of the run anew.
    #[arg(long)]
    report: bool,
    /// Print the findings as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command and returns the status to exit with.
///
/// # Errors
/// When a file cannot be read or written.
pub fn run(args: &CheckArgs) -> anyhow::Result<u8> {
    let (dir, events) = stored(&args.path)?;
    let run = args.path.is_dir().then(|| Options::read(&dir)).transpose()?;
    let plan = match (&args.plan, &run) {
        (Some(file), _) => parse(file)?,
        (None, Some(options)) => options.plan.clone(),
        (None, None) => workload::plan(&events).context(
            "the keys of this history are of no workload; say what to check with --plan",
        )?,
    };
    let mut findings = checker::check_all(&events, &plan.within(&dir));
    if let Some(options) = run {
        let results: Results = parse(&dir.join(RESULTS))?;
        // What only whoever was there can say stays as it was said.
        let names: Vec<String> = options.plan.checks.iter().map(ToString::to_string).collect();
        let seen = results.findings.into_iter().filter(|one| !names.contains(&one.checker));
        findings.extend(seen.filter(|one| one.checker != checker::HISTORY));
        if args.report {
            report::write(&dir, &results.run, &events, &findings)?;
        }
    } else if args.report {
        bail!("--report needs the directory of a run");
    }
    let mut output = io::stdout().lock();
    if args.json {
        writeln!(output, "{}", serde_json::to_string_pretty(&findings)?)?;
    } else {
        print(&mut output, &findings)?;
    }
    Ok(checker::verdict(&findings).exit_status())
}

/// One line per finding, its anomalies below it, and the verdict at the end.
///
/// # Errors
/// When it cannot be written.
pub fn print(output: &mut impl Write, findings: &[Finding]) -> io::Result<()> {
    let width = findings.iter().map(|finding| finding.checker.chars().count()).max().unwrap_or(0);
    for finding in findings {
        let (name, verdict) = (&finding.checker, finding.validity.word());
        writeln!(output, "{verdict:8} {name:width$}  {}", finding.summary)?;
        for anomaly in finding.anomalies.iter().take(PRINTED_MAX) {
            writeln!(output, "         - {anomaly}")?;
        }
        if finding.anomalies.len() > PRINTED_MAX {
            writeln!(output, "         - … and {} more", finding.anomalies.len() - PRINTED_MAX)?;
        }
    }
    writeln!(output, "{}", checker::verdict(findings).word())
}

fn parse<T: for<'a> Deserialize<'a>>(file: &Path) -> anyhow::Result<T> {
    let text = fs::read_to_string(file);
    let text = text.with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not understood", file.display()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::checker::Validity;
    use crate::history::{Event, HISTORY};
    use crate::report::RunSummary;
    use crate::sample::Sample;

    /// The status for a stored run with these events.
    fn status(name: &str, events: &[Event], seen: &[Finding], report: bool) -> anyhow::Result<u8> {
        let path = std::env::temp_dir().join(format!("jepsen-{name}-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        let lines: Vec<String> =
            events.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
        fs::write(path.join(HISTORY), lines.join("\n"))?;
        let options = json!({
            "suite": "smoke", "name": "kill", "seed": 7, "begun": "", "watchword": "", "nodes": 5,
            "seconds": 40, "workloads": [], "nemeses": [], "pace": [3.0, 8.0], "heal_seconds": 30,
            "plan": {"checks": [{"checker": "register"}]},
        });
        serde_json::from_value::<Options>(options)?.write(&path)?;
        report::write(&path, &RunSummary::default(), &[], seen)?;
        let args = CheckArgs { path: path.clone(), plan: None, report, json: false };
        let status = run(&args);
        let results: Results = parse(&path.join(RESULTS))?;
        let written = results.findings.len() > seen.len();
        assert_eq!(report, written, "results are written if that is asked");
        fs::remove_dir_all(&path)?;
        status
    }

    #[test]
    fn the_status_tells_the_verdict() {
        let mut sample = Sample::new();
        assert_eq!(status("unknown", &sample.events, &[], false).expect("checked"), 3);
        sample.done("write", "u1", 1);
        sample.done("read", "u1", 1);
        assert_eq!(status("valid", &sample.events, &[], true).expect("checked"), 0);
        let dead = Finding::harness("healed", Validity::Invalid, "n1 is not ready".to_owned());
        assert_eq!(status("dead", &sample.events, &[dead], true).expect("checked"), 1);
        sample.done("read", "u1", 0);
        assert_eq!(status("invalid", &sample.events, &[], true).expect("checked"), 1);
        let args = CheckArgs { path: "/nonexistent".into(), plan: None, report: false, json: true };
        assert!(run(&args).is_err());
    }
}
