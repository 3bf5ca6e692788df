//! A process that dies at any step of a write leaves a store that opens and lost nothing that was
//! acknowledged.
//!
//! At every step the directory is copied as it is: that is what the next process would find.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use openraft::entry::RaftEntry as _;

use super::*;
use crate::medium::{Recovered, SnapshotRecord};
use crate::probe::Step;
use crate::runtime::{LogId, SnapshotMeta, StoredMembership, Vote};
use crate::storage::Storage;

/// A copy of the store and what was true when it was made.
struct Wreck {
    step: Step,
    dir: PathBuf,
    acknowledged: u64,
}

/// Copies the store at every step.
struct Wrecker {
    from: PathBuf,
    to: PathBuf,
    acknowledged: AtomicU64,
    wrecks: Mutex<Vec<Wreck>>,
}

impl Wrecker {
    fn new(dir: &Path) -> Arc<Self> {
        Arc::new(Self {
            from: dir.join("live"),
            to: dir.join("wrecks"),
            acknowledged: AtomicU64::new(0),
            wrecks: Mutex::default(),
        })
    }

    fn probe(self: &Arc<Self>) -> Probe {
        let wrecker = self.clone();
        Probe::new(move |step| {
            let mut wrecks = wrecker.wrecks.lock().expect("not poisoned");
            let dir = wrecker.to.join(wrecks.len().to_string());
            copy_dir(&wrecker.from, &dir);
            let acknowledged = wrecker.acknowledged.load(Ordering::SeqCst);
            wrecks.push(Wreck { step, dir, acknowledged });
            Ok(())
        })
    }

