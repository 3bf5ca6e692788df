//! `jepsen list`: what there is to run.

use anyhow::Result;
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
/// When a shipped suite is broken.
pub fn run(_args: &ListArgs) -> Result<u8> {
    println!("suites");
    for (name, _) in SHIPPED {
        let suite = Suite::find(name)?;
        println!("  {name:12} {}", suite.about);
        for run in &suite.runs {
            println!("    {:14} {} nodes, {} s", run.name, run.nodes, run.seconds);
        }
    }
    println!("\nworkloads");
    for name in workload::NAMES {
        if let Some(workload) = workload::by_name(name, &Rng::new(0)) {
            println!("  {name:12} {}", workload.about());
        }
    }
    println!("\nnemeses");
    for name in nemesis::list() {
        println!("  {name}");
    }
    Ok(0)
}
