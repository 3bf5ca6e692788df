//! Trees, keys and records in sled. This is the only file that names sled.
//!
//! ```text
//! tree "log"         first index (big endian) -> block, see `block`
//! tree "meta"        "identity" "vote" "purged" "committed" "snapshot" -> record
//! tree "snapshots"   generation, number (big endian) -> record with a piece
//! ```
//!
//! It knows how things are filed, not what they mean; nothing is durable before it is flushed and
//! the file is synced.

use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use watchword_core::codec;

use super::OpenError;
use super::error::damaged;
use crate::block::BlockWriter;
use crate::record;

/// sled keeps up to 17 values in a leaf (20 after a merge) and rewrites the leaf as one item. An item
/// longer than a quarter of a segment goes into a file of its own, without a sync. A segment of 8 MiB
/// leaves room for 31 entries of the longest kind.
const SEGMENT_BYTES: usize = 8 * 1024 * 1024;
/// sled's page cache. The recent log is cached decoded elsewhere, so this only has to hold the pages
/// that are being written.
const CACHE_BYTES: u64 = 4 * 1024 * 1024;
/// Memory that decoding a small record may claim.
const RECORD_MEMORY_MAX: usize = 1024 * 1024;

/// The file in the database's directory that holds everything.
pub(super) const FILE: &str = "db";

const LOG: &str = "log";
const META: &str = "meta";
const SNAPSHOTS: &str = "snapshots";

/// The open database.
pub(super) struct Database {
    db: sled::Db,
    log: sled::Tree,
    meta: sled::Tree,
    snapshots: sled::Tree,
}