    fn wrecks(&self) -> Vec<Wreck> {
        std::mem::take(&mut self.wrecks.lock().expect("not poisoned"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_whenever_the_process_dies() {
    let dir = tempfile::tempdir().expect("a directory");
    let wrecker = Wrecker::new(dir.path());
    let cluster = Cluster::create(options(&wrecker.from), "a:1".into()).await.expect("created");
    cluster.shutdown().await.expect("closed");
    let cluster = open_probed(options(&wrecker.from), wrecker.probe()).await.expect("opened");
    for number in 0..8 {
        cluster.propose(add_user(number)).await.expect("applied");
        wrecker.acknowledged.store(number + 1, Ordering::SeqCst);
        if number == 4 {
            cluster.snapshot().await.expect("taken");
        }
    }
    cluster.shutdown().await.expect("closed");
    let wrecks = wrecker.wrecks();
    assert!(wrecks.len() > 40, "every step of every write: {}", wrecks.len());
    for wreck in wrecks {
        let place = format!("{:?} after {} users", wreck.step, wreck.acknowledged);
        let opened = Cluster::open(options(&wreck.dir)).await;
        let cluster = opened.unwrap_or_else(|error| panic!("{place}: {error}"));
        let users = cluster.state().user_count() as u64;
        // The proposal on its way may have made it or not.
        assert!((wreck.acknowledged..=wreck.acknowledged + 1).contains(&users), "{place}: {users}");
        cluster.propose(add_user(1000)).await.expect("goes on");
        cluster.shutdown().await.expect("closed");
        std::fs::remove_dir_all(wreck.dir).expect("removed");
    }
}

/// What a store holds, as far as it matters here.
#[derive(Clone, Debug, PartialEq)]
struct Content {
    vote: Option<Vote>,
    purged: Option<LogId>,
    log: Vec<LogId>,
    snapshot: Option<u64>,
}

fn content(storage: &Storage, recovered: &Recovered) -> Content {
    let from = recovered.purged.map_or(0, |purged| purged.index + 1);
    let log = storage.read(from, u64::MAX).expect("readable");
    Content {
        vote: recovered.vote,
        purged: recovered.purged,
        log: log.iter().map(|entry| entry.log_id()).collect(),
        snapshot: recovered.snapshot.as_ref().map(|record| record.generation),
    }
}

fn reopened(dir: &Path) -> Content {
    let (storage, recovered) = storage::open(dir, Some(1)).expect("opens");
    content(&storage, &recovered)
}

fn append(storage: &mut Storage, term: u64, indexes: std::ops::Range<u64>) {
    for index in indexes {
        storage.append(&entry(term, index)).expect("appended");
    }
    storage.commit().expect("durable");
}

fn put_snapshot(storage: &mut Storage, generation: u64, last: LogId) {
    let bytes = vec![generation as u8; 100];
    storage.put_chunk(generation, 0, &bytes).expect("written");
    storage.commit().expect("durable");
    let meta =
        SnapshotMeta { last_log_id: Some(last), last_membership: StoredMembership::default() };
    let record =
        SnapshotRecord { generation, meta, bytes: 100, chunks: 1, crc: crc32fast::hash(&bytes) };
    storage.put_snapshot(&record).expect("written");
    storage.commit().expect("durable");
}

fn purge(storage: &mut Storage, upto: LogId) {
    storage.put_purged(upto).expect("written");
    storage.commit().expect("durable");
    while storage.remove_blocks(2).expect("removed") {}
    storage.commit().expect("durable");
}

/// Every kind of change, in turn; after a crash at any step the store holds what was there before
/// the change or after it, and is never taken for one that was rolled back.
#[test]
fn a_crash_leaves_the_store_before_the_change_or_after_it() {
    type Change = fn(&mut Storage);
    let changes: [(&str, Change); 11] = [
        ("append", |storage| append(storage, 1, 0..10)),
        ("append again", |storage| append(storage, 1, 10..15)),
        ("vote", |storage| {
            storage.put_vote(Vote::new(2, 7)).expect("written");
            storage.commit().expect("durable");
        }),
        ("truncate within a block", |storage| {
            storage.truncate(Some(log_id(1, 1, 12))).expect("truncated");
        }),
        ("append in a later term", |storage| append(storage, 2, 13..20)),
        ("truncate across blocks", |storage| {
            storage.truncate(Some(log_id(1, 1, 7))).expect("truncated");
        }),
        ("append shorter", |storage| append(storage, 3, 8..12)),
        ("snapshot", |storage| put_snapshot(storage, 1, log_id(3, 1, 11))),
        ("purge", |storage| purge(storage, log_id(3, 1, 9))),
        ("newer snapshot", |storage| put_snapshot(storage, 2, log_id(4, 1, 30))),
        ("purge beyond the end", |storage| purge(storage, log_id(4, 1, 30))),
    ];
    let dir = tempfile::tempdir().expect("a directory");
    let wrecker = Wrecker::new(dir.path());
    storage::create(&wrecker.from, 1, None).expect("created");
    let mut before = reopened(&wrecker.from);
    for (name, change) in changes {
        let (mut storage, _) = storage::open(&wrecker.from, Some(1)).expect("opens");
        storage.set_probe(wrecker.probe());
        change(&mut storage);
        drop(storage);
        let after = reopened(&wrecker.from);
        let wrecks = wrecker.wrecks();
        assert!(wrecks.len() >= 4, "{name}");
        for wreck in wrecks {
            let found = reopened(&wreck.dir);
            assert!(found == before || found == after, "{name}, {:?}: {found:?}", wreck.step);
            if wreck.step >= Step::Flushed && name.starts_with("append") {
                assert_eq!(found, after, "{name}, {:?}", wreck.step);
            }
            std::fs::remove_dir_all(wreck.dir).expect("removed");
        }
        before = after;
    }
    let (mut storage, _) = storage::open(&wrecker.from, Some(1)).expect("opens");
    append(&mut storage, 5, 31..33);
    drop(storage);
    let end = reopened(&wrecker.from);
    assert_eq!(end.log, [log_id(5, 1, 31), log_id(5, 1, 32)]);
    assert_eq!((end.vote, end.snapshot), (Some(Vote::new(2, 7)), Some(2)));
}

#[test]
fn an_entry_that_would_leave_a_gap_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    storage::create(dir.path(), 1, Some(&entry(1, 0))).expect("created");
    let (mut storage, _) = storage::open(dir.path(), Some(1)).expect("opens");
    assert!(storage.append(&entry(1, 2)).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_was_not_finished_is_not_taken_for_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let whole = dir.path().join("whole");
    storage::create(&whole, 1, None).expect("created");
    let half = dir.path().join("half");
    copy_dir(&whole.join("raft"), &half.join("raft.new"));
    assert!(matches!(Cluster::open(options(&half)).await, Err(OpenError::Missing(_))));
    let cluster = Cluster::create(options(&half), "a:1".into()).await.expect("created");
    assert!(!half.join("raft.new").exists());
    cluster.propose(add_user(1)).await.expect("applied");
    cluster.shutdown().await.expect("closed");
    let again = Cluster::create(options(&half), "a:1".into()).await;
    assert!(matches!(again, Err(OpenError::Exists(_))));
}
