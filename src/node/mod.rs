//! Builds and starts every part of a node in order, and stops them in reverse.
//!
//! The order has reasons. Keys come before the log, because without them nothing in it can be used.
//! The log comes before any socket: whoever can connect gets an answer. All sockets are bound before
//! one is served, so that a node whose port is taken fails at once and whole. Stopping goes the other
//! way round: no new requests, then the ones under way, then the log.

use std::fs::{self, DirBuilder};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use rustls::pki_types::PrivateKeyDer;
use watchword_cluster::{
    Cluster, Credentials, OpenError, Options, Remains, ShutdownError, SnapshotFailed, Timing,
    Transport, TransportError,
};
use watchword_core::node::NodeId;

use crate::admin::{Admin, AdminError};
use crate::config::{Config, KeySource};
use crate::custody::Custodian;
use crate::error_chain::chain;
use crate::identity::{Identity, IdentityError};
use crate::keys::{DataKey, KeyError, Keyring};
use crate::pki::PkiError;
use crate::stage::{Stage, StageError};
use crate::{clock, random};

mod founding;
mod services;

use founding::found;
pub use founding::{init, restore};
use services::{Services, Sockets};

/// How long a start waits for a leader before it reports the node as started all the same.
const LEADER_WAIT: Duration = Duration::from_secs(5);

