//! The durable store: log, vote and snapshot in sled, the sidecar beside it.
//!
//! This is the only file that names sled. It does one thing at a time and knows no threads or
//! futures; [`crate::disk`] decides what is written together. What sled is trusted with, and what
//! not, is told in DESIGN.md; the rules kept here are:
//!
//! * a change counts as made after [`Storage::commit`], which flushes sled's buffers, syncs the file
//!   through a descriptor of our own (sled's flush does not) and then writes the sidecar;
//! * every record carries our checksum, and opening reads every one of them;
//! * no value is so long that sled would move it into a file of its own, which it never syncs.
//!
//! ```text
//! data_dir/raft.lock          held while the store is open
//! data_dir/raft/sled/         the database
//!   tree "log"                first index (big endian) -> block, see `block`
//!   tree "meta"               "identity" "vote" "purged" "committed" "snapshot" -> record
//!   tree "snapshots"          generation, number (big endian) -> record with a piece
//! data_dir/raft/sidecar       see `sidecar`
//! ```

use std::cmp::Ordering;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use openraft::entry::RaftEntry as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use watchword_core::codec;

use crate::block::{self, BlockWriter, Frame};
use crate::contain::contain;
use crate::medium::{Recovered, SnapshotRecord};
use crate::probe::{Probe, Step};
use crate::record;
use crate::runtime::{LogId, NodeId, RaftEntry, Vote};
use crate::sidecar::{Marks, Sidecar, SidecarError};

/// sled keeps up to 17 values in a leaf (20 after a merge) and rewrites the leaf as one item. An item
/// longer than a quarter of a segment goes into a file of its own, without a sync. A segment of 8 MiB
/// leaves room for 31 entries of the longest kind.
const SEGMENT_BYTES: usize = 8 * 1024 * 1024;
/// sled's page cache. The recent log is cached decoded elsewhere, so this only has to hold the pages
/// that are being written.
const CACHE_BYTES: u64 = 4 * 1024 * 1024;
/// Length of the pieces of a snapshot; small for the same reason as blocks are.
pub(crate) const CHUNK_BYTES: usize = 4096;
/// Read at once when the log is read back.
const READ_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Memory that decoding a small record may claim.
const RECORD_MEMORY_MAX: usize = 1024 * 1024;

const STORE: &str = "raft";
const UNFINISHED: &str = "raft.new";
const LOCK: &str = "raft.lock";
const DATABASE: &str = "sled";
const SIDECAR: &str = "sidecar";
const REMOVED: &str = "removed";

/// Why a store cannot be created or opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Nothing was created here yet.
    #[error("there is no store in {}", .0.display())]
    Missing(PathBuf),
    /// Something was created here already.
    #[error("there is a store in {} already", .0.display())]
    Exists(PathBuf),
    /// Another process, or another part of this one, has it open.
    #[error("the store in {} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// It is another node's.
    #[error("the store belongs to node {found}, not to node {expected}")]
    WrongNode {
        /// Whose it is.
        found: NodeId,
        /// Who asked.
        expected: NodeId,
    },
    /// The node was told so by a member.
    #[error("this node was removed from the cluster; empty its data directory to join again")]
    Removed,
    /// A record is not what was written.
    #[error(
        "the store is damaged: {record}: {detail}; this node must not run on it, rebuild it from \
         the other members"
    )]
    Damaged {
        /// Which record.
        record: String,
        /// What is wrong with it.
        detail: String,
    },
    /// Entries are missing.
    #[error(
        "the log has a gap: entry {expected} is missing, {found} follows; this node must not run on \
         it, rebuild it from the other members"
    )]
    Gap {
        /// Index of the first missing entry.
        expected: u64,
        /// What is there instead.
        found: String,
    },
    /// The store is older than what this node has promised.
    #[error(
        "the store was rolled back: the {record} in it is {found}, but {promised} was acknowledged; \
         this node must not run on it, rebuild it from the other members"
    )]
    RolledBack {
        /// Which record.
        record: &'static str,
        /// What the store holds.
        found: String,
        /// What the sidecar says.
        promised: String,
    },
    /// The file system or the database failed.
    #[error("the store in {} cannot be opened", dir.display())]
    Io {
        /// Where it is.
        dir: PathBuf,
        /// What failed.
        source: io::Error,
    },
    /// The replication could not be started on what was read.
    #[error("the replication cannot be started: {0}")]
    Raft(String),
    /// The timing contradicts itself.
    #[error("the replication's timing is unusable: {0}")]
    Timing(String),
}

