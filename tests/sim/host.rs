//! One simulated host: what stays when its power fails, and the node that runs on it.
//!
//! The node is made of the product's parts, put together as `watchword serve` does, but for sockets
//! and files: the replica on a disk in memory, peers over TLS, RADIUS exchanges, administration.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_local;
use tokio_util::sync::CancellationToken;
use turmoil::net::{TcpListener, UdpSocket};
use watchword::admin::Admin;
use watchword::auth::{Authenticator, PasswordVerifierPool};
use watchword::clock;
use watchword::config::{KeySource, RadiusConfig};
use watchword::keys::Keyring;
use watchword::pki::{Authority, PrivateKey};
use watchword::radius_front::exchange::{Exchanges, Received};
use watchword_cluster::{Cluster, Credentials, MemoryDisk, NodeId, Options, Transport, node_name};
use watchword_core::id::ClusterId;

use crate::entropy;
use crate::net::{SimulatedListener, SimulatedNet};
use crate::operator::cheap_hash;
use crate::scenario::Scenario;

/// The cluster's id.
pub(crate) const CLUSTER: ClusterId = ClusterId([7; 16]);
/// Port of the peers.
pub(crate) const PEERS: u16 = 7400;
/// Port of RADIUS.
pub(crate) const RADIUS: u16 = 1812;

/// Something to do on a host, for whoever stands before it.
type Job = Box<dyn FnOnce(Handles) -> Pin<Box<dyn Future<Output = ()>>>>;

/// The node on a host.
#[derive(Clone)]
pub(crate) struct Handles {
    /// Its replica.
    pub(crate) cluster: Cluster,
    /// Its administration.
    pub(crate) admin: Admin,
}

/// Who a node is. It stays when the power fails.
pub(crate) struct Identity {
    /// Its id.
    pub(crate) node: NodeId,
    /// Its certificate.
    certificate: CertificateDer<'static>,
    /// The authority's.
    authority: CertificateDer<'static>,
    key: PrivateKey,
    /// Holds the keyring.
    dir: PathBuf,
}

impl Identity {
    /// Certifies `node` and hands it the data keys.
    pub(crate) fn new(
        node: NodeId,
        key: PrivateKey,
        authority: &Authority,
        data_keys: &[u8],
        dir: PathBuf,
    ) -> anyhow::Result<Self> {
        std::fs::create_dir(&dir)?;
        Keyring::adopt(&dir, &KeySource::File(dir.join("data.key")), data_keys)?;
        let name = node_name(CLUSTER, node);
        let certificate = authority.certify(&name, &key.public_key(), clock::now())?;
        Ok(Self { node, certificate, authority: authority.certificate().clone(), key, dir })
    }

    fn keyring(&self) -> anyhow::Result<Keyring> {
        Ok(Keyring::load(&self.dir, &KeySource::File(self.dir.join("data.key")))?)
    }

    fn credentials(&self) -> Credentials {
        Credentials {
            cluster: CLUSTER,
            node: self.node,
            authority: self.authority.clone(),
            certificate: self.certificate.clone(),
            key: PrivateKeyDer::Pkcs8(self.key.pkcs8().to_vec().into()),
        }
    }
}

/// A host.
pub(crate) struct Host {
    /// Its number, from 0.
    pub(crate) number: usize,
    /// Its name in the network.
    pub(crate) name: String,
    /// Whose node runs here, if one belongs here.
    pub(crate) identity: RefCell<Option<Rc<Identity>>>,
    /// Its disk.
    pub(crate) disk: RefCell<MemoryDisk>,
    /// The running node.
    pub(crate) running: RefCell<Option<Handles>>,
    /// Whether the node says that it is ready.
    pub(crate) is_ready: Cell<bool>,
    /// How often a node was started here.
    pub(crate) starts: Cell<u64>,
    jobs: RefCell<Option<mpsc::UnboundedSender<Job>>>,
    sync: Duration,
    snapshot_after: u64,
}

impl Host {
    /// A host without a node.
    pub(crate) fn new(number: usize, scenario: &Scenario) -> Self {
        Self {
            number,
            name: format!("n{}", number + 1),
            identity: RefCell::default(),
            disk: RefCell::new(MemoryDisk::new(scenario.sync)),
            running: RefCell::default(),
            is_ready: Cell::new(false),
            starts: Cell::new(0),
            jobs: RefCell::default(),
            sync: scenario.sync,
            snapshot_after: scenario.snapshot_after,
        }
    }

    /// The id of the node that belongs here.
    pub(crate) fn node(&self) -> Option<NodeId> {
        self.identity.borrow().as_ref().map(|identity| identity.node)
    }

    /// The sets of voters of each of which a majority decides, as the node here knows.
    pub(crate) fn configurations(&self) -> Option<Vec<BTreeSet<NodeId>>> {
        Some(self.running.borrow().as_ref()?.cluster.status().configurations)
    }

    /// Where its peers reach it.
    pub(crate) fn address(&self) -> String {
        format!("{}:{PEERS}", self.name)
    }

    /// What happens to the disk when the power fails; some of what was not synced may survive.
    pub(crate) fn lose_power(&self, random: &mut fastrand::Rng) {
        let left = {
            let disk = self.disk.borrow();
            disk.crash(random.usize(0..=disk.pending()), random.usize(0..4))
        };
        self.disk.replace(left);
        self.running.replace(None);
        self.jobs.replace(None);
        self.is_ready.set(false);
    }

