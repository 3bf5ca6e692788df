//! The log as openraft sees it: a medium, and the recent entries in memory.
//!
//! Replication and apply read what has just been appended, so the newest entries stay in memory,
//! bounded by bytes; older ones are read back. An entry leaves memory only after the medium has
//! written it.
//!
//! How far the log is committed is not made durable by a write of its own. It rides along with the
//! next group, which costs nothing. A sole voter does not need it: whatever its log holds is
//! committed. Another node re-applies up to what was noted and learns the rest from the leader.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use openraft::entry::RaftEntry as _;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{EntryPayload, LogState, OptionalSend, RaftLogReader};

use crate::medium::{Medium, Recovered, Request};
use crate::runtime::{LogId, RaftEntry, TypeConfig, Vote};

/// Encoded length of the entries that stay in memory.
const CACHE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// What an entry costs beside its content.
const ENTRY_OVERHEAD: usize = 256;
/// Encoded length of the entries that go to a peer at once.
const PAYLOAD_BYTES_MAX: usize = 1024 * 1024;

/// A handle to the log; clones share it.
#[derive(Clone)]
pub(crate) struct LogStore {
    medium: Medium,
    recent: Arc<Mutex<Recent>>,
}

/// What is known without asking the medium.
struct Recent {
    vote: Option<Vote>,
    purged: Option<LogId>,
    last: Option<LogId>,
    /// Index of the oldest entry that the log holds, or will hold.
    start: u64,
    /// The newest entries, consecutive up to `last`.
    entries: VecDeque<RaftEntry>,
    bytes: usize,
}

impl LogStore {
    /// The log on `medium`.
    pub(crate) fn new(medium: Medium, recovered: &Recovered) -> Self {
        let recent = Recent {
            vote: recovered.vote,
            purged: recovered.purged,
            last: recovered.last,
            start: recovered.purged.map_or(0, |purged| purged.index + 1),
            entries: VecDeque::new(),
            bytes: 0,
        };
        Self { medium, recent: Arc::new(Mutex::new(recent)) }
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entries of `from..to` that the log holds.
    async fn read(&self, from: u64, to: u64) -> io::Result<Vec<RaftEntry>> {
        let (mut from, in_memory, hot) = {
            let recent = self.recent();
            let from = from.max(recent.start);
            let in_memory = recent.first().unwrap_or_else(|| recent.end()).min(to);
            (from, in_memory, recent.range(from, to))
        };
        let mut entries = Vec::new();
        while from < in_memory {
            let more =
                self.medium.call(|answer| Request::Read { from, to: in_memory, answer }).await?;
            if more.first().map(|entry| entry.index()) != Some(from) {
                return Err(io::Error::other(format!("entry {from} is missing from the log")));
            }
            from += more.len() as u64;
            entries.extend(more);
        }
        entries.extend(hot);
        Ok(entries)
    }
}

impl Recent {
    /// Index of the first entry in memory.
    fn first(&self) -> Option<u64> {
        self.entries.front().map(|entry| entry.index())
    }

    /// Index after the last entry.
    fn end(&self) -> u64 {
        self.last.map_or(0, |last| last.index + 1)
    }

    /// The entries of `from..to` that are in memory.
    fn range(&self, from: u64, to: u64) -> Vec<RaftEntry> {
        let Some(first) = self.first() else { return Vec::new() };
        let position = |index: u64| {
            let position = usize::try_from(index.saturating_sub(first)).unwrap_or(usize::MAX);
            position.min(self.entries.len())
        };
        let (start, end) = (position(from), position(to));
        if start >= end { Vec::new() } else { self.entries.range(start..end).cloned().collect() }
    }

    fn push(&mut self, entry: RaftEntry) {
        if self.last.is_none() {
            self.start = entry.index();
        }
        self.last = Some(entry.log_id());
        self.bytes += size(&entry);
        self.entries.push_back(entry);
    }

    /// Lets go of what does not fit and can be read back.
    fn shrink(&mut self, written: u64) {
        while self.bytes > CACHE_BYTES_MAX && self.first().is_some_and(|first| first < written) {
            self.pop_front();
        }
    }

    fn pop_front(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.bytes -= size(&entry);
        }
    }

    fn truncate(&mut self, after: Option<LogId>) {
        while self.entries.back().is_some_and(|last| Some(last.log_id()) > after) {
            if let Some(entry) = self.entries.pop_back() {
                self.bytes -= size(&entry);
            }
        }
        self.last = self.last.min(after.max(self.purged));
    }

    fn purge(&mut self, upto: LogId) {
        while self.first().is_some_and(|first| first <= upto.index) {
            self.pop_front();
        }
        self.purged = Some(upto);
        self.start = upto.index + 1;
        self.last = self.last.max(Some(upto));
    }
}

fn size(entry: &RaftEntry) -> usize {
    let content = match &entry.payload {
        EntryPayload::Normal(logged) => logged.bytes().len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    };
    content + ENTRY_OVERHEAD
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<RaftEntry>, io::Error> {
        let from = match range.start_bound() {
            Bound::Included(&index) => index,
            Bound::Excluded(&index) => index.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(&index) => index.saturating_add(1),
            Bound::Excluded(&index) => index,
            Bound::Unbounded => u64::MAX,
        };
        self.read(from, to).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.recent().vote)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<RaftEntry>, io::Error> {
        let mut to = end.min(start.saturating_add((PAYLOAD_BYTES_MAX / ENTRY_OVERHEAD) as u64));
        let mut entries = self.read(start, to).await?;
        let mut bytes = 0;
        to = entries.len() as u64;
        for (position, entry) in (0..).zip(&entries) {
            bytes += size(entry);
            if bytes > PAYLOAD_BYTES_MAX && position > 0 {
                to = position;
                break;
            }
        }
        entries.truncate(usize::try_from(to).unwrap_or(usize::MAX));
        Ok(entries)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let recent = self.recent();
        Ok(LogState { last_purged_log_id: recent.purged, last_log_id: recent.last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let vote = *vote;
        if !cfg!(mutant = "forget_vote") {
            self.medium.call(|done| Request::Vote { vote, done }).await?;
        }
        self.recent().vote = Some(vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.medium.progress().set_committed(committed);
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.medium.progress().committed())
    }

    async fn append<I>(&mut self, entries: I, done: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<RaftEntry> = entries.into_iter().collect();
        {
            let mut recent = self.recent();
            entries.iter().cloned().for_each(|entry| recent.push(entry));
            recent.shrink(self.medium.progress().written());
        }
        #[cfg(mutant = "answer_before_sync")]
        let done = {
            done.io_completed(Ok(()));
            IOFlushed::noop()
        };
        self.medium.submit(Request::Append { entries, done });
        Ok(())
    }

    async fn truncate_after(&mut self, after: Option<LogId>) -> Result<(), io::Error> {
        self.recent().truncate(after);
        self.medium.call(|done| Request::Truncate { after, done }).await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        self.medium.call(|done| Request::Purge { upto, done }).await?;
        self.recent().purge(upto);
        Ok(())
    }
}
