//! The commands of `jepsen`, one file each.
//!
//! Every command returns the status to exit with: 0 valid, 1 invalid, 3 unknown. What goes wrong
//! with the command itself is an error, and exits with 2, as wrong usage does.

pub mod check;
pub mod export;
pub mod list;
pub mod run;
pub mod sum;

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::history::{self, Event, HISTORY};

/// A stored history, and the directory that its run is in.
fn stored(path: &Path) -> anyhow::Result<(PathBuf, Vec<Event>)> {
    let (dir, file) = if path.is_dir() {
        (path.to_owned(), path.join(HISTORY))
    } else {
        (path.parent().unwrap_or(Path::new("")).to_owned(), path.to_owned())
    };
    let events = history::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok((dir, events))
}
