//! One node: its directory, its file, its process, and what an operator does with it.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use serde_json::Value;
use tempfile::TempDir;

use super::{DEADLINE, Outcome, Process, get, run, watchword};

/// The shared secret of the clients that the tests add.
pub(crate) const SECRET: &str = "xyzzy5461-shared";

/// A node's directory: its file, its data and its key. Removed when dropped.
pub(crate) struct Directory {
    dir: TempDir,
}

/// A running node. Dropped: killed, and its directory removed.
pub(crate) struct Node {
    // Before the directory, so that the process is dead when its directory goes.
    process: Process,
    directory: Directory,
    pub(crate) radius: SocketAddr,
    pub(crate) metrics: SocketAddr,
}

impl Directory {
    /// A directory with a file that asks the system for every port.
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("watchword-it-").tempdir().expect("a directory");
        let directory = Self { dir };
        directory.write_file(
            "watchword.toml",
            "data_dir = \"data\"\n\n[key]\nkey_file = \"data.key\"\n\n\
             [peers]\nlisten = \"127.0.0.1:0\"\n\n\
             [radius]\nlisten = [\"127.0.0.1:0\"]\n\n[metrics]\nlisten = \"127.0.0.1:0\"\n\n\
             [log]\nformat = \"json\"\n",
        );
        directory
    }

    /// A directory for a node that others reach, and that keeps its addresses when it is started again.
    pub(crate) fn for_peers() -> Self {
        let directory = Self::new();
        let text = fs::read_to_string(directory.config()).expect("its file");
        let peers = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let radius = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        // In the order in which the file has them.
        let text = [peers, radius].into_iter().fold(text, |text, free| {
            text.replacen("127.0.0.1:0", &free.expect("a port").to_string(), 1)
        });
        let text = format!("{text}\n[raft]\npromote_after = \"100ms\"\n");
        directory.write_file("watchword.toml", &text);
        directory
    }

    /// Where peers reach the node.
    pub(crate) fn peers(&self) -> String {
        let text = fs::read_to_string(self.config()).expect("its file");
        let (_, rest) = text.split_once("[peers]\nlisten = \"").expect("a section");
        rest.split_once('"').expect("an address").0.to_owned()
    }

    /// The same after `init`.
    pub(crate) fn initialised() -> Self {
        let directory = Self::new();
        let made = directory.cli(&["init"]);
        assert!(made.stderr.is_empty(), "nothing to warn of: {made}");
        made.done();
        directory
    }

    /// Leaves its file alone: what a new disk holds.
    pub(crate) fn wipe(&self) {
        fs::remove_dir_all(self.path("data")).expect("removed");
        fs::remove_file(self.path("data.key")).expect("removed");
    }

    /// Gives it another address for peers, and tells which.
    pub(crate) fn move_peers(&self) -> String {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = free.expect("a port").to_string();
        let text = fs::read_to_string(self.config()).expect("its file");
        self.write_file("watchword.toml", &text.replacen(&self.peers(), &address, 1));
        address
    }

    /// Asks the node for its status until that `holds`.
    pub(crate) fn wait_for_status(&self, what: &str, holds: impl Fn(&Value) -> bool) {
        let begun = Instant::now();
        loop {
            let status = self.cli(&["status", "--format", "json"]).json();
            if holds(&status) {
                return;
            }
            assert!(begun.elapsed() < DEADLINE, "{what}: {status}");
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.path("watchword.toml")
    }

    /// Writes a file that only its owner may read.
    pub(crate) fn write_file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        write_secret(&path, text);
        path
    }

    /// A command of the program for this node.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = watchword();
        command.args(arguments).arg("--config").arg(self.config()).current_dir(self.dir.path());
        command
    }

    /// Runs a command of the program for this node.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Outcome {
        run(&mut self.command(arguments), "")
    }

    /// Runs a command that needs no node.
    pub(crate) fn plain(&self, arguments: &[&str]) -> Outcome {
        run(watchword().args(arguments), "")
    }

    /// Runs the node and waits until it is ready.
    pub(crate) fn serve(self) -> Node {
        self.serve_by(|command| command)
    }

    /// The same, with a change to how it is run.
    pub(crate) fn serve_by(self, change: impl FnOnce(&mut Command) -> &mut Command) -> Node {
        self.start_by(change).ready()
    }

    /// The same, without waiting until it is ready.
    pub(crate) fn start_by(self, change: impl FnOnce(&mut Command) -> &mut Command) -> Node {
        self.run(&["serve"], change)
    }

    /// Joins the cluster of `other` and waits until the node is ready.
    pub(crate) fn join(self, other: &Node, token: &str) -> Node {
        let arguments = ["join", &other.directory.peers(), "--token", token];
        self.run(&arguments, |command| command).ready()
    }

    fn run(self, arguments: &[&str], change: impl FnOnce(&mut Command) -> &mut Command) -> Node {
        let mut command = self.command(arguments);
        let process = Process::spawn("the node", change(&mut command));
        let started = process.wait_for_error("that it has started", |line| {
            let line: Value = serde_json::from_str(line).ok()?;
            (line["message"] == "node started").then_some(line)
        });
        let address = |name: &str| {
            let text = started[name].as_str().expect("an address").trim_matches(['[', ']']);
            text.parse().expect("an address")
        };
        let (radius, metrics) = (address("radius"), address("metrics"));
        Node { process, directory: self, radius, metrics }
    }
}

impl Node {
    /// A new node that is ready.
    pub(crate) fn start() -> Self {
        Directory::initialised().serve()
    }

