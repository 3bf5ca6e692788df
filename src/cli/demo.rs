//! `demo`: a throw-away node with two users, to try the product within a minute.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use clap::Args;
use data_encoding::HEXLOWER;
use metrics_exporter_prometheus::PrometheusHandle;

use super::output::print_line;
use super::serve::StopSignal;
use super::{Done, Failure, node_runtime};
use crate::admin::{Admin, ClientSpec, DeviceKind, DeviceSpec, UserSpec};
use crate::config::Config;
use crate::node::{self, Node, NodeError};
use crate::{clock, logging, metrics, random};

const RADIUS_PORT: u16 = 1812;
const METRICS_PORT: u16 = 7480;
/// Tries to start before giving up on finding free ports.
const STARTS_MAX: usize = 5;

#[derive(Args)]
#[command(after_help = "Example:\n  watchword demo\n\n\
                        Needs no file, no argument and no root; listens on loopback only.\n\
                        Everything is removed on Ctrl-C unless --dir is given.")]
pub(super) struct DemoArgs {
    /// Keep the node's data in this new directory
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// A user to show around with.
struct DemoUser {
    name: &'static str,
    password: String,
    key: String,
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
    let config = write_config(&dir)?;
    logging::start(&config.log)?;
    let recorder = metrics::install()?;
    node_runtime()?.block_on(async {
        let mut stop = StopSignal::new()?;
        node::init(&config).await?;
        let node = start(&dir, config, recorder).await?;
        let secret = random_word()?;
        let users = populate(node.admin(), &secret).await?;
        let elapsed = clock::in_ms(clock::monotonic().saturating_sub(begun));
        print_line(&explain(&node, &dir, &secret, &users, elapsed)?)?;
        stop.received().await;
        node.stop().await?;
        Ok::<_, Failure>(())
    })?;
    print_line(if temporary.is_some() { "stopped; everything is removed" } else { "stopped" })
}

/// Starts the node; on other ports, should somebody have taken one just after it was found free.
async fn start(
    dir: &Path,
    mut config: Config,
    recorder: PrometheusHandle,
) -> Result<Node, Failure> {
    for _ in 1..STARTS_MAX {
        match Node::start(&config, recorder.clone()).await {
            Err(NodeError::Bind { .. }) => config = write_config(dir)?,
            started => return Ok(started?),
        }
    }
    Ok(Node::start(&config, recorder).await?)
}

/// Writes the node's file, with the usual ports where they are free.
fn write_config(dir: &Path) -> Result<Config, Failure> {
    let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let radius = match UdpSocket::bind(loopback(RADIUS_PORT)) {
        Ok(_) => RADIUS_PORT,
        Err(_) => UdpSocket::bind(loopback(0))?.local_addr()?.port(),
    };
    let metrics = match TcpListener::bind(loopback(METRICS_PORT)) {
        Ok(_) => METRICS_PORT,
        Err(_) => TcpListener::bind(loopback(0))?.local_addr()?.port(),
    };
    let text = format!(
        "data_dir = \"data\"\n\n[key]\nkey_file = \"data.key\"\n\n\
         [radius]\nlisten = [\"127.0.0.1:{radius}\"]\n\n\
         [metrics]\nlisten = \"127.0.0.1:{metrics}\"\n\n[log]\nlevel = \"warn\"\n"
    );
    let path = dir.join("watchword.toml");
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&path)?;
    std::io::Write::write_all(&mut file, text.as_bytes())?;
    Ok(Config::read(&path)?)
}

async fn populate(admin: &Admin, secret: &str) -> Result<[DemoUser; 2], Failure> {
    let addresses = vec!["127.0.0.0/8".to_owned()];
    admin.add_client(ClientSpec::new("demo".to_owned(), addresses, secret.to_owned())).await?;
    let alice = add_user(admin, "alice", DeviceKind::Totp).await?;
    let bob = add_user(admin, "bob", DeviceKind::Hotp).await?;
    Ok([alice, bob])
}

async fn add_user(
    admin: &Admin,
    name: &'static str,
    kind: DeviceKind,
) -> Result<DemoUser, Failure> {
    let password = random_word()?;
    let spec = UserSpec {
        username: name.to_owned(),
        password: Some(password.clone()),
        ..UserSpec::default()
    };
    admin.add_user(spec).await?;
    let enrolled = admin.add_device(name, DeviceSpec::new(kind)).await?;
    Ok(DemoUser { name, password, key: enrolled.key })
}

fn random_word() -> Result<String, Failure> {
    Ok(HEXLOWER.encode(&random::bytes::<8>()?))
}

fn explain(
    node: &Node,
    dir: &Path,
    secret: &str,
    [alice, bob]: &[DemoUser; 2],
    elapsed_ms: u64,
) -> Result<String, Failure> {
    let radius =
        node.radius_addresses().first().ok_or_else(|| Failure::new("no RADIUS address"))?;
    let metrics = node.metrics_address();
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
    let config = dir.join("watchword.toml");
    let config = config.display();
    let program = std::env::current_exe()?;
    let program = program.display();
    Ok(format!(
        "Watchword answers RADIUS on {radius}, ready after {elapsed_ms} ms.\n\n\
         Log alice in (TOTP; each passcode works once):\n\n{alice_line}\n\n\
         Log bob in (HOTP; count on with -c 1, -c 2, …):\n\n{bob_line}\n\n\
         Leave out the comma and the passcode to get an Access-Challenge for it.\n\
         radclient is in Debian's freeradius-utils, oathtool in oathtool.\n\n\
         Look around in another terminal:\n\n\
         \x20 {program} user list --config {config}\n\
         \x20 {program} attempts --follow --config {config}\n\
         \x20 curl http://{metrics}/metrics\n\n\
         Ctrl-C stops it."
    ))
}
