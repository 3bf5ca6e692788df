//! Logins of one user that ask a directory, one after the other.
//!
//! A wrong password must count here before the next one is tried there: otherwise many tries at once would lock
//! the user's account in the directory before the limit here stops them.

use std::hash::{BuildHasher, RandomState};

use tokio::sync::{Mutex, MutexGuard};
use watchword_core::client::Source;
use watchword_core::name::UserName;

use super::Request;

/// Queues. Two users may have to share one, which costs them a moment now and then.
const QUEUES: usize = 1_024;

/// Who is next.
pub(super) struct Turns {
    queues: Vec<Mutex<()>>,
    /// Nobody outside can tell who shares a queue.
    hasher: RandomState,
}

impl Default for Turns {
    fn default() -> Self {
        let queues = std::iter::repeat_with(Mutex::default).take(QUEUES).collect();
        Self { queues, hasher: RandomState::new() }
    }
}

impl Turns {
    /// Waits until nobody else of this name is being examined; at once where no directory is asked.
    pub(super) async fn take(&self, request: &Request) -> Option<MutexGuard<'_, ()>> {
        let is_directory = |source: &Source| matches!(source, Source::Directory(_));
        if request.challenge.is_some()
            || !request.policy.first_factor.sources().iter().any(is_directory)
        {
            return None;
        }
        if cfg!(mutant = "crowd_directory") {
            return None;
        }
        let name = UserName::canonical(&request.username).ok()?;
        let queue = usize::try_from(self.hasher.hash_one(&name)).unwrap_or(0) % QUEUES;
        Some(self.queues.get(queue)?.lock().await)
    }
}
