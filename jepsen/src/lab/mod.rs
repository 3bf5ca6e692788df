//! The laboratory: hosts with networks, disks and clocks of their own, all of which can be broken.
//!
//! * [`enter`]: namespaces that vanish with the run.
//! * [`Switch`]: the network between the hosts; cuts, delays, loses, corrupts.
//! * [`Disk`]: loses its power, fills up.
//! * [`Clock`]: goes wrong.
//! * [`Process`]: a program on a host.
//! * [`Trace`]: system calls that fail.
//!
//! It knows nothing of what runs on the hosts, and touches nothing outside the namespaces but the
//! directory that it is given.

mod clock;
mod disk;
mod fabric;
mod namespace;
mod network;
pub mod process;
mod switch;
mod sys;
mod trace;

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

pub use clock::{Clock, Strobe};
pub use disk::{Disk, Usage, detach_leftovers};
pub use fabric::{Counters, Link, Port};
pub use namespace::{enter, missing};
pub use process::Process;
pub use switch::{Switch, between};
pub use trace::{Injection, Trace};

use network::Network;

use crate::rng::Rng;

/// The hosts have addresses from 1 on; more would run into the control host's.
const HOSTS_MAX: usize = 100;

/// Hosts on one switch, and the control host, which is the runner itself.
pub struct Lab {
    // Dropped in this order: no frame for hosts that are gone, no image under a mounted disk.
    switch: Switch,
    hosts: Vec<Host>,
    images: PathBuf,
}

struct Host {
    name: String,
    address: Ipv4Addr,
    dir: PathBuf,
    network: Network,
    disk: Disk,
    clock: Clock,
}

impl Lab {
    /// Makes `hosts` hosts, numbered from 0, that keep their files below `workdir`. Only after
    /// [`enter`].
    ///
    /// # Errors
    /// When the kernel or a tool refuses.
    pub fn build(hosts: usize, seed: u64, workdir: &Path) -> Result<Self> {
        ensure!((1..=HOSTS_MAX).contains(&hosts), "from 1 to {HOSTS_MAX} hosts, not {hosts}");
        detach_leftovers()?;
        // Programs run where they like, and must find it all the same.
        let workdir = std::path::absolute(workdir).context("the work directory")?;
        let images = workdir.join("images");
        fs::create_dir_all(&images).with_context(|| format!("making {}", images.display()))?;
        mount("tmpfs", &images, "tmpfs", MountFlags::empty(), None).context("memory for disks")?;

        let mut taps = Vec::new();
        let mut made = Vec::new();
        for host in 0..hosts {
            let name = name(host);
            let network = Network::make(&name)?;
            taps.push(network::join(Some(&network), "eth0", host, hosts)?);
            let dir = workdir.join(&name);
            fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
            let disk = Disk::make(&images, &name, dir.join("disk"))?;
            let clock = Clock::new(dir.join("clock"))?;
            let address = network::address(host, hosts);
            made.push(Host { name, address, dir, network, disk, clock });
        }
        taps.push(network::join(None, "ctl0", hosts, hosts)?);

        let switch = Switch::start(taps, Rng::new(seed).fork("switch"))?;
        Ok(Self { switch, hosts: made, images })
    }

    /// How many hosts there are.
    pub fn hosts(&self) -> usize {
        self.hosts.len()
    }

    /// The control host's port at the switch; the hosts' are their numbers.
    pub fn control(&self) -> Port {
        self.hosts.len()
    }

    /// The network between them.
    pub fn switch(&self) -> &Switch {
        &self.switch
    }

    /// What a host is called: `n1` is host 0.
    ///
    /// # Errors
    /// When there is no such host; so with all that follow.
    pub fn name(&self, host: usize) -> Result<&str> {
        Ok(&self.host(host)?.name)
    }

    /// Where it is reached.
    ///
    /// # Errors
    /// When there is no such host.
    pub fn address(&self, host: usize) -> Result<Ipv4Addr> {
        Ok(self.host(host)?.address)
    }

    /// Where its files are kept that are no part of its disk: logs, configuration.
    ///
    /// # Errors
    /// When there is no such host.
    pub fn dir(&self, host: usize) -> Result<&Path> {
        Ok(&self.host(host)?.dir)
    }

    /// Its disk.
    ///
    /// # Errors
    /// When there is no such host.
    pub fn disk(&self, host: usize) -> Result<&Disk> {
        Ok(&self.host(host)?.disk)
    }

    /// Its wall clock.
    ///
    /// # Errors
    /// When there is no such host.
    pub fn clock(&self, host: usize) -> Result<&Clock> {
        Ok(&self.host(host)?.clock)
    }

    /// A command that will run on `host`: in its network, by its clock.
    ///
    /// # Errors
    /// When there is no such host.
    pub fn command(&self, host: usize, program: impl AsRef<Path>) -> Result<Command> {
        let host = self.host(host)?;
        let mut command = Command::new(program.as_ref());
        command.envs(host.clock.environment());
        sys::run_in_network(&mut command, host.network.namespace());
        Ok(command)
    }

    /// How far the wall clock of `host` is ahead, in seconds, as a program on it sees.
    ///
    /// # Errors
    /// When that program cannot be run.
    #[expect(clippy::disallowed_methods, reason = "the true time is what is compared with")]
    pub fn clock_offset(&self, host: usize) -> Result<f64> {
        let shown = self.command(host, "date")?.arg("+%s.%N").output().context("running date")?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock")?;
        let shown = String::from_utf8_lossy(&shown.stdout);
        let shown: f64 = shown.trim().parse().with_context(|| format!("date said {shown:?}"))?;
        Ok(shown - now.as_secs_f64())
    }

    fn host(&self, host: usize) -> Result<&Host> {
        self.hosts.get(host).with_context(|| format!("there is no host {host}"))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.hosts.clear();
        // Lazily: the images are held by disks that somebody may still use.
        let _ = unmount(&self.images, UnmountFlags::DETACH);
    }
}

fn name(host: usize) -> String {
    format!("n{}", host + 1)
}

/// Runs a tool that has nothing to say but errors.
fn run(command: &mut Command) -> Result<()> {
    let tool = command.get_program().display().to_string();
    let output = command.output().with_context(|| format!("running {tool}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{tool}: {}", said.trim());
    Ok(())
}
