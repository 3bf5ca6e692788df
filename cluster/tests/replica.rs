//! One replica through its public interface.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "everything here is a test, helpers included"
)]

mod common;

use common::add_user;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use watchword_cluster::{
    Cluster, Content, MemoryDisk, OpenError, Options, ProposeError, Role, dump,
};
use watchword_core::id::UserId;
use watchword_core::limits::ENTRY_BYTES_MAX;
use watchword_core::time::Timestamp;
use watchword_core::{Applied, Command, Refusal, State};

fn options(dir: &Path) -> Options {
    Options::new(dir, 1, Arc::new(|| Timestamp(1_700_000_000_000)))
}

async fn create(dir: &Path) -> Cluster {
    Cluster::create(options(dir), "node1:7400".to_owned()).await.expect("created")
}

async fn open(dir: &Path) -> Cluster {
    Cluster::open(options(dir)).await.expect("opened")
}

fn digest(state: &State) -> [u8; 32] {
    state.digest().expect("encodes")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_cluster_leads_itself_and_accepts_commands() {
    let dir = tempfile::tempdir().expect("a directory");
    let cluster = create(dir.path()).await;
    cluster.wait_for_leader(Duration::from_secs(10)).await.expect("a leader");
    let applied = cluster.propose(add_user(1)).await.expect("applied");
    assert_eq!(applied, Applied::Done);
    assert_eq!(cluster.state().user_count(), 1, "a proposer finds its own change");
    let again = cluster.propose(add_user(1)).await.expect("applied");
    assert!(matches!(again, Applied::Refused(Refusal::UserExists(_))));
    let fresh = cluster.read().await.expect("leads");
    assert_eq!(fresh.user_count(), 1);
    assert_eq!(fresh.time(), Timestamp(1_700_000_000_000), "stamped with the given clock");

    let status = cluster.status();
    assert_eq!(
        (status.role, status.leader, status.failure_tolerance()),
        (Role::Leader, Some(1), 0)
    );
    assert_eq!(status.voters.len(), 1);
    assert_eq!(status.voters[0].address, "node1:7400");
    assert_eq!(status.fault, None);
    cluster.shutdown().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let cluster = create(dir.path()).await;
    for number in 0..20 {
        cluster.propose(add_user(number)).await.expect("applied");
    }
    let before = (digest(&cluster.state()), cluster.status());
    cluster.shutdown().await.expect("closed");
    for _ in 0..3 {
        let cluster = open(dir.path()).await;
        assert_eq!(digest(&cluster.state()), before.0);
        assert!(cluster.status().term > before.1.term, "a restarted leader begins a new term");
        cluster.shutdown().await.expect("closed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_commands_are_applied_and_answered_in_order() {
    let dir = tempfile::tempdir().expect("a directory");
    let cluster = create(dir.path()).await;
    let commands = (0..5000).map(|number| add_user(number % 4000)).collect();
    let applied = cluster.propose_many(commands).await.expect("applied");
    assert_eq!(applied.len(), 5000);
    assert!(applied[..4000].iter().all(|one| *one == Applied::Done));
    assert!(applied[4000..].iter().all(|one| matches!(one, Applied::Refused(_))));
    assert_eq!(cluster.propose_many(Vec::new()).await, Ok(Vec::new()));
    cluster.shutdown().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_proposals_get_their_own_answers_and_distinct_indexes() {
    let dir = tempfile::tempdir().expect("a directory");
    let cluster = create(dir.path()).await;
    let callers: Vec<_> = (0..200)
        .map(|number| {
            let cluster = cluster.clone();
            tokio::spawn(async move {
                let new = cluster.propose_indexed(add_user(number)).await.expect("applied");
                let old = cluster.propose_indexed(add_user(number)).await.expect("applied");
                assert_eq!(new.applied, Applied::Done);
                assert!(matches!(old.applied, Applied::Refused(Refusal::UserExists(_))));
                [new.index, old.index]
            })
        })
        .collect();
    let mut indexes = Vec::new();
    for caller in callers {
        indexes.extend(caller.await.expect("no panic"));
    }
    indexes.sort_unstable();
    indexes.dedup();
    assert_eq!(indexes.len(), 400);
    cluster.shutdown().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_are_woken_by_changes() {
    let dir = tempfile::tempdir().expect("a directory");
    let cluster = create(dir.path()).await;
    let mut changes = cluster.changes();
    let proposer = cluster.clone();
    let proposed =
        tokio::spawn(async move { proposer.propose_indexed(add_user(1)).await.expect("applied") });
    let cluster_seen = cluster.clone();
    changes.wait_for(|_| cluster_seen.state().user_count() == 1).await.expect("the cluster lives");
    let proposed = proposed.await.expect("no panic");
    assert!(*cluster.changes().borrow() >= proposed.index);
    cluster.shutdown().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_too_long_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let cluster = create(dir.path()).await;
    let command = Command::BlockUser {
        user: UserId([1; 16]),
        reason: "x".repeat(ENTRY_BYTES_MAX).into(),
        by: "test".into(),
        for_ms: None,
    };
    let refused = cluster.propose(command).await;
    assert!(matches!(refused, Err(ProposeError::TooLong { .. })), "{refused:?}");
    cluster.shutdown().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_refused_and_passes() {
    let dir = tempfile::tempdir().expect("a directory");
    let cluster = create(dir.path()).await;
    let long = |number: u64| Command::BlockUser {
        user: UserId([1; 16]),
        reason: format!("{number} {}", "x".repeat(ENTRY_BYTES_MAX / 2)).into(),
        by: "test".into(),
        for_ms: None,
    };
    // Polled once each, in one go: all are in flight before the first is answered.
    let flood: Vec<_> = (0..2000)
        .map(|number| {
            let cluster = cluster.clone();
            async move { cluster.propose(long(number)).await }
        })
        .collect();
    let results = futures::future::join_all(flood).await;
    let refused = results.iter().filter(|result| **result == Err(ProposeError::Overloaded)).count();
    let applied = results.iter().filter(|result| result.is_ok()).count();
    assert!(refused > 0 && applied > 0, "{refused} refused, {applied} applied");
    assert_eq!(refused + applied, 2000);
    cluster.propose(add_user(1)).await.expect("it passes");
    cluster.shutdown().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_are_taken_while_proposals_go_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let cluster = create(dir.path()).await;
    let users = (0..20_000).map(add_user).collect();
    cluster.propose_many(users).await.expect("applied");
    let proposed = Arc::new(AtomicU64::new(20_000));
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let proposer = {
        let (cluster, proposed) = (cluster.clone(), proposed.clone());
        tokio::spawn(async move {
            while !*stopped.borrow() {
                let number = proposed.load(Ordering::SeqCst);
                cluster.propose(add_user(number)).await.expect("applied");
                proposed.store(number + 1, Ordering::SeqCst);
            }
        })
    };
    let mut last = 0;
    for _ in 0..3 {
        let before = proposed.load(Ordering::SeqCst);
        let index = cluster.snapshot().await.expect("taken");
        assert!(index > last && index >= before);
        last = index;
        // At least one more change, or the next snapshot would be the same.
        cluster.changes().wait_for(|applied| *applied > last).await.expect("lives");
    }
    stop.send_replace(true);
    proposer.await.expect("no panic");
    let before = digest(&cluster.state());
    cluster.shutdown().await.expect("closed");

    let cluster = open(dir.path()).await;
    assert_eq!(digest(&cluster.state()), before, "snapshot and rest make the whole");
    assert_eq!(cluster.status().snapshot, Some(last));
    cluster.shutdown().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_purged_behind_a_snapshot_and_the_store_opens_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let small = || Options { snapshot_after_entries: 100, ..options(dir.path()) };
    let cluster = Cluster::create(small(), "a:1".to_owned()).await.expect("created");
    for number in 0..350 {
        cluster.propose(add_user(number)).await.expect("applied");
    }
    let index = cluster.snapshot().await.expect("taken");
    let before = digest(&cluster.state());
    cluster.shutdown().await.expect("closed");
    for _ in 0..2 {
        let cluster = Cluster::open(small()).await.expect("opened");
        assert_eq!(digest(&cluster.state()), before);
        let status = cluster.status();
        assert_eq!(status.snapshot, Some(index));
        let purged = status.purged.expect("something was purged");
        assert!(purged <= index - 50, "a tail stays: purged {purged}, snapshot {index}");
        cluster.shutdown().await.expect("closed");
    }
    let dump = dump(dir.path()).expect("readable");
    assert_eq!(dump.entries.first().map(|entry| entry.index), dump.purged.map(|last| last + 1));
    assert!(dump.entries.windows(2).all(|pair| pair[0].index + 1 == pair[1].index));
    assert!(dump.entries.iter().any(|entry| matches!(entry.content, Content::Command(_))));
    let snapshot = dump.snapshot.expect("is there");
    assert_eq!(snapshot.index, index);
    assert_eq!(snapshot.members.addresses[&1], "a:1");
    assert_eq!(digest(&snapshot.state), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_in_use_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let missing = Cluster::open(options(dir.path())).await;
    assert!(matches!(missing, Err(OpenError::Missing(_))));
    assert!(!dir.path().join("raft").exists(), "looking for a store makes none");
    let cluster = create(dir.path()).await;
    let second = Cluster::open(options(dir.path())).await;
    assert!(matches!(second, Err(OpenError::InUse(_))), "{second:?}");
    assert!(matches!(dump(dir.path()), Err(OpenError::InUse(_))));
    let created = Cluster::create(options(dir.path()), "b:1".to_owned()).await;
    assert!(matches!(created, Err(OpenError::InUse(_))));
    cluster.propose(add_user(1)).await.expect("not disturbed");
    cluster.shutdown().await.expect("closed");
    let other = Options { node_id: 2, ..options(dir.path()) };
    assert!(matches!(Cluster::open(other).await, Err(OpenError::WrongNode { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_was_shut_down_refuses() {
    let dir = tempfile::tempdir().expect("a directory");
    let cluster = create(dir.path()).await;
    let other = cluster.clone();
    cluster.shutdown().await.expect("closed");
    let refused = other.propose(add_user(1)).await;
    assert!(matches!(refused, Err(ProposeError::Stopped { .. })), "{refused:?}");
    assert!(other.read().await.is_err());
    assert_eq!(other.status().role, Role::Stopped);
}

#[tokio::test(start_paused = true)]
async fn the_disk_in_memory_keeps_what_was_acknowledged_and_loses_the_rest() {
    let unused = Path::new("unused");
    let disk = MemoryDisk::new(Duration::from_millis(5));
    let cluster =
        Cluster::create_in_memory(options(unused), "a:1".to_owned(), &disk).await.expect("made");
    for number in 0..10 {
        cluster.propose(add_user(number)).await.expect("applied");
    }
    cluster.snapshot().await.expect("taken");
    for number in 10..15 {
        cluster.propose(add_user(number)).await.expect("applied");
    }
    let appended = cluster.status().last_log;
    let pending = {
        let cluster = cluster.clone();
        tokio::spawn(async move { cluster.propose(add_user(99)).await })
    };
    // Appended, and not yet synced: the disk takes time that does not pass while this test is busy.
    while cluster.status().last_log == appended {
        tokio::task::yield_now().await;
    }
    let left = disk.crash(0, 0);
    drop(cluster);
    let cluster = Cluster::open_in_memory(options(unused), &left).await.expect("opened");
    assert_eq!(cluster.state().user_count(), 15);
    cluster.propose(add_user(99)).await.expect("applied");
    drop(pending);
}
