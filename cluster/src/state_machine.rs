//! Applies committed entries to the state, publishes each new state, takes and installs snapshots.
//!
//! Readers never wait: they take the state that was published last. A proposer is answered after
//! the state that holds its change was published, so it finds its own change there.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use futures::{Stream, TryStreamExt};
use openraft::entry::RaftEntry as _;
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::type_config::TypeConfigExt;
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use tokio::sync::watch;
use watchword_core::command::FEATURE_LEVEL;
use watchword_core::{Applied, Command, State};

use crate::runtime::{LogId, RaftEntry, Snapshot, SnapshotMeta, StoredMembership, TypeConfig};
use crate::snapshot::{Shelf, SnapshotData};
use crate::survey::Checkpoints;

/// The published state.
pub(crate) struct View {
    state: ArcSwap<State>,
    applied: watch::Sender<u64>,
    /// The same index, to look at on every login without a lock.
    index: AtomicU64,
}

impl View {
    /// The state that was published last.
    pub(crate) fn state(&self) -> Arc<State> {
        self.state.load_full()
    }

    /// Index of the last entry in the published state.
    pub(crate) fn applied(&self) -> u64 {
        self.index.load(Ordering::Acquire)
    }

    /// The same, for whoever waits for a change.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    fn publish(&self, state: &State, applied: Option<LogId>) {
        self.state.store(Arc::new(state.clone()));
        let index = applied.map_or(0, |applied| applied.index);
        self.index.store(index, Ordering::Release);
        self.applied.send_replace(index);
    }
}

/// The state being changed, and where it is published.
pub(crate) struct StateMachine {
    state: State,
    applied: Option<LogId>,
    membership: StoredMembership,
    view: Arc<View>,
    shelf: Shelf,
    checkpoints: Arc<Checkpoints>,
}

impl StateMachine {
    /// An empty state.
    pub(crate) fn new(shelf: Shelf, checkpoints: Arc<Checkpoints>) -> Self {
        let view = View {
            state: ArcSwap::from_pointee(State::default()),
            applied: watch::Sender::new(0),
            index: AtomicU64::new(0),
        };
        Self {
            state: State::default(),
            applied: None,
            membership: StoredMembership::default(),
            view: Arc::new(view),
            shelf,
            checkpoints,
        }
    }

    /// Where the state is published.
    pub(crate) fn view(&self) -> Arc<View> {
        self.view.clone()
    }

    /// The last entry that was applied.
    pub(crate) fn applied(&self) -> Option<LogId> {
        self.applied
    }

    /// Loads the snapshot in force, if there is one, without publishing it.
    pub(crate) async fn restore(&mut self) -> io::Result<()> {
        match self.shelf.current() {
            Some(snapshot) => self.install(&snapshot.meta, snapshot.snapshot).await,
            None => Ok(()),
        }
    }

    /// Applies entries that nobody waits for, without publishing: while nobody holds an older state,
    /// the maps are changed in place instead of being copied along every path.
    ///
    /// # Errors
    /// As [`StateMachine::apply_one`].
    pub(crate) fn replay(&mut self, entries: &[RaftEntry]) -> io::Result<()> {
        entries.iter().try_for_each(|entry| self.apply_one(entry).map(drop))
    }

    /// Publishes the state as it is.
    pub(crate) fn publish(&self) {
        self.view.publish(&self.state, self.applied);
    }

    /// Applies one entry.
    ///
    /// # Errors
    /// When the cluster has moved on to a feature level that this release does not understand: it
    /// would have to guess from there on.
    fn apply_one(&mut self, entry: &RaftEntry) -> io::Result<Applied> {
        let id = entry.log_id();
        let applied = match &entry.payload {
            EntryPayload::Blank => Applied::Nothing,
            EntryPayload::Normal(logged) => self.state.apply(id.index, logged.entry()),
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(id), membership.clone());
                Applied::Nothing
            }
        };
        check_feature_level(&self.state)?;
        self.applied = Some(id);
        Ok(applied)
    }

    /// Replaces the state by a snapshot, without publishing it.
    async fn install(&mut self, meta: &SnapshotMeta, data: SnapshotData) -> io::Result<()> {
        let bytes = data.read().await?;
        let encoded = bytes.clone();
        let decoded = TypeConfig::spawn_blocking(move || State::decode(&encoded)).await?;
        // Only what can be decoded is put in force.
        let state = decoded.map_err(io::Error::other)?;
        check_feature_level(&state)?;
        self.state = state;
        self.shelf.keep(meta, &data, &bytes).await?;
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        Ok(())
    }
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

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut answers = Vec::new();
        while let Some((entry, responder)) = entries.try_next().await? {
            let applied = self.apply_one(&entry)?;
            if let EntryPayload::Normal(logged) = &entry.payload
                && logged.entry().command == Command::Checkpoint
            {
                self.checkpoints.take(entry.log_id().index, self.state.clone());
            }
            answers.extend(responder.map(|responder| (responder, applied)));
        }
        self.publish();
        for (responder, applied) in answers {
            responder.send(applied);
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder {
            state: self.state.clone(),
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
        self.install(meta, snapshot).await?;
        self.publish();
        Ok(())
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
        let bytes = TypeConfig::spawn_blocking(move || state.encode()).await?;
        self.shelf.put(self.meta.clone(), &bytes.map_err(io::Error::other)?).await
    }
}