    /// Waits until it is ready: one of several nodes may have to wait for an election.
    pub(crate) fn ready(self) -> Self {
        let begun = Instant::now();
        while get(self.metrics, "/health/ready") != (200, "ready\n".to_owned()) {
            assert!(begun.elapsed() < DEADLINE, "it never gets ready\n{}", self.process);
        }
        self
    }

    pub(crate) fn directory(&self) -> &Directory {
        &self.directory
    }

    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    /// Kills the process and hands out what it leaves.
    pub(crate) fn kill(self) -> Directory {
        let Self { mut process, directory, .. } = self;
        process.kill();
        directory
    }

    /// Stops in order and hands out what the node leaves, and all that it logged.
    pub(crate) fn stop(self) -> (Directory, String) {
        let Self { mut process, directory, .. } = self;
        process.signal("TERM");
        let status = process.wait();
        assert!(status.success(), "a clean end: {status}\n{process}");
        (directory, process.errors())
    }

    /// Three nodes, all of which vote.
    pub(crate) fn three() -> [Self; 3] {
        let directory = Directory::for_peers();
        directory.cli(&["init"]).done();
        let first = directory.serve();
        let token = first.token(&["--uses", "2"]);
        let second = Directory::for_peers().join(&first, &token);
        let third = Directory::for_peers().join(&first, &token);
        for node in [&first, &second, &third] {
            node.wait_for_voters(3);
        }
        [first, second, third]
    }

    /// A new join token.
    pub(crate) fn token(&self, arguments: &[&str]) -> String {
        let made = [&["token", "create", "--format", "json"], arguments].concat();
        let made = self.cli(&made).json();
        made["token"].as_str().expect("a token").to_owned()
    }

    /// Asks the node until it knows of this many voters, and the change to them is over.
    pub(crate) fn wait_for_voters(&self, count: usize) {
        self.wait_for_status("voters", |status| {
            status["voters"].as_array().is_some_and(|voters| voters.len() == count)
                && status["failure_tolerance"] == (count - 1) / 2
        });
    }

    /// Asks the node for its status until that `holds`.
    pub(crate) fn wait_for_status(&self, what: &str, holds: impl Fn(&Value) -> bool) {
        self.directory.wait_for_status(what, holds);
    }

    /// Runs a command for this node.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Outcome {
        self.directory.cli(arguments)
    }

    /// Runs a command for this node with standard input.
    pub(crate) fn cli_with(&self, arguments: &[&str], input: &str) -> Outcome {
        run(&mut self.directory.command(arguments), input)
    }

    /// Starts a command for this node that the test watches.
    pub(crate) fn spawn(&self, arguments: &[&str]) -> Process {
        Process::spawn(&arguments.join(" "), &mut self.directory.command(arguments))
    }

    /// Adds a RADIUS client with [`SECRET`].
    pub(crate) fn add_client(&self, name: &str, address: &str, policy: &[&str]) {
        let secret = self.directory.write_file(&format!("{name}.secret"), SECRET);
        let secret = secret.to_str().expect("UTF-8");
        let fixed =
            ["client", "add", "radius", name, "--address", address, "--secret-file", secret];
        self.cli(&[&fixed[..], policy].concat()).done();
    }

    /// Adds users by CSV; all of them must be new and good.
    pub(crate) fn import(&self, csv: &str) {
        let said = self.cli_with(&["user", "import", "-"], csv).done();
        let rows = csv.lines().count() - 1;
        assert_eq!(said, format!("{rows} added, 0 there already, 0 bad"));
    }

    /// A user as `user show` has it.
    pub(crate) fn user(&self, name: &str) -> Value {
        self.cli(&["user", "show", name, "--format", "json"]).json()
    }

    /// The latest attempts, oldest first, each as its user name, whether it was accepted, and why.
    pub(crate) fn attempts(&self) -> Vec<(String, bool, String)> {
        let attempts = self.cli(&["attempts", "--limit", "1000", "--format", "json"]).json();
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let attempts = attempts.as_array().expect("a list").iter();
        attempts
            .map(|attempt| {
                let accepted = attempt["accepted"].as_bool().expect("yes or no");
                (text(&attempt["username"]), accepted, text(&attempt["reason"]))
            })
            .collect()
    }

    /// Why the latest attempt ended as it did.
    pub(crate) fn last_reason(&self) -> String {
        self.attempts().pop().expect("there is an attempt").2
    }

    /// Every sample of `/metrics` by name and labels.
    pub(crate) fn samples(&self) -> BTreeMap<String, f64> {
        let (status, text) = get(self.metrics, "/metrics");
        assert_eq!(status, 200);
        let samples = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        samples
            .map(|line| {
                let (name, value) = line.rsplit_once(' ').expect("a name and a value");
                (name.to_owned(), value.parse().expect("a number"))
            })
            .collect()
    }

    /// How many packets were dropped for `cause`.
    pub(crate) fn dropped(&self, cause: &str) -> u64 {
        self.sample(&format!("watchword_radius_dropped_total{{cause=\"{cause}\"}}"))
    }

    /// One sample; zero while there is none.
    pub(crate) fn sample(&self, name: &str) -> u64 {
        self.samples().get(name).map_or(0, |&value| value as u64)
    }

    /// Asks for a sample until it is at least `least`.
    pub(crate) fn wait_for_sample(&self, name: &str, least: u64) {
        let begun = Instant::now();
        while self.sample(name) < least {
            assert!(begun.elapsed() < DEADLINE, "{name} never gets to {least}\n{}", self.process);
        }
    }
}

/// Writes a file that only its owner may read.
pub(crate) fn write_secret(path: &Path, text: &str) {
    if path.exists() {
        fs::remove_file(path).expect("an old file goes");
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).expect("a file is written");
}
