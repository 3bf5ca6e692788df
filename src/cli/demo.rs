//! `demo`: a throw-away cluster with two users, to try the product within a minute.
//!
//! Each node is a process of its own, so that one can be killed to see what happens. They end with
//! this process, whatever becomes of it: each stops when its standard input is closed.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use clap::Args;
use data_encoding::HEXLOWER;

use super::output::print_line;
use super::serve::StopSignal;
use super::socket::{Connection, path};
use super::{Done, Failure, small_runtime};
use crate::admin::{
    ClientSpec, DeviceKind, DeviceSpec, Enrolled, NewToken, StatusView, TokenSpec, UserSpec,
};
use crate::config::Config;
use crate::{clock, join, logging, node, random};

const RADIUS_PORT: u16 = 1812;
const METRICS_PORT: u16 = 7480;
/// Distance of the usual ports of two nodes.
const PORT_STEP: u16 = 10;
/// Tries to start a node before giving up on finding free ports.
const STARTS_MAX: usize = 5;
/// How long a node may take to be ready, and to stop.
const PATIENCE: Duration = Duration::from_secs(15);
/// Pause between two looks at a node.
const LOOK: Duration = Duration::from_millis(20);

#[derive(Args)]
#[command(after_help = "Example:\n  watchword demo\n\n\
                        Needs no file, no argument and no root; listens on loopback only.\n\
                        Prints a line per node with its process: `kill -9` one and log in at another.\n\
                        Everything is removed on Ctrl-C unless --dir is given.")]
pub(super) struct DemoArgs {
    /// Keep the nodes' data in this new directory
    #[arg(long)]
    dir: Option<PathBuf>,
    /// How many nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=7))]
    nodes: u8,
}

/// A user to show around with.
struct DemoUser {
    name: &'static str,
    password: String,
    key: String,
}

/// A node in a process of its own. Stopped when dropped.
struct DemoNode {
    process: Child,
    config: Config,
    file: PathBuf,
}

impl Drop for DemoNode {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let begun = clock::monotonic();
        while clock::monotonic().saturating_sub(begun) < PATIENCE {
            match self.process.try_wait() {
                Ok(None) => pause(),
                Ok(Some(_)) | Err(_) => return,
            }
        }
        if let Err(error) = self.process.kill().and_then(|()| self.process.wait().map(drop)) {
            tracing::warn!(%error, "a node could not be stopped");
        }
    }
}

pub(super) fn run(args: DemoArgs) -> Done {
    let begun = clock::monotonic();
    // Removed when it goes out of scope, however this function ends.
    let temporary = match &args.dir {
        None => Some(tempfile::Builder::new().prefix("watchword-demo-").tempdir()?),
        Some(dir) => {
            std::fs::DirBuilder::new()
                .mode(0o700)
                .create(dir)
                .map_err(|error| Failure::new(format!("cannot make {}: {error}", dir.display())))?;
            None
        }
    };
    let dir = match (&temporary, args.dir) {
        (Some(temporary), _) => temporary.path().to_owned(),
        (None, dir) => dir.unwrap_or_default(),
    };
    let runtime = small_runtime()?;
    let mut stop = runtime.block_on(async { StopSignal::new() })?;
    let mut nodes = Vec::new();
    for number in 1..=args.nodes {
        nodes.push(start(&dir, number, nodes.first())?);
    }
    let first = nodes.first().ok_or_else(|| Failure::new("a demo needs a node"))?;
    let secret = random_word()?;
    let users = populate(&mut Connection::open_socket(&first.config.admin_socket())?, &secret)?;
    let elapsed = clock::in_ms(clock::monotonic().saturating_sub(begun));
    print_line(&explain(&nodes, &secret, &users, elapsed)?)?;
    runtime.block_on(stop.received());
    // All at once, so that none misses another.
    for node in &mut nodes {
        drop(node.process.stdin.take());
    }
    drop(nodes);
    print_line(if temporary.is_some() { "stopped; everything is removed" } else { "stopped" })
}

/// Makes and starts one node: the founder, or one that joins it.
fn start(dir: &Path, number: u8, founder: Option<&DemoNode>) -> Result<DemoNode, Failure> {
    let dir = dir.join(format!("node{number}"));
    std::fs::DirBuilder::new().mode(0o700).create(&dir)?;
    let peers = TcpListener::bind(loopback(0))?.local_addr()?;
    let config = write_config(&dir, number, peers)?;
    if number == 1 {
        logging::start(&config.log)?;
    }
    match founder {
        None => drop(small_runtime()?.block_on(node::init(&config))?),
        Some(founder) => {
            let spec = TokenSpec { seconds: 60, uses: 1 };
            let mut connection = Connection::open_socket(&founder.config.admin_socket())?;
            let token: NewToken = connection.post("/v1/tokens", &spec)?;
            let (address, token) = (founder.config.peers.advertised(), token.token.parse()?);
            small_runtime()?.block_on(join::join(&config, &address, &token, true))?;
        }
    }
    for _ in 0..STARTS_MAX {
        let config = write_config(&dir, number, peers)?;
        let file = dir.join("watchword.toml");
        let process = Command::new(std::env::current_exe()?)
            .args(["serve", "--while-stdin-open", "--config"])
            .arg(&file)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()?;
        let mut node = DemoNode { process, config, file };
        if is_ready(&mut node)? {
            return Ok(node);
        }
    }
    Err(Failure::new(format!("node {number} of the demo did not start")))
}

