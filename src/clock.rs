//! The only reader of the operating system's clocks.
//!
//! Everything else gets time as a value: the replicated state from the entries, caches from
//! [`monotonic`].

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use watchword_core::time::Timestamp;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The wall clock. A clock before 1970 reads as 1970.
pub fn now() -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that may")]
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Timestamp(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}

/// A clock that never jumps: the time since some moment early in this process.
pub fn monotonic() -> Duration {
    START.elapsed()
}

/// Whole milliseconds of a reading of [`monotonic`].
pub fn in_ms(reading: Duration) -> u64 {
    u64::try_from(reading.as_millis()).unwrap_or(u64::MAX)
}
