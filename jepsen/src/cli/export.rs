//! `jepsen export-edn`: a stored history for Knossos, Elle and others.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use super::stored;
use crate::edn;
use crate::history::Process;
use crate::operation;

/// Writes a stored history in Jepsen's EDN.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: jepsen export-edn store/smoke/20260214T101500-7 --keys register/ -o history.edn"
)]
pub struct ExportArgs {
    /// Directory of a run, or a history alone.
    #[arg(value_name = "DIR|HISTORY")]
    path: PathBuf,
    /// Only operations whose keys begin so: a checker takes one kind of operation at a time.
    #[arg(long, value_name = "PREFIX", default_value = "")]
    keys: String,
    /// Where to write; standard output otherwise.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Runs the command and returns the status to exit with.
///
/// # Errors
/// When the history cannot be read, is malformed, or the output cannot be written.
pub fn run(args: &ExportArgs) -> anyhow::Result<u8> {
    let (_, mut events) = stored(&args.path)?;
    operation::pairs(&events)?;
    events.retain(|event| {
        let key = event.key.as_deref().unwrap_or_default();
        matches!(event.process, Process::Nemesis(_)) || key.starts_with(&args.keys)
    });
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
