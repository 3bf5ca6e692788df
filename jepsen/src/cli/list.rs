//! `jepsen list`: what there is to run.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use anyhow::{Context, Result};
use clap::Args;

use crate::nemesis;
use crate::rng::Rng;
use crate::suite::{SHIPPED, Suite};
use crate::workload;

/// Lists suites with their runs, workloads and nemeses.
#[derive(Debug, Args)]
pub struct ListArgs {}

/// Runs the command and returns the status to exit with.
///
/// # Errors
/// When a shipped suite is broken, or the list cannot be written.
pub fn run(_args: &ListArgs) -> Result<u8> {
    let mut list = String::from("suites\n");
    for (name, _) in SHIPPED {
        let suite = Suite::find(name)?;
        writeln!(list, "  {name:12} {}", suite.about)?;
        for run in &suite.runs {
            writeln!(list, "    {:14} {} nodes, {} s", run.name, run.nodes, run.seconds)?;
        }
    }
    list.push_str("\nworkloads\n");
    for name in workload::NAMES {
        if let Some(workload) = workload::by_name(name, &Rng::new(0)) {
            writeln!(list, "  {name:12} {}", workload.about())?;
        }
    }
    list.push_str("\nnemeses\n");
    for name in nemesis::list() {
        writeln!(list, "  {name}")?;
    }
    match io::stdout().write_all(list.as_bytes()) {
        // Whoever reads it has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(0),
        written => written.map(|()| 0).context("the list"),
    }
}