    /// An empty disk, and nobody who belongs here.
    pub(crate) fn wipe(&self) {
        self.disk.replace(MemoryDisk::new(self.sync));
        self.identity.replace(None);
    }

    /// Does something on the host; `None` when there is no node, or its power fails meanwhile.
    pub(crate) async fn run<T: 'static, F: Future<Output = T> + 'static>(
        &self,
        work: impl FnOnce(Handles) -> F + 'static,
    ) -> Option<T> {
        let (to, done) = oneshot::channel();
        self.spawn(move |handles| {
            let doing = work(handles);
            async move { drop(to.send(doing.await)) }
        })?;
        done.await.ok()
    }

    /// Has something done on the host; `None` when there is no node.
    pub(crate) fn spawn<F: Future<Output = ()> + 'static>(
        &self,
        work: impl FnOnce(Handles) -> F + 'static,
    ) -> Option<()> {
        let job: Job = Box::new(move |handles| Box::pin(work(handles)));
        self.jobs.borrow().as_ref()?.send(job).ok()
    }
}

/// Whether every node that belongs to one of `hosts` is ready and votes, and nobody else does.
pub(crate) fn all_vote(hosts: &[Rc<Host>]) -> bool {
    let members: Vec<_> = hosts.iter().filter(|host| host.node().is_some()).collect();
    let nodes: BTreeSet<_> = members.iter().filter_map(|host| host.node()).collect();
    let votes = |host: &Host| {
        host.configurations().is_some_and(|known| known.as_slice() == [nodes.clone()])
    };
    members.iter().all(|host| host.is_ready.get() && votes(host))
}

/// What a host does from its start until its power fails.
pub(crate) async fn software(host: Rc<Host>) -> turmoil::Result {
    entropy::enter_host(host.number);
    let identity = host.identity.borrow().clone();
    match identity {
        Some(identity) => Ok(serve(host, &identity).await?),
        None => std::future::pending().await,
    }
}

/// Runs the node.
async fn serve(host: Rc<Host>, identity: &Identity) -> anyhow::Result<()> {
    let start = host.starts.get() + 1;
    host.starts.set(start);
    let options = Options {
        transport: Some(Transport::over(Arc::new(SimulatedNet), identity.credentials())?),
        settle: Duration::from_millis(300),
        checkpoint: Duration::from_secs(1),
        snapshot_after_entries: host.snapshot_after,
        instance: start << 8 | host.number as u64,
        ..Options::new(&identity.dir, identity.node, Arc::new(clock::now))
    };
    let disk = host.disk.borrow().clone();
    let is_founder = host.number == 0 && disk.bounds() == (0, 0) && start == 1;
    let cluster = if is_founder {
        Cluster::create_in_memory(options, host.address(), &disk).await?
    } else {
        Cluster::open_in_memory(options, &disk).await?
    };
    let keys = Arc::new(identity.keyring()?);
    // Real hashes would take more time than all the rest.
    let passwords = PasswordVerifierPool::new(&cheap_hash("nobody")?);
    let authenticator = Authenticator::comparing(cluster.clone(), keys.clone(), passwords);
    let stop = CancellationToken::new();
    let admin = Admin::new(cluster.clone(), keys.clone(), authenticator.clone(), stop);
    let handles = Handles { cluster: cluster.clone(), admin };

    let peers = TcpListener::bind(("0.0.0.0", PEERS)).await?;
    let serving = {
        let cluster = cluster.clone();
        async move {
            let routes = tonic::service::Routes::default();
            cluster.serve_peers(SimulatedListener(peers), routes, std::future::pending()).await
        }
    };
    spawn_local(serving);
    let exchanges = Rc::new(Exchanges::new(authenticator, keys, &RadiusConfig::default()));
    spawn_local(answer(exchanges, UdpSocket::bind(("0.0.0.0", RADIUS)).await?));

    let (jobs, mut waiting) = mpsc::unbounded_channel::<Job>();
    host.jobs.replace(Some(jobs));
    host.running.replace(Some(handles.clone()));
    let mut readiness = tokio::time::interval(Duration::from_millis(20));
    loop {
        tokio::select! {
            biased;
            job = waiting.recv() => {
                let job = job.context("the host is gone")?;
                spawn_local(job(handles.clone()));
            }
            _ = readiness.tick() => host.is_ready.set(cluster.status().is_ready()),
        }
    }
}

/// Answers RADIUS.
async fn answer(exchanges: Rc<Exchanges>, socket: UdpSocket) -> std::io::Result<()> {
    let socket = Rc::new(socket);
    let mut buffer = vec![0; 4096];
    loop {
        let (length, source) = socket.recv_from(&mut buffer).await?;
        match exchanges.receive(&buffer[..length], source, 0) {
            Received::Dropped => {}
            Received::Answer(reply) => drop(socket.send_to(&reply, source).await),
            Received::Pending(pending) => {
                let (exchanges, socket) = (exchanges.clone(), socket.clone());
                spawn_local(async move {
                    if let Some(reply) = exchanges.answer(pending).await {
                        // A reply that is lost is asked for again.
                        drop(socket.send_to(&reply, source).await);
                    }
                });
            }
        }
    }
}
