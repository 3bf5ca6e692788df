//! A damaged or rolled-back store is refused by the name of what is wrong with it.

use std::fs;

use openraft::entry::RaftEntry as _;
use proptest::prelude::*;

use super::*;
use crate::runtime::Vote;

/// What a store holds, in a form that can be compared.
#[derive(PartialEq)]
struct Everything {
    vote: Option<Vote>,
    purged: Option<u64>,
    entries: Vec<(String, Vec<u8>)>,
    snapshot: Option<(u64, Vec<u8>)>,
}

fn everything(dir: &Path) -> Result<Everything, OpenError> {
    let (storage, recovered) = storage::open(dir, Some(1))?;
    let from = recovered.purged.map_or(0, |purged| purged.index + 1);
    let mut entries = Vec::new();
    for entry in storage.read(from, u64::MAX).expect("was checked") {
        let bytes = match &entry.payload {
            EntryPayload::Normal(logged) => logged.bytes().to_vec(),
            other => format!("{other:?}").into_bytes(),
        };
        entries.push((entry.log_id().to_string(), bytes));
    }
    let snapshot = recovered.snapshot.map(|record| {
        let chunks = 0..record.chunks;
        let chunk = |number| storage.read_chunk(record.generation, number).expect("was checked");
        (record.generation, chunks.flat_map(chunk).collect())
    });
    let purged = recovered.purged.map(|purged| purged.index);
    Ok(Everything { vote: recovered.vote, purged, entries, snapshot })
}

/// A store with everything in it: log, vote, snapshot, purged entries.
fn store(dir: &Path, close: bool) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let options = Options { snapshot_after_entries: 60, ..options(dir) };
        let live = Options { data_dir: dir.join("live"), ..options.clone() };
        let cluster = Cluster::create(live, "a:1".into()).await.expect("created");
        for number in 0..120 {
            cluster.propose(add_user(number)).await.expect("applied");
        }
        cluster.snapshot().await.expect("taken");
        for number in 120..140 {
            cluster.propose(add_user(number)).await.expect("applied");
        }
        if !close {
            copy_dir(&dir.join("live"), &dir.join("store"));
        }
        cluster.shutdown().await.expect("closed");
        if close {
            fs::rename(dir.join("live"), dir.join("store")).expect("renamed");
        }
    });
}

#[derive(Clone, Debug)]
enum Damage {
    Flip { file: prop::sample::Index, place: prop::sample::Index, change: u8 },
    Zero { file: prop::sample::Index, place: prop::sample::Index, length: usize },
    Cut { file: prop::sample::Index, place: prop::sample::Index },
    Remove { file: prop::sample::Index },
}

fn damage() -> impl Strategy<Value = Damage> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        6 => (index(), index(), 1u8..)
            .prop_map(|(file, place, change)| Damage::Flip { file, place, change }),
        2 => (index(), index(), 1usize..5000)
            .prop_map(|(file, place, length)| Damage::Zero { file, place, length }),
        3 => (index(), index()).prop_map(|(file, place)| Damage::Cut { file, place }),
        1 => index().prop_map(|file| Damage::Remove { file }),
    ]
}

impl Damage {
    fn inflict(&self, dir: &Path) {
        let files = files(&dir.join("raft"));
        let (Self::Flip { file, .. }
        | Self::Zero { file, .. }
        | Self::Cut { file, .. }
        | Self::Remove { file }) = self;
        let path = file.get(&files);
        let mut bytes = fs::read(path).expect("readable");
        // Most of a small database is empty; damage what is used.
        let used = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        if used == 0 {
            return;
        }
        match self {
            Self::Flip { place, change, .. } => bytes[place.index(used)] ^= change,
            Self::Zero { place, length, .. } => {
                let start = place.index(used);
                let end = (start + length).min(used);
                bytes[start..end].fill(0);
            }
            Self::Cut { place, .. } => bytes.truncate(place.index(used)),
            Self::Remove { .. } => return fs::remove_file(path).expect("removed"),
        }
        fs::write(path, bytes).expect("written");
    }
}

fn damaged_stores_are_refused_or_whole(close: bool, cases: u32) {
    let dir = tempfile::tempdir().expect("a directory");
    store(dir.path(), close);
    let store = dir.path().join("store");
    let whole = {
        let copy = dir.path().join("whole");
        copy_dir(&store, &copy);
        everything(&copy).expect("is whole")
    };
    assert!(whole.snapshot.is_some() && whole.purged.is_some() && whole.vote.is_some());
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        failure_persistence: None,
        max_shrink_iters: 20,
        ..ProptestConfig::with_cases(cases)
    });
    let refused = std::cell::Cell::new(0);
    runner
        .run(&damage(), |damage| {
            let copy = dir.path().join("copy");
            if copy.exists() {
                fs::remove_dir_all(&copy).expect("removed");
            }
            copy_dir(&store, &copy);
            damage.inflict(&copy);
            match everything(&copy) {
                Ok(found) => prop_assert!(found == whole, "it opens and holds something else"),
                Err(
                    OpenError::Damaged { .. }
                    | OpenError::Gap { .. }
                    | OpenError::RolledBack { .. },
                ) => refused.set(refused.get() + 1),
                Err(other) => prop_assert!(false, "it is refused for another reason: {other}"),
            }
            Ok(())
        })
        .expect("holds");
    assert!(refused.get() > cases / 10, "the damage reaches what matters: {}", refused.get());
}

#[test]
fn a_closed_store_that_is_damaged_is_refused_or_whole() {
    damaged_stores_are_refused_or_whole(true, 150);
}