/// The file that says that this node was removed from its cluster.
pub(crate) fn removed_marker(data_dir: &Path) -> PathBuf {
    data_dir.join(STORE).join(REMOVED)
}

/// Whose store it is.
#[derive(Serialize, Deserialize)]
struct Identity {
    node_id: NodeId,
}

/// The open store.
pub(crate) struct Storage {
    db: sled::Db,
    log: sled::Tree,
    meta: sled::Tree,
    snapshots: sled::Tree,
    /// Our own descriptor of sled's file, for the sync that sled leaves out.
    file: File,
    sidecar: Sidecar,
    marks: Marks,
    purged: Option<LogId>,
    committed: Option<LogId>,
    /// The block that is being filled for the next commit.
    filling: Option<BlockWriter>,
    probe: Probe,
    /// Dropped last: nobody may open the store before the database is closed.
    _lock: File,
}

/// Makes a store that holds `first` as its only entry, or none, for a node that is to join.
///
/// It is built under another name and renamed when it is complete and durable.
pub(crate) fn create(
    data_dir: &Path,
    node_id: NodeId,
    first: Option<&RaftEntry>,
) -> Result<(), OpenError> {
    let (store, unfinished) = (data_dir.join(STORE), data_dir.join(UNFINISHED));
    let failed = |source| OpenError::Io { dir: store.clone(), source };
    fs::create_dir_all(data_dir).map_err(failed)?;
    let _lock = lock(data_dir)?;
    if store.try_exists().map_err(failed)? {
        return Err(OpenError::Exists(store));
    }
    if unfinished.try_exists().map_err(failed)? {
        fs::remove_dir_all(&unfinished).map_err(failed)?;
    }
    // Secrets in it are sealed, but who belongs to the cluster is nobody's business.
    fs::DirBuilder::new().mode(0o700).create(&unfinished).map_err(failed)?;
    contain(|| fill(&unfinished, node_id, first))
        .unwrap_or_else(|panic| Err(io::Error::other(panic)))
        .map_err(failed)?;
    fs::rename(&unfinished, &store).map_err(failed)?;
    sync_dir(data_dir).map_err(failed)?;
    // The entry of `data_dir` itself may be as new as the store.
    data_dir.parent().map_or(Ok(()), sync_dir).map_err(failed)
}

fn fill(dir: &Path, node_id: NodeId, first: Option<&RaftEntry>) -> io::Result<()> {
    let db = open_database(&dir.join(DATABASE)).map_err(io_error)?;
    let identity = codec::encode(&Identity { node_id }).map_err(io::Error::other)?;
    open_tree(&db, "meta")?.insert("identity", record::seal(&identity)).map_err(io_error)?;
    let log = open_tree(&db, "log")?;
    if let Some(first) = first {
        let (start, block) = BlockWriter::start(first).map_err(io::Error::other)?.finish();
        log.insert(start.to_be_bytes(), block).map_err(io_error)?;
    }
    drop((log, open_tree(&db, "snapshots")?));
    db.flush().map_err(io_error)?;
    drop(db);
    for entry in fs::read_dir(dir.join(DATABASE))? {
        let path = entry?.path();
        File::open(&path)?.sync_all()?;
    }
    let marks = Marks { vote: None, last: first.map(|first| first.log_id()) };
    Sidecar::create(&dir.join(SIDECAR), node_id, marks)?;
    sync_dir(&dir.join(DATABASE))?;
    sync_dir(dir)
}