impl Database {
    /// Makes an empty one.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let db = open_database(path).map_err(io_error)?;
        let (log, meta) = (open_tree(&db, LOG)?, open_tree(&db, META)?);
        let snapshots = open_tree(&db, SNAPSHOTS)?;
        Ok(Self { db, log, meta, snapshots })
    }

    /// Opens one that was made before, also after an opening that was cut off. `failed` says where
    /// the file system failed.
    pub(super) fn open(
        path: &Path,
        failed: impl Fn(io::Error) -> OpenError,
    ) -> Result<Self, OpenError> {
        remove_begun_notes(path).map_err(&failed)?;
        let db = open_database(path).map_err(|error| match error {
            sled::Error::Io(source) => failed(source),
            other => damaged("the database", other),
        })?;
        let tree = |name| {
            let known = db.tree_names().iter().any(|one| *one == name);
            let missing = || damaged(&format!("tree {name:?}"), "it is missing");
            known.then(|| open_tree(&db, name).map_err(&failed)).ok_or_else(missing)?
        };
        let (log, meta, snapshots) = (tree(LOG)?, tree(META)?, tree(SNAPSHOTS)?);
        Ok(Self { db, log, meta, snapshots })
    }

    /// Hands everything that was written to the operating system.
    pub(super) fn flush(&self) -> io::Result<()> {
        self.db.flush().map(drop).map_err(io_error)
    }

    /// Replaces the record of this name.
    pub(super) fn put_record<T: Serialize>(&self, name: &str, value: &T) -> io::Result<()> {
        let bytes = codec::encode(value).map_err(io::Error::other)?;
        self.meta.insert(name, record::seal(&bytes)).map(drop).map_err(io_error)
    }

    /// Reads the record of this name.
    pub(super) fn read_record<T: DeserializeOwned>(
        &self,
        name: &str,
    ) -> Result<Option<T>, OpenError> {
        let record = format!("record {name:?}");
        let Some(stored) = self.meta.get(name).map_err(|error| damaged(&record, error))? else {
            return Ok(None);
        };
        let bytes =
            record::open(&stored).ok_or_else(|| damaged(&record, "its checksum is wrong"))?;
        let value = codec::decode::<T, RECORD_MEMORY_MAX>(bytes);
        value.map(Some).map_err(|error| damaged(&record, error))
    }

    /// Files a block of the log under its first index.
    pub(super) fn put_block(&self, block: BlockWriter) -> io::Result<()> {
        let (first, block) = block.finish();
        self.log.insert(first.to_be_bytes(), block).map(drop).map_err(io_error)
    }

    /// All blocks of the log in their order, each with its key.
    pub(super) fn blocks(&self) -> sled::Iter {
        self.log.iter()
    }

    /// The block that begins at or before `index`, with its key.
    pub(super) fn block_of(&self, index: u64) -> io::Result<Option<(sled::IVec, sled::IVec)>> {
        self.log.range(..=index.to_be_bytes()).next_back().transpose().map_err(io_error)
    }

    /// The blocks that may hold entries from `from` on, up to `to`, each with its key.
    pub(super) fn blocks_between(
        &self,
        from: u64,
        to: u64,
    ) -> io::Result<impl Iterator<Item = io::Result<(sled::IVec, sled::IVec)>>> {
        let start = self
            .block_of(from)?
            .map_or_else(|| sled::IVec::from(&from.to_be_bytes()), |(key, _)| key);
        let blocks = self.log.range(start..sled::IVec::from(&to.to_be_bytes()));
        Ok(blocks.map(|pair| pair.map_err(io_error)))
    }

    /// Puts `rest` in the place of the block that it is the beginning of, and removes all blocks that
    /// begin at `from` or later; both or neither.
    pub(super) fn cut_blocks(&self, from: u64, rest: Option<BlockWriter>) -> io::Result<()> {
        let mut batch = sled::Batch::default();
        if let Some(rest) = rest {
            let (first, block) = rest.finish();
            batch.insert(&first.to_be_bytes(), block);
        }
        for key in self.log.range(from.to_be_bytes()..).keys() {
            batch.remove(key.map_err(io_error)?);
        }
        self.log.apply_batch(batch).map_err(io_error)
    }

    /// Removes some blocks that hold nothing after `upto`; says whether there may be more.
    /// `is_end`: no entry follows.
    pub(super) fn remove_blocks(
        &self,
        upto: u64,
        is_end: bool,
        at_most: usize,
    ) -> io::Result<bool> {
        let next = upto.saturating_add(1).to_be_bytes();
        let mut batch = sled::Batch::default();
        let mut removed = 0;
        let mut keys = self.log.range(..=upto.to_be_bytes()).keys().peekable();
        while let Some(key) = keys.next().transpose().map_err(io_error)? {
            // A block ends where the next begins.
            let ends_before_next = match keys.peek() {
                Some(_) => true,
                None => is_end || self.log.contains_key(next).map_err(io_error)?,
            };
            if !ends_before_next || removed == at_most {
                break;
            }
            batch.remove(key);
            removed += 1;
        }
        self.log.apply_batch(batch).map_err(io_error)?;
        Ok(removed == at_most)
    }

    /// Files one piece of a snapshot.
    pub(super) fn put_chunk(&self, generation: u64, number: u32, chunk: &[u8]) -> io::Result<()> {
        let key = chunk_key(generation, number);
        self.snapshots.insert(key, record::seal(chunk)).map(drop).map_err(io_error)
    }

    /// Reads one piece of a snapshot.
    pub(super) fn read_chunk(&self, generation: u64, number: u32) -> io::Result<Vec<u8>> {
        let stored = self.snapshots.get(chunk_key(generation, number)).map_err(io_error)?;
        let stored = stored.ok_or_else(|| io::Error::other("it is missing"))?;
        let chunk = record::open(&stored);
        chunk.map(<[u8]>::to_vec).ok_or_else(|| io::Error::other("its checksum does not match"))
    }

    /// Removes some pieces of snapshots before `generation`; says whether there may be more.
    pub(super) fn remove_chunks(&self, generation: u64, at_most: usize) -> io::Result<bool> {
        let mut batch = sled::Batch::default();
        let mut removed = 0;
        for key in self.snapshots.range(..chunk_key(generation, 0)).keys().take(at_most) {
            batch.remove(key.map_err(io_error)?);
            removed += 1;
        }
        self.snapshots.apply_batch(batch).map_err(io_error)?;
        Ok(removed == at_most)
    }

    /// Removes a block behind everybody's back.
    #[cfg(test)]
    pub(super) fn lose_block(&self, first: u64) {
        self.log.remove(first.to_be_bytes()).expect("removed");
        self.flush().expect("flushed");
    }
}

fn chunk_key(generation: u64, number: u32) -> Vec<u8> {
    [generation.to_be_bytes().as_slice(), &number.to_be_bytes()].concat()
}

/// Removes what an opening that was cut off has begun to write.
///
/// When it opens, sled notes where its log ends, in `snap.N.generating`, which it syncs, renames to
/// `snap.N`, and only then removes the earlier `snap.M`. A full disk or a power cut leaves it begun;
/// sled would take it for the newest, and itself for damaged, for ever. Nothing depends on it: the
/// earlier note is there until the rename, and without any the whole log is read.
fn remove_begun_notes(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn open_database(path: &Path) -> sled::Result<sled::Db> {
    sled::Config::new()
        .path(path)
        .segment_size(SEGMENT_BYTES)
        .cache_capacity(CACHE_BYTES)
        .mode(sled::Mode::HighThroughput)
        .flush_every_ms(None)
        .open()
}

fn open_tree(db: &sled::Db, name: &str) -> io::Result<sled::Tree> {
    db.open_tree(name).map_err(io_error)
}

fn io_error(error: sled::Error) -> io::Error {
    match error {
        sled::Error::Io(error) => error,
        other => io::Error::other(other.to_string()),
    }
}
