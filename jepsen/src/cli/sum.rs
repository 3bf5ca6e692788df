//! `jepsen sum`: what stored runs come to.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::report::{RESULTS, Results, Sums};

/// Adds up stored runs: operations, faults that acted, power cuts, anomalies.
#[derive(Debug, Args)]
#[command(after_help = "Example: jepsen sum store/soak store/power")]
pub struct SumArgs {
    /// Directories with runs in them, however deep.
    #[arg(value_name = "DIR", required = true)]
    dirs: Vec<PathBuf>,
}

/// Runs the command and returns the status to exit with.
///
/// # Errors
/// When there is no run, or one cannot be read.
pub fn run(args: &SumArgs) -> Result<u8> {
    let (mut sums, mut runs) = (Sums::default(), 0);
    for dir in &args.dirs {
        visit(dir, &mut |results| {
            runs += 1;
            sums.add(results);
        })?;
    }
    ensure!(runs > 0, "there is no run that has ended");
    write!(io::stdout().lock(), "{sums}")?;
    Ok(0)
}

/// Reads the results of every run in `dir`.
fn visit(dir: &Path, found: &mut dyn FnMut(&Results)) -> Result<()> {
    let named = || dir.display().to_string();
    let results = dir.join(RESULTS);
    if results.exists() {
        let text = fs::read(&results).with_context(named)?;
        found(&serde_json::from_slice(&text).with_context(|| results.display().to_string())?);
        return Ok(());
    }
    for entry in fs::read_dir(dir).with_context(named)? {
        let path = entry?.path();
        if path.is_dir() {
            visit(&path, found)?;
        }
    }
    Ok(())
}
