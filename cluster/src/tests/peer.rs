//! Calls that no member of ours would make.

use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status};
use watchword_core::Applied;
use watchword_core::id::TokenId;
use watchword_proto::Frame;
use watchword_proto::peer_server::Peer;

use super::members::{admission, founding, token};
use super::*;
use crate::network::{self, MESSAGE_BYTES_MAX, frame};
use crate::service::PeerService;
use crate::transport::{Bearer, Caller, ConnectionMark};

fn bearer() -> Caller {
    Caller::Token(Bearer { token: TokenId([1; 16]), connection: ConnectionMark([2; 32]) })
}

/// A call by `caller`, of this epoch.
fn call(data: Vec<u8>, caller: Caller, epoch: Option<u64>) -> Request<Frame> {
    let mut request = Request::new(Frame { data: data.into() });
    request.extensions_mut().insert(caller);
    if let Some(epoch) = epoch {
        request.metadata_mut().insert("watchword-epoch", MetadataValue::from(epoch));
    }
    request
}

/// Rubbish of many lengths, and what claims to be long.
fn rubbish() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = (0..200_u32)
        .map(|n| (0..n).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect())
        .collect();
    all.extend([vec![0xff; 64], vec![1; 64], vec![0; MESSAGE_BYTES_MAX]]);
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_calls_are_refused_and_the_node_goes_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let cluster = Cluster::create(options(dir.path()), "a:1".into()).await.expect("created");
    let service = PeerService(cluster.clone());
    let member = Caller::Node(2);
    for data in rubbish() {
        let call = || call(data.clone(), member, Some(0));
        for answer in [
            service.append_one(call()).await.map(drop),
            service.vote(call()).await.map(drop),
            service.pre_vote(call()).await.map(drop),
            service.transfer_leader(call()).await.map(drop),
        ] {
            // A few happen to be messages: then they are answered as such.
            if let Err(status) = answer {
                assert_eq!(status.code(), Code::InvalidArgument, "{status}");
            }
        }
        if let Err(status) = service.propose(call()).await {
            assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        }
    }
    assert!(cluster.status().fault.is_none());
    cluster.shutdown().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_no_member_of_this_epoch_gets_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let cluster = Cluster::create(options(dir.path()), "a:1".into()).await.expect("created");
    cluster.propose(add_user(1)).await.expect("applied");
    let service = PeerService(cluster.clone());
    let asked = |caller, epoch| {
        let request = call(frame(&()).expect("encodes").data.to_vec(), caller, epoch);
        let service = &service;
        async move { service.read_index(request).await.map(drop).map_err(|status| status.code()) }
    };
    assert_eq!(asked(Caller::Node(2), Some(0)).await, Ok(()));
    let token = bearer();
    assert_eq!(asked(token, Some(0)).await, Err(Code::PermissionDenied));
    assert_eq!(asked(Caller::Node(2), None).await, Err(Code::InvalidArgument));
    // Somebody of a later epoch: the cluster went on without this node, which decides nothing more.
    assert_eq!(asked(Caller::Node(2), Some(1)).await, Err(Code::FailedPrecondition));
    assert!(cluster.propose(add_user(2)).await.is_err());
    assert!(cluster.status().fault.is_some_and(|fault| fault.contains("removed")));
    // It votes for nobody and follows nobody either, and tells others of its epoch why.
    let left_behind = call(frame(&()).expect("encodes").data.to_vec(), Caller::Node(3), Some(0));
    let refused = service.read_index(left_behind).await.expect_err("it serves nobody");
    assert_eq!(
        (refused.code(), network::epoch_of(refused.metadata())),
        (Code::PermissionDenied, Some(1))
    );
    let mut running = cluster.inner.raft.metrics();
    let ended = tokio::time::timeout(Duration::from_secs(10), async {
        while running.borrow_watched().running_state.is_ok() && running.changed().await.is_ok() {}
    });
    ended.await.expect("the replication ends");
    cluster.shutdown().await.expect("closed");
    let opened = Cluster::open(options(dir.path())).await;
    assert!(matches!(opened, Err(OpenError::Removed)), "it remembers");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_told_of_a_later_epoch_knows_that_it_was_left_behind() {
    let dir = tempfile::tempdir().expect("a directory");
    let cluster = Cluster::create(options(dir.path()), "a:1".into()).await.expect("created");
    let network = &cluster.inner.network;
    let mut refusal = Status::permission_denied("no");
    refusal.metadata_mut().insert("watchword-epoch", MetadataValue::from(1_u64));
    network.note(&refusal);
    assert!(!network.is_removed(), "another refusal says nothing");
    let mut refusal = network.refusal();
    refusal.metadata_mut().insert("watchword-epoch", MetadataValue::from(1_u64));
    network.note(&refusal);
    assert!(network.is_removed() && network.is_fenced());
    cluster.shutdown().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_removed_can_announce_no_later_epoch() {
    let dir = tempfile::tempdir().expect("a directory");
    let cluster = Cluster::create(options(dir.path()), "a:1".into()).await.expect("created");
    cluster.propose(founding("a:1")).await.expect("founded");
    cluster.propose(token()).await.expect("a token");
    assert_eq!(cluster.propose(admission(2, "a:2")).await, Ok(Applied::Admitted(2)));
    assert_eq!(cluster.propose(Command::RemoveNode { node: 2 }).await, Ok(Applied::Done));
    let service = PeerService(cluster.clone());
    let mut membership = cluster.inner.raft.metrics();
    let left = tokio::time::timeout(Duration::from_secs(10), async {
        while cluster.is_member(2) {
            membership.changed().await.expect("it runs");
        }
    });
    left.await.expect("it leaves the membership");
    let request = call(frame(&()).expect("encodes").data.to_vec(), Caller::Node(2), Some(u64::MAX));
    let refused = service.read_index(request).await.expect_err("it was removed");
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert_eq!(cluster.status().fault, None);
    cluster.propose(add_user(1)).await.expect("it goes on");
    cluster.shutdown().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_missed_a_recovery_is_told_that_it_was_removed() {
    let dir = tempfile::tempdir().expect("a directory");
    let cluster = Cluster::create(options(dir.path()), "a:1".into()).await.expect("created");
    cluster.propose(add_user(1)).await.expect("applied");
    cluster.shutdown().await.expect("closed");
    crate::recover(dir.path(), 1, Timestamp(1)).await.expect("recovered");
    let cluster = Cluster::open(options(dir.path())).await.expect("opened");
    assert_eq!(cluster.state().user_count(), 1, "nothing is lost");
    assert_eq!(cluster.state().nodes().epoch(), 1);
    let voters: Vec<_> = cluster.status().voters.iter().map(|voter| voter.id).collect();
    assert_eq!(voters, [1]);
    let service = PeerService(cluster.clone());
    let request = call(frame(&()).expect("encodes").data.to_vec(), Caller::Node(7), Some(0));
    let refused = service.read_index(request).await.expect_err("of an earlier epoch");
    assert_eq!(refused.code(), Code::PermissionDenied);
    cluster.shutdown().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_kept_when_a_member_hands_it_out_and_for_nobody_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let kept = Arc::new(std::sync::Mutex::new(Vec::new()));
    let keeper = kept.clone();
    let keep_key = move |key: &[u8]| match key {
        b"bad" => Err("it is bad".to_owned()),
        key => {
            keeper.lock().expect("sound").push(key.to_vec());
            Ok(())
        }
    };
    let options = Options { keep_key: Arc::new(keep_key), ..options(dir.path()) };
    let cluster = Cluster::create(options, "a:1".into()).await.expect("created");
    let service = PeerService(cluster.clone());
    let hand = async |key: &[u8], caller, epoch| {
        let kept = service.hold_key(call(key.to_vec(), caller, epoch)).await;
        kept.map(drop).map_err(|status| (status.code(), status.message().to_owned()))
    };
    let token = bearer();
    let refused = hand(b"good", token, Some(0)).await.expect_err("no member");
    assert_eq!(refused.0, Code::PermissionDenied);
    let refused = hand(b"good", Caller::Node(2), None).await.expect_err("of no epoch");
    assert_eq!(refused.0, Code::InvalidArgument);
    let refused = hand(b"bad", Caller::Node(2), Some(0)).await.expect_err("not kept");
    assert_eq!(refused, (Code::FailedPrecondition, "it is bad".to_owned()));
    assert!(kept.lock().expect("sound").is_empty());
    hand(b"good", Caller::Node(2), Some(0)).await.expect("kept");
    assert_eq!(*kept.lock().expect("sound"), [b"good"]);
    cluster.shutdown().await.expect("closed");
}
