//! Builds and starts every part of a node in order, and stops them in reverse.
//!
//! The order has reasons. Keys come before the log, because without them nothing in it can be used.
//! The log comes before any socket: whoever can connect gets an answer. All sockets are bound before
//! one is served, so that a node whose port is taken fails at once and whole. Stopping goes the other
//! way round: no new requests, then the ones under way, then the log.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use watchword_cluster::{
    Cluster, Credentials, OpenError, Options, Remains, ShutdownError, SnapshotFailed, Timing,
    Transport, TransportError, node_name,
};
use watchword_core::State;
use watchword_core::command::Found;
use watchword_core::id::ClusterId;
use watchword_core::node::{self as replicated, FOUNDER, NodeId};

use crate::admin::{Admin, AdminError, NewToken, TokenSpec};
use crate::admission;
use crate::auth::Authenticator;
use crate::backup::Backup;
use crate::config::{Config, KeySource};
use crate::custody::Custodian;
use crate::error_chain::chain;
use crate::https::{self, Caller};
use crate::identity::{Identity, IdentityError};
use crate::keys::{DataKey, KeyError, Keyring, Owner};
use crate::pki::{Authority, PkiError, PrivateKey};
use crate::radius::exchange::Exchanges;
use crate::radius::listener::Listener;
use crate::{clock, random};

