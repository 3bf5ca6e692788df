//! A toy cluster for the nemeses: nodes that sync what they acknowledge and talk all the time, and
//! no consensus.
//!
//! A node appends records to its store, syncs each, and then tells its *beat*, a file outside the
//! disk: how many it has acknowledged, and what time it is by its clock. It refuses a store that is
//! not what was written.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::UdpSocket;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use watchword_jepsen::lab::{Lab, Process};
use watchword_jepsen::nemesis::System;
use watchword_jepsen::wait;

/// Asks this program to be a node: store, beat, whether it syncs, addresses of the others.
pub(crate) const NODE: &str = "be-a-toy-node";
/// How long a node may take for anything.
const LIMIT: Duration = Duration::from_secs(60);
const RECORD: usize = 512;

/// The nodes, the first of which leads.
pub(crate) struct Toy<'a> {
    lab: &'a Lab,
    syncs: bool,
    nodes: Vec<Mutex<Option<Process>>>,
    members: Mutex<BTreeSet<usize>>,
}

impl<'a> Toy<'a> {
    /// Starts a node on every host.
    pub(crate) fn start(lab: &'a Lab) -> Self {
        Self::start_as(lab, true)
    }

    /// Starts nodes that acknowledge what they have not synced.
    pub(crate) fn start_careless(lab: &'a Lab) -> Self {
        Self::start_as(lab, false)
    }

    fn start_as(lab: &'a Lab, syncs: bool) -> Self {
        let nodes = (0..lab.hosts()).map(|_| Mutex::default()).collect();
        let toy = Self { lab, syncs, nodes, members: Mutex::new((0..lab.hosts()).collect()) };
        (0..lab.hosts()).for_each(|host| System::start(&toy, host).expect("started"));
        toy
    }

    /// How many records the node has acknowledged.
    pub(crate) fn acknowledged(&self, host: usize) -> u64 {
        self.beat(host).map_or(0, |(count, _)| count)
    }

    /// How many records the node found when it was last started.
    pub(crate) fn recovered(&self, host: usize) -> u64 {
        let log =
            fs::read_to_string(self.lab.dir(host).expect("a host").join("log")).expect("a log");
        let found = log.lines().rev().find_map(|line| line.strip_prefix("found "));
        found.expect("it says so").parse().expect("a number")
    }

    /// Count, and the time by the node's clock in seconds.
    fn beat(&self, host: usize) -> Option<(u64, f64)> {
        let text = fs::read_to_string(self.beat_file(host)).ok()?;
        let (count, time) = text.split_once(' ')?;
        Some((count.parse().ok()?, time.parse().ok()?))
    }

    fn beat_file(&self, host: usize) -> PathBuf {
        self.lab.dir(host).expect("a host").join("beat")
    }

    fn node(&self, host: usize) -> MutexGuard<'_, Option<Process>> {
        self.nodes[host].lock().expect("a node")
    }

    fn join_empty(&self, host: usize) -> Result<()> {
        self.kill(host)?;
        fs::remove_dir_all(self.store(host)?)?;
        System::start(self, host)?;
        self.members.lock().expect("members").insert(host);
        Ok(())
    }
}

