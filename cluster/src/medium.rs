//! What the log and the snapshots are kept on: a disk, or memory that forgets what was not synced.
//!
//! Both take the same requests, answer in the order of the requests that change something, and
//! answer a change only when it would survive a crash. [`crate::log_store`] and
//! [`crate::snapshot`] know nothing else about them.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use openraft::storage::IOFlushed;
use openraft::type_config::TypeConfigExt;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::disk::Disk;
use crate::memory::MemoryDisk;
use crate::runtime::{LogId, RaftEntry, SnapshotMeta, StoredMembership, TypeConfig, Vote};

/// Where a result goes. Nobody may be waiting any more.
pub(crate) type Answer<T> = oneshot::Sender<io::Result<T>>;

/// Something to do, in order.
pub(crate) enum Request {
    /// Adds consecutive entries at the end of the log.
    Append {
        /// The entries.
        entries: Vec<RaftEntry>,
        /// Told when they are durable.
        done: IOFlushed<TypeConfig>,
    },
    /// Replaces the vote.
    Vote {
        /// The vote.
        vote: Vote,
        /// Told when it is durable.
        done: Answer<()>,
    },
    /// Removes all entries after one.
    Truncate {
        /// The last that stays; `None` removes all.
        after: Option<LogId>,
        /// Told when it is durable.
        done: Answer<()>,
    },
    /// Forgets all entries up to one, included.
    Purge {
        /// The last to forget. The log may end before it.
        upto: LogId,
        /// Told when it is durable.
        done: Answer<()>,
    },
    /// Reads entries: all that there are between two indexes, or only the first of them.
    Read {
        /// Index of the first.
        from: u64,
        /// Index after the last.
        to: u64,
        /// Gets them; empty when there is none at `from`.
        answer: Answer<Vec<RaftEntry>>,
    },
    /// Writes pieces of a snapshot that is not in force yet.
    PutChunks {
        /// Generation of the snapshot.
        generation: u64,
        /// Number of the first piece.
        first: u32,
        /// The pieces.
        chunks: Vec<Vec<u8>>,
        /// Told when they are durable.
        done: Answer<()>,
    },
    /// Puts a snapshot in force whose pieces are all written; others are removed.
    PutSnapshot {
        /// The snapshot.
        record: SnapshotRecord,
        /// Told when it is durable.
        done: Answer<()>,
    },
    /// Reads one piece of a snapshot.
    ReadChunk {
        /// Generation of the snapshot.
        generation: u64,
        /// Number of the piece.
        number: u32,
        /// Gets the piece.
        answer: Answer<Vec<u8>>,
    },
    /// Finishes what was asked before and closes the store.
    Close {
        /// Told when it is closed.
        done: Answer<()>,
    },
}

impl Request {
    /// Refuses the request.
    pub(crate) fn refuse(self, reason: &str) {
        let error = || io::Error::other(reason.to_owned());
        match self {
            Self::Append { done, .. } => done.io_completed(Err(error())),
            Self::Vote { done, .. }
            | Self::Truncate { done, .. }
            | Self::Purge { done, .. }
            | Self::PutChunks { done, .. }
            | Self::PutSnapshot { done, .. }
            | Self::Close { done } => answer(done, Err(error())),
            Self::Read { answer: to, .. } => answer(to, Err(error())),
            Self::ReadChunk { answer: to, .. } => answer(to, Err(error())),
        }
    }
}

/// Sends `result`. That nobody waits for it any more is no failure: the work was done.
pub(crate) fn answer<T>(to: Answer<T>, result: io::Result<T>) {
    drop(to.send(result));
}

/// The snapshot in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotRecord {
    /// Counts the snapshots that were ever begun on this node.
    pub(crate) generation: u64,
    /// What it covers.
    pub(crate) meta: SnapshotMeta,
    /// Length of the encoded state.
    pub(crate) bytes: u64,
    /// Number of its pieces.
    pub(crate) chunks: u32,
    /// CRC-32 of the whole encoded state.
    pub(crate) crc: u32,
}

/// What a medium holds when it is opened.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recovered {
    /// The vote, if one was ever given.
    pub(crate) vote: Option<Vote>,
    /// The last entry that was purged.
    pub(crate) purged: Option<LogId>,
    /// The last entry known to be committed, at least.
    pub(crate) committed: Option<LogId>,
    /// The last entry, or the last purged one.
    pub(crate) last: Option<LogId>,
    /// The last membership in the log.
    pub(crate) membership: Option<StoredMembership>,
    /// The snapshot in force.
    pub(crate) snapshot: Option<SnapshotRecord>,
}

impl Recovered {
    /// The membership in force: the last in the log, committed or not, else the snapshot's.
    pub(crate) fn effective_membership(&self) -> Option<&StoredMembership> {
        let snapshot = self.snapshot.as_ref().map(|record| &record.meta.last_membership);
        self.membership.as_ref().into_iter().chain(snapshot).max_by_key(|one| *one.log_id())
    }
}

/// What a medium tells without being asked, and what it picks up by the way.
#[derive(Default)]
pub(crate) struct Progress {
    /// Index after the last entry that can be read back from the medium.
    written: AtomicU64,
    /// Written along with the next group; see [`crate::log_store`] on why that is enough.
    committed: Mutex<Option<LogId>>,
    /// Why the medium accepts nothing any more.
    fault: OnceLock<String>,
}

impl Progress {
    pub(crate) fn new(last: Option<LogId>, committed: Option<LogId>) -> Self {
        let progress = Self::default();
        progress.set_written(last);
        progress.set_committed(committed);
        progress
    }

    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    pub(crate) fn set_written(&self, last: Option<LogId>) {
        self.written.store(last.map_or(0, |last| last.index + 1), Ordering::Release);
    }

    pub(crate) fn committed(&self) -> Option<LogId> {
        *self.committed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_committed(&self, committed: Option<LogId>) {
        *self.committed.lock().unwrap_or_else(PoisonError::into_inner) = committed;
    }

    pub(crate) fn fault(&self) -> Option<&str> {
        self.fault.get().map(String::as_str)
    }

    /// The first fault stays: what follows it are consequences.
    pub(crate) fn set_fault(&self, fault: String) {
        if self.fault.set(fault).is_ok() {
            tracing::error!(fault = self.fault(), "the store failed; this node stops");
        }
    }
}

/// One of the two.
#[derive(Clone)]
pub(crate) enum Medium {
    /// The durable store.
    Disk(Disk),
    /// The simulation's.
    Memory(MemoryDisk),
}

impl Medium {
    /// Queues `request`.
    pub(crate) fn submit(&self, request: Request) {
        match self {
            Self::Disk(disk) => disk.submit(request),
            Self::Memory(memory) => memory.submit(request),
        }
    }

    /// Queues the request that `make` gives and waits for its answer.
    pub(crate) async fn call<T>(&self, make: impl FnOnce(Answer<T>) -> Request) -> io::Result<T> {
        let (to, answer) = oneshot::channel();
        self.submit(make(to));
        answer.await.map_err(|_| io::Error::other("the store is closed"))?
    }

    /// Adds consecutive entries at the end of the log and waits until they are durable.
    pub(crate) async fn append(&self, entries: Vec<RaftEntry>) -> io::Result<()> {
        let (to, flushed) = TypeConfig::oneshot();
        self.submit(Request::Append { entries, done: IOFlushed::signal(to) });
        flushed.await.map_err(io::Error::other)?
    }

    /// What the medium tells.
    pub(crate) fn progress(&self) -> &Progress {
        match self {
            Self::Disk(disk) => disk.progress(),
            Self::Memory(memory) => memory.progress(),
        }
    }
}
