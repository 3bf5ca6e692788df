//! Whether a server of a directory is worth asking.
//!
//! ```text
//!            answers                       fails
//!   well ◄──────────── asked once ◄──── resting (1 s, 2 s, … 30 s) ◄──── well
//!                           └── fails: rests twice as long ──►┘
//! ```

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock;
use crate::error_chain::chain;

/// How long a server is left alone after its first failure, and after many.
const REST_MIN: Duration = Duration::from_secs(1);
const REST_MAX: Duration = Duration::from_secs(30);

/// How a server has answered lately.
#[derive(Default)]
pub(super) struct Health(Mutex<Lately>);

#[derive(Default)]
struct Lately {
    failures: u32,
    /// When it may be asked again, on the clock that never jumps.
    rests_until: Duration,
}

impl Health {
    /// Whether it may be asked now. One that has failed may be asked by one login at a time, each of which takes
    /// `timeout` at most.
    pub(super) fn is_due(&self, timeout: Duration) -> bool {
        let now = clock::monotonic();
        let mut lately = self.lately();
        if lately.failures > 0 {
            if now < lately.rests_until {
                return false;
            }
            // The others wait for what becomes of this one.
            lately.rests_until = now + timeout;
        }
        true
    }

    /// How long it is left alone from now on; `None` while it is well.
    pub(super) fn rests(&self) -> Option<Duration> {
        let lately = self.lately();
        (lately.failures > 0).then(|| lately.rests_until.saturating_sub(clock::monotonic()))
    }

    /// Notes whether `server` has answered, and tells when that is news. True when it has just failed.
    pub(super) fn note<T, E: std::error::Error>(
        &self,
        server: &dyn fmt::Display,
        answered: &Result<T, E>,
    ) -> bool {
        let mut lately = self.lately();
        match answered {
            Ok(_) if lately.failures > 0 => {
                *lately = Lately::default();
                tracing::info!(%server, "the directory's server answers again");
                false
            }
            Ok(_) => false,
            Err(error) => {
                let is_news = lately.failures == 0;
                if is_news {
                    tracing::warn!(%server, error = chain(error), "a directory's server fails");
                }
                lately.failures = lately.failures.saturating_add(1);
                let doubled =
                    REST_MIN.saturating_mul(1 << lately.failures.min(6).saturating_sub(1));
                lately.rests_until = clock::monotonic() + doubled.min(REST_MAX);
                is_news
            }
        }
    }

    fn lately(&self) -> MutexGuard<'_, Lately> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
