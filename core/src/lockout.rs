//! When too many failures lock a user out.
//!
//! ```text
//!            failure, below the limit          failure that reaches the limit
//!   Open(n) ------------------------> Open(n+1) ------------------------> Locked(until)
//!      ^ ^                                |                                   |
//!      | '---- success, or quiet time ----'                                   |
//!      '------------------- time passes `until`, or an administrator unlocks -'
//! ```
//!
//! A user has two of these: one for passwords, one for passcodes. Failures are counted by `apply`
//! alone, in log order, so the limit holds exactly over all nodes and for parallel tries: an accept
//! that is ordered after the limit was reached is refused.

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// The limits in force, from the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Failures that lock; zero never locks.
    pub failures: u64,
    /// How long a lock lasts, in milliseconds.
    pub lock_ms: u64,
    /// Quiet time after which failures are forgotten, in milliseconds.
    pub reset_ms: u64,
}

/// Failures of one user with one kind of proof.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lockout {
    failures: u32,
    last_failure: Timestamp,
    locked_until: Timestamp,
}

impl Lockout {
    /// Until when the user is locked, or `None` when not locked at `now`.
    pub fn locked_until(&self, now: Timestamp) -> Option<Timestamp> {
        (self.locked_until > now).then_some(self.locked_until)
    }

    /// Failures that still count at `now`.
    pub fn failures(&self, now: Timestamp, limits: Limits) -> u32 {
        let lock_expired = self.locked_until.0 != 0 && self.locked_until <= now;
        let quiet = now.ms_since(self.last_failure) >= limits.reset_ms;
        if lock_expired || (quiet && self.locked_until(now).is_none()) { 0 } else { self.failures }
    }

    /// Counts one failure at `now`; returns true when this failure locked the user.
    pub fn record_failure(&mut self, now: Timestamp, limits: Limits) -> bool {
        if self.locked_until(now).is_some() {
            return false;
        }
        let failures = self.failures(now, limits).saturating_add(1);
        *self = Self { failures, last_failure: now, locked_until: Timestamp(0) };
        let locks = limits.failures != 0 && u64::from(failures) >= limits.failures;
        if locks {
            self.locked_until = now.plus_ms(limits.lock_ms);
        }
        locks
    }

    /// Forgets all failures and any lock.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// True when nothing is remembered, so that clearing changes nothing.
    pub fn is_clear(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { failures: 3, lock_ms: 10_000, reset_ms: 60_000 };

    #[test]
    fn the_failure_that_reaches_the_limit_locks_for_the_set_time() {
        let mut lockout = Lockout::default();
        assert!(!lockout.record_failure(Timestamp(1), LIMITS));
        assert!(!lockout.record_failure(Timestamp(2), LIMITS));
        assert_eq!(lockout.locked_until(Timestamp(2)), None);
        assert!(lockout.record_failure(Timestamp(3), LIMITS));
        assert_eq!(lockout.locked_until(Timestamp(10_002)), Some(Timestamp(10_003)));
        assert_eq!(lockout.locked_until(Timestamp(10_003)), None);
    }

    #[test]
    fn failures_while_locked_do_not_prolong_the_lock() {
        let mut lockout = Lockout::default();
        (1..=3).for_each(|ms| _ = lockout.record_failure(Timestamp(ms), LIMITS));
        assert!(!lockout.record_failure(Timestamp(9_000), LIMITS));
        assert_eq!(lockout.locked_until(Timestamp(9_000)), Some(Timestamp(10_003)));
    }

    #[test]
    fn after_a_lock_the_count_starts_again() {
        let mut lockout = Lockout::default();
        (1..=3).for_each(|ms| _ = lockout.record_failure(Timestamp(ms), LIMITS));
        assert!(!lockout.record_failure(Timestamp(10_003), LIMITS));
        assert_eq!(lockout.failures(Timestamp(10_003), LIMITS), 1);
    }

    #[test]
    fn quiet_time_forgets_failures() {
        let mut lockout = Lockout::default();
        lockout.record_failure(Timestamp(0), LIMITS);
        lockout.record_failure(Timestamp(1), LIMITS);
        assert_eq!(lockout.failures(Timestamp(60_000), LIMITS), 2);
        assert_eq!(lockout.failures(Timestamp(60_001), LIMITS), 0);
        assert!(!lockout.record_failure(Timestamp(60_001), LIMITS));
    }

    #[test]
    fn a_limit_of_zero_never_locks() {
        let mut lockout = Lockout::default();
        for ms in 0..100 {
            assert!(!lockout.record_failure(Timestamp(ms), Limits { failures: 0, ..LIMITS }));
        }
    }
}
