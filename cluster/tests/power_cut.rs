//! A writer that is killed, and real power cuts: a file system that loses what was not synced, with real journal recovery.
//!
//! A writer runs as a process of its own on an ext4 image in memory. Power is cut with ext4's
//! shutdown ioctl (no flush of the journal), the writer is killed, the image is mounted again, and
//! every acknowledged proposal must be there. The control does the same to a writer that trusts
//! sled's own flush with the same layout, and must lose something: otherwise the cuts prove nothing.
//!
//! The cuts need root, losetup, mkfs.ext4 and python3, so they run only when asked:
//!
//! ```text
//! WATCHWORD_POWER_CUTS=20 cargo test --release -p watchword-cluster --test power_cut -- --nocapture
//! ```

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "everything here is a test, helpers included"
)]

mod common;

use common::add_user;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Lines, Write};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;

use watchword_cluster::{Cluster, Options};
use watchword_core::name::UserName;
use watchword_core::time::Timestamp;

const CUTS: &str = "WATCHWORD_POWER_CUTS";
const WRITER_DIR: &str = "WATCHWORD_POWER_CUT_DIR";
const WRITER_KIND: &str = "WATCHWORD_POWER_CUT_KIND";

/// `EXT4_IOC_SHUTDOWN` with `EXT4_GOING_FLAGS_NOLOGFLUSH`: nothing more reaches the device.
const CUT: &str = "import fcntl, os, struct, sys; \
    fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))";

#[test]
fn acknowledged_proposals_survive_a_killed_process() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut total = 0;
    for round in 0..5 {
        let mut writer = Writer::start(dir.path(), "store");
        writer.wait_for(10 + 37 * round);
        total = writer.kill().expect("it acknowledged something");
        let found = users_in(dir.path());
        assert!(found >= total, "round {round}: {total} were acknowledged, {found} are there");
    }
    assert!(total > 0);
}

#[test]
fn acknowledged_proposals_survive_power_cuts() {
    let cuts = cuts();
    if cuts == 0 {
        return;
    }
    let mut lab = Lab::new();
    let mut total = 0;
    for cut in 0..cuts {
        let acknowledged = lab.run_and_cut("store", 40 + cut * 137 % 900);
        total = total.max(acknowledged);
        let found = users_in(&lab.store());
        println!("cut {cut}: {acknowledged} acknowledged in all, {found} there");
        assert!(found >= total, "cut {cut}: {total} were acknowledged, {found} are there");
    }
    drop(lab);

    let mut failures = 0;
    for cut in 0..cuts {
        let mut lab = Lab::new();
        let acknowledged = lab.run_and_cut("plain", 40 + cut * 137 % 900);
        match plain_records_in(&lab.store()) {
            Some(found) if found >= acknowledged => {
                println!("control, cut {cut}: {acknowledged} acknowledged, {found} there");
            }
            Some(found) => {
                failures += 1;
                println!("control, cut {cut}: {acknowledged} acknowledged, only {found} there");
            }
            None => {
                failures += 1;
                println!("control, cut {cut}: {acknowledged} acknowledged, it cannot be opened");
            }
        }
    }
    println!("{cuts} cuts: the store lost nothing; the control failed in {failures}");
    assert!(failures > 0, "the cuts did not hurt the control: they prove nothing");
}

/// Each opening leaves a note of what it has found, and what an older note tells of is overwritten soon. Only a
/// file system that commits nothing by itself for a while shows that the latest note was lost.
#[test]
fn a_store_that_was_opened_again_and_again_survives_a_power_cut() {
    let cuts = cuts();
    for cut in 0..cuts.div_ceil(5) {
        let mut lab = Lab::new();
        for _ in 0..4 {
            let mut writer = Writer::start(&lab.store(), "store");
            writer.wait_for(900);
            writer.kill().expect("it acknowledged something");
        }
        let acknowledged = lab.run_and_cut("store", 300 + 400 * cut);
        let found = users_in(&lab.store());
        println!("cut {cut} after openings: {acknowledged} acknowledged in all, {found} there");
        assert!(found >= acknowledged, "{acknowledged} were acknowledged, {found} are there");
    }
}

/// How many cuts are asked for.
fn cuts() -> usize {
    let cuts = std::env::var(CUTS).map_or(0, |text| text.parse().expect("a number of cuts"));
    if cuts == 0 {
        println!("skipped: set {CUTS}");
    }
    cuts
}

/// Not a test of its own: the process that is cut off.
#[test]
fn writer_process() {
    let Ok(dir) = std::env::var(WRITER_DIR) else { return };
    match std::env::var(WRITER_KIND).as_deref() {
        Ok("store") => write_store(Path::new(&dir)),
        _ => write_plain(Path::new(&dir)),
    }
}

fn acknowledge(number: u64) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "ack {number}.").and_then(|()| out.flush()).expect("the parent listens");
}

fn options(dir: &Path) -> Options {
    // Small, so that snapshots and purges fall between the cuts.
    let clock = Arc::new(|| Timestamp(1_700_000_000_000));
    Options { snapshot_after_entries: 400, ..Options::new(dir, 1, clock) }
}

#[tokio::main]
async fn write_store(dir: &Path) {
    let cluster = if dir.join("raft").exists() {
        Cluster::open(options(dir)).await.expect("opened")
    } else {
        Cluster::create(options(dir), "a:1".to_owned()).await.expect("created")
    };
    let mut next = cluster.state().user_count() as u64;
    for group in (1..=20).cycle() {
        let commands = (next..next + group).map(add_user).collect();
        if cluster.propose_many(commands).await.is_err() {
            return;
        }
        next += group;
        acknowledge(next);
    }
}

