//! The longest time in which no login was accepted, over all lanes: how long people waited while a node
//! was gone.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Measures silences from one moment on.
pub(super) struct Silence {
    since: Instant,
    /// When the latest login was accepted, in nanoseconds after `since`.
    latest: AtomicU64,
    /// Nanoseconds.
    longest: AtomicU64,
}

impl Silence {
    pub(super) fn since(since: Instant) -> Self {
        Self { since, latest: AtomicU64::new(0), longest: AtomicU64::new(0) }
    }

    /// A login was accepted, or the measurement is over.
    pub(super) fn ends(&self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.since);
        let at = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        let before = self.latest.fetch_max(at, Ordering::Relaxed);
        self.longest.fetch_max(at.saturating_sub(before), Ordering::Relaxed);
    }

    pub(super) fn longest(&self) -> Duration {
        Duration::from_nanos(self.longest.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_of_the_gaps_between_neighbours_counts() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let silence = Silence::since(at(100));
        // Before the measurement, out of order, and long after the last.
        for ms in [50, 110, 150, 140, 155] {
            silence.ends(at(ms));
        }
        assert_eq!(silence.longest(), Duration::from_millis(40));
        silence.ends(at(300));
        assert_eq!(silence.longest(), Duration::from_millis(145));
    }
}
