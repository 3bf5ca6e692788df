//! What opening demands: every record whole, no gap in the log, nothing older than was promised.
//!
//! A store that fails here is refused, never repaired: the other members have what it lacks.

use std::cmp::Ordering;

use super::OpenError;
use super::database::Database;
use super::error::damaged;
use crate::block::{self, Frame};
use crate::medium::Recovered;
use crate::runtime::Vote;
use crate::sidecar::Marks;

/// Walks over the whole log: every block whole, no gap, terms that never go back.
pub(super) fn scan_log(database: &Database, recovered: &mut Recovered) -> Result<(), OpenError> {
    recovered.last = recovered.purged;
    for pair in database.blocks() {
        let (key, value) = pair.map_err(|error| damaged("a block of the log", error))?;
        let first = <[u8; 8]>::try_from(key.as_ref()).map(u64::from_be_bytes);
        let first = first.map_err(|_| damaged("a block of the log", "its key is malformed"))?;
        let name = || format!("the block of the log from entry {first}");
        let frames = block::frames(&value).map_err(|error| damaged(&name(), error))?;
        if frames.first().map(|frame| frame.id.index) != Some(first) {
            return Err(damaged(&name(), "it is filed under another index"));
        }
        for frame in &frames {
            scan_entry(frame, recovered).map_err(|error| match error {
                Scan::Gap(error) => error,
                Scan::Damaged(detail) => damaged(&name(), detail),
            })?;
        }
    }
    // What was purged must be in a snapshot.
    let covered = recovered.snapshot.as_ref().and_then(|record| record.meta.last_log_id);
    if recovered.purged > covered {
        let expected = covered.map_or(0, |id| id.index + 1);
        let found = match recovered.purged {
            Some(purged) => format!("the purged entry {}", purged.index),
            None => "nothing".to_owned(),
        };
        return Err(OpenError::Gap { expected, found });
    }
    Ok(())
}

enum Scan {
    Gap(OpenError),
    Damaged(String),
}

fn scan_entry(frame: &Frame<'_>, recovered: &mut Recovered) -> Result<(), Scan> {
    // A purge leaves blocks behind for a while, and the rest of a block for good.
    if recovered.purged.is_some_and(|purged| frame.id.index <= purged.index) {
        return Ok(());
    }
    let expected = recovered.last.map_or(0, |last| last.index + 1);
    if frame.id.index != expected {
        let found = format!("entry {}", frame.id.index);
        return Err(Scan::Gap(OpenError::Gap { expected, found }));
    }
    if Some(frame.id.leader_id) < recovered.last.map(|last| last.leader_id) {
        return Err(Scan::Damaged(format!("the term goes back at entry {}", frame.id.index)));
    }
    recovered.last = Some(frame.id);
    if let Some(found) = frame.membership().map_err(|error| Scan::Damaged(error.to_string()))? {
        recovered.membership = Some(found);
    }
    Ok(())
}

/// Checks every piece of the snapshot in force.
pub(super) fn scan_snapshot(database: &Database, recovered: &Recovered) -> Result<(), OpenError> {
    let Some(snapshot) = &recovered.snapshot else { return Ok(()) };
    let (mut crc, mut length) = (crc32fast::Hasher::new(), 0);
    for number in 0..snapshot.chunks {
        let name = || format!("piece {number} of snapshot {}", snapshot.generation);
        let chunk = database.read_chunk(snapshot.generation, number);
        let chunk = chunk.map_err(|error| damaged(&name(), error))?;
        crc.update(&chunk);
        length += chunk.len() as u64;
    }
    if (crc.finalize(), length) == (snapshot.crc, snapshot.bytes) {
        Ok(())
    } else {
        let name = format!("snapshot {}", snapshot.generation);
        Err(damaged(&name, "its pieces do not add up"))
    }
}

/// Compares the store with what this node has promised.
pub(super) fn check_age(found: Marks, promised: Marks) -> Result<(), OpenError> {
    if cfg!(mutant = "accept_rolled_back") {
        return Ok(());
    }
    let text = |record: Option<String>| record.unwrap_or_else(|| "none".to_owned());
    let behind =
        |found: Vote, promised: &Vote| found.partial_cmp(promised).is_none_or(Ordering::is_lt);
    if promised.vote.is_some_and(|vote| found.vote.is_none_or(|found| behind(found, &vote))) {
        return Err(OpenError::RolledBack {
            record: "vote",
            found: text(found.vote.map(|vote| vote.to_string())),
            promised: text(promised.vote.map(|vote| vote.to_string())),
        });
    }
    if found.last < promised.last {
        return Err(OpenError::RolledBack {
            record: "last entry",
            found: text(found.last.map(|last| last.to_string())),
            promised: text(promised.last.map(|last| last.to_string())),
        });
    }
    Ok(())
}
