//! A host's own network, and how a host is joined to the switch.

use std::fs::{self, File};
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::OFlags;
use rustix::mount::{UnmountFlags, unmount};

use super::fabric::Port;
use super::switch::hardware_address;
use super::{run, sys};

/// A network namespace. Named, so that `ip netns exec n1` looks in while a run goes.
#[derive(Debug)]
pub(super) struct Network {
    name: String,
    file: PathBuf,
    namespace: Arc<OwnedFd>,
}

impl Network {
    /// Makes a network with nothing in it.
    pub(super) fn make(name: &str) -> Result<Self> {
        run(Command::new("ip").args(["netns", "add", name]))?;
        let file = Path::new("/run/netns").join(name);
        let namespace = File::open(&file).context("opening the network")?;
        Ok(Self { name: name.to_owned(), file, namespace: Arc::new(namespace.into()) })
    }

    /// What processes enter.
    pub(super) fn namespace(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.namespace)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // The name goes; the network itself goes with the last process in it.
        let _ = unmount(&self.file, UnmountFlags::DETACH);
        let _ = fs::remove_file(&self.file);
    }
}

/// The address of a port among `hosts` hosts; the one behind the last host is the control host's.
pub(super) fn address(port: Port, hosts: usize) -> Ipv4Addr {
    let last = if port == hosts { 254 } else { u8::try_from(port + 1).unwrap_or(u8::MAX) };
    Ipv4Addr::new(10, 77, 0, last)
}

/// Makes the interface `device` with the addresses of `port`, in `network` or the runner's own, and
/// gives the end that belongs into the switch.
pub(super) fn join(
    network: Option<&Network>,
    device: &str,
    port: Port,
    hosts: usize,
) -> Result<File> {
    let tap = open_tap(network.map(Network::namespace), device.to_owned())?;
    let mut ip = Command::new("ip");
    if let Some(network) = network {
        ip.args(["-n", &network.name]);
    }
    ip.args(["-batch", "-"]);
    tell(&mut ip, &script(device, port, hosts))?;
    Ok(tap)
}

fn open_tap(namespace: Option<Arc<OwnedFd>>, device: String) -> Result<File> {
    // A thread that enters the network and ends there: none of the others is ever anywhere else.
    let opening = thread::spawn(move || -> Result<File> {
        if let Some(namespace) = namespace {
            sys::move_into_network(namespace.as_fd()).context("entering the network")?;
        }
        let tun = File::options()
            .read(true)
            .write(true)
            // The switch takes what there is, from all ports in turn.
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open("/dev/net/tun")
            .context("opening /dev/net/tun")?;
        sys::become_tap(&tun, &device).with_context(|| format!("making {device}"))?;
        Ok(tun)
    });
    match opening.join() {
        Ok(result) => result,
        Err(_) => bail!("the thread that made an interface panicked"),
    }
}

/// Gives an interface its addresses, and tells it everybody else's: were they asked for, links
/// would stay dead for a while after a cut has healed.
fn script(device: &str, port: Port, hosts: usize) -> String {
    let mut script = format!(
        "link set lo up\n\
         link set {device} address {} addrgenmode none up\n\
         address add {}/24 dev {device}\n",
        hardware_address(port),
        address(port, hosts),
    );
    for other in (0..=hosts).filter(|other| *other != port) {
        let (ip, hardware) = (address(other, hosts), hardware_address(other));
        script += &format!("neigh replace {ip} lladdr {hardware} dev {device} nud permanent\n");
    }
    script
}

/// Runs a tool that reads what it has to do.
fn tell(command: &mut Command, what: &str) -> Result<()> {
    let tool = command.get_program().display().to_string();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("running {tool}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(what.as_bytes()).with_context(|| format!("telling {tool}"))?;
    }
    let output = child.wait_with_output().with_context(|| format!("waiting for {tool}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{tool}: {}", said.trim());
    Ok(())
}
