//! One node of the cluster under test: its file, its process, its logs.
//!
//! Knows what an operator of one host knows. That a node belongs to a cluster, and which of them
//! leads, is [`super`]'s business.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::client::admin::Admin;
use crate::lab::{Lab, Process};
use crate::wait;

/// How long a node may take until its socket answers: a debug build replays a log slowly.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// How long an order may take: a change of the members waits until it is made.
pub(super) const ORDER_PATIENCE: Duration = Duration::from_secs(30);
/// How long it may take to stop in order.
const STOP_PATIENCE: Duration = Duration::from_secs(15);
/// Entries after which a node takes a snapshot. It keeps half as many of those before.
pub(super) const SNAPSHOT_AFTER: u64 = 300;
const RADIUS_PORT: u16 = 1812;
const METRICS_PORT: u16 = 7480;
const PEERS_PORT: u16 = 7400;

/// A node.
pub(super) struct Node {
    host: usize,
    name: String,
    address: IpAddr,
    /// On the disk that faults reach.
    disk: PathBuf,
    config: PathBuf,
    logs: PathBuf,
    program: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    process: Option<Process>,
    starts: usize,
    is_drained: bool,
    /// Address and token of a join that has not been seen to end well. It is repeated at each start,
    /// because only the same command finishes a join that was cut off.
    joining: Option<(String, String)>,
    id: Option<u64>,
    /// Whether its store is not what the cluster counts on, as it was damaged on purpose or its member removed.
    is_forfeit: bool,
    /// Whether a store that did not open was kept.
    is_kept: bool,
    /// What nobody asked for: that it ended, or would not start or stop.
    surprises: Vec<String>,
}

impl Node {
    /// Writes the node's file. `dir` is where the harness keeps what the node's disk must not lose.
    pub(super) fn new(lab: &Lab, host: usize, dir: &Path, program: &Path) -> Result<Self> {
        let name = lab.name(host)?.to_owned();
        let dir = dir.join(&name);
        let (disk, logs) = (lab.disk(host)?.root().to_owned(), dir.clone());
        fs::create_dir_all(&logs)?;
        let node = Self {
            host,
            name,
            address: lab.address(host)?.into(),
            disk,
            config: dir.join("watchword.toml"),
            logs,
            program: program.to_owned(),
            inner: Mutex::default(),
        };
        write_private(&node.config, &node.file())?;
        Ok(node)
    }

    /// The node's file. All timing is as shipped, but for the time until a new node votes, for which a
    /// run is too short, for comparisons of states, which would come too late, and for snapshots, which
    /// come so often that nodes are brought up by them.
    fn file(&self) -> String {
        let (data, key) = (self.data(), self.disk.join("data.key"));
        format!(
            "data_dir = {data:?}\n\n[key]\nkey_file = {key:?}\n\n\
             [peers]\nlisten = \"{address}:{PEERS_PORT}\"\nadvertise = \"{peers}\"\n\n\
             [radius]\nlisten = [\"{address}:{RADIUS_PORT}\"]\n\n\
             [metrics]\nlisten = \"{address}:{METRICS_PORT}\"\n\n\
             [log]\nformat = \"json\"\n\n[raft]\npromote_after = \"500ms\"\n\
             snapshot_after = {SNAPSHOT_AFTER}\ncompare_every = \"2s\"\n",
            address = self.address,
            peers = self.peers(),
        )
    }

    /// `n1` for host 0.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Where its store is.
    pub(super) fn store(&self) -> PathBuf {
        self.data().join("raft")
    }

    /// Starts it on a store that somebody has damaged; what it said when it ended, or none when it serves.
    pub(super) fn start_damaged(&self, lab: &Lab) -> Result<Option<String>> {
        self.forfeit();
        self.try_start(lab)
    }

    /// Its store is not what the cluster counts on: it may refuse to start, until the store is wiped.
    pub(super) fn forfeit(&self) {
        self.inner().is_forfeit = true;
    }

    /// Where its peers reach it.
    pub(super) fn peers(&self) -> SocketAddr {
        SocketAddr::new(self.address, PEERS_PORT)
    }

    /// Where clients reach it.
    pub(super) fn radius(&self) -> SocketAddr {
        SocketAddr::new(self.address, RADIUS_PORT)
    }

