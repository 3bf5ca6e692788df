//! Where a laboratory may break things: network, mounts and processes that vanish with the run.
//!
//! [`enter`] runs the program again below itself, three deep: the *watcher* that was started by the
//! user and waits; the *init*, process 1 of the new process table, which adopts and reaps orphans;
//! the *runner*, which returns from [`enter`]. When any of them dies, also by `kill -9`, the kernel
//! ends all that ran inside, and with the last process go interfaces, mounts and loop devices.
//! Nothing outside is changed, so nothing has to be put back.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, exit};

use anyhow::{Context, Result, bail, ensure};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{Pid, WaitOptions, geteuid, wait};
use std::os::unix::process::ExitStatusExt;

use super::sys;

/// Says to the program which part it plays; nobody else sets it.
const PART: &str = "WATCHWORD_JEPSEN_PART";

/// Returns inside the laboratory's namespaces.
///
/// Outside it never returns but with an error: it runs this program, with the same arguments,
/// inside, waits for it, and exits as it does. To be called first in `main`, before there are
/// threads.
///
/// # Errors
/// When this is not root, or a tool is missing; all that are missing are named.
pub fn enter() -> Result<()> {
    match env::var(PART).as_deref() {
        Ok("runner") => settle(),
        Ok("init") => exit(be_init()?),
        _ => {
            let missing = missing();
            ensure!(missing.is_empty(), "missing: {}", missing.join("; "));
            exit(watch()?)
        }
    }
}

/// What a laboratory needs and this machine has not, each with what to do about it.
pub fn missing() -> Vec<String> {
    let mut missing = Vec::new();
    if !geteuid().is_root() {
        missing.push("root (namespaces, loop devices)".to_owned());
    }
    let tools = [
        ("ip", "iproute2"),
        ("mount", "mount"),
        ("losetup", "mount"),
        ("mkfs.ext4", "e2fsprogs"),
        ("strace", "strace"),
    ];
    for (tool, package) in tools {
        if !is_on_path(tool) {
            missing.push(format!("{tool} (apt-get install {package})"));
        }
    }
    if super::clock::library().is_none() {
        missing.push("libfaketimeMT.so.1 (apt-get install libfaketime)".to_owned());
    }
    for device in ["/dev/net/tun", "/dev/loop-control"] {
        if !Path::new(device).exists() {
            missing.push(format!("{device} (a kernel that has it)"));
        }
    }
    missing
}

fn is_on_path(tool: &str) -> bool {
    env::var_os("PATH")
        .is_some_and(|path| env::split_paths(&path).any(|dir| dir.join(tool).exists()))
}

/// The watcher: makes the namespaces, has init run in them, and waits.
fn watch() -> Result<i32> {
    let mut init = again("init")?;
    sys::leave_for_new_namespaces().context("new namespaces")?;
    // Else what is mounted inside would be seen outside.
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .context("making mounts private")?;
    sys::die_with_parent(&mut init);
    Ok(code(init.status().context("running inside the namespaces")?))
}

/// Process 1: the runner is its child, and so becomes every process whose parent has died.
fn be_init() -> Result<i32> {
    let mut runner = again("runner")?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", "/proc", "proc", flags, None).context("mounting /proc")?;
    let runner = Pid::from_child(&runner.spawn().context("starting the runner")?);
    loop {
        match wait(WaitOptions::empty()).context("waiting for the runner")? {
            Some((pid, status)) if pid == runner => {
                return Ok(code(ExitStatus::from_raw(status.as_raw())));
            }
            _ => {}
        }
    }
}

/// The runner: last preparations.
fn settle() -> Result<()> {
    // Whoever set the variable by hand would break this machine's own network.
    let own = fs::read_link("/proc/self/exe").context("reading /proc/self/exe")?;
    if fs::read_link("/proc/1/exe").ok().as_ref() != Some(&own) {
        bail!("{PART} is set, but this is no laboratory: unset it");
    }
    // The names of network namespaces, and the shared memory that libfaketime leaves behind when it
    // is killed: private, so that nothing stays and nothing is met.
    for (dir, mode) in [("/run/netns", c"mode=755"), ("/dev/shm", c"mode=1777")] {
        fs::create_dir_all(dir).with_context(|| format!("making {dir}"))?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount("tmpfs", dir, "tmpfs", flags, mode).with_context(|| format!("mounting {dir}"))?;
    }
    Ok(())
}

/// This program with the same arguments, playing another part.
fn again(part: &str) -> Result<Command> {
    let program: PathBuf = env::current_exe().context("finding this program")?;
    let mut command = Command::new(program);
    command.args(env::args_os().skip(1)).env(PART, part);
    Ok(command)
}

/// The exit code that a shell would show.
fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}