#[test]
fn a_store_of_a_killed_process_that_is_damaged_is_refused_or_whole() {
    damaged_stores_are_refused_or_whole(false, 150);
}

/// The database alone cannot tell that it is an old copy; the sidecar can. The control shows that
/// it is the sidecar: an old copy of both opens.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_was_rolled_back_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let (live, old) = (dir.path().join("live"), dir.path().join("old"));
    let cluster = Cluster::create(options(&live), "a:1".into()).await.expect("created");
    cluster.propose(add_user(1)).await.expect("applied");
    cluster.shutdown().await.expect("closed");
    copy_dir(&live, &old);

    let cluster = Cluster::open(options(&live)).await.expect("opened");
    cluster.propose(add_user(2)).await.expect("applied");
    cluster.shutdown().await.expect("closed");

    fs::remove_dir_all(live.join("raft/sled")).expect("removed");
    copy_dir(&old.join("raft/sled"), &live.join("raft/sled"));
    let refused = Cluster::open(options(&live)).await.expect_err("must not open");
    assert!(matches!(refused, OpenError::RolledBack { .. }), "{refused}");
    assert!(refused.to_string().contains("rebuild it from the other members"), "{refused}");

    fs::copy(old.join("raft/sidecar"), live.join("raft/sidecar")).expect("copied");
    let cluster = Cluster::open(options(&live)).await.expect("nothing tells the difference");
    assert_eq!(cluster.state().user_count(), 1, "an acknowledged user is gone");
    cluster.shutdown().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_forgot_its_vote_alone_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let (live, old) = (dir.path().join("live"), dir.path().join("old"));
    storage::create(&live, 1, Some(&entry(1, 0))).expect("created");
    let (storage, _) = storage::open(&live, Some(1)).expect("opens");
    drop(storage);
    copy_dir(&live, &old);
    let (mut storage, _) = storage::open(&live, Some(1)).expect("opens");
    storage.put_vote(Vote::new(3, 2)).expect("written");
    storage.commit().expect("durable");
    drop(storage);
    fs::remove_dir_all(live.join("raft/sled")).expect("removed");
    copy_dir(&old.join("raft/sled"), &live.join("raft/sled"));
    let refused = storage::open(&live, Some(1)).map(drop).expect_err("must not open");
    assert!(matches!(refused, OpenError::RolledBack { record: "vote", .. }), "{refused}");
}

#[test]
fn a_store_without_its_sidecar_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    storage::create(dir.path(), 1, Some(&entry(1, 0))).expect("created");
    fs::remove_file(dir.path().join("raft/sidecar")).expect("removed");
    let refused = storage::open(dir.path(), Some(1)).map(drop).expect_err("must not open");
    assert!(matches!(&refused, OpenError::Damaged { record, .. } if record == "the sidecar"));
    assert!(refused.to_string().contains("missing"), "{refused}");
}

#[test]
fn another_nodes_store_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    storage::create(dir.path(), 1, Some(&entry(1, 0))).expect("created");
    let refused = storage::open(dir.path(), Some(2)).map(drop);
    assert!(matches!(refused, Err(OpenError::WrongNode { found: 1, expected: 2 })));
}

/// A hole in the middle of the log, all checksums right.
#[test]
fn a_gap_in_the_log_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    storage::create(dir.path(), 1, Some(&entry(1, 0))).expect("created");
    let (mut storage, _) = storage::open(dir.path(), Some(1)).expect("opens");
    storage.append(&entry(1, 1)).expect("appended");
    storage.commit().expect("durable");
    storage.append(&entry(1, 2)).expect("appended");
    storage.commit().expect("durable");
    storage.lose_block(1);
    drop(storage);
    let refused = storage::open(dir.path(), Some(1)).map(drop).expect_err("must not open");
    assert!(matches!(&refused, OpenError::Gap { expected: 1, found } if found == "entry 2"));
}

/// The bound that keeps values out of files that the database never syncs.
#[test]
fn the_longest_records_stay_in_the_database_file() {
    let dir = tempfile::tempdir().expect("a directory");
    storage::create(dir.path(), 1, None).expect("created");
    let (mut storage, _) = storage::open(dir.path(), Some(1)).expect("opens");
    let reason = "x".repeat(watchword_core::limits::ENTRY_BYTES_MAX - 64);
    for index in 0..120 {
        let command = Command::BlockUser {
            user: watchword_core::id::UserId([1; 16]),
            reason: reason.as_str().into(),
            by: "test".into(),
            for_ms: None,
        };
        let logged = Logged::new(Entry { time: Timestamp(1), command }).expect("encodes");
        assert!(logged.bytes().len() > watchword_core::limits::ENTRY_BYTES_MAX - 64);
        let entry = RaftEntry::new(log_id(1, 1, index), EntryPayload::Normal(logged));
        storage.append(&entry).expect("appended");
        storage.commit().expect("durable");
        storage.put_chunk(1, index as u32, &vec![7; storage::CHUNK_BYTES]).expect("written");
        assert_eq!(fs::read_dir(dir.path().join("raft/sled/blobs")).expect("is there").count(), 0);
    }
    // Leaves that lose values are merged with their neighbours.
    storage.truncate(Some(log_id(1, 1, 3))).expect("truncated");
    storage.remove_chunks(2, 1000).expect("removed");
    storage.commit().expect("durable");
    assert_eq!(fs::read_dir(dir.path().join("raft/sled/blobs")).expect("is there").count(), 0);
}
