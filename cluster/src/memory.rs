//! The store's twin in memory, for simulations: it forgets at a crash what was not synced.
//!
//! sled cannot run under simulated time. This medium takes the same requests, keeps what is synced
//! apart from what is pending, makes the pending part durable after a delay on the runtime's clock,
//! and loses it in [`MemoryDisk::crash`].

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openraft::EntryPayload;
use openraft::entry::RaftEntry as _;
use openraft::storage::IOFlushed;
use openraft::type_config::TypeConfigExt;
use watchword_core::codec;

use crate::medium::{Answer, Progress, Recovered, Request, SnapshotRecord, answer};
use crate::runtime::{LogId, NodeId, RaftEntry, StoredMembership, TypeConfig, Vote};

/// Entries given back by one read.
const READ_ENTRIES_MAX: usize = 4096;

/// A disk in memory. Clones share it.
#[derive(Clone)]
pub struct MemoryDisk {
    shared: Arc<Mutex<Shared>>,
    progress: Arc<Progress>,
    sync_delay: Duration,
}

struct Shared {
    /// What a crash leaves.
    synced: Image,
    /// What a reader sees.
    live: Image,
    pending: Vec<(Change, Waiter)>,
    /// Votes that became durable since somebody asked.
    votes: Vec<Vote>,
    /// Lowest index of the log that has changed since somebody asked.
    changed_from: Option<u64>,
    /// A task is on its way to sync.
    syncing: bool,
    crashed: bool,
}

#[derive(Clone, Default)]
struct Image {
    log: BTreeMap<u64, RaftEntry>,
    vote: Option<Vote>,
    purged: Option<LogId>,
    committed: Option<LogId>,
    snapshot: Option<SnapshotRecord>,
    chunks: BTreeMap<(u64, u32), Vec<u8>>,
}

enum Change {
    Append(Vec<RaftEntry>),
    Vote(Vote),
    Truncate(Option<LogId>),
    Purge(LogId),
    Chunk(u64, u32, Vec<Vec<u8>>),
    Snapshot(SnapshotRecord),
    Nothing,
}

impl Change {
    /// The first index of the log at which something else stands afterwards.
    fn first_changed(&self) -> Option<u64> {
        match self {
            Self::Append(entries) => entries.first().map(RaftEntry::index),
            Self::Truncate(after) => Some(after.map_or(0, |after| after.index + 1)),
            _ => None,
        }
    }
}

/// One entry of a log, for those who compare logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// Its index.
    pub index: u64,
    /// The leader that made it, by its term and its id. Two may be elected in one term, one after the
    /// other; they are ordered by both.
    pub leader: (u64, NodeId),
    /// What it says, encoded.
    pub content: Vec<u8>,
}

enum Waiter {
    Append(IOFlushed<TypeConfig>),
    Other(Answer<()>),
}

impl MemoryDisk {
    /// An empty disk whose syncs take `sync_delay` of the runtime's time.
    pub fn new(sync_delay: Duration) -> Self {
        Self::with(Image::default(), sync_delay)
    }

    fn with(image: Image, sync_delay: Duration) -> Self {
        let progress = Arc::new(Progress::new(image.last(), image.committed));
        let shared = Shared {
            votes: image.vote.into_iter().collect(),
            synced: image.clone(),
            live: image,
            pending: Vec::new(),
            changed_from: Some(0),
            syncing: false,
            crashed: false,
        };
        Self { shared: Arc::new(Mutex::new(shared)), progress, sync_delay }
    }

    /// What is left after losing power now. Of what was not synced, the first `survivors` changes
    /// happen to have reached the disk, and of the next, if it appends, the first `torn` entries. Whoever
    /// still uses this disk gets errors.
    #[must_use]
    pub fn crash(&self, survivors: usize, torn: usize) -> Self {
        let mut shared = self.shared();
        shared.crashed = true;
        let pending = std::mem::take(&mut shared.pending);
        let mut pending = pending.into_iter().map(|(change, _)| change);
        for change in pending.by_ref().take(survivors) {
            shared.synced.apply(&change);
        }
        if let Some(Change::Append(mut entries)) = pending.next() {
            entries.truncate(torn);
            shared.synced.apply(&Change::Append(entries));
        }
        Self::with(shared.synced.clone(), self.sync_delay)
    }

    /// Changes that are not synced.
    pub fn pending(&self) -> usize {
        self.shared().pending.len()
    }

    /// The entries of the log from the first that has changed since the last call, as a reader sees
    /// them; `None` when none has. For those who check what replicas may never do.
    pub fn take_changed(&self) -> Option<Vec<Inspected>> {
        let mut shared = self.shared();
        let from = shared.changed_from.take()?;
        let inspected = |entry: &RaftEntry| Inspected {
            index: entry.index(),
            leader: {
                let id = entry.log_id().leader_id;
                (id.term, id.node_id)
            },
            content: match &entry.payload {
                EntryPayload::Normal(logged) => logged.bytes().to_vec(),
                other => codec::encode(other).unwrap_or_default(),
            },
        };
        Some(shared.live.log.range(from..).map(|(_, entry)| inspected(entry)).collect())
    }