/// Waits until the node is ready; false when it has ended, perhaps because a port was taken.
fn is_ready(node: &mut DemoNode) -> Result<bool, Failure> {
    let begun = clock::monotonic();
    while clock::monotonic().saturating_sub(begun) < PATIENCE {
        if node.process.try_wait()?.is_some() {
            return Ok(false);
        }
        let status = Connection::open_socket(&node.config.admin_socket())
            .and_then(|mut connection| connection.get::<StatusView>("/v1/status"));
        if status.is_ok_and(|status| status.ready) {
            return Ok(true);
        }
        pause();
    }
    Err(Failure::new("a node of the demo did not get ready"))
}

fn pause() {
    #[expect(
        clippy::disallowed_methods,
        reason = "another process does not tell when it is ready"
    )]
    thread::sleep(LOOK);
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Writes a node's file, with the usual ports where they are free.
fn write_config(dir: &Path, number: u8, peers: SocketAddr) -> Result<Config, Failure> {
    let usual = |port: u16| port + PORT_STEP * u16::from(number - 1);
    let radius = match UdpSocket::bind(loopback(usual(RADIUS_PORT))) {
        Ok(socket) => socket.local_addr()?,
        Err(_) => UdpSocket::bind(loopback(0))?.local_addr()?,
    };
    let metrics = match TcpListener::bind(loopback(usual(METRICS_PORT))) {
        Ok(socket) => socket.local_addr()?,
        Err(_) => TcpListener::bind(loopback(0))?.local_addr()?,
    };
    let text = format!(
        "data_dir = \"data\"\n\n[key]\nkey_file = \"data.key\"\n\n\
         [peers]\nlisten = \"{peers}\"\n\n[radius]\nlisten = [\"{radius}\"]\n\n\
         [metrics]\nlisten = \"{metrics}\"\n\n[raft]\npromote_after = \"100ms\"\n\n\
         [log]\nlevel = \"error\"\n"
    );
    let path = dir.join("watchword.toml");
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&path)?;
    std::io::Write::write_all(&mut file, text.as_bytes())?;
    Ok(Config::read(&path)?)
}

fn populate(node: &mut Connection, secret: &str) -> Result<[DemoUser; 2], Failure> {
    let addresses = vec!["127.0.0.0/8".to_owned()];
    let client = ClientSpec::new("demo".to_owned(), addresses, secret.to_owned());
    node.post::<_, serde_json::Value>("/v1/clients", &client)?;
    let alice = add_user(node, "alice", DeviceKind::Totp)?;
    let bob = add_user(node, "bob", DeviceKind::Hotp)?;
    Ok([alice, bob])
}

fn add_user(
    node: &mut Connection,
    name: &'static str,
    kind: DeviceKind,
) -> Result<DemoUser, Failure> {
    let password = random_word()?;
    let spec = UserSpec {
        username: name.to_owned(),
        password: Some(password.clone()),
        ..UserSpec::default()
    };
    node.post::<_, serde_json::Value>("/v1/users", &spec)?;
    let devices = path(&["v1", "users", name, "devices"]);
    let enrolled: Enrolled = node.post(&devices, &DeviceSpec::new(kind))?;
    Ok(DemoUser { name, password, key: enrolled.key })
}

fn random_word() -> Result<String, Failure> {
    Ok(HEXLOWER.encode(&random::bytes::<8>()?))
}

fn explain(
    nodes: &[DemoNode],
    secret: &str,
    [alice, bob]: &[DemoUser; 2],
    elapsed_ms: u64,
) -> Result<String, Failure> {
    let first = nodes.first().ok_or_else(|| Failure::new("a demo needs a node"))?;
    let radius_of = |node: &DemoNode| {
        let address = node.config.radius.listen.first();
        address.map(ToString::to_string).ok_or_else(|| Failure::new("no RADIUS address"))
    };
    let radius = radius_of(first)?;
    let metrics = first.config.metrics.listen;
    let line = |user: &DemoUser, passcode: &str| {
        let DemoUser { name, password, .. } = user;
        format!(
            "  echo \"User-Name = {name}, User-Password = '{password},{passcode}'\" \
             | radclient -x {radius} auth {secret}"
        )
    };
    let (alice_key, bob_key) = (&alice.key, &bob.key);
    let alice_line = line(alice, &format!("$(oathtool --totp -b {alice_key})"));
    let bob_line = line(bob, &format!("$(oathtool --hotp -b -c 0 {bob_key})"));
    let config = first.file.display();
    let program = std::env::current_exe()?;
    let program = program.display();
    let mut lines = String::new();
    for (number, node) in (1..).zip(nodes) {
        let (id, address) = (node.process.id(), radius_of(node)?);
        lines += &format!("  node {number}   RADIUS {address:21} process {id}\n");
    }
    Ok(format!(
        "Watchword answers RADIUS on {radius}, ready after {elapsed_ms} ms.\n\n{lines}\n\
         Log alice in (TOTP; each passcode works once in the whole cluster):\n\n{alice_line}\n\n\
         Log bob in (HOTP; count on with -c 1, -c 2, …):\n\n{bob_line}\n\n\
         Leave out the comma and the passcode to get an Access-Challenge for it.\n\
         Any node answers. `kill -9` one of the processes, and go on at another address.\n\
         radclient is in Debian's freeradius-utils, oathtool in oathtool.\n\n\
         Look around in another terminal:\n\n\
         \x20 {program} user list --config {config}\n\
         \x20 {program} members --config {config}\n\
         \x20 {program} attempts --follow --config {config}\n\
         \x20 curl http://{metrics}/metrics\n\n\
         Ctrl-C stops it."
    ))
}
