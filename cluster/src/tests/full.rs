//! An opening that was cut off, by a full disk or by a power cut, costs nothing: the next one finds
//! the same store.
//!
//! The disk is a file system in memory, in a mount namespace of a process of its own: it goes when
//! the process goes. Where the kernel grants no such namespace, that part says so and is left out;
//! what a cut-off opening leaves is put there by hand besides, which needs no rights.

use std::io::{self, Write as _};
use std::process::Command as Process;

use super::*;
use crate::runtime::Vote;

const DISK: &str = "WATCHWORD_FULL_DISK";
const DISK_BYTES: usize = 64 << 20;
const BEGUN: &str = ".generating";

/// A store as a killed process leaves it, which opening has more to do for than to read: its log has
/// grown since the database last noted where it ends.
fn template(dir: &Path) -> PathBuf {
    let (live, left) = (dir.join("live"), dir.join("left"));
    storage::create(&live, 1, Some(&entry(1, 0))).expect("created");
    let mut next = 1;
    for round in 1..=3 {
        let (mut storage, _) = storage::open(&live, Some(1)).expect("opens");
        for _ in 0..50 {
            storage.append(&entry(1, next)).expect("appended");
            next += 1;
        }
        storage.put_vote(Vote::new(round, 2)).expect("written");
        storage.commit().expect("durable");
        if round == 3 {
            copy_dir(&live, &left);
        }
    }
    left
}

/// Vote and log, for comparison.
type Content = (Option<Vote>, Vec<String>);

fn content(dir: &Path) -> Result<Content, OpenError> {
    let (storage, recovered) = storage::open(dir, Some(1))?;
    let log = storage.read(0, u64::MAX).expect("was checked");
    Ok((recovered.vote, log.iter().map(|entry| format!("{entry:?}")).collect()))
}

/// The database's notes of where its log ends: those in force, or those that were only begun.
fn notes(dir: &Path, begun: bool) -> Vec<PathBuf> {
    let mut found = files(&dir.join("raft/sled"));
    found.retain(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        name.starts_with("snap.") && name.ends_with(BEGUN) == begun
    });
    found
}

fn copied(from: &Path, to: &Path) -> PathBuf {
    if to.exists() {
        fs::remove_dir_all(to).expect("removed");
    }
    copy_dir(from, to);
    to.to_owned()
}

/// Every state in which a power cut can leave the directory, from the creation of the note to the
/// removal of the one before it; and every length that the begun one can have.
#[test]
fn an_opening_that_was_cut_off_leaves_a_store_that_opens() {
    let dir = tempfile::tempdir().expect("a directory");
    let left = template(dir.path());
    let opened = copied(&left, &dir.path().join("opened"));
    let whole = content(&opened).expect("opens");
    let (before, after) = (notes(&left, false), notes(&opened, false));
    let ([before], [after]) = (before.as_slice(), after.as_slice()) else {
        panic!("one note each: {before:?}, {after:?}");
    };
    assert_ne!(before.file_name(), after.file_name(), "opening had something to note");
    let bytes = fs::read(after).expect("readable");
    let name = after.file_name().and_then(|name| name.to_str()).expect("a name");
    let zeros = vec![0; bytes.len()];
    let longer = [bytes.as_slice(), &[7; 5000]].concat();
    let half = bytes.split_at(bytes.len() / 2).0;
    for begun in [&[], half, &zeros, &bytes, &longer] {
        for keeps_before in [true, false] {
            let copy = copied(&left, &dir.path().join("copy"));
            let place = copy.join("raft/sled").join(format!("{name}{BEGUN}"));
            fs::write(place, begun).expect("written");
            if !keeps_before {
                fs::remove_file(notes(&copy, false).first().expect("one")).expect("removed");
            }
            let found = content(&copy);
            let found = found.unwrap_or_else(|error| panic!("{} bytes: {error}", begun.len()));
            assert!(found == whole, "{} bytes: it holds something else", begun.len());
            assert_eq!(notes(&copy, true), Vec::<PathBuf>::new());
        }
    }
    let copy = copied(&left, &dir.path().join("copy"));
    fs::copy(after, copy.join("raft/sled").join(name)).expect("copied");
    assert!(content(&copy).expect("both are whole") == whole);
}

