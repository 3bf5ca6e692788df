//! From a directory to a running replica, and back.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use openraft::alias::JoinHandleOf;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::entry::RaftEntry as _;
use openraft::type_config::TypeConfigExt;
use openraft::{BasicNode, EntryPayload, RaftLogReader};
use watchword_proto::peer_server::PeerServer;

use crate::block::log_id;
use crate::blocking::off_thread;
use crate::contact::Contact;
use crate::disk::Disk;
use crate::log_store::LogStore;
use crate::medium::{Medium, Recovered, Request};
use crate::membership::Pace;
use crate::memory::MemoryDisk;
use crate::net::Listener;
use crate::network::{CONNECTION_WINDOW, KEEP_ALIVE, MESSAGE_BYTES_MAX, Network, STREAM_WINDOW};
use crate::options::{self, Options};
use crate::propose::{Proposer, Route};
use crate::quorum::Quorum;
use crate::read::Rounds;
use crate::runtime::{Membership, NodeId, Raft, RaftEntry, TypeConfig};
use crate::service::PeerService;
use crate::snapshot::Shelf;
use crate::state_machine::StateMachine;
use crate::status::is_sole_voter;
use crate::storage::{self, OpenError};
use crate::survey::Survey;
use crate::transport::{Credentials, TransportError};
use crate::{Cluster, Inner, membership, reception, survey};

/// Entries that are replayed at once.
const REPLAYED_AT_ONCE: u64 = 4_096;

/// The replica cannot be closed properly.
#[derive(Debug, thiserror::Error)]
pub enum ShutdownError {
    /// The replication did not stop.
    #[error("the replication did not stop: {0}")]
    Raft(String),
    /// The store could not be written and closed.
    #[error("the store could not be closed")]
    Store(#[source] io::Error),
}

/// The peers cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The replica was opened without one.
    #[error("this replica has no transport")]
    NoTransport,
    /// The server failed.
    #[error("the server for peers failed")]
    Server(#[source] tonic::transport::Error),
}

/// No leader was found in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no leader was found within {0:?}")]
pub struct NoLeader(pub Duration);

/// A snapshot could not be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the snapshot could not be taken: {reason}")]
pub struct SnapshotFailed {
    /// Why.
    pub reason: String,
}

impl Cluster {
    /// Creates an empty store with this node as the only voter, and opens it.
    ///
    /// `address` is where its peers will reach it.
    ///
    /// # Errors
    /// When there is a store already, or the file system fails. A store that was not finished is
    /// never taken for one.
    pub async fn create(options: Options, address: String) -> Result<Self, OpenError> {
        let first = first_entry(options.node_id, address);
        create_store(&options.data_dir, options.node_id, Some(first)).await?;
        Self::open(options).await
    }

    /// Creates an empty store for a node that was admitted to a cluster: it waits for the leader to
    /// bring it everything.
    ///
    /// # Errors
    /// As [`Cluster::create`].
    pub async fn create_empty(options: &Options) -> Result<(), OpenError> {
        create_store(&options.data_dir, options.node_id, None).await
    }

    /// Whether there is a store in `data_dir`. One whose making was cut off is none.
    ///
    /// # Errors
    /// When the directory cannot be looked into.
    pub fn is_made(data_dir: &Path) -> io::Result<bool> {
        storage::exists(data_dir)
    }

    /// Shows other credentials from the next connection on.
    ///
    /// # Errors
    /// When they are of no use; then nothing changes.
    pub fn renew(&self, credentials: Credentials) -> Result<(), TransportError> {
        self.inner.transport.as_ref().map_or(Ok(()), |transport| transport.renew(credentials))
    }

    /// Serves peers on `listener`, and `routes` besides, until `stop` completes.
    ///
    /// # Errors
    /// When the server fails, or this replica has no transport.
    pub async fn serve_peers(
        &self,
        listener: impl Listener,
        routes: tonic::service::Routes,
        stop: impl Future<Output = ()>,
    ) -> Result<(), ServeError> {
        let transport = self.inner.transport.as_ref().ok_or(ServeError::NoTransport)?;
        let (streams, reception) = reception::receive(transport.clone(), self.clone(), listener);
        // Fused: the server looks once more after the last one, at a node that stops by itself.
        let streams = futures::stream::unfold(streams, async |mut streams| {
            streams.recv().await.map(|stream| (stream, streams))
        });
        let streams = streams.fuse();
        let service = PeerServer::new(PeerService(self.clone()))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let server = tonic::transport::Server::builder()
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .http2_keepalive_interval(Some(KEEP_ALIVE))
            .http2_keepalive_timeout(Some(KEEP_ALIVE))
            .add_routes(routes.add_service(service))
            .serve_with_incoming_shutdown(streams, stop);
        let served = server.await.map_err(ServeError::Server);
        // With the server went the streams: the port is free when this returns.
        if let Err(error) = reception.await {
            tracing::error!(%error, "the reception of peers has failed");
        }
        served
    }