    /// The votes that have become durable since the last call, as term and candidate, in order. For those
    /// who check elections.
    pub fn take_votes(&self) -> Vec<(u64, NodeId)> {
        let votes = std::mem::take(&mut self.shared().votes);
        votes.iter().map(|vote| (vote.leader_id.term, vote.leader_id.node_id)).collect()
    }

    /// Index of the last entry that was purged, and of the last entry.
    pub fn bounds(&self) -> (u64, u64) {
        let shared = self.shared();
        let index = |id: Option<LogId>| id.map_or(0, |id| id.index);
        (index(shared.live.purged), index(shared.live.last()))
    }

    pub(crate) fn recovered(&self) -> Recovered {
        let shared = self.shared();
        let membership = shared.live.log.values().rev().find_map(|entry| {
            Some(StoredMembership::new(Some(entry.log_id()), entry.get_membership()?))
        });
        Recovered {
            vote: shared.live.vote,
            purged: shared.live.purged,
            committed: shared.live.committed,
            last: shared.live.last(),
            membership,
            snapshot: shared.live.snapshot.clone(),
        }
    }

    pub(crate) fn progress(&self) -> &Progress {
        &self.progress
    }

    pub(crate) fn submit(&self, request: Request) {
        let mut shared = self.shared();
        if shared.crashed {
            drop(shared);
            return request.refuse("the disk has crashed");
        }
        let (change, waiter) = match request {
            Request::Append { entries, done } => (Change::Append(entries), Waiter::Append(done)),
            Request::Vote { vote, done } => (Change::Vote(vote), Waiter::Other(done)),
            Request::Truncate { after, done } => (Change::Truncate(after), Waiter::Other(done)),
            Request::Purge { upto, done } => (Change::Purge(upto), Waiter::Other(done)),
            Request::PutChunks { generation, first, chunks, done } => {
                (Change::Chunk(generation, first, chunks), Waiter::Other(done))
            }
            Request::PutSnapshot { record, done } => {
                (Change::Snapshot(record), Waiter::Other(done))
            }
            Request::Close { done } => (Change::Nothing, Waiter::Other(done)),
            Request::Read { from, to, answer: done } => {
                let entries = shared.live.log.range(from..to).map(|(_, entry)| entry.clone());
                return answer(done, Ok(entries.take(READ_ENTRIES_MAX).collect()));
            }
            Request::ReadChunk { generation, number, answer: done } => {
                let chunk = shared.live.chunks.get(&(generation, number)).cloned();
                return answer(done, chunk.ok_or_else(|| io::Error::other("it is missing")));
            }
        };
        if let Some(from) = change.first_changed() {
            let lowest = shared.changed_from.map_or(from, |before| before.min(from));
            shared.changed_from = Some(lowest);
        }
        shared.live.apply(&change);
        shared.pending.push((change, waiter));
        if !shared.syncing {
            shared.syncing = true;
            let disk = self.clone();
            drop(TypeConfig::spawn(async move { disk.sync().await }));
        }
    }

    async fn sync(self) {
        TypeConfig::sleep(self.sync_delay).await;
        let waiters = {
            let mut shared = self.shared();
            shared.syncing = false;
            let pending = std::mem::take(&mut shared.pending);
            let mut waiters = Vec::with_capacity(pending.len());
            for (change, waiter) in pending {
                if let Change::Vote(vote) = change {
                    shared.votes.push(vote);
                }
                shared.synced.apply(&change);
                waiters.push(waiter);
            }
            let committed = self.progress.committed();
            shared.synced.committed = committed;
            shared.live.committed = committed;
            self.progress.set_written(shared.synced.last());
            waiters
        };
        for waiter in waiters {
            match waiter {
                Waiter::Append(done) => done.io_completed(Ok(())),
                Waiter::Other(done) => answer(done, Ok(())),
            }
        }
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Image {
    fn last(&self) -> Option<LogId> {
        self.log.values().next_back().map(|entry| entry.log_id()).max(self.purged)
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::Append(entries) => {
                self.log.extend(entries.iter().map(|entry| (entry.index(), entry.clone())));
            }
            Change::Vote(vote) => self.vote = Some(*vote),
            Change::Truncate(after) => {
                self.log.split_off(&after.map_or(0, |after| after.index + 1));
            }
            Change::Purge(upto) => {
                self.log = self.log.split_off(&(upto.index + 1));
                self.purged = Some(*upto);
            }
            Change::Chunk(generation, first, chunks) => {
                for (number, chunk) in (*first..).zip(chunks) {
                    self.chunks.insert((*generation, number), chunk.clone());
                }
            }
            Change::Snapshot(record) => {
                self.chunks = self.chunks.split_off(&(record.generation, 0));
                self.snapshot = Some(record.clone());
            }
            Change::Nothing => {}
        }
    }
}
