//! Waiting for what the kernel tells nobody (`/proc`, counters of other threads) and for the time
//! to come.

use std::thread;
use std::time::{Duration, Instant};

/// How often is looked. Short beside everything that is waited for, long beside the look.
const EVERY: Duration = Duration::from_millis(2);

/// Waits until `holds`, at most for `limit`, and tells whether it does.
pub fn until(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if holds() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        pass(EVERY);
    }
}

/// Lets `time` pass.
#[expect(clippy::disallowed_methods, reason = "nothing tells when such a thing comes to be")]
pub fn pass(time: Duration) {
    thread::sleep(time);
}
