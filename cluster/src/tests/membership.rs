//! A change of the membership that was left half done is finished by whoever leads next.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::BasicNode;
use openraft::async_runtime::watch::WatchReceiver;

use super::*;
use crate::runtime::Membership;

#[tokio::test(flavor = "multi_thread")]
async fn a_membership_of_two_halves_becomes_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let cluster = Cluster::create(options(dir.path()), "a:1".into()).await.expect("created");
    cluster.propose(add_user(1)).await.expect("a leader with an entry of its own");
    let configs = || {
        cluster
            .inner
            .raft
            .metrics()
            .borrow_watched()
            .membership_config
            .membership()
            .get_joint_config()
            .clone()
    };
    // What a leader leaves that dies between the two entries of a change.
    let voters = BTreeSet::from([1]);
    let node = BTreeMap::from([(1, BasicNode::new("a:1"))]);
    let halves = Membership::new(vec![voters.clone(), voters.clone()], node).expect("valid");
    cluster.inner.raft.append_membership(halves, EntryPayload::Blank, []).await.expect("appended");
    assert_eq!(configs().len(), 2);
    let mut changes = cluster.inner.raft.metrics();
    let settled = tokio::time::timeout(Duration::from_secs(10), async {
        while configs() != [voters.clone()] {
            changes.changed().await.expect("it runs");
        }
    });
    settled.await.expect("one half stays");
    cluster.shutdown().await.expect("closed");
}
