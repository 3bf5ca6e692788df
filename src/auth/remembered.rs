//! Passwords that were right a moment ago, so that a client that logs in again and again costs no argon2 each time.
//!
//! What is kept is a digest of the password and of the hash that it matched, under a key that this process alone has and
//! that dies with it. Whoever looks up brings the present hash: a password that was changed is not found any more.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::hmac::{self, HMAC_SHA256};
use subtle::ConstantTimeEq;

use crate::random::{self, RandomError};

/// Passwords that are remembered at a time.
const REMEMBERED_MAX: usize = 65_536;
const DIGEST_BYTES: usize = 32;

type Digest = [u8; DIGEST_BYTES];

/// Passwords that were right.
pub(super) struct Remembered {
    key: hmac::Key,
    /// By the digest of the hash: the digest of hash and password, and until when it counts on the clock that never
    /// jumps.
    right: Mutex<HashMap<Digest, (Digest, Duration)>>,
}

impl Remembered {
    /// None yet.
    ///
    /// # Errors
    /// When no key can be drawn.
    pub(super) fn new() -> Result<Self, RandomError> {
        let key = random::bytes::<DIGEST_BYTES>()?;
        Ok(Self { key: hmac::Key::new(HMAC_SHA256, &key), right: Mutex::default() })
    }

    /// Whether `password` was found to have the hash `phc`, not long before `now`.
    pub(super) fn knows(&self, password: &[u8], phc: &[u8], now: Duration) -> bool {
        let Some(&(digest, until)) = self.right().get(&self.digest(&[phc])) else { return false };
        now < until && bool::from(digest.ct_eq(&self.digest(&[phc, password])))
    }

    /// Remembers that `password` has the hash `phc` until the time `until`.
    pub(super) fn remember(&self, password: &[u8], phc: &[u8], now: Duration, until: Duration) {
        let (by, digest) = (self.digest(&[phc]), self.digest(&[phc, password]));
        let mut right = self.right();
        if right.len() >= REMEMBERED_MAX {
            right.retain(|_, (_, until)| now < *until);
        }
        if right.len() < REMEMBERED_MAX {
            right.insert(by, (digest, until));
        }
    }

    /// Of the parts, each with its length in front.
    fn digest(&self, parts: &[&[u8]]) -> Digest {
        let mut context = hmac::Context::with_key(&self.key);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let tag = context.sign();
        std::array::from_fn(|at| tag.as_ref().get(at).copied().unwrap_or_default())
    }

    fn right(&self) -> MutexGuard<'_, HashMap<Digest, (Digest, Duration)>> {
        self.right.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_right_password_is_known_for_a_while_and_with_its_hash_alone() {
        let remembered = Remembered::new().expect("random numbers");
        assert!(!remembered.knows(b"swordfish", b"hash", at(0)));
        remembered.remember(b"swordfish", b"hash", at(0), at(60));
        assert!(remembered.knows(b"swordfish", b"hash", at(59)));
        assert!(!remembered.knows(b"swordfish", b"hash", at(60)), "it has lapsed");
        assert!(!remembered.knows(b"swordfisi", b"hash", at(1)));
        assert!(!remembered.knows(b"swordfish", b"another hash", at(1)), "it was changed");
        assert!(!remembered.knows(b"hswordfish", b"has", at(1)), "no part is read as another");
        let other = Remembered::new().expect("random numbers");
        assert_ne!(other.digest(&[b"hash"]), remembered.digest(&[b"hash"]), "a key of its own");
    }

    #[test]
    fn what_has_lapsed_gives_way() {
        let remembered = Remembered::new().expect("random numbers");
        for number in 0..REMEMBERED_MAX {
            remembered.remember(b"x", &number.to_be_bytes(), at(0), at(60));
        }
        remembered.remember(b"late", b"hash", at(59), at(90));
        assert!(!remembered.knows(b"late", b"hash", at(59)), "there is no room");
        remembered.remember(b"late", b"hash", at(60), at(90));
        assert!(remembered.knows(b"late", b"hash", at(60)));
        assert_eq!(remembered.right().len(), 1);
    }
}