    /// Where it tells of its health.
    pub(super) fn metrics(&self) -> SocketAddr {
        SocketAddr::new(self.address, METRICS_PORT)
    }

    /// Its data directory.
    pub(super) fn data(&self) -> PathBuf {
        self.disk.join("data")
    }

    /// Commands for it.
    pub(super) fn admin(&self) -> Admin {
        Admin::new(&self.program, &self.config)
    }

    /// Its id in the cluster, once it is known.
    pub(super) fn id(&self) -> Option<u64> {
        self.inner().id
    }

    /// The process that runs it, if one does.
    pub(super) fn pid(&self) -> Option<u32> {
        let mut inner = self.inner();
        let process = inner.process.as_mut()?;
        process.is_alive().ok()?.then(|| process.pid())
    }

    /// Makes it the first node of a cluster.
    pub(super) fn init(&self) -> Result<()> {
        let made = self.admin().run_for(&["init"], "", START_PATIENCE)?;
        made.error().map_or(Ok(()), |error| bail!("init: {error}"))
    }

    /// Has it join a cluster at its next start.
    pub(super) fn will_join(&self, address: SocketAddr, token: &str) {
        self.inner().joining = Some((address.to_string(), token.to_owned()));
    }

    /// Whether it is about to join a cluster, or was cut off while it did.
    pub(super) fn is_joining(&self) -> bool {
        self.inner().joining.is_some()
    }

    /// Starts it, and waits until its socket answers. One that runs goes on, in service, unless it has
    /// given up.
    pub(super) fn start(&self, lab: &Lab) -> Result<()> {
        let Some(said) = self.try_start(lab)? else { return self.learn_id() };
        let mut inner = self.inner();
        // A join may find nobody who would take it in; a store opens, if nobody has damaged it.
        if inner.joining.is_none() && !inner.is_forfeit {
            let surprise = format!("start {} was refused: {said}", inner.starts);
            inner.surprises.push(surprise);
            if !std::mem::replace(&mut inner.is_kept, true)
                && let Err(error) = copy_files(&self.store(), &self.logs.join("refused"))
            {
                inner.surprises.push(format!("its store could not be kept: {error:#}"));
            }
        }
        bail!("{} ended at once and said: {said}", self.name)
    }

    /// Whether it has ended by itself, or given up, which a fault of its disk explains.
    pub(super) fn take_end(&self) -> Result<bool> {
        if self.pid().is_some() {
            let has_given_up = self.has_given_up();
            if has_given_up {
                self.kill()?;
            }
            return Ok(has_given_up);
        }
        Ok(self.inner().process.take().is_some())
    }

    /// What it did that nobody asked for.
    pub(super) fn surprises(&self) -> Vec<String> {
        let mut inner = self.inner();
        inner.note_end();
        inner.surprises.clone()
    }

    /// Starts it; what it said when it ended at once, or none when it answers.
    fn try_start(&self, lab: &Lab) -> Result<Option<String>> {
        if self.pid().is_some() {
            if !self.has_given_up() {
                if self.inner().is_drained {
                    self.order(&["drain", "--undo"])?;
                    self.inner().is_drained = false;
                }
                return Ok(None);
            }
            // Whoever broke its disk has asked before.
            let surprise = format!("start {}: its store has failed", self.inner().starts);
            self.inner().surprises.push(surprise);
            self.kill()?;
        }
        let log = self.spawn(lab)?;
        // Others may look at it meanwhile.
        let answers = self.wait_until_it_answers();
        let mut inner = self.inner();
        if let Err(error) = &answers
            && inner.joining.is_none()
        {
            let surprise = format!("start {}: {error:#}", inner.starts);
            inner.surprises.push(surprise);
        }
        if answers? {
            inner.joining = None;
            return Ok(None);
        }
        inner.process = None;
        let said = fs::read_to_string(log)?;
        Ok(Some(said.lines().last().unwrap_or("nothing").to_owned()))
    }

