//! The open store: what is written, made durable and read.
//!
//! Nothing that is put counts before [`Storage::commit`]; what is written together is written in one
//! commit.

use std::fs::File;
use std::io;

use openraft::entry::RaftEntry as _;

use super::database::Database;
use crate::block::{self, BlockWriter};
use crate::medium::SnapshotRecord;
use crate::probe::{Probe, Step};
use crate::runtime::{LogId, RaftEntry, Vote};
use crate::sidecar::{Marks, Sidecar};

/// Read at once when the log is read back.
const READ_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The open store.
pub(crate) struct Storage {
    pub(super) database: Database,
    /// Our own descriptor of sled's file, for the sync that sled leaves out.
    pub(super) file: File,
    pub(super) sidecar: Sidecar,
    pub(super) marks: Marks,
    pub(super) purged: Option<LogId>,
    pub(super) committed: Option<LogId>,
    /// The block that is being filled for the next commit.
    pub(super) filling: Option<BlockWriter>,
    pub(super) probe: Probe,
    /// Dropped last: nobody may open the store before the database is closed.
    pub(super) _lock: File,
}

impl Storage {
    /// Adds an entry at the end of the log, not yet durable.
    pub(crate) fn append(&mut self, entry: &RaftEntry) -> io::Result<()> {
        let id = entry.log_id();
        if self.marks.last.is_some_and(|last| id.index != last.index + 1) {
            return Err(io::Error::other(format!("entry {id} would leave a gap in the log")));
        }
        self.marks.last = Some(id);
        let full = match &mut self.filling {
            Some(block) => {
                if block.add(entry).map_err(io::Error::other)? {
                    return Ok(());
                }
                self.filling.take()
            }
            None => None,
        };
        self.filling = Some(BlockWriter::start(entry).map_err(io::Error::other)?);
        full.map_or(Ok(()), |block| self.database.put_block(block))
    }

    /// Replaces the vote, not yet durable.
    pub(crate) fn put_vote(&mut self, vote: Vote) -> io::Result<()> {
        self.database.put_record("vote", &vote)?;
        self.marks.vote = Some(vote);
        Ok(())
    }

    /// Notes how far the log is committed, to be made durable with whatever comes next.
    pub(crate) fn put_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        match committed {
            Some(id) if committed != self.committed => {
                self.database.put_record("committed", &id)?;
                self.committed = committed;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Notes that everything up to `upto` is forgotten, not yet durable. The blocks stay until
    /// [`Storage::remove_blocks`].
    pub(crate) fn put_purged(&mut self, upto: LogId) -> io::Result<()> {
        self.database.put_record("purged", &upto)?;
        self.purged = Some(upto);
        self.marks.last = self.marks.last.max(Some(upto));
        Ok(())
    }

    /// Removes all entries after `after`, durably.
    ///
    /// The sidecar is lowered first: in the other order a crash in between would look like a store
    /// that was rolled back. What is truncated was never committed, so forgetting the promise about
    /// it is right.
    pub(crate) fn truncate(&mut self, after: Option<LogId>) -> io::Result<()> {
        let last = after.max(self.purged);
        if self.marks.last <= last {
            return Ok(());
        }
        self.marks.last = last;
        self.sidecar.write(self.marks)?;
        self.probe.after(Step::Lowered)?;
        let from = last.map_or(0, |last| last.index + 1);
        let rest = match self.database.block_of(from)? {
            Some((_, block)) => shortened(&block, from)?,
            None => None,
        };
        self.database.cut_blocks(from, rest)?;
        self.commit()
    }

    /// Removes some blocks that hold nothing but purged entries; says whether there may be more.
    pub(crate) fn remove_blocks(&mut self, at_most: usize) -> io::Result<bool> {
        let Some(purged) = self.purged else { return Ok(false) };
        let is_end = self.marks.last.is_none_or(|last| last.index <= purged.index);
        self.database.remove_blocks(purged.index, is_end, at_most)
    }

    /// Reads entries from `from` on, up to `to`, or as many as are read at once.
    pub(crate) fn read(&self, from: u64, to: u64) -> io::Result<Vec<RaftEntry>> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        for pair in self.database.blocks_between(from, to)? {
            let (key, block) = pair?;
            let frames = block::frames(&block).map_err(|error| {
                io::Error::other(format!("the block of the log at {key:?} is damaged: {error}"))
            })?;
            for frame in frames.iter().filter(|frame| (from..to).contains(&frame.id.index)) {
                entries.push(frame.entry().map_err(io::Error::other)?);
            }
            bytes += block.len();
            if bytes >= READ_BYTES_MAX {
                break;
            }
        }
        Ok(entries)
    }

    /// Writes a piece of a snapshot, not yet durable.
    pub(crate) fn put_chunk(&self, generation: u64, number: u32, chunk: &[u8]) -> io::Result<()> {
        self.database.put_chunk(generation, number, chunk)
    }

    /// Puts a snapshot in force, not yet durable.
    pub(crate) fn put_snapshot(&self, snapshot: &SnapshotRecord) -> io::Result<()> {
        self.database.put_record("snapshot", snapshot)
    }

    /// Reads one piece of a snapshot.
    pub(crate) fn read_chunk(&self, generation: u64, number: u32) -> io::Result<Vec<u8>> {
        self.database.read_chunk(generation, number)
    }

    /// Removes some pieces of snapshots before `generation`; says whether there may be more.
    pub(crate) fn remove_chunks(&self, generation: u64, at_most: usize) -> io::Result<bool> {
        self.database.remove_chunks(generation, at_most)
    }

    /// Makes everything durable that was written, then moves the sidecar.
    pub(crate) fn commit(&mut self) -> io::Result<()> {
        if let Some(block) = self.filling.take() {
            self.database.put_block(block)?;
        }
        self.probe.after(Step::Written)?;
        self.database.flush()?;
        self.probe.after(Step::Flushed)?;
        self.file.sync_data()?;
        self.probe.after(Step::Synced)?;
        self.sidecar.write(self.marks)?;
        self.probe.after(Step::Marked)
    }

    /// The last entry, or the last purged one.
    pub(crate) fn last(&self) -> Option<LogId> {
        self.marks.last
    }

    /// Lets a test look at every step.
    #[cfg(test)]
    pub(crate) fn set_probe(&mut self, probe: Probe) {
        self.probe = probe;
    }

    /// Removes a block behind everybody's back.
    #[cfg(test)]
    pub(crate) fn lose_block(&self, first: u64) {
        self.database.lose_block(first);
    }
}

/// The part of a block before `from`, as a block; `None` when nothing is left.
fn shortened(block: &[u8], from: u64) -> io::Result<Option<BlockWriter>> {
    let frames = block::frames(block).map_err(io::Error::other)?;
    let mut writer: Option<BlockWriter> = None;
    for frame in frames.iter().filter(|frame| frame.id.index < from) {
        let entry = frame.entry().map_err(io::Error::other)?;
        match &mut writer {
            None => writer = Some(BlockWriter::start(&entry).map_err(io::Error::other)?),
            Some(writer) => {
                writer.add(&entry).map_err(io::Error::other)?;
            }
        }
    }
    Ok(writer)
}
