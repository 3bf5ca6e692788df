//! What a node serves: all its sockets, and the tasks behind them.
//!
//! All sockets are bound before one is served. Nothing outlives its owner: whoever drops the services,
//! on whatever way, stops them.

use std::fs::{self, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use watchword_cluster::Cluster;

use super::NodeError;
use crate::admin::Admin;
use crate::admission;
use crate::auth::Authenticator;
use crate::config::Config;
use crate::error_chain::chain;
use crate::https::{self, Caller};
use crate::keys::Keyring;
use crate::radius_front::exchange::Exchanges;
use crate::radius_front::listener::Listener;

/// How long requests under way may take to finish when the node stops.
const GRACE: Duration = Duration::from_secs(5);
/// How long the peers' connections may take to end after that.
const PEERS_GRACE: Duration = Duration::from_millis(500);
/// Pause between two turns of the metrics' upkeep.
const UPKEEP: Duration = Duration::from_secs(5);

/// Everything that the node listens on, bound and not served yet.
pub(super) struct Sockets {
    radius: Vec<Listener>,
    metrics: TcpListener,
    peers: TcpListener,
    admin: UnixListener,
    radius_addresses: Vec<SocketAddr>,
    metrics_address: SocketAddr,
}

/// What runs besides the replica.
pub(super) struct Services {
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

impl Sockets {
    /// Binds them all.
    ///
    /// # Errors
    /// When one cannot be bound; then none is.
    pub(super) async fn bind(config: &Config) -> Result<Self, NodeError> {
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
        let admin =
            bind_private(&socket).map_err(bind("administration", socket.display().to_string()))?;
        let radius_addresses = radius
            .iter()
            .map(Listener::local_address)
            .collect::<io::Result<_>>()
            .map_err(bind("RADIUS", String::new()))?;
        Ok(Self { radius, metrics, peers, admin, radius_addresses, metrics_address })
    }

    /// Serves them all.
    pub(super) fn serve(
        self,
        config: &Config,
        cluster: &Cluster,
        keys: &Arc<Keyring>,
        recorder: PrometheusHandle,
    ) -> (Admin, Services) {
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let authenticator = Authenticator::new(cluster.clone(), keys.clone());
        let (door, halt) = (authenticator.clone(), stop.clone());
        let admin = Admin::new(cluster.clone(), keys.clone(), door, halt);
        let exchanges = Arc::new(Exchanges::new(authenticator, keys.clone(), &config.radius));
        for listener in self.radius {
            tasks.spawn(listener.serve(exchanges.clone(), stop.clone(), tasks.clone()));
        }
        let routes = admission::routes(admin.clone());
        let peers = Peers::serve(cluster.clone(), self.peers, routes);
        tasks.spawn(upkeep(recorder.clone(), stop.clone()));
        tasks.spawn(administer(self.admin, admin.clone(), stop.clone()));
        let health = https::health_router(admin.clone(), recorder);
        tasks.spawn(https::serve(self.metrics, health, stop.clone()));
        let Self { radius_addresses, metrics_address, .. } = self;
        (admin, Services { radius_addresses, metrics_address, stop, tasks, peers })
    }
}

impl Services {
    /// Where RADIUS is answered.
    pub(super) fn radius_addresses(&self) -> &[SocketAddr] {
        &self.radius_addresses
    }

    /// Where metrics and health are answered.
    pub(super) fn metrics_address(&self) -> SocketAddr {
        self.metrics_address
    }

    /// The tasks, to wait for.
    #[cfg(test)]
    pub(super) fn tasks(&self) -> TaskTracker {
        self.tasks.clone()
    }

    /// One more task, which ends when it is told to stop.
    pub(super) fn spawn<Task>(&self, task: impl FnOnce(CancellationToken) -> Task)
    where
        Task: Future<Output = ()> + Send + 'static,
    {
        self.tasks.spawn(task(self.stop.clone()));
    }

    /// Takes no new requests and finishes those under way. The peers are served on.
    pub(super) async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(GRACE, self.tasks.wait()).await.is_err() {
            tracing::warn!("stopping with {} requests under way", self.tasks.len());
        }
    }

    /// Lets go of the peers. Their streams end with the replica; a peer that holds on to one is not
    /// waited for.
    pub(super) async fn stop_peers(&mut self) {
        self.peers.stop.cancel();
        if tokio::time::timeout(PEERS_GRACE, &mut self.peers.served).await.is_err() {
            self.peers.served.abort();
        }
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        self.stop.cancel();
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
}

impl Drop for Peers {
    fn drop(&mut self) {
        self.stop.cancel();
        self.served.abort();
    }
}

/// Serves administrators until `stop`.
async fn administer(listener: UnixListener, admin: Admin, stop: CancellationToken) {
    let app = https::admin_router(admin).into_make_service_with_connect_info::<Caller>();
    let serving = axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned());
    if let Err(error) = serving.await {
        tracing::error!(%error, "administration is not served");
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