#[test]
fn a_store_that_was_opened_on_a_full_disk_is_not_lost() {
    let dir = tempfile::tempdir().expect("a directory");
    // Whoever is not root may be root of a namespace of users.
    let rights: [&[&str]; 2] = [&["--mount"], &["--mount", "--map-root-user"]];
    let on_a_disk = |rights: &[&str], then: &str| {
        let script = format!("mount -t tmpfs -o size={DISK_BYTES} none \"$0\" && {then}");
        let mut process = Process::new("unshare");
        process.args(rights).args(["sh", "-c", &script]).arg(dir.path());
        process.arg(std::env::current_exe().expect("this test")).env(DISK, dir.path());
        process.output()
    };
    let granted =
        |rights: &&[&str]| on_a_disk(rights, "true").is_ok_and(|output| output.status.success());
    let Some(rights) = rights.into_iter().find(granted) else {
        println!("skipped: no file system can be mounted");
        return;
    };
    let this = "exec \"$1\" tests::full::full_disk_process --exact --nocapture";
    let output = on_a_disk(rights, this).expect("a process");
    let (said, error) = (lossy(&output.stdout), lossy(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "{said}{error}");
}

/// Not a test of its own: the process that has a disk to fill.
#[test]
fn full_disk_process() {
    let Some(disk) = std::env::var_os(DISK).map(PathBuf::from) else { return };
    let elsewhere = tempfile::tempdir().expect("a directory");
    let left = template(elsewhere.path());
    let whole = content(&copied(&left, &elsewhere.path().join("opened"))).expect("opens");
    let (mut refused, mut begun) = (0, 0);
    for sparse in [true, false] {
        for free in [0, 4096, 8192, 1 << 20, 16 << 20] {
            let store = copied(&left, &disk.join("store"));
            if !sparse {
                // As it is once the tail of its file was written: only the note finds no room.
                let db = store.join("raft/sled/db");
                let bytes = fs::read(&db).expect("readable");
                fs::write(&db, bytes).expect("written");
            }
            let filler = fill(&disk, free);
            match content(&store) {
                Ok(found) => assert!(found == whole, "{free} bytes free: it holds something else"),
                Err(OpenError::Io { source, .. }) => {
                    assert_eq!(source.kind(), io::ErrorKind::StorageFull, "{source}");
                    refused += 1;
                    begun += notes(&store, true).len();
                }
                Err(other) => panic!("{free} bytes free: {other}"),
            }
            fs::remove_file(filler).expect("removed");
            let found = content(&store);
            let found = found.unwrap_or_else(|error| panic!("{free} bytes were free: {error}"));
            assert!(found == whole, "{free} bytes were free: it holds something else");
        }
    }
    // Otherwise the disk was not full where it matters.
    assert!(refused > begun && begun > 0, "{refused} refused, {begun} with a note begun");
    a_disk_that_fills_while_the_store_is_open(&disk);
}

fn a_disk_that_fills_while_the_store_is_open(disk: &Path) {
    let dir = disk.join("running");
    storage::create(&dir, 1, Some(&entry(1, 0))).expect("created");
    let (mut storage, _) = storage::open(&dir, Some(1)).expect("opens");
    let filler = fill(disk, 100 << 10);
    let mut acknowledged = 0;
    let failed = (1..100_000).try_for_each(|index| {
        storage.append(&entry(1, index))?;
        storage.commit()?;
        acknowledged = index;
        Ok::<_, io::Error>(())
    });
    drop(storage);
    assert_eq!(failed.expect_err("the disk is full").kind(), io::ErrorKind::StorageFull);
    // It is full still, and is opened again and again, as a supervisor does.
    for _ in 0..3 {
        assert!(matches!(content(&dir), Err(OpenError::Io { .. }) | Ok(_)));
    }
    fs::remove_file(filler).expect("removed");
    let (_, log) = content(&dir).expect("opens");
    assert!(log.len() as u64 > acknowledged, "{acknowledged} acknowledged, {} there", log.len());
}

/// Takes all room of the file system but `free` bytes.
fn fill(disk: &Path, free: usize) -> PathBuf {
    let path = disk.join("filler");
    let mut file = fs::File::create(&path).expect("creatable");
    let page = [1; 4096];
    let mut length = 0;
    loop {
        let before = length;
        while file.write_all(&page).is_ok() {
            length += page.len();
        }
        // A file system that allocates late gives room back once it has.
        file.sync_all().expect("synced");
        if length == before {
            break;
        }
    }
    file.set_len(length.saturating_sub(free) as u64).expect("shortened");
    path
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