    /// Opens the existing store.
    ///
    /// A sole voter elects itself before this returns, if its store lets it.
    ///
    /// # Errors
    /// When there is no store, it is in use, damaged or older than what this node has promised.
    pub async fn open(options: Options) -> Result<Self, OpenError> {
        let (disk, recovered) = open_store(&options.data_dir, options.node_id).await?;
        Self::start(options, disk, recovered).await
    }

    /// Like [`Cluster::create`], on an empty disk in memory.
    ///
    /// # Errors
    /// When the disk holds a store already.
    pub async fn create_in_memory(
        options: Options,
        address: String,
        disk: &MemoryDisk,
    ) -> Result<Self, OpenError> {
        if disk.recovered().last.is_some() {
            return Err(OpenError::Exists(options.data_dir));
        }
        let first = vec![first_entry(options.node_id, address)];
        let written = Medium::Memory(disk.clone()).append(first).await;
        written.map_err(failed(&options.data_dir))?;
        Self::open_in_memory(options, disk).await
    }

    /// Like [`Cluster::open`], on a disk in memory. An empty one is that of a node which was
    /// admitted and waits for the leader to bring it everything.
    ///
    /// # Errors
    /// When the replication cannot be started.
    pub async fn open_in_memory(options: Options, disk: &MemoryDisk) -> Result<Self, OpenError> {
        let recovered = disk.recovered();
        Self::start(options, Medium::Memory(disk.clone()), recovered).await
    }

    /// Brings the state up to date, then starts the replication.
    pub(crate) async fn start(
        options: Options,
        medium: Medium,
        recovered: Recovered,
    ) -> Result<Self, OpenError> {
        let failed = failed(&options.data_dir);
        let config = Arc::new(options::config(&options)?);
        let node_id = options.node_id;
        let sole_voter = recovered
            .effective_membership()
            .is_some_and(|stored| is_sole_voter(stored.membership(), node_id));
        if sole_voter {
            // No other node can hold a different log, so all of it is committed.
            medium.progress().set_committed(recovered.last);
        }
        let log = LogStore::new(medium.clone(), &recovered);
        let shelf = Shelf::new(medium.clone(), recovered.snapshot.clone());
        let checkpoints = Arc::default();
        let mut state_machine = StateMachine::new(shelf, Arc::clone(&checkpoints));
        bring_up_to_date(&mut state_machine, &log, &medium).await.map_err(failed)?;
        let view = state_machine.view();
        // Only `recover` begins an epoch, and it works on a store that nobody runs on.
        let epoch = options.epoch.max(view.look(|state| state.nodes().epoch()));
        let network = Network::new(&options, epoch);
        let raft = Raft::new(node_id, config, network.clone(), log, state_machine)
            .await
            .map_err(|fatal| OpenError::Raft(fatal.to_string()))?;
        let patience = options.timing.election_max * 2;
        let contact = Arc::new(Contact::new(patience));
        network.watch(Quorum::new(raft.metrics(), patience));
        let survey = Arc::new(Survey::new(options.clock.clone(), checkpoints));
        let cluster = Self {
            inner: Arc::new(Inner {
                proposer: Proposer::start(Route {
                    raft: raft.clone(),
                    medium: medium.clone(),
                    network: network.clone(),
                    view: view.clone(),
                    contact: contact.clone(),
                    survey: survey.clone(),
                    node_id,
                }),
                raft,
                view,
                medium,
                clock: options.clock,
                node_id,
                network,
                contact,
                drained: AtomicBool::new(false),
                stopping: AtomicBool::new(false),
                patience,
                transport: options.transport,
                survey,
                read_rounds: Rounds::new(),
                version: options.version,
                instance: options.instance,
                keep_key: options.keep_key,
            }),
        };
        // Nobody else leads before its clock is known to be right. Nobody can tell that of a sole voter's, and
        // it proposes nothing before it has asked the others whether it still belongs.
        cluster.inner.raft.runtime_config().elect(sole_voter);
        drop(TypeConfig::spawn(survey::keep(cluster.clone())));
        let pace = Pace { settle: options.settle, checkpoint: options.checkpoint };
        drop(TypeConfig::spawn(membership::keep(cluster.clone(), pace)));
        if sole_voter {
            let elected = cluster.inner.raft.trigger().elect(false).await;
            elected.map_err(|fatal| OpenError::Raft(cluster.stop_reason(&fatal)))?;
            if let Err(error) = cluster.wait_for_leader(patience).await {
                tracing::warn!(%error, "the election of the only voter takes long");
            }
        }
        Ok(cluster)
    }

