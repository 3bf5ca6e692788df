//! Applies committed entries to the state, lets others look at it, takes and installs snapshots.
//!
//! There is one state, changed in place. Whoever looks at it holds changes up meanwhile, and should be
//! done in microseconds; whoever wants to keep it takes a copy, which costs nothing at once, but makes
//! later changes copy the paths that they touch. A proposer is answered after the lock was released,
//! so it finds its own change.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use futures::stream::TryReadyChunksError;
use futures::{Stream, TryStreamExt};
use openraft::entry::RaftEntry as _;
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use tokio::sync::watch;
use watchword_core::command::FEATURE_LEVEL;
use watchword_core::{Applied, Command, State};

use crate::blocking::off_thread;
use crate::runtime::{LogId, RaftEntry, Snapshot, SnapshotMeta, StoredMembership, TypeConfig};
use crate::snapshot::{Shelf, SnapshotData};
use crate::survey::Checkpoints;

/// Entries applied while readers wait: some hundreds of microseconds.
const CHUNK: usize = 256;

/// The state, and how far it is.
pub(crate) struct View {
    state: RwLock<State>,
    applied: watch::Sender<u64>,
    /// The same index, to look at on every login without a lock.
    index: AtomicU64,
}

impl View {
    fn new() -> Self {
        Self { state: RwLock::default(), applied: watch::Sender::new(0), index: AtomicU64::new(0) }
    }

    /// Looks at the state. Nothing is applied meanwhile.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        // Poison says that `apply` has panicked. It ends the replica, so nothing is decided any more.
        look(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the state. Nobody looks meanwhile.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Index of the last entry that a look at the state shows for certain.
    pub(crate) fn applied(&self) -> u64 {
        self.index.load(Ordering::Acquire)
    }

    /// The same, for whoever waits for a change.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    /// Says how far the state is.
    fn announce(&self, applied: Option<LogId>) {
        let index = applied.map_or(0, |applied| applied.index);
        self.index.store(index, Ordering::Release);
        self.applied.send_replace(index);
    }
}

/// What changes the state.
pub(crate) struct StateMachine {
    view: Arc<View>,
    applied: Option<LogId>,
    membership: StoredMembership,
    shelf: Shelf,
    checkpoints: Arc<Checkpoints>,
}

impl StateMachine {
    /// An empty state.
    pub(crate) fn new(shelf: Shelf, checkpoints: Arc<Checkpoints>) -> Self {
        Self {
            view: Arc::new(View::new()),
            applied: None,
            membership: StoredMembership::default(),
            shelf,
            checkpoints,
        }
    }

    /// Where others look at the state.
    pub(crate) fn view(&self) -> Arc<View> {
        self.view.clone()
    }

    /// The last entry that was applied.
    pub(crate) fn applied(&self) -> Option<LogId> {
        self.applied
    }

    /// Loads the snapshot in force, if there is one.
    pub(crate) async fn restore(&mut self) -> io::Result<()> {
        match self.shelf.current() {
            Some(snapshot) => self.install(&snapshot.meta, snapshot.snapshot).await,
            None => Ok(()),
        }
    }

    /// Applies entries that nobody waits for.
    ///
    /// # Errors
    /// As [`StateMachine::apply_one`].
    pub(crate) fn replay(&mut self, entries: &[RaftEntry]) -> io::Result<()> {
        let view = self.view.clone();
        view.change(|state| {
            entries.iter().try_for_each(|entry| self.apply_one(state, entry).map(drop))
        })?;
        view.announce(self.applied);
        Ok(())
    }

    /// Applies entries while nobody looks, and answers their proposers.
    fn apply_chunk(&mut self, chunk: Vec<EntryResponder<TypeConfig>>) -> io::Result<()> {
        let view = self.view.clone();
        let answers = view.change(|state| {
            let mut answers = Vec::with_capacity(chunk.len());
            for (entry, responder) in chunk {
                let applied = self.apply_one(state, &entry)?;
                if is_checkpoint(&entry) {
                    self.checkpoints.take(entry.log_id().index, state.clone());
                }
                answers.extend(responder.map(|responder| (responder, applied)));
            }
            io::Result::Ok(answers)
        })?;
        view.announce(self.applied);
        for (responder, applied) in answers {
            responder.send(applied);
        }
        Ok(())
    }

    /// Applies one entry.
    ///
    /// # Errors
    /// When the cluster has moved on to a feature level that this release does not understand: it
    /// would have to guess from there on.
    fn apply_one(&mut self, state: &mut State, entry: &RaftEntry) -> io::Result<Applied> {
        let id = entry.log_id();
        let applied = match &entry.payload {
            EntryPayload::Blank => Applied::Nothing,
            #[cfg(not(mutant = "time_at_apply"))]
            EntryPayload::Normal(logged) => state.apply(id.index, logged.entry()),
            #[cfg(mutant = "time_at_apply")]
            EntryPayload::Normal(logged) => {
                let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis();
                let time = watchword_core::time::Timestamp(now as u64);
                let command = logged.entry().command.clone();
                state.apply(id.index, &watchword_core::Entry { time, command })
            }
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(id), membership.clone());
                Applied::Nothing
            }
        };
        check_feature_level(state)?;
        self.applied = Some(id);
        Ok(applied)
    }

    /// Replaces the state by a snapshot.
    async fn install(&mut self, meta: &SnapshotMeta, data: SnapshotData) -> io::Result<()> {
        let bytes = data.read().await?;
        let encoded = bytes.clone();
        let decoded = off_thread(move || State::decode(&encoded)).await?;
        // Only what can be decoded is put in force.
        let state = decoded.map_err(io::Error::other)?;
        check_feature_level(&state)?;
        self.shelf.keep(meta, &data, &bytes).await?;
        // The old state is dropped after the lock: that takes long.
        let old = self.view.change(|current| std::mem::replace(current, state));
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.view.announce(self.applied);
        drop(old);
        Ok(())
    }
}

fn is_checkpoint(entry: &RaftEntry) -> bool {
    matches!(&entry.payload, EntryPayload::Normal(logged) if logged.entry().command == Command::Checkpoint)
}

fn check_feature_level(state: &State) -> io::Result<()> {
    let level = state.feature_level();
    if level <= FEATURE_LEVEL {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "the cluster is at feature level {level}; this release understands {FEATURE_LEVEL}"
    )))
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut chunks = entries.try_ready_chunks(CHUNK);
        loop {
            match chunks.try_next().await {
                Ok(Some(chunk)) => self.apply_chunk(chunk)?,
                Ok(None) => return Ok(()),
                Err(TryReadyChunksError(_, error)) => return Err(error),
            }
        }
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder {
            state: self.view.look(State::clone),
            meta: SnapshotMeta {
                last_log_id: self.applied,
                last_membership: self.membership.clone(),
            },
            shelf: self.shelf.clone(),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotData,
    ) -> Result<(), io::Error> {
        self.install(meta, snapshot).await
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        Ok(self.shelf.current())
    }
}

/// A state that stands still, to be written while the other goes on.
pub(crate) struct SnapshotBuilder {
    state: State,
    meta: SnapshotMeta,
    shelf: Shelf,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let state = self.state.clone();
        let bytes = off_thread(move || state.encode()).await?;
        self.shelf.put(self.meta.clone(), &bytes.map_err(io::Error::other)?).await
    }
}