/// Opens the store and checks every record in it.
pub(crate) fn open(
    data_dir: &Path,
    node_id: Option<NodeId>,
) -> Result<(Storage, Recovered), OpenError> {
    let dir = data_dir.join(STORE);
    let failed = |source| OpenError::Io { dir: dir.clone(), source };
    if !dir.try_exists().map_err(failed)? {
        return Err(OpenError::Missing(dir));
    }
    let lock = lock(data_dir)?;
    if removed_marker(data_dir).try_exists().map_err(failed)? {
        return Err(OpenError::Removed);
    }
    // sled would quietly make a new database where it finds none.
    let file = dir.join(DATABASE).join("db");
    if !file.try_exists().map_err(failed)? {
        return Err(damaged("the database", "its file is missing"));
    }
    contain(|| open_checked(&dir, node_id, lock))
        .unwrap_or_else(|panic| Err(damaged("the database", panic)))
}

fn open_checked(
    dir: &Path,
    node_id: Option<NodeId>,
    lock: File,
) -> Result<(Storage, Recovered), OpenError> {
    let failed = |source| OpenError::Io { dir: dir.to_owned(), source };
    let path = dir.join(DATABASE);
    // `raft.lock` keeps other processes away: whoever still holds sled's own lock is a worker of a
    // database that this process has just closed, and lets go in a moment.
    let file = File::open(path.join("db")).map_err(failed)?;
    file.lock().map_err(failed)?;
    file.unlock().map_err(failed)?;
    let db = open_database(&path).map_err(|error| match error {
        sled::Error::Io(source) => failed(source),
        other => damaged("the database", other),
    })?;
    let tree = |name| {
        let known = db.tree_names().iter().any(|one| *one == name);
        let missing = || damaged(&format!("tree {name:?}"), "it is missing");
        known.then(|| open_tree(&db, name).map_err(failed)).ok_or_else(missing)?
    };
    let (log, meta, snapshots) = (tree("log")?, tree("meta")?, tree("snapshots")?);

    let identity: Identity =
        read_meta(&meta, "identity")?.ok_or_else(|| damaged("record \"identity\"", "missing"))?;
    let expected = node_id.unwrap_or(identity.node_id);
    if identity.node_id != expected {
        return Err(OpenError::WrongNode { found: identity.node_id, expected });
    }
    let sidecar = Sidecar::open(&dir.join(SIDECAR), expected).map_err(|error| match error {
        SidecarError::Io(source) => failed(source),
        other => damaged("the sidecar", other),
    })?;
    let mut recovered = Recovered {
        vote: read_meta(&meta, "vote")?,
        purged: read_meta(&meta, "purged")?,
        committed: read_meta(&meta, "committed")?,
        snapshot: read_meta(&meta, "snapshot")?,
        ..Recovered::default()
    };
    scan_log(&log, &mut recovered)?;
    scan_snapshots(&snapshots, &recovered)?;
    let marks = Marks { vote: recovered.vote, last: recovered.last };
    check_age(marks, sidecar.marks())?;

    let storage = Storage {
        db,
        log,
        meta,
        snapshots,
        file,
        sidecar,
        marks,
        purged: recovered.purged,
        committed: recovered.committed,
        filling: None,
        probe: Probe::none(),
        _lock: lock,
    };
    Ok((storage, recovered))
}

