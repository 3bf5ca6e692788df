//! Waiting for what another process does, with an end to it.
//!
//! A child's end is an event of the kernel. What a node says of itself is not, nor what `/proc` and
//! counters show: they must be asked again and again, and the pause between two questions is here, so
//! that nothing else in the crate waits for time to pass without knowing what for.

use std::io;
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// Pause between two questions to a node, and between two looks at what the kernel shows.
const PAUSE: Duration = Duration::from_millis(20);
const LOOK_PAUSE: Duration = Duration::from_millis(2);

/// Whether `child` ends within `patience`. It is left to the caller to reap it.
///
/// # Errors
/// When the kernel does not let us watch it.
pub fn for_exit(child: &Child, patience: Duration) -> io::Result<bool> {
    let begun = Instant::now();
    let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else {
        return Err(io::Error::other("a process without a number"));
    };
    let end = pidfd_open(pid, PidfdFlags::empty())?;
    loop {
        let left = patience.saturating_sub(begun.elapsed());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&end, PollFlags::IN)], Some(&timeout)) {
            Ok(ended) => return Ok(ended > 0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Asks until there is an answer, or `patience` is over: then what the last question gave.
///
/// # Errors
/// The reason that the last question gave.
pub fn until<T, E>(patience: Duration, mut question: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    let begun = Instant::now();
    loop {
        match question() {
            Err(_) if begun.elapsed() < patience => pause(PAUSE),
            answer => return answer,
        }
    }
}

/// Waits until `is_so`, at most for `patience`, and tells whether it is.
pub fn holds(patience: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    loop {
        if is_so() {
            return true;
        }
        if begun.elapsed() >= patience {
            return false;
        }
        pause(LOOK_PAUSE);
    }
}

/// Lets time pass.
pub fn pause(duration: Duration) {
    let begun = Instant::now();
    while let Some(left) = duration.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) {
        // Nobody unparks this thread; parking may end early all the same.
        thread::park_timeout(left);
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_childs_end_is_seen_and_its_going_on_too() {
        let mut child =
            Command::new("cat").stdin(std::process::Stdio::piped()).spawn().expect("cat");
        assert!(!for_exit(&child, Duration::from_millis(1)).expect("watched"));
        drop(child.stdin.take());
        assert!(for_exit(&child, Duration::from_secs(60)).expect("watched"));
        assert!(child.wait().expect("reaped").success());
    }

    #[test]
    fn questions_are_asked_until_one_is_answered() {
        let mut asked = 0;
        let answer = until(Duration::from_secs(60), || {
            asked += 1;
            if asked == 3 { Ok(asked) } else { Err("not yet") }
        });
        assert_eq!(answer, Ok(3));
        assert_eq!(until(Duration::ZERO, || Err::<(), _>("never")), Err("never"));
    }
}
