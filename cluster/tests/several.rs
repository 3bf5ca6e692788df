//! Several replicas on loopback, with real certificates.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "everything here is a test, helpers included"
)]

mod common;
#[path = "common/members.rs"]
mod members;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::add_user;
use members::{CLUSTER, admission, founding, token};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use watchword_cluster::{
    Cluster, Credentials, Options, ProposeError, Role, Status, TransferError, Transport, node_name,
};
use watchword_core::id::ClusterId;
use watchword_core::time::Timestamp;
use watchword_core::{Applied, Command};

const PATIENCE: Duration = Duration::from_secs(20);

/// What certifies the nodes of a test.
struct Pki {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Pki {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([]).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let certificate = params.self_signed(&key).expect("a certificate").der().clone();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    fn credentials(&self, cluster: ClusterId, node: u64) -> Credentials {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new([node_name(cluster, node)]).expect("a name");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        Credentials {
            cluster,
            node,
            authority: self.certificate.clone(),
            certificate: certificate.der().clone(),
            key: PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        }
    }

    fn transport(&self, node: u64) -> Transport {
        Transport::new(self.credentials(CLUSTER, node)).expect("a transport")
    }
}

/// One running replica.
struct Site {
    cluster: Cluster,
    address: String,
    /// By how much its clock was put forwards.
    clock_step_ms: Arc<AtomicU64>,
    stop: CancellationToken,
    served: tokio::task::JoinHandle<()>,
    dir: TempDir,
}

impl Site {
    async fn start(pki: &Pki, node: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let dir = tempfile::tempdir().expect("a directory");
        Self::start_in(dir, pki, node, listener).await
    }

    async fn start_in(dir: TempDir, pki: &Pki, node: u64, listener: TcpListener) -> Self {
        Self::start_ahead(dir, pki, node, listener, 0).await
    }

    /// Starts it with a clock that is `ahead_ms` ahead.
    async fn start_ahead(
        dir: TempDir,
        pki: &Pki,
        node: u64,
        listener: TcpListener,
        ahead_ms: u64,
    ) -> Self {
        let address = listener.local_addr().expect("an address").to_string();
        let (step, started) = (Arc::new(AtomicU64::new(ahead_ms)), Instant::now());
        let stepped = step.clone();
        let clock = move || {
            let elapsed = started.elapsed().as_millis() as u64;
            Timestamp(1_800_000_000_000 + elapsed + stepped.load(Ordering::Relaxed))
        };
        let mut options = Options::new(dir.path(), node, Arc::new(clock));
        options.transport = Some(pki.transport(node));
        options.settle = Duration::from_millis(200);
        options.checkpoint = Duration::from_millis(500);
        let exists = dir.path().join("raft").exists();
        let cluster = match (node, exists) {
            (_, true) => Cluster::open(options).await.expect("opened"),
            (1, false) => Cluster::create(options, address.clone()).await.expect("created"),
            _ => {
                Cluster::create_empty(&options).await.expect("created");
                Cluster::open(options).await.expect("opened")
            }
        };
        let stop = CancellationToken::new();
        let (served, stopped) = (cluster.clone(), stop.clone());
        let served = tokio::spawn(async move {
            let routes = tonic::service::Routes::default();
            served.serve_peers(listener, routes, stopped.cancelled_owned()).await.expect("served");
        });
        Self { cluster, address, clock_step_ms: step, stop, served, dir }
    }

    /// Stops it; its data stays.
    async fn stop(self) -> TempDir {
        self.stop.cancel();
        self.served.abort();
        self.cluster.shutdown().await.expect("stopped");
        self.dir
    }

    /// Proposes again while nothing was proposed because no leader was found: where many tests share
    /// few cores, an election may take longer than a proposal waits.
    async fn propose_in_time(&self, command: Command) -> Result<Applied, ProposeError> {
        let proposed = tokio::time::timeout(PATIENCE, async {
            loop {
                match self.cluster.propose(command.clone()).await {
                    Err(ProposeError::NoLeader) => {}
                    proposed => return proposed,
                }
            }
        });
        proposed.await.unwrap_or(Err(ProposeError::NoLeader))
    }

