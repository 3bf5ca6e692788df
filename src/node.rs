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
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use watchword_cluster::{Cluster, OpenError, Options, ShutdownError, Timing};

use crate::admin::Admin;
use crate::auth::Authenticator;
use crate::clock;
use crate::config::{Config, KeySource};
use crate::https::{self, Caller};
use crate::keys::{KeyError, Keyring};
use crate::radius::exchange::Exchanges;
use crate::radius::listener::Listener;

/// The id of the node that founds a cluster.
const FOUNDER: u64 = 1;
/// How long requests under way may take to finish when the node stops.
const GRACE: Duration = Duration::from_secs(5);
/// How long a start waits for a leader before it reports the node as started all the same.
const LEADER_WAIT: Duration = Duration::from_secs(5);

/// Why a node could not be made, started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The configuration lacks a way to wrap the data key.
    #[error("[key] needs exactly one of key_file and passphrase_file")]
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
}

/// Makes the first node of a new cluster: its data directory, data key and empty log.
///
/// # Errors
/// When there is a cluster already, or something cannot be made; then nothing that looks like a
/// cluster is left.
pub async fn init(config: &Config) -> Result<(), NodeError> {
    let failed = |source| NodeError::DataDir { path: config.data_dir.clone(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(&config.data_dir).map_err(failed)?;
    check_private(&config.data_dir)?;
    let source = config.key_source().ok_or(NodeError::KeySource)?;
    // A keyring without a log is what an interrupted `init` leaves behind: go on with it.
    match Keyring::create(&config.data_dir, &source) {
        Err(KeyError::Exists(_)) => _ = open_keys(config, &source).await?,
        created => _ = created?,
    }
    let cluster = Cluster::create(options(config), String::new()).await?;
    Ok(cluster.shutdown().await?)
}

impl Node {
    /// Starts a node on the data that [`init`] made.
    ///
    /// # Errors
    /// When a part cannot be started; then none is.
    pub async fn start(config: &Config, recorder: PrometheusHandle) -> Result<Self, NodeError> {
        check_private(&config.data_dir)?;
        let source = config.key_source().ok_or(NodeError::KeySource)?;
        let keys = Arc::new(open_keys(config, &source).await?);
        let cluster = Cluster::open(options(config)).await?;
        let started = Self::start_on(config, cluster.clone(), keys, recorder).await;
        if started.is_err() {
            cluster.shutdown().await?;
        }
        started
    }

    async fn start_on(
        config: &Config,
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
        let socket = config.admin_socket();
        let admin_listener =
            bind_private(&socket).map_err(bind("administration", socket.display().to_string()))?;
        let radius_addresses = radius
            .iter()
            .map(Listener::local_address)
            .collect::<io::Result<_>>()
            .map_err(bind("RADIUS", String::new()))?;

        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let admin = Admin::new(cluster.clone(), keys.clone(), stop.clone());
        let authenticator = Authenticator::new(cluster.clone(), keys.clone());
        let exchanges = Arc::new(Exchanges::new(authenticator, keys, &config.radius));
        for listener in radius {
            tasks.spawn(listener.serve(exchanges.clone(), stop.clone(), tasks.clone()));
        }
        let app = https::admin_router(admin.clone());
        let app = app.into_make_service_with_connect_info::<Caller>();
        serve(&tasks, "administration", axum::serve(admin_listener, app), stop.clone());
        let health = https::health_router(admin.clone(), recorder);
        serve(&tasks, "metrics", axum::serve(metrics, health), stop.clone());
        if let Err(error) = cluster.wait_for_leader(LEADER_WAIT).await {
            tracing::warn!(%error, "started without a leader");
        }
        Ok(Self { cluster, admin, radius_addresses, metrics_address, stop, tasks })
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
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(GRACE, self.tasks.wait()).await.is_err() {
            tracing::warn!("stopping with {} requests under way", self.tasks.len());
        }
        Ok(self.cluster.shutdown().await?)
    }
}

/// Serves HTTP in a task of its own until `stop`.
fn serve<L, M, S>(
    tasks: &TaskTracker,
    what: &'static str,
    server: axum::serve::Serve<L, M, S>,
    stop: CancellationToken,
) where
    L: axum::serve::Listener,
    L::Addr: std::fmt::Debug,
    M: for<'a> tower_service::Service<
            axum::serve::IncomingStream<'a, L>,
            Error = std::convert::Infallible,
            Response = S,
        > + Send
        + 'static,
    for<'a> <M as tower_service::Service<axum::serve::IncomingStream<'a, L>>>::Future: Send,
    S: tower_service::Service<
            axum::extract::Request,
            Response = axum::response::Response,
            Error = std::convert::Infallible,
        > + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    tasks.spawn(async move {
        let stopped = async move { stop.cancelled().await };
        if let Err(error) = server.with_graceful_shutdown(stopped).await {
            tracing::error!(%error, what, "the HTTP server failed");
        }
    });
}

/// Opens the keyring on a blocking thread: a passphrase takes argon2's time.
async fn open_keys(config: &Config, source: &KeySource) -> Result<Keyring, NodeError> {
    let (data_dir, source) = (config.data_dir.clone(), source.clone());
    let opened = tokio::task::spawn_blocking(move || Keyring::load(&data_dir, &source)).await;
    Ok(opened.map_err(|_| KeyError::DoesNotOpen)??)
}

fn options(config: &Config) -> Options {
    Options {
        timing: Timing {
            heartbeat: config.raft.heartbeat,
            election_min: config.raft.election_min,
            election_max: config.raft.election_max,
        },
        ..Options::new(config.data_dir.clone(), FOUNDER, Arc::new(clock::now))
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
