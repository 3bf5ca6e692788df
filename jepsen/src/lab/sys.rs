//! What the operating system offers only unsafely: two ioctls, new namespaces, work between fork
//! and exec.
//!
//! The only file of the crate with `unsafe`. It decides nothing; each function is one call.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;

use rustix::ioctl::{Opcode, Setter, ioctl};
use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// `TUNSETIFF` of linux/if_tun.h.
const TUN_SET_INTERFACE: Opcode = 0x4004_54ca;
/// `IFF_TAP | IFF_NO_PI`: Ethernet frames, nothing before them.
const TAP_WITHOUT_HEADER: i16 = 0x0002 | 0x1000;
/// `EXT4_IOC_SHUTDOWN` of the kernel's fs/ext4/ext4.h.
const EXT4_SHUTDOWN: Opcode = 0x8004_587d;
/// `EXT4_GOING_FLAGS_NOLOGFLUSH`: the journal in memory is lost, too, as when the power goes.
const WITHOUT_LOG_FLUSH: u32 = 2;

/// `struct ifreq`, as far as `TUNSETIFF` reads it, in its full size.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: i16,
    rest: [u8; 22],
}

/// Makes the opened `/dev/net/tun` the other end of a new Ethernet interface called `name`.
pub(super) fn become_tap(tun: &File, name: &str) -> io::Result<()> {
    let mut request = InterfaceRequest { name: [0; 16], flags: TAP_WITHOUT_HEADER, rest: [0; 22] };
    // The last byte stays zero: the kernel takes the name as a C string.
    for (to, from) in request.name.iter_mut().take(15).zip(name.bytes()) {
        *to = from;
    }
    // SAFETY: the kernel reads one `struct ifreq` (40 bytes) and writes the name back into it; ours
    // has that size and layout, and lives until the call returns.
    unsafe {
        ioctl(tun.as_fd(), Setter::<TUN_SET_INTERFACE, InterfaceRequest>::new(request))?;
    }
    Ok(())
}

/// Stops the ext4 under `root` as a power cut would: what was not synced never reaches the disk.
pub(super) fn shut_down_ext4(root: &File) -> io::Result<()> {
    // SAFETY: the kernel reads one `u32` of flags, and changes no memory of ours.
    unsafe { ioctl(root.as_fd(), Setter::<EXT4_SHUTDOWN, u32>::new(WITHOUT_LOG_FLUSH))? };
    Ok(())
}

/// Gives this thread networks and mounts of its own, and its next children a process table.
pub(super) fn leave_for_new_namespaces() -> io::Result<()> {
    let flags = UnshareFlags::NEWNET | UnshareFlags::NEWNS | UnshareFlags::NEWPID;
    // SAFETY: unsound only with `UnshareFlags::FILES`, where descriptors of other threads would go.
    unsafe { unshare_unsafe(flags)? };
    Ok(())
}

/// Puts this thread, for good, into the network of `namespace`.
pub(super) fn move_into_network(namespace: BorrowedFd<'_>) -> io::Result<()> {
    Ok(move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))?)
}

/// Has `command` run in the network of `namespace`.
pub(super) fn run_in_network(command: &mut Command, namespace: Arc<OwnedFd>) {
    // SAFETY: between fork and exec only `setns` is called, which is async-signal-safe and
    // allocates nothing; the descriptor is kept open by the closure.
    unsafe {
        command.pre_exec(move || move_into_network(namespace.as_fd()));
    }
}

/// Has `command` killed when the thread that starts it ends.
pub(super) fn die_with_parent(command: &mut Command) {
    // SAFETY: between fork and exec only `prctl` is called, which is async-signal-safe.
    unsafe {
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
    }
}
