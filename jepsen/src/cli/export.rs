//! `jepsen export-edn`: a stored history for Knossos, Elle and others.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use super::stored;
use crate::edn;

/// Writes a stored history in Jepsen's EDN.
#[derive(Debug, Args)]
#[command(after_help = "Example: jepsen export-edn store/smoke/20260214T101500-7 -o history.edn")]
pub struct ExportArgs {
    /// Directory of a run, or a history alone.
    #[arg(value_name = "DIR|HISTORY")]
    path: PathBuf,
    /// Where to write; standard output otherwise.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Runs the command and returns the status to exit with.
///
/// # Errors
/// When the history cannot be read, or the output not be written.
pub fn run(args: &ExportArgs) -> anyhow::Result<u8> {
    let (_, events) = stored(&args.path)?;
    match &args.output {
        Some(path) => {
            let file = File::create(path);
            let file = file.with_context(|| format!("cannot write {}", path.display()))?;
            edn::export(&events, BufWriter::new(file))?;
        }
        None => edn::export(&events, BufWriter::new(io::stdout().lock()))?,
    }
    Ok(0)
}