impl System for Toy<'_> {
    fn leader(&self) -> Option<usize> {
        (0..self.nodes.len()).find(|host| self.pid(*host).is_some())
    }

    fn members(&self) -> Result<Vec<usize>> {
        Ok(self.members.lock().expect("members").iter().copied().collect())
    }

    fn pid(&self, host: usize) -> Option<u32> {
        let mut node = self.node(host);
        let process = node.as_mut()?;
        process.is_alive().expect("told").then(|| process.pid())
    }

    fn take_end(&self, host: usize) -> Result<bool> {
        Ok(self.pid(host).is_none())
    }

    fn is_ready(&self, host: usize) -> bool {
        self.pid(host).is_some()
    }

    fn applied(&self, host: usize) -> Option<u64> {
        self.pid(host).and_then(|_| self.beat(host)).map(|(count, _)| count)
    }

    fn last_log(&self, host: usize) -> Option<u64> {
        self.applied(host)
    }

    fn clock_offset(&self, host: usize) -> Option<f64> {
        let (_, shown) = self.beat(host)?;
        // The file's own time is the kernel's, which is true.
        let truth = fs::metadata(self.beat_file(host)).ok()?.modified().ok()?;
        Some(shown - truth.duration_since(UNIX_EPOCH).ok()?.as_secs_f64())
    }

    fn snapshot_lag(&self) -> u64 {
        20
    }

    fn store(&self, host: usize) -> Result<PathBuf> {
        Ok(self.lab.disk(host)?.root().join("store"))
    }

    fn kill(&self, host: usize) -> Result<()> {
        if let Some(mut process) = self.node(host).take() {
            process.kill()?;
        }
        Ok(())
    }

    fn start(&self, host: usize) -> Result<()> {
        let refused = self.start_refused(host)?;
        ensure!(refused.is_none(), "refused: {refused:?}");
        Ok(())
    }

    fn stop(&self, host: usize) -> Result<()> {
        if let Some(mut process) = self.node(host).take() {
            process.terminate(LIMIT)?.context("it does not end")?;
        }
        Ok(())
    }

    fn start_refused(&self, host: usize) -> Result<Option<String>> {
        if self.pid(host).is_some() {
            return Ok(None);
        }
        let beat = self.beat_file(host);
        let _ = fs::remove_file(&beat);
        let mut command = self.lab.command(host, std::env::current_exe()?)?;
        command.arg(NODE).arg(self.store(host)?).arg(&beat);
        command.arg(if self.syncs { "syncs" } else { "careless" });
        for other in (0..self.lab.hosts()).filter(|other| *other != host) {
            command.arg(self.lab.address(other)?.to_string());
        }
        // The clients' host, which hears the beats, too.
        command.arg("10.77.0.254");
        let log = self.lab.dir(host)?.join("log");
        let mut process = Process::start(command, &log)?;
        let mut ended = None;
        wait::holds(LIMIT, || {
            ended = process.wait(Duration::ZERO).expect("told");
            ended.is_some() || beat.exists()
        });
        if ended.is_some() {
            let said = fs::read_to_string(log)?;
            return Ok(Some(said.lines().last().unwrap_or_default().to_owned()));
        }
        *self.node(host) = Some(process);
        Ok(None)
    }

    fn drain(&self, _: usize) -> Result<()> {
        Ok(())
    }

    fn transfer(&self, _: usize) -> Result<()> {
        Ok(())
    }

    fn remove(&self, host: usize) -> Result<()> {
        self.kill(host)?;
        self.members.lock().expect("members").remove(&host);
        Ok(())
    }

    fn add(&self, host: usize) -> Result<()> {
        self.join_empty(host)
    }

    fn replace(&self, host: usize) -> Result<()> {
        self.join_empty(host)
    }
}

/// A node's whole life.
pub(crate) fn run() -> ExitCode {
    let mut arguments = std::env::args().skip(2);
    let mut next = || arguments.next().expect("an argument");
    let (store, beat) = (PathBuf::from(next()), PathBuf::from(next()));
    let syncs = next() == "syncs";
    let others: Vec<String> = arguments.map(|address| format!("{address}:9")).collect();
    match live(&store, &beat, syncs, &others) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "its clock is what a test sets wrong")]
fn live(store: &Path, beat: &Path, syncs: bool, others: &[String]) -> Result<()> {
    fs::create_dir_all(store)?;
    let path = store.join("log");
    let log = File::options().create(true).write(true).truncate(false).open(&path)?;
    let records = fs::read(&path)?;
    for (index, found) in records.chunks(RECORD).enumerate() {
        ensure!(found == record(index as u64), "damaged: record {index}");
    }
    for dir in [store, store.parent().context("a parent")?] {
        File::open(dir)?.sync_all()?;
    }
    eprintln!("found {}", records.len() / RECORD);
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    for count in (records.len() / RECORD) as u64.. {
        // A torn record after a power cut was never acknowledged; here records fit a block and do
        // not tear.
        log.write_all_at(&record(count), count * RECORD as u64)?;
        if syncs {
            log.sync_data()?;
        }
        let time = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
        let new = beat.with_extension("new");
        fs::write(&new, format!("{} {time}", count + 1))?;
        fs::rename(&new, beat)?;
        for other in others {
            // Nobody listens, and the kernel tells so on the next call.
            let _ = socket.send_to(b"beat", other);
        }
        wait::pause(Duration::from_millis(5));
    }
    Ok(())
}

/// The record of that index; every byte of it counts, and none is zero.
fn record(index: u64) -> Vec<u8> {
    let mut record = format!("{index:020}").into_bytes();
    record.resize(RECORD, b'.');
    record
}
