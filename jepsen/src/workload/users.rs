//! Users whose tokens the harness holds. Each workload has its own.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};

use crate::client::oath::Key;
use crate::rng::Rng;

/// The columns of [`Pool::rows`].
pub const COLUMNS: &str = "username,hotp_key,digits\n";

/// A user with a token.
pub(super) struct User {
    /// Place in its pool.
    pub(super) place: usize,
    /// Name in Watchword.
    pub(super) name: String,
    /// Key of the token.
    pub(super) key: Key,
}

/// Users that are handed out one by one, so that no two clients have the same.
pub(super) struct Pool {
    users: Vec<User>,
    next: AtomicUsize,
}

impl Pool {
    /// `count` users called after the workload.
    pub(super) fn new(workload: &str, count: usize, rng: &Rng) -> Self {
        let mut rng = rng.fork("keys");
        let user = |number| {
            let key: Vec<u8> = (0..3).flat_map(|_| rng.next_u64().to_be_bytes()).take(20).collect();
            let name = format!("{workload}-{number}");
            User { place: number, name, key: Key::new(key) }
        };
        Self { users: (0..count).map(user).collect(), next: AtomicUsize::new(0) }
    }

    /// As rows of a CSV file.
    pub(super) fn rows(&self) -> String {
        self.users.iter().map(|user| format!("{},{},8\n", user.name, user.key.base32())).collect()
    }

    /// The next user.
    ///
    /// # Errors
    /// When there is none left: the run is longer, or luckier, than the pool was made for.
    pub(super) fn take(&self) -> Result<&User> {
        self.at(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// The user at a place, for clients that share users.
    ///
    /// # Errors
    /// When there are not so many.
    pub(super) fn at(&self, place: usize) -> Result<&User> {
        self.users.get(place).with_context(|| format!("all {} users are spent", self.users.len()))
    }
}