fn write_plain(dir: &Path) {
    let db = open_plain(dir);
    // The file itself and its names are made durable once, so that what is lost afterwards is lost
    // for want of a sync after each flush and for nothing else.
    let parent = dir.parent().expect("a parent");
    for path in [dir.join("db"), dir.join("conf"), dir.to_owned(), parent.to_owned()] {
        File::open(path).and_then(|file| file.sync_all()).expect("synced");
    }
    let mut next = 0u64;
    for group in (1..=20).cycle() {
        db.insert(next.to_be_bytes(), vec![7; 200 * group as usize]).expect("inserted");
        if db.flush().is_err() {
            return;
        }
        next += group;
        acknowledge(next);
    }
}

fn open_plain(dir: &Path) -> sled::Db {
    sled::Config::new()
        .path(dir)
        .segment_size(8 * 1024 * 1024)
        .mode(sled::Mode::HighThroughput)
        .flush_every_ms(None)
        .open()
        .expect("opened")
}

/// Opens the store after a cut; all users below the count must be there.
fn users_in(dir: &Path) -> u64 {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let cluster = Cluster::open(options(dir)).await.expect("it opens after a cut");
        let state = cluster.state();
        let users = state.user_count() as u64;
        for number in 0..users {
            let name = UserName::canonical(&format!("user-{number}")).expect("a name");
            assert!(state.user_by_name(&name).is_some(), "user {number} is missing");
        }
        cluster.shutdown().await.expect("closed");
        users
    })
}

/// The control after a cut; `None` when it cannot be opened or read.
fn plain_records_in(dir: &Path) -> Option<u64> {
    let read = || {
        let db = open_plain(dir);
        let (key, value) = db.last().expect("readable")?;
        let key = <[u8; 8]>::try_from(key.as_ref()).expect("a number");
        Some(u64::from_be_bytes(key) + value.len() as u64 / 200)
    };
    panic::catch_unwind(AssertUnwindSafe(read)).ok().map(|found| found.unwrap_or(0))
}

/// A file system that power can be taken from. Cleans up after itself, also when a test fails.
struct Lab {
    device: String,
    mount: PathBuf,
    mounted: bool,
    writer: Option<Writer>,
    /// In memory; removed last.
    _dir: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let dir = dir.expect("a directory");
        let image = dir.path().join("disk.img");
        File::create(&image).and_then(|file| file.set_len(500 << 20)).expect("an image");
        let device = run("losetup", &["-f", "--show", text(&image)]);
        let mount = dir.path().join("mount");
        fs::create_dir(&mount).expect("a directory");
        let mut lab = Self { device, mount, mounted: false, writer: None, _dir: dir };
        run("mkfs.ext4", &["-q", "-F", &lab.device]);
        lab.mount();
        lab
    }

    fn mount(&mut self) {
        run("mount", &["-o", "commit=300", &self.device, text(&self.mount)]);
        self.mounted = true;
    }

    fn store(&self) -> PathBuf {
        self.mount.join("store")
    }

    /// Lets a writer run until it has acknowledged some groups, cuts the power, and brings the file
    /// system back. Gives the last number that was acknowledged.
    fn run_and_cut(&mut self, kind: &str, groups: usize) -> u64 {
        let writer = self.writer.insert(Writer::start(&self.store(), kind));
        writer.wait_for(groups);
        run("python3", &["-c", CUT, text(&self.mount)]);
        // What it said before the cut counts; afterwards its syncs fail and it says nothing.
        let last = writer.kill().expect("it acknowledged something");
        self.writer = None;
        run("umount", &[text(&self.mount)]);
        self.mounted = false;
        self.mount();
        last
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // It keeps the file system busy.
        self.writer = None;
        if self.mounted {
            run("umount", &[text(&self.mount)]);
        }
        run("losetup", &["-d", &self.device]);
    }
}

/// A writer in a process of its own. It ends with this value.
struct Writer {
    process: Child,
    output: Lines<BufReader<ChildStdout>>,
    last: Option<u64>,
}

impl Writer {
    fn start(dir: &Path, kind: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().expect("this test"))
            .args(["writer_process", "--exact", "--nocapture"])
            .env(WRITER_DIR, dir)
            .env(WRITER_KIND, kind)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a writer");
        let output = BufReader::new(process.stdout.take().expect("its output")).lines();
        Self { process, output, last: None }
    }

    /// Reads until so many groups were acknowledged.
    fn wait_for(&mut self, groups: usize) {
        for _ in 0..groups {
            assert!(self.read_one(), "the writer has ended");
        }
    }

    /// Kills the process and gives the last number that it acknowledged.
    fn kill(&mut self) -> Option<u64> {
        self.process.kill().and_then(|()| self.process.wait()).expect("it ends");
        while self.read_one() {}
        self.last
    }

    fn read_one(&mut self) -> bool {
        while let Some(Ok(line)) = self.output.next() {
            // The test runner's own words may stand in front. A killed writer may leave half a line.
            let number = line.split_once("ack ").and_then(|(_, number)| number.strip_suffix('.'));
            if let Some(number) = number {
                self.last = Some(number.parse().expect("a number"));
                return true;
            }
        }
        false
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.process.kill().and_then(|()| self.process.wait()).expect("it ends");
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