    /// Waits until there is a leader, this node or another.
    ///
    /// # Errors
    /// When there is none after `timeout`, or this node has stopped.
    pub async fn wait_for_leader(&self, timeout: Duration) -> Result<(), NoLeader> {
        self.inner
            .raft
            .wait(Some(timeout))
            .metrics(|metrics| metrics.current_leader.is_some(), "a leader")
            .await
            .map(drop)
            .map_err(|_| NoLeader(timeout))
    }

    /// Takes a snapshot now, durable when this returns, and gives the index of the last entry in
    /// it. Proposals go on meanwhile.
    ///
    /// # Errors
    /// When this node has stopped or its store fails.
    pub async fn snapshot(&self) -> Result<u64, SnapshotFailed> {
        let stopped = || SnapshotFailed {
            reason: self.fault().unwrap_or("the replica has stopped").to_owned(),
        };
        let mut metrics = self.inner.raft.metrics();
        let target = metrics.borrow_watched().last_applied;
        loop {
            let before = {
                let metrics = metrics.borrow_watched();
                metrics.running_state.clone().map_err(|_| stopped())?;
                metrics.snapshot
            };
            if before >= target {
                return Ok(before.map_or(0, |id| id.index));
            }
            // One that is being taken already may be too old; then another follows it.
            let triggered = self.inner.raft.trigger().snapshot().await;
            triggered.map_err(|_| stopped())?;
            loop {
                metrics.changed().await.map_err(|_| stopped())?;
                let metrics = metrics.borrow_watched();
                if metrics.snapshot != before || metrics.running_state.is_err() {
                    break;
                }
            }
        }
    }

    /// Stops, writes what is left and closes the store, so that it can be opened again. Other
    /// handles of this replica get errors from then on.
    ///
    /// # Errors
    /// When the store has failed, now or before.
    pub async fn shutdown(self) -> Result<(), ShutdownError> {
        self.inner.stopping.store(true, Ordering::Relaxed);
        let stopped = self.inner.raft.shutdown().await;
        let closed = self.inner.medium.call(|done| Request::Close { done }).await;
        stopped.map_err(|error| ShutdownError::Raft(error.to_string()))?;
        closed.map_err(ShutdownError::Store)
    }
}

/// The first entry of every log: its node alone.
fn first_entry(node_id: NodeId, address: String) -> RaftEntry {
    let membership = Membership::from(BTreeMap::from([(node_id, BasicNode::new(address))]));
    RaftEntry::new(log_id(0, node_id, 0), EntryPayload::Membership(membership))
}

/// Loads the snapshot and applies what is known to be committed after it.
///
/// openraft would do the same, in small steps and with a line in its log for each.
async fn bring_up_to_date(
    state_machine: &mut StateMachine,
    log: &LogStore,
    medium: &Medium,
) -> io::Result<()> {
    state_machine.restore().await?;
    let end = medium.progress().committed().map_or(0, |committed| committed.index + 1);
    let mut from = state_machine.applied().map_or(0, |applied| applied.index + 1);
    // The store reads and decodes the next entries while these are applied.
    let mut reading = (from < end).then(|| read_ahead(log, from, end));
    while let Some(read) = reading.take() {
        let entries = read.await.map_err(io::Error::other)??;
        if entries.is_empty() {
            return Err(io::Error::other(format!("entry {from} is missing from the log")));
        }
        from += entries.len() as u64;
        reading = (from < end).then(|| read_ahead(log, from, end));
        state_machine.replay(&entries)?;
    }
    Ok(())
}

fn read_ahead(
    log: &LogStore,
    from: u64,
    end: u64,
) -> JoinHandleOf<TypeConfig, io::Result<Vec<RaftEntry>>> {
    let mut log = log.clone();
    let to = end.min(from.saturating_add(REPLAYED_AT_ONCE));
    TypeConfig::spawn(async move { log.try_get_log_entries(from..to).await })
}

/// Creates a store that holds `first` as its only entry, or none.
pub(crate) async fn create_store(
    data_dir: &Path,
    node_id: NodeId,
    first: Option<RaftEntry>,
) -> Result<(), OpenError> {
    let dir = data_dir.to_owned();
    off_thread(move || storage::create(&dir, node_id, first.as_ref()))
        .await
        .map_err(failed(data_dir))?
}

/// Opens the store, and hands it to its thread.
pub(crate) async fn open_store(
    data_dir: &Path,
    node_id: NodeId,
) -> Result<(Medium, Recovered), OpenError> {
    let dir = data_dir.to_owned();
    let opening = off_thread(move || storage::open(&dir, Some(node_id)));
    let (storage, recovered) = opening.await.map_err(failed(data_dir))??;
    let disk = Disk::start(storage, &recovered).map_err(failed(data_dir))?;
    Ok((Medium::Disk(disk), recovered))
}

/// Makes an error about the store in `data_dir`.
pub(crate) fn failed(data_dir: &Path) -> impl Fn(io::Error) -> OpenError + use<> {
    let dir = data_dir.to_owned();
    move |source| OpenError::Io { dir: dir.clone(), source }
}