/// Walks over the whole log: every block whole, no gap, terms that never go back.
fn scan_log(log: &sled::Tree, recovered: &mut Recovered) -> Result<(), OpenError> {
    recovered.last = recovered.purged;
    for pair in log {
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
fn scan_snapshots(snapshots: &sled::Tree, recovered: &Recovered) -> Result<(), OpenError> {
    let Some(snapshot) = &recovered.snapshot else { return Ok(()) };
    let (mut crc, mut length) = (crc32fast::Hasher::new(), 0);
    for number in 0..snapshot.chunks {
        let name = || format!("piece {number} of snapshot {}", snapshot.generation);
        let chunk = read_chunk(snapshots, snapshot.generation, number);
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
fn check_age(found: Marks, promised: Marks) -> Result<(), OpenError> {
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
        full.map_or(Ok(()), |block| self.put_block(block))
    }

    fn put_block(&self, block: BlockWriter) -> io::Result<()> {
        let (first, block) = block.finish();
        self.log.insert(first.to_be_bytes(), block).map(drop).map_err(io_error)
    }

    /// Replaces the vote, not yet durable.
    pub(crate) fn put_vote(&mut self, vote: Vote) -> io::Result<()> {
        self.put_meta("vote", &vote)?;
        self.marks.vote = Some(vote);
        Ok(())
    }

    /// Notes how far the log is committed, to be made durable with whatever comes next.
    pub(crate) fn put_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        match committed {
            Some(id) if committed != self.committed => {
                self.put_meta("committed", &id)?;
                self.committed = committed;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Notes that everything up to `upto` is forgotten, not yet durable. The blocks stay until
    /// [`Storage::remove_blocks`].
    pub(crate) fn put_purged(&mut self, upto: LogId) -> io::Result<()> {
        self.put_meta("purged", &upto)?;
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
        let mut batch = sled::Batch::default();
        if let Some((key, block)) = self.block_of(from)? {
            let frames = block::frames(&block).map_err(io::Error::other)?;
            if let Some(rest) = shortened(&frames, from)? {
                batch.insert(key.as_ref(), rest);
            }
        }
        for key in self.log.range(from.to_be_bytes()..).keys() {
            batch.remove(key.map_err(io_error)?);
        }
        self.log.apply_batch(batch).map_err(io_error)?;
        self.commit()
    }

    /// The block that begins at or before `index`.
    fn block_of(&self, index: u64) -> io::Result<Option<(sled::IVec, sled::IVec)>> {
        self.log.range(..=index.to_be_bytes()).next_back().transpose().map_err(io_error)
    }

    /// Removes some blocks that hold nothing but purged entries; says whether there may be more.
    pub(crate) fn remove_blocks(&mut self, at_most: usize) -> io::Result<bool> {
        let Some(purged) = self.purged else { return Ok(false) };
        let all_purged = self.marks.last.is_none_or(|last| last.index <= purged.index);
        let mut batch = sled::Batch::default();
        let mut removed = 0;
        let mut keys = self.log.range(..=purged.index.to_be_bytes()).keys().peekable();
        while let Some(key) = keys.next().transpose().map_err(io_error)? {
            // A block ends where the next begins.
            let ends_purged = match keys.peek() {
                Some(_) => true,
                None => all_purged || self.log.contains_key(next_key(purged)).map_err(io_error)?,
            };
            if !ends_purged || removed == at_most {
                break;
            }
            batch.remove(key);
            removed += 1;
        }
        self.log.apply_batch(batch).map_err(io_error)?;
        Ok(removed == at_most)
    }

    /// Reads entries from `from` on, up to `to`, or as many as are read at once.
    pub(crate) fn read(&self, from: u64, to: u64) -> io::Result<Vec<RaftEntry>> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        let start = self
            .block_of(from)?
            .map_or_else(|| sled::IVec::from(&from.to_be_bytes()), |(key, _)| key);
        for pair in self.log.range(start..sled::IVec::from(&to.to_be_bytes())) {
            let (key, block) = pair.map_err(io_error)?;
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
        let key = chunk_key(generation, number);
        self.snapshots.insert(key, record::seal(chunk)).map(drop).map_err(io_error)
    }

    /// Puts a snapshot in force, not yet durable.
    pub(crate) fn put_snapshot(&self, snapshot: &SnapshotRecord) -> io::Result<()> {
        self.put_meta("snapshot", snapshot)
    }

    /// Reads one piece of a snapshot.
    pub(crate) fn read_chunk(&self, generation: u64, number: u32) -> io::Result<Vec<u8>> {
        read_chunk(&self.snapshots, generation, number)
    }

    /// Removes some pieces of snapshots before `generation`; says whether there may be more.
    pub(crate) fn remove_chunks(&self, generation: u64, at_most: usize) -> io::Result<bool> {
        let mut batch = sled::Batch::default();
        let mut removed = 0;
        for key in self.snapshots.range(..chunk_key(generation, 0)).keys().take(at_most) {
            batch.remove(key.map_err(io_error)?);
            removed += 1;
        }
        self.snapshots.apply_batch(batch).map_err(io_error)?;
        Ok(removed == at_most)
    }

    /// Makes everything durable that was written, then moves the sidecar.
    pub(crate) fn commit(&mut self) -> io::Result<()> {
        if let Some(block) = self.filling.take() {
            self.put_block(block)?;
        }
        self.probe.after(Step::Written)?;
        self.db.flush().map_err(io_error)?;
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
        self.log.remove(first.to_be_bytes()).expect("removed");
        self.db.flush().expect("flushed");
    }

    fn put_meta<T: Serialize>(&self, name: &str, value: &T) -> io::Result<()> {
        let bytes = codec::encode(value).map_err(io::Error::other)?;
        self.meta.insert(name, record::seal(&bytes)).map(drop).map_err(io_error)
    }
}

/// The part of a block before `from`, as a block; `None` when nothing is left.
fn shortened(frames: &[Frame<'_>], from: u64) -> io::Result<Option<Vec<u8>>> {
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
    Ok(writer.map(|writer| writer.finish().1))
}

fn next_key(id: LogId) -> [u8; 8] {
    id.index.saturating_add(1).to_be_bytes()
}

fn chunk_key(generation: u64, number: u32) -> Vec<u8> {
    [generation.to_be_bytes().as_slice(), &number.to_be_bytes()].concat()
}

fn read_chunk(snapshots: &sled::Tree, generation: u64, number: u32) -> io::Result<Vec<u8>> {
    let stored = snapshots.get(chunk_key(generation, number)).map_err(io_error)?;
    let stored = stored.ok_or_else(|| io::Error::other("it is missing"))?;
    let chunk = record::open(&stored);
    chunk.map(<[u8]>::to_vec).ok_or_else(|| io::Error::other("its checksum does not match"))
}

fn read_meta<T: DeserializeOwned>(meta: &sled::Tree, name: &str) -> Result<Option<T>, OpenError> {
    let record = format!("record {name:?}");
    let Some(stored) = meta.get(name).map_err(|error| damaged(&record, error))? else {
        return Ok(None);
    };
    let bytes = record::open(&stored).ok_or_else(|| damaged(&record, "its checksum is wrong"))?;
    let value = codec::decode::<T, RECORD_MEMORY_MAX>(bytes);
    value.map(Some).map_err(|error| damaged(&record, error))
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

fn lock(data_dir: &Path) -> Result<File, OpenError> {
    let failed = |source| OpenError::Io { dir: data_dir.join(STORE), source };
    let path = data_dir.join(LOCK);
    let file = File::options().write(true).create(true).truncate(false).open(path);
    let file = file.map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(OpenError::InUse(data_dir.join(STORE))),
        Err(fs::TryLockError::Error(source)) => Err(failed(source)),
    }
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    File::open(dir)?.sync_all()
}

fn io_error(error: sled::Error) -> io::Error {
    match error {
        sled::Error::Io(error) => error,
        other => io::Error::other(other.to_string()),
    }
}

fn damaged(record: &str, detail: impl ToString) -> OpenError {
    OpenError::Damaged { record: record.to_owned(), detail: detail.to_string() }
}
