//! Log lines that outsiders can provoke: at most one a second for each cause.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use crate::clock;

static CAUSES: LazyLock<Mutex<HashMap<&'static str, Cause>>> = LazyLock::new(Mutex::default);

struct Cause {
    last_ms: u64,
    suppressed: u64,
}

/// Calls `log` with the number of calls left out since the last one, unless it was called for this
/// `cause` within the last second.
pub fn once_a_second(cause: &'static str, log: impl FnOnce(u64)) {
    if let Some(suppressed) = admit(cause, clock::in_ms(clock::monotonic())) {
        log(suppressed);
    }
}

fn admit(cause: &'static str, now_ms: u64) -> Option<u64> {
    let mut causes = CAUSES.lock().unwrap_or_else(PoisonError::into_inner);
    match causes.get_mut(cause) {
        Some(known) if now_ms.saturating_sub(known.last_ms) < 1_000 => {
            known.suppressed += 1;
            None
        }
        Some(known) => {
            known.last_ms = now_ms;
            Some(std::mem::take(&mut known.suppressed))
        }
        None => {
            causes.insert(cause, Cause { last_ms: now_ms, suppressed: 0 });
            Some(0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_a_second_per_cause_and_the_rest_is_counted() {
        assert_eq!(admit("one", 1_000), Some(0));
        assert_eq!(admit("one", 1_500), None);
        assert_eq!(admit("one", 1_999), None);
        assert_eq!(admit("other", 1_999), Some(0));
        assert_eq!(admit("one", 2_000), Some(2));
        assert_eq!(admit("one", 3_000), Some(0));
    }
}