    /// Starts its process, and tells where its log is.
    fn spawn(&self, lab: &Lab) -> Result<PathBuf> {
        let mut inner = self.inner();
        inner.note_end();
        inner.is_drained = false;
        inner.starts += 1;
        let log = self.logs.join(format!("start-{:03}.log", inner.starts));
        let mut command = lab.command(self.host, &self.program)?;
        match &inner.joining {
            Some((address, token)) => command.args(["join", address, "--token", token]),
            None => command.arg("serve"),
        };
        command.arg("--config").arg(&self.config).env_remove("WATCHWORD_CONFIG");
        inner.process = Some(Process::start(command, &log)?);
        Ok(log)
    }

    /// Whether its process goes on though its replica has stopped for good, as after a write that failed.
    /// What an operator does then is to start it anew.
    fn has_given_up(&self) -> bool {
        let status = self.admin().json(&["status"]);
        status.is_ok_and(|status| status.get("fault").is_some_and(|fault| !fault.is_null()))
    }

    /// Whether it answers; false when it has ended.
    fn wait_until_it_answers(&self) -> Result<bool> {
        let socket = self.data().join("admin.sock");
        let answers = wait::until(START_PATIENCE, || {
            // Whoever has ended will not answer any more, and need not be waited for.
            if self.pid().is_none() {
                return Ok(false);
            }
            UnixStream::connect(&socket)?;
            anyhow::Ok(true)
        });
        answers.with_context(|| format!("{} does not answer", self.name))
    }

    fn learn_id(&self) -> Result<()> {
        let status = self.admin().json(&["status"])?;
        self.inner().id = status.get("node").and_then(serde_json::Value::as_u64);
        Ok(())
    }

    /// Takes it out of service.
    pub(super) fn drain(&self) -> Result<()> {
        self.inner().is_drained = true;
        self.order(&["drain"])
    }

    /// Gives it an order that must be carried out.
    pub(super) fn order(&self, arguments: &[&str]) -> Result<()> {
        let said = self.admin().run_for(arguments, "", ORDER_PATIENCE)?;
        match said.error() {
            None => Ok(()),
            Some(error) => bail!("{} on {}: {error}", arguments.join(" "), self.name),
        }
    }

    /// Kills it.
    pub(super) fn kill(&self) -> Result<()> {
        let mut inner = self.inner();
        inner.note_end();
        inner.process.take().map_or(Ok(()), |mut process| process.kill().map(drop))
    }

    /// Stops it in order.
    pub(super) fn stop(&self) -> Result<()> {
        let mut inner = self.inner();
        inner.note_end();
        let Some(mut process) = inner.process.take() else { return Ok(()) };
        drop(inner);
        let surprise = match process.terminate(STOP_PATIENCE)? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => format!("was stopped by SIGTERM and ended with {status}"),
            None => {
                process.kill()?;
                format!("did not stop within {STOP_PATIENCE:?} of SIGTERM, and was killed")
            }
        };
        self.inner().surprises.push(surprise.clone());
        bail!("{} {surprise}", self.name)
    }

    /// Empties its disk: what a new machine has.
    pub(super) fn wipe(&self) -> Result<()> {
        self.kill()?;
        for entry in fs::read_dir(&self.disk)? {
            let path = entry?.path();
            // Not what the file system keeps for itself.
            if path.file_name().is_some_and(|name| name == "data") {
                fs::remove_dir_all(path)?;
            } else if path.is_file() {
                fs::remove_file(path)?;
            }
        }
        let mut inner = self.inner();
        inner.id = None;
        inner.is_forfeit = false;
        Ok(())
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// How it ended, if it did and nobody ended it.
    fn end(&mut self) -> Option<String> {
        Some(self.process.as_mut()?.ended().ok()??.to_string())
    }

    /// Writes it down.
    fn note_end(&mut self) {
        if let Some(end) = self.end() {
            self.surprises.push(format!("start {} ended by itself: {end}", self.starts));
            self.process = None;
        }
    }
}

/// Copies the files below a directory.
fn copy_files(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| to.display().to_string())?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let path = entry?.path();
        let copy = path.file_name().map(|name| to.join(name)).context("a name")?;
        if path.is_dir() {
            copy_files(&path, &copy)?;
        } else {
            fs::copy(&path, &copy).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

/// Writes a file that only its owner may read, which the product insists on.
pub(super) fn write_private(path: &Path, text: &str) -> Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .with_context(|| path.display().to_string())?;
    Ok(file.write_all(text.as_bytes())?)
}