/// How long requests under way may take to finish when the node stops.
const GRACE: Duration = Duration::from_secs(5);
/// How long their connections may take to end after that.
const PEERS_GRACE: Duration = Duration::from_millis(500);
/// How long a start waits for a leader before it reports the node as started all the same.
const LEADER_WAIT: Duration = Duration::from_secs(5);
/// Pause between two turns of the metrics' upkeep.
const UPKEEP: Duration = Duration::from_secs(5);
/// The token that comes with a new cluster: enough for three nodes.
const FIRST_TOKEN: TokenSpec = TokenSpec { seconds: 3600, uses: 2 };

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
    /// The state cannot be put on the disk.
    #[error(transparent)]
    Snapshot(#[from] SnapshotFailed),
    /// The log did not close.
    #[error(transparent)]
    Shutdown(#[from] ShutdownError),
}

/// A running node.
pub struct Node {
    cluster: Cluster,
    admin: Admin,
    radius_addresses: Vec<SocketAddr>,
    metrics_address: SocketAddr,
    stop: CancellationToken,
    tasks: TaskTracker,
    peers: Peers,
}

/// What serves the peers. It outlives everything else: until the replica has stopped, the others must
/// reach it, for the last requests depend on them.
struct Peers {
    stop: CancellationToken,
    served: JoinHandle<()>,
}

/// Makes the first node of a new cluster: its data directory, data key, authority and log; and a
/// token for the next nodes.
///
/// # Errors
/// When there is a cluster already, or something cannot be made; then nothing that looks like a
/// cluster is left.
pub async fn init(config: &Config) -> Result<NewToken, NodeError> {
    prepare_data_dir(config)?;
    let source = config.key_source().ok_or(NodeError::KeySource)?;
    // A keyring or identity without a log is what an interrupted `init` leaves behind: go on with it.
    let keys = match Keyring::create(&config.data_dir, &source) {
        Err(KeyError::Exists(_)) => open_keys(config, &source).await?,
        created => created?,
    };
    let identity = own_identity(config, &keys)?;
    let options = options(config, &identity)?;
    let cluster = Cluster::create(options, config.peers.advertised()).await?;
    let keys = Arc::new(keys);
    let authenticator = Authenticator::new(cluster.clone(), keys.clone());
    let admin = Admin::new(cluster.clone(), keys, authenticator, CancellationToken::new());
    let token = match found(config, &identity, &admin).await {
        Ok(()) => admin.create_token(FIRST_TOKEN).await.map_err(NodeError::from),
        Err(error) => Err(error),
    };
    drop(admin);
    cluster.shutdown().await?;
    token
}

/// Makes the first node of a new cluster that begins with what a backup holds; gives the state that
/// it begins with.
///
/// # Errors
/// When there is a node already, or something cannot be made.
pub async fn restore(config: &Config, backup: Backup) -> Result<State, NodeError> {
    prepare_data_dir(config)?;
    let source = config.key_source().ok_or(NodeError::KeySource)?;
    let Backup { header, data_keys, state } = backup;
    // What an interrupted `restore` of the same backup has left is gone on with.
    let keys = match Keyring::adopt(&config.data_dir, &source, &data_keys) {
        Err(KeyError::Exists(path)) => {
            let keys = open_keys(config, &source).await?;
            if !keys.holds(&data_keys)? {
                return Err(KeyError::Exists(path).into());
            }
            keys
        }
        adopted => adopted?,
    };
    // In the middle of a replacement there are two: the new cluster goes on with it.
    keys.follow(state.data_keys())?;
    let identity = own_identity(config, &keys)?;
    let found = founding(config, &identity).ok_or(NodeError::NotFounder)?;
    let state = state.restored(clock::now(), &found);
    let (address, node) = (config.peers.advertised(), identity.node);
    watchword_cluster::create_from(&config.data_dir, node, address, header.index, &state).await?;
    Ok(state)
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

/// The identity in the data directory; a founder's new one if there is none.
fn own_identity(config: &Config, keys: &Keyring) -> Result<Identity, NodeError> {
    if !Identity::exists(&config.data_dir) {
        new_identity(keys)?.save(&config.data_dir, keys)?;
    }
    Ok(Identity::load(&config.data_dir, keys)?)
}

/// The identity of a founder, with a new authority.
fn new_identity(keys: &Keyring) -> Result<Identity, NodeError> {
    let now = clock::now();
    let cluster = ClusterId(random::bytes().map_err(PkiError::from)?);
    let (authority, authority_key) = Authority::create(cluster, now)?;
    let sealed = keys.seal(Owner::AuthorityKey(cluster), authority_key.pkcs8())?;
    let key = PrivateKey::generate()?;
    let name = node_name(cluster, FOUNDER);
    Ok(Identity {
        node: FOUNDER,
        cluster,
        authority: authority.certificate().clone(),
        certificate: authority.certify(&name, &key.public_key(), now)?,
        key,
        certified: now,
        epoch: 0,
        authority_key: Some(sealed),
    })
}

/// Writes into the log what only the founder knows, unless it is there.
async fn found(config: &Config, identity: &Identity, admin: &Admin) -> Result<(), NodeError> {
    match founding(config, identity) {
        Some(found) => Ok(admin.found(found).await?),
        None => Ok(()),
    }
}

/// What the founder knows; other nodes do not.
fn founding(config: &Config, identity: &Identity) -> Option<Found> {
    Some(Found {
        authority: replicated::Authority {
            cluster: identity.cluster,
            certificate: identity.authority.to_vec().into(),
            key: identity.authority_key.clone()?,
        },
        address: config.peers.advertised().into(),
        public_key: identity.key.public_key().into(),
    })
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
        let started = Self::start_on(config, identity, cluster.clone(), keys, recorder).await;
        if started.is_err() {
            cluster.shutdown().await?;
        }
        started
    }

    async fn start_on(
        config: &Config,
        identity: Identity,
        cluster: Cluster,
        keys: Arc<Keyring>,
        recorder: PrometheusHandle,
    ) -> Result<Self, NodeError> {
        let bind = |what, address: String| move |source| NodeError::Bind { what, address, source };
        let mut radius = Vec::new();
        for (number, &address) in (0u16..).zip(&config.radius.listen) {
            let listener = Listener::bind(address, number);
            radius.push(listener.map_err(bind("RADIUS", address.to_string()))?);
        }
        let address = config.metrics.listen;
        let metrics =
            TcpListener::bind(address).await.map_err(bind("metrics", address.to_string()))?;
        let metrics_address = metrics.local_addr().map_err(bind("metrics", address.to_string()))?;
        let address = config.peers.listen;
        let peers = TcpListener::bind(address).await.map_err(bind("peers", address.to_string()))?;
        let socket = config.admin_socket();
        let admin_listener =
            bind_private(&socket).map_err(bind("administration", socket.display().to_string()))?;
        let radius_addresses = radius
            .iter()
            .map(Listener::local_address)
            .collect::<io::Result<_>>()
            .map_err(bind("RADIUS", String::new()))?;

        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let authenticator = Authenticator::new(cluster.clone(), keys.clone());
        let (door, halt) = (authenticator.clone(), stop.clone());
        let admin = Admin::new(cluster.clone(), keys.clone(), door, halt);
        let keys_for_custody = keys.clone();
        let exchanges = Arc::new(Exchanges::new(authenticator, keys, &config.radius));
        for listener in radius {
            tasks.spawn(listener.serve(exchanges.clone(), stop.clone(), tasks.clone()));
        }
        let routes = admission::routes(admin.clone());
        let peers = Peers::serve(cluster.clone(), peers, routes);
        tasks.spawn(upkeep(recorder.clone(), stop.clone()));
        let app = https::admin_router(admin.clone());
        let app = app.into_make_service_with_connect_info::<Caller>();
        let (served, stopped) = (axum::serve(admin_listener, app), stop.clone());
        tasks.spawn(async move {
            let serving = served.with_graceful_shutdown(stopped.cancelled_owned());
            if let Err(error) = serving.await {
                tracing::error!(%error, "administration is not served");
            }
        });
        let health = https::health_router(admin.clone(), recorder);
        tasks.spawn(https::serve(metrics, health, stop.clone()));
        if let Err(error) = cluster.wait_for_leader(LEADER_WAIT).await {
            tracing::warn!(%error, "started without a leader");
        }
        found(config, &identity, &admin).await?;
        warn_of_address(&admin, identity.node, &config.peers.advertised());
        let custodian = Custodian {
            data_dir: config.data_dir.clone(),
            identity,
            cluster: cluster.clone(),
            keys: keys_for_custody,
            admin: admin.clone(),
        };
        tasks.spawn(custodian.keep(stop.clone()));
        Ok(Self { cluster, admin, radius_addresses, metrics_address, stop, tasks, peers })
    }

    /// What administrators may do, within this process.
    pub fn admin(&self) -> &Admin {
        &self.admin
    }

    /// Where RADIUS is answered.
    pub fn radius_addresses(&self) -> &[SocketAddr] {
        &self.radius_addresses
    }

    /// Where metrics and health are answered.
    pub fn metrics_address(&self) -> SocketAddr {
        self.metrics_address
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
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(GRACE, self.tasks.wait()).await.is_err() {
            tracing::warn!("stopping with {} requests under way", self.tasks.len());
        }
        let closed = self.cluster.shutdown().await;
        self.peers.stop().await;
        Ok(closed?)
    }
}

impl Peers {
    fn serve(cluster: Cluster, listener: TcpListener, routes: tonic::service::Routes) -> Self {
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let served = tokio::spawn(async move {
            if let Err(error) = cluster.serve_peers(listener, routes, stopped).await {
                tracing::error!(error = chain(&error), "peers are not served");
            }
        });
        Self { stop, served }
    }

    /// Lets go of the peers. Their streams end with the replica; a peer that holds on to one is not
    /// waited for.
    async fn stop(self) {
        self.stop.cancel();
        let handle = self.served.abort_handle();
        if tokio::time::timeout(PEERS_GRACE, self.served).await.is_err() {
            handle.abort();
        }
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

/// Digests the samples of the histograms, which pile up otherwise while nobody scrapes.
async fn upkeep(recorder: PrometheusHandle, stop: CancellationToken) {
    let mut turn = tokio::time::interval(UPKEEP);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = turn.tick() => recorder.run_upkeep(),
        }
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

/// Binds a Unix socket that only its owner may connect to. It takes its place under its name with
/// the right mode already; a socket that a killed node left there is replaced, which is safe because
/// the open log proves that no other node runs here.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&new)?;
    fs::set_permissions(&new, Permissions::from_mode(0o600))?;
    fs::rename(&new, path)?;
    Ok(listener)
}
