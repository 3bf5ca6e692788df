//! The network of the laboratory: a switch in user space that every host hangs on.
//!
//! Where a kernel has no network emulator, this one still delays and corrupts, by a seed, and its
//! counters prove that it did. It knows where each address is and floods nothing: an unknown
//! destination gets nothing.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};

use super::fabric::{Counters, Fabric, Link, Port};
use crate::rng::Rng;

/// Frames taken from one port before the others have their turn.
const TURN: usize = 64;
/// The longest frame: the largest packet of a TAP, and its header.
const FRAME_MAX: usize = 65_536 + 14;

/// The running switch. It stops when it is dropped.
pub struct Switch {
    fabric: Arc<Mutex<Fabric>>,
    /// Closing it tells the thread to end.
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Switch {
    /// Joins the TAP interfaces `taps`, whose order gives the ports their numbers.
    pub(super) fn start(taps: Vec<File>, rng: Rng) -> Result<Self> {
        let fabric = Arc::new(Mutex::new(Fabric::new(taps.len(), rng)));
        let (stopped, stop) = pipe_with(PipeFlags::CLOEXEC).context("a pipe for the switch")?;
        let shared = Arc::clone(&fabric);
        let carry = move || {
            // The run goes on without a network: it shows that nothing works, and does not pass.
            if let Err(error) = carry(taps, &shared, &stopped) {
                eprintln!("the switch has stopped: {error}");
            }
        };
        let thread = thread::Builder::new().name("switch".to_owned()).spawn(carry)?;
        Ok(Self { fabric, stop: Some(stop), thread: Some(thread) })
    }

    /// Makes the link from one port to another what `link` says.
    pub fn set(&self, from: Port, to: Port, link: Link) {
        self.change(from, to, |old| *old = link);
    }

    /// Changes the link from one port to another in part, so that faults may overlap.
    pub fn change(&self, from: Port, to: Port, change: impl FnOnce(&mut Link)) {
        self.fabric().change(from, to, change);
    }

    /// Cuts links, all at one moment. Each is cut until it was [joined](Self::join) as often.
    pub fn cut(&self, links: &[(Port, Port)]) {
        let mut fabric = self.fabric();
        for (from, to) in links {
            fabric.cut(*from, *to);
        }
    }

    /// Takes back one cut of each link, all at one moment.
    pub fn join(&self, links: &[(Port, Port)]) {
        let mut fabric = self.fabric();
        for (from, to) in links {
            fabric.join(*from, *to);
        }
    }

    /// Makes all links perfect.
    pub fn heal(&self) {
        self.fabric().heal();
    }

    /// What happened from one port to another since the start.
    pub fn counters(&self, from: Port, to: Port) -> Counters {
        self.fabric().counters(from, to)
    }

    fn fabric(&self) -> MutexGuard<'_, Fabric> {
        lock(&self.fabric)
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // It has said why, if it panicked.
            let _ = thread.join();
        }
    }
}

/// All links between ports of different groups, both ways.
pub fn between(groups: &[Vec<Port>]) -> Vec<(Port, Port)> {
    let mut links = Vec::new();
    for (number, group) in groups.iter().enumerate() {
        for other in groups.iter().enumerate().filter(|(other, _)| *other != number) {
            links.extend(group.iter().flat_map(|from| other.1.iter().map(|to| (*from, *to))));
        }
    }
    links
}

/// The hardware address of a port; its last byte is the port's number, from 1.
pub(super) fn hardware_address(port: Port) -> String {
    format!("02:00:00:00:00:{:02x}", port + 1)
}

/// The port that a frame is for.
fn destination(frame: &[u8]) -> Option<Port> {
    let [2, 0, 0, 0, 0, number] = frame.first_chunk::<6>()? else { return None };
    Port::from(*number).checked_sub(1)
}

/// Moves frames until `stopped` is closed at its other end.
fn carry(mut taps: Vec<File>, fabric: &Mutex<Fabric>, stopped: &OwnedFd) -> io::Result<()> {
    let mut buffer = vec![0; FRAME_MAX];
    let mut out = Vec::new();
    loop {
        let next = {
            let mut fabric = lock(fabric);
            let now = Instant::now();
            out.extend(std::iter::from_fn(|| fabric.deliver(now)));
            fabric.next_due()
        };
        for (to, frame) in out.drain(..) {
            if let Some(tap) = taps.get_mut(to) {
                // A host whose interface is down or full loses frames, as on any wire.
                let _ = tap.write(&frame);
            }
        }
        if !wait(&taps, stopped, next)? {
            return Ok(());
        }
        for from in 0..taps.len() {
            let Some(tap) = taps.get_mut(from) else { continue };
            for _ in 0..TURN {
                // Would block, or the interface is down: nothing to take.
                let Ok(length) = tap.read(&mut buffer) else { break };
                let Some(frame) = buffer.get(..length) else { break };
                if let Some(to) = destination(frame) {
                    lock(fabric).admit(from, to, frame, Instant::now());
                }
            }
        }
    }
}

/// Waits for a frame, or until `next`; false when it is time to end.
fn wait(taps: &[File], stopped: &OwnedFd, next: Option<Instant>) -> io::Result<bool> {
    let mut fds = vec![PollFd::new(stopped, PollFlags::IN)];
    fds.extend(taps.iter().map(|tap| PollFd::new(tap, PollFlags::IN)));
    let left = next.map(|due| due.saturating_duration_since(Instant::now()));
    let left = left.map(|left| Timespec::try_from(left.min(Duration::from_secs(60))));
    let left = left.transpose().map_err(io::Error::other)?;
    match poll(&mut fds, left.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(fds.first().is_none_or(|stop| stop.revents().is_empty()))
}

fn lock(fabric: &Mutex<Fabric>) -> MutexGuard<'_, Fabric> {
    fabric.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_cut_from_each_other_and_not_within() {
        let links = between(&[vec![0, 1], vec![2]]);
        assert_eq!(links, [(0, 2), (1, 2), (2, 0), (2, 1)]);
    }

    #[test]
    fn a_frame_goes_to_the_port_of_its_address() {
        let mut frame = [0; 60];
        frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, 4]);
        assert_eq!(destination(&frame), Some(3));
        assert_eq!(hardware_address(3), "02:00:00:00:00:04");
        frame[0] = 0xff;
        assert_eq!(destination(&frame), None, "nothing is flooded");
        assert_eq!(destination(&[2, 0]), None);
    }
}