/// Why a node could not be made, started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The configuration lacks a way to wrap the data key.
    #[error("[key] does not name one way to wrap the data key")]
    KeySource,
    /// The data directory cannot be used.
    #[error("cannot use data directory {path}")]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others may read the data directory.
    #[error("{0} is accessible by others; run: chmod 700 {0}")]
    DataDirExposed(PathBuf),
    /// The data key cannot be made or opened.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The log cannot be made or opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// An address cannot be bound.
    #[error("cannot listen for {what} on {address}")]
    Bind {
        /// What for.
        what: &'static str,
        /// Where.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The node's identity cannot be read or written.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A certificate cannot be made.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// A certificate cannot be used.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The cluster cannot be founded, or the first token not made.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The data directory is of a node that has joined another cluster.
    #[error("the data directory belongs to a node of another cluster")]
    NotFounder,
    /// A restored cluster is another one than the one that the backup is of.
    #[error(
        "{0} belongs to a node of the very cluster that the backup is of; empty it, or name another \
         data_dir"
    )]
    SameCluster(PathBuf),
    /// The data directory is not one that a node can be made in, or run on.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// The state cannot be put on the disk.
    #[error(transparent)]
    Snapshot(#[from] SnapshotFailed),
    /// The log did not close.
    #[error(transparent)]
    Shutdown(#[from] ShutdownError),
}

/// A running node. Dropped without [`Node::stop`], it lets go of everything at once.
pub struct Node {
    cluster: Cluster,
    admin: Admin,
    services: Services,
}

/// What this node holds, as far as it matters to `recover`. Changes nothing.
///
/// # Errors
/// When there is no node, it runs, or its store is damaged.
pub async fn remains(config: &Config) -> Result<Remains, NodeError> {
    let (identity, _) = identity(config).await?;
    Ok(watchword_cluster::remains(&config.data_dir, identity.node).await?)
}

/// Makes this node, which must be stopped, the only one of its cluster.
///
/// # Errors
/// As [`remains`], or when the store cannot be written.
pub async fn recover(config: &Config) -> Result<(), NodeError> {
    let (identity, _) = identity(config).await?;
    Ok(watchword_cluster::recover(&config.data_dir, identity.node, clock::now()).await?)
}

/// Who the node of this file is, and the data key.
async fn identity(config: &Config) -> Result<(Identity, Keyring), NodeError> {
    check_private(&config.data_dir)?;
    let source = config.key_source().ok_or(NodeError::KeySource)?;
    if let Stage::Begun(maker) = Stage::of(&config.data_dir)? {
        return Err(StageError::CutOff { maker, data_dir: config.data_dir.clone() }.into());
    }
    let keys = open_keys(config, &source).await?;
    Ok((Identity::load(&config.data_dir, &keys)?, keys))
}

/// Makes the data directory, if it is missing, and checks that nobody else may enter it.
///
/// # Errors
/// When it cannot be made, or others may enter it.
pub fn prepare_data_dir(config: &Config) -> Result<(), NodeError> {
    let failed = |source| NodeError::DataDir { path: config.data_dir.clone(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(&config.data_dir).map_err(failed)?;
    check_private(&config.data_dir)
}

impl Node {
    /// Starts a node on the data that [`init`] made.
    ///
    /// # Errors
    /// When a part cannot be started; then none is.
    pub async fn start(config: &Config, recorder: PrometheusHandle) -> Result<Self, NodeError> {
        let (identity, keys) = identity(config).await?;
        let keys = Arc::new(keys);
        let held = keys.clone();
        let keep_key = move |key: &[u8]| {
            DataKey::decode(key).and_then(|key| held.hold(key)).map_err(|error| chain(&error))
        };
        let options = Options { keep_key: Arc::new(keep_key), ..options(config, &identity)? };
        let cluster = Cluster::open(options).await?;
        let sockets = match Self::prepare(config).await {
            Ok(sockets) => sockets,
            Err(error) => {
                given_up(cluster.shutdown().await);
                return Err(error);
            }
        };
        let (admin, services) = sockets.serve(config, &cluster, &keys, recorder);
        // From here on whoever gives up, or is dropped, takes with it all that runs.
        let node = Self { cluster: cluster.clone(), admin: admin.clone(), services };
        if let Err(error) = cluster.wait_for_leader(LEADER_WAIT).await {
            tracing::warn!(%error, "started without a leader");
        }
        if let Err(error) = found(config, &identity, &admin).await {
            given_up(node.close().await);
            return Err(error);
        }
        warn_of_address(&admin, identity.node, &config.peers.advertised());
        let data_dir = config.data_dir.clone();
        let custodian = Custodian { data_dir, identity, cluster, keys, admin };
        node.services.spawn(|stop| custodian.keep(stop));
        Ok(node)
    }

    /// What is left to do before anything is served, once the store is this node's alone.
    async fn prepare(config: &Config) -> Result<Sockets, NodeError> {
        // A maker that was cut off at its very end. From now on the node makes promises.
        Stage::finish(&config.data_dir)?;
        Sockets::bind(config).await
    }

    /// What administrators may do, within this process.
    pub fn admin(&self) -> &Admin {
        &self.admin
    }

    /// Where RADIUS is answered.
    pub fn radius_addresses(&self) -> &[SocketAddr] {
        self.services.radius_addresses()
    }

    /// Where metrics and health are answered.
    pub fn metrics_address(&self) -> SocketAddr {
        self.services.metrics_address()
    }

    /// Stops: takes no new requests, finishes those under way, closes the log.
    ///
    /// # Errors
    /// When the log does not close in order. Nothing that was acknowledged is lost by that.
    pub async fn stop(self) -> Result<(), NodeError> {
        // Another leads before this one is gone: nobody has to notice that it is.
        if let Err(error) = self.cluster.drain(true).await {
            tracing::info!(%error, "leadership is not handed over");
        }
        Ok(self.close().await?)
    }

    async fn close(mut self) -> Result<(), ShutdownError> {
        self.services.stop().await;
        let closed = self.cluster.shutdown().await;
        self.services.stop_peers().await;
        closed
    }
}

/// Tells what went wrong while a start was given up. The reason for that is what matters.
fn given_up(closed: Result<(), ShutdownError>) {
    if let Err(error) = closed {
        tracing::error!(error = chain(&error), "the log did not close");
    }
}

/// Opens the keyring on a blocking thread: a passphrase takes argon2's time.
async fn open_keys(config: &Config, source: &KeySource) -> Result<Keyring, NodeError> {
    let (data_dir, source) = (config.data_dir.clone(), source.clone());
    let opened = tokio::task::spawn_blocking(move || Keyring::load(&data_dir, &source)).await;
    Ok(opened.map_err(|_| KeyError::DoesNotOpen)??)
}

/// What the replica is told.
///
/// # Errors
/// When the node's certificate is of no use.
pub fn options(config: &Config, identity: &Identity) -> Result<Options, NodeError> {
    let options = Options::new(config.data_dir.clone(), identity.node, Arc::new(clock::now));
    let [heartbeat, election_min, election_max] = config.raft.timing();
    Ok(Options {
        transport: Some(Transport::new(credentials(identity))?),
        settle: config.raft.promote_after,
        checkpoint: config.raft.compare_every,
        snapshot_after_entries: config
            .raft
            .snapshot_after
            .unwrap_or(options.snapshot_after_entries),
        timing: Timing { heartbeat, election_min, election_max },
        epoch: identity.epoch,
        instance: u64::from_le_bytes(random::bytes().map_err(PkiError::from)?),
        version: env!("CARGO_PKG_VERSION"),
        ..options
    })
}

/// What the node shows to its peers.
pub(crate) fn credentials(identity: &Identity) -> Credentials {
    Credentials {
        cluster: identity.cluster,
        node: identity.node,
        authority: identity.authority.clone(),
        certificate: identity.certificate.clone(),
        key: PrivateKeyDer::Pkcs8(identity.key.pkcs8().to_vec().into()),
    }
}

/// Says so when the cluster looks for this node elsewhere. It is not put right by itself: a copy of
/// a node that runs would take its place.
fn warn_of_address(admin: &Admin, node: NodeId, address: &str) {
    if let Some(recorded) = admin.recorded_address(node).filter(|recorded| recorded != address) {
        tracing::warn!(
            recorded,
            address,
            "the other nodes look for this one elsewhere; if it has moved, tell them at any of them: \
             watchword members edit {node} --address {address}"
        );
    }
}

/// Refuses a data directory that others may enter.
pub(crate) fn check_private(path: &Path) -> Result<(), NodeError> {
    let metadata = fs::metadata(path)
        .map_err(|source| NodeError::DataDir { path: path.to_owned(), source })?;
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(NodeError::DataDirExposed(path.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};
    use std::os::unix::net::UnixStream;

    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    fn recorder() -> PrometheusHandle {
        PrometheusBuilder::new().build_recorder().handle()
    }

    /// The file of a node in `dir` on free ports, with `advertise` for its peers.
    fn config(dir: &Path, advertise: &str) -> Config {
        let tcp = || TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let [peers, metrics] = [tcp(), tcp()].map(|address| address.expect("a port"));
        let radius = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let radius = radius.expect("a port");
        let text = format!(
            "data_dir = \"data\"\n[key]\nkey_file = \"data.key\"\n\
             [peers]\nlisten = \"{peers}\"\nadvertise = \"{advertise}\"\n\
             [radius]\nlisten = [\"{radius}\"]\n[metrics]\nlisten = \"{metrics}\"\n"
        );
        let file = dir.join("watchword.toml");
        fs::write(&file, text).expect("written");
        Config::read(&file).expect("a file")
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_start_that_fails_at_its_end_leaves_nothing_running() {
        let dir = tempfile::tempdir().expect("a directory");
        // The state machine takes no address as long as this, so the cluster cannot be founded.
        let bad = config(dir.path(), &format!("{}:7400", "a".repeat(300)));
        assert!(matches!(init(&bad).await, Err(NodeError::Admin(_))));
        for _ in 0..2 {
            let started = Node::start(&bad, recorder()).await;
            assert!(matches!(started, Err(NodeError::Admin(_))));
            for address in [bad.metrics.listen, bad.peers.listen] {
                TcpListener::bind(address).expect("nobody listens");
            }
            for address in &bad.radius.listen {
                UdpSocket::bind(address).expect("nobody answers");
            }
            UnixStream::connect(bad.admin_socket()).expect_err("nobody administers");
        }
        // Nor is the store held.
        let good = config(dir.path(), "127.0.0.1:7400");
        let node = Node::start(&good, recorder()).await.expect("started");
        node.stop().await.expect("stopped");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_node_that_is_dropped_takes_all_its_tasks_with_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = config(dir.path(), "127.0.0.1:7400");
        init(&config).await.expect("made");
        let node = Node::start(&config, recorder()).await.expect("started");
        let tasks = node.services.tasks();
        drop(node);
        tasks.close();
        tokio::time::timeout(Duration::from_secs(30), tasks.wait()).await.expect("all end");
    }
}