    async fn until(&self, what: &str, mut holds: impl FnMut(&Cluster) -> bool) {
        let waited = tokio::time::timeout(PATIENCE, async {
            let mut tick = tokio::time::interval(Duration::from_millis(20));
            while !holds(&self.cluster) {
                tick.tick().await;
            }
        });
        waited.await.unwrap_or_else(|_| panic!("{what}: {:?}", self.cluster.status()));
    }
}

/// Founds a cluster and lets `count - 1` more nodes join.
async fn found(pki: &Pki, count: u64) -> Vec<Site> {
    let first = Site::start(pki, 1).await;
    assert_eq!(first.cluster.propose(founding(&first.address)).await, Ok(Applied::Done));
    assert_eq!(first.cluster.propose(token()).await, Ok(Applied::Done));
    let mut sites = vec![first];
    for node in 2..=count {
        let site = Site::start(pki, node).await;
        assert_eq!(admit(&sites[0].cluster, node, &site.address).await, Applied::Admitted(node));
        sites.push(site);
    }
    // While the last one is made a voter, the voters before it must agree by themselves, too.
    let complete = |status: Status| {
        let voters = status.voters.len();
        voters as u64 == count && status.failure_tolerance() == (voters - 1) / 2
    };
    for site in &sites {
        site.until("all vote", |cluster| complete(cluster.status())).await;
    }
    sites
}

/// Which of them leads.
fn leader_of(sites: &[Site]) -> usize {
    let leads = |site: &Site| site.cluster.status().role == Role::Leader;
    sites.iter().position(leads).expect("a leader")
}

async fn admit(cluster: &Cluster, node: u64, address: &str) -> Applied {
    cluster.propose(admission(node, address)).await.expect("applied")
}

#[tokio::test(flavor = "multi_thread")]
async fn any_node_takes_proposals_and_reads() {
    let pki = Pki::new();
    let sites = found(&pki, 3).await;
    for number in 0..30 {
        let site = &sites[number as usize % 3];
        let proposed = site.cluster.propose_indexed(add_user(number)).await.expect("applied");
        assert_eq!(proposed.applied, Applied::Done);
        assert_eq!(site.cluster.state().user_count() as u64, number + 1, "its own change");
        let next = &sites[(number as usize + 1) % 3];
        let fresh = next.cluster.read().await.expect("a fresh read");
        assert_eq!(fresh.user_count() as u64, number + 1, "a fresh read anywhere");
    }
    for site in &sites {
        site.until("they compare their states", |cluster| {
            let status = cluster.status();
            assert_eq!((status.differs_at, status.unfit), (None, None));
            status.equal_at.is_some_and(|index| index > 30)
        })
        .await;
    }
    let digest = |site: &Site| site.cluster.state().digest().expect("encodes");
    let last = sites[0].cluster.status().applied;
    for site in &sites {
        site.until("all applied", |cluster| cluster.status().applied >= last).await;
    }
    assert_eq!(digest(&sites[0]), digest(&sites[1]));
    assert_eq!(digest(&sites[0]), digest(&sites[2]));
    for site in sites {
        site.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_of_three_go_on_when_the_leader_is_gone_and_it_catches_up_again() {
    let pki = Pki::new();
    let mut sites = found(&pki, 3).await;
    let gone = sites.remove(leader_of(&sites));
    let (address, node) = (gone.address.clone(), gone.cluster.status().node_id);
    let dir = gone.stop().await;
    // Asked at once, before anybody has noticed: reads and proposals wait for the new leader.
    let read = sites[1].cluster.read().await.map(|state| state.user_count());
    assert_eq!(read, Ok(0));
    assert_eq!(sites[0].propose_in_time(add_user(1)).await, Ok(Applied::Done));
    assert_eq!(sites[1].propose_in_time(add_user(2)).await, Ok(Applied::Done));
    let listener = TcpListener::bind(&address).await.expect("its port again");
    let back = Site::start_in(dir, &pki, node, listener).await;
    back.until("it catches up", |cluster| cluster.state().user_count() == 2).await;
    assert_eq!(back.propose_in_time(add_user(3)).await, Ok(Applied::Done));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_seven_any_four_go_on() {
    let pki = Pki::new();
    let mut sites = found(&pki, 7).await;
    assert_eq!(sites[0].cluster.status().failure_tolerance(), 3);
    // The leader among them, wherever it is: those that stay elect another.
    sites.sort_by_key(|site| site.cluster.status().role != Role::Leader);
    for gone in sites.drain(..3) {
        gone.stop().await;
    }
    assert_eq!(sites[0].propose_in_time(add_user(1)).await, Ok(Applied::Done));
    for site in &sites {
        site.until("it has the user", |cluster| cluster.state().user_count() == 1).await;
    }
    sites.remove(0).stop().await;
    sites[0].until("it is not ready", |cluster| !cluster.status().is_ready()).await;
    assert!(sites[0].cluster.propose(add_user(2)).await.is_err(), "three of seven decide nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_nothing_is_decided() {
    let pki = Pki::new();
    let mut sites = found(&pki, 3).await;
    let last = sites.pop().expect("three");
    for site in sites {
        site.stop().await;
    }
    let proposed = last.cluster.propose(add_user(1)).await;
    assert!(proposed.is_err(), "{proposed:?}");
    assert!(last.cluster.read().await.is_err());
    last.until("it is not ready", |cluster| !cluster.status().is_ready()).await;
}

/// More than may be on their way at once, so that some are appended and the others wait behind them.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_left_alone_under_load_leaves_nobody_waiting() {
    let pki = Pki::new();
    let mut sites = found(&pki, 3).await;
    let leader = sites.remove(leader_of(&sites));
    for site in sites {
        site.stop().await;
    }
    let proposals = (0..200).map(|number| {
        let cluster = leader.cluster.clone();
        tokio::spawn(async move { cluster.propose(add_user(number)).await })
    });
    let proposals = futures::future::join_all(proposals.collect::<Vec<_>>());
    let ended = tokio::time::timeout(PATIENCE, proposals).await.expect("all end");
    for proposed in ended {
        let proposed = proposed.expect("no panic");
        let fair = matches!(proposed, Err(ProposeError::OutcomeUnknown | ProposeError::NoLeader));
        assert!(fair, "{proposed:?}");
    }
    assert_eq!(leader.cluster.state().user_count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_is_handed_over_and_a_removed_leader_leaves() {
    let pki = Pki::new();
    let sites = found(&pki, 3).await;
    let first = leader_of(&sites);
    let heir = sites[(first + 1) % 3].cluster.status().node_id;
    assert_eq!(sites[first].cluster.transfer(Some(heir)).await, Ok(heir));
    let second = (first + 1) % 3;
    sites[second].until("it leads", |cluster| cluster.status().role == Role::Leader).await;
    assert_eq!(sites[first].propose_in_time(add_user(1)).await, Ok(Applied::Done));
    let removed = sites[first].propose_in_time(Command::RemoveNode { node: heir }).await;
    assert_eq!(removed, Ok(Applied::Done));
    let other = &sites[first];
    other.until("it has left", |cluster| cluster.status().voters.len() == 2).await;
    assert_eq!(other.propose_in_time(add_user(2)).await, Ok(Applied::Done));
}

/// The leader's clock would judge every passcode of the cluster: nothing may be stamped with a wrong one,
/// also before anybody has compared it.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_clock_steps_stamps_nothing_and_hands_over() {
    let sites = found(&Pki::new(), 3).await;
    for site in &sites {
        site.until("its clock is known", |cluster| cluster.status().clock_error_ms.is_some()).await;
    }
    let leader = leader_of(&sites);
    let before = sites[leader].cluster.state().time();
    sites[leader].clock_step_ms.store(300_000, Ordering::Relaxed);
    let own = sites[leader].cluster.propose(add_user(0)).await;
    assert!(matches!(own, Err(ProposeError::Unfit { .. })), "{own:?}");
    let other = &sites[(leader + 1) % 3];
    assert_eq!(other.propose_in_time(add_user(1)).await, Ok(Applied::Done));
    assert!(other.cluster.state().time().ms_since(before) < 200_000, "of another's time");
    let wrong = sites[leader].cluster.status();
    assert!(wrong.role != Role::Leader && wrong.unfit.is_some(), "{wrong:?}");
    let reason = wrong.unfit.expect("it knows");
    assert!(reason.contains("clock"), "{reason}");
}

/// A clock may be wrong when a proposal comes, be put right, and lead: the time that counts is that of
/// the proposal to Raft.
#[tokio::test(flavor = "multi_thread")]
async fn what_had_to_wait_is_stamped_anew() {
    for _ in 0..5 {
        if wait_with_a_wrong_clock().await {
            return;
        }
    }
    panic!("each time the election took longer than a proposal waits");
}

/// Whether the proposal that waited was made in the end.
async fn wait_with_a_wrong_clock() -> bool {
    let pki = Pki::new();
    let mut stopped = Vec::new();
    for site in found(&pki, 3).await {
        let (node, address) = (site.cluster.status().node_id, site.address.clone());
        stopped.push((site.stop().await, node, address));
    }
    let mut next = || stopped.pop().expect("three");
    let (dir, node, address) = next();
    let listener = TcpListener::bind(&address).await.expect("its port again");
    let wrong = Site::start_ahead(dir, &pki, node, listener, 700_000).await;
    let before = wrong.cluster.state().time();
    let unfit = wrong.cluster.status().unfit.expect("it knows nothing of its clock");
    assert!(unfit.contains("time"), "{unfit}");
    let proposal = wrong.cluster.propose(add_user(1));
    let mut proposal = std::pin::pin!(proposal);
    assert!(futures::poll!(proposal.as_mut()).is_pending(), "nobody leads");
    wrong.clock_step_ms.store(0, Ordering::Relaxed);
    let (dir, node, address) = next();
    let listener = TcpListener::bind(&address).await.expect("its port again");
    let other = Site::start_in(dir, &pki, node, listener).await;
    other.cluster.drain(true).await.expect("it does not lead");
    match proposal.await {
        Err(ProposeError::NoLeader | ProposeError::Unfit { .. }) => return false,
        proposed => assert_eq!(proposed, Ok(Applied::Done)),
    }
    assert_eq!(wrong.cluster.status().role, Role::Leader);
    let stamped = wrong.cluster.state().time();
    assert!(stamped.ms_since(before) < 200_000, "stamped with the wrong time");
    true
}

/// A vote that nobody casts would be counted against those who do.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_has_not_caught_up_gets_no_vote() {
    let pki = Pki::new();
    let sites = found(&pki, 1).await;
    let reserved = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = reserved.local_addr().expect("an address").to_string();
    assert_eq!(admit(&sites[0].cluster, 2, &address).await, Applied::Admitted(2));
    sites[0].until("it learns", |cluster| cluster.status().learners.len() == 1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let status = sites[0].cluster.status();
    assert_eq!((status.voters.len(), status.learners.len()), (1, 1), "nobody answers there");
    assert_eq!(sites[0].cluster.propose(add_user(1)).await, Ok(Applied::Done));
    drop(reserved);
    let dir = tempfile::tempdir().expect("a directory");
    let listener = TcpListener::bind(&address).await.expect("the port");
    let late = Site::start_in(dir, &pki, 2, listener).await;
    late.until("it votes", |cluster| cluster.status().voters.len() == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_taken_out_only_when_those_that_stay_can_decide() {
    let pki = Pki::new();
    let mut sites = found(&pki, 3).await;
    sites.sort_by_key(|site| site.cluster.status().role != Role::Leader);
    let dead = sites.pop().expect("three");
    let (address, id) = (dead.address.clone(), dead.cluster.status().node_id);
    let dir = dead.stop().await;
    let other = sites[1].cluster.status().node_id;
    sites[0].until("it misses it", |cluster| !cluster.could_go_on_without(other)).await;
    // The administrator meant the dead one.
    assert_eq!(
        sites[0].propose_in_time(Command::RemoveNode { node: other }).await,
        Ok(Applied::Done)
    );
    for user in 0..5 {
        assert_eq!(sites[0].propose_in_time(add_user(user)).await, Ok(Applied::Done), "it goes on");
    }
    assert_eq!(sites[0].cluster.status().voters.len(), 3, "its vote is needed");
    let listener = TcpListener::bind(&address).await.expect("its port again");
    let back = Site::start_in(dir, &pki, id, listener).await;
    sites[0].until("it leaves", |cluster| cluster.status().voters.len() == 2).await;
    assert_eq!(back.propose_in_time(add_user(9)).await, Ok(Applied::Done));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_alone_still_takes_others_in_and_hands_over_to_them() {
    let pki = Pki::new();
    let sites = found(&pki, 1).await;
    assert_eq!(sites[0].cluster.drain(true).await, Ok(()));
    let second = Site::start(&pki, 2).await;
    assert_eq!(admit(&sites[0].cluster, 2, &second.address).await, Applied::Admitted(2));
    second.until("it leads", |cluster| cluster.status().role == Role::Leader).await;
    assert_eq!(second.propose_in_time(add_user(1)).await, Ok(Applied::Done));
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_goes_to_nobody_who_would_not_lead() {
    let sites = found(&Pki::new(), 3).await;
    let leader = leader_of(&sites);
    let drained = &sites[(leader + 1) % 3].cluster;
    assert_eq!(drained.drain(true).await, Ok(()));
    let id = drained.status().node_id;
    let handed = sites[leader].cluster.transfer(Some(id)).await;
    assert_eq!(handed, Err(TransferError::NotReady(id)));
    assert_eq!(sites[leader].cluster.status().role, Role::Leader);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_leader_hands_over_to_whoever_has_just_got_its_vote() {
    let sites = found(&Pki::new(), 2).await;
    assert_eq!(sites[0].cluster.drain(true).await, Ok(()));
    sites[1].until("it leads", |cluster| cluster.status().role == Role::Leader).await;
    assert_eq!(sites[1].cluster.drain(true).await, Err(TransferError::NoHeir), "nobody is left");
    assert_eq!(sites[1].cluster.status().role, Role::Leader);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_authority_or_cluster_opens_nothing() {
    let pki = Pki::new();
    let sites = found(&pki, 1).await;
    let address = sites[0].address.clone();
    let foreign = Pki::new();
    let stranger = Transport::new(foreign.credentials(CLUSTER, 2)).expect("a transport");
    let other = Transport::new(pki.credentials(ClusterId([8; 16]), 2)).expect("a transport");
    for transport in [stranger, other] {
        assert!(transport.reaches(&address, 1).await.is_err());
    }
    let member = pki.transport(2);
    assert!(member.reaches(&address, 1).await.is_ok());
    assert!(member.reaches(&address, 3).await.is_err(), "the wrong node at an address");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_peer_is_not_called_all_the_time() {
    let pki = Pki::new();
    let sites = found(&pki, 2).await;
    let mut sites = sites.into_iter();
    let (first, second) = (sites.next().expect("one"), sites.next().expect("two"));
    let address = second.address.clone();
    second.stop().await;
    // Counts connections where the dead peer was, and closes each at once.
    let listener = TcpListener::bind(&address).await.expect("its port");
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let counting = tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    let span = Duration::from_secs(4);
    assert!(tokio::time::timeout(span, std::future::pending::<()>()).await.is_err());
    counting.abort();
    let calls = calls.load(Ordering::Relaxed);
    assert!((1..40).contains(&calls), "{calls} connections in {span:?}");
    first.stop().await;
}
