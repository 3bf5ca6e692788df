//! When the leader was last heard of, and how far it was.
//!
//! openraft goes on naming a leader that has fallen silent for as long as no other is elected. A
//! node that is cut off must know that it is: it can have nothing decided. And a node that was away
//! must know how far it is behind: on an old state it would refuse users that it does not know yet.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openraft::Instant as _;
use openraft::type_config::TypeConfigExt;

use crate::runtime::{Instant, NodeId, TypeConfig};

/// Entries by which a node may be behind and still examine requests: less than a second under the
/// highest load.
const LAG_MAX: u64 = 10_000;

/// Stands for no message at all.
const NEVER: u64 = 0;

/// The last message of a leader to this node.
pub(crate) struct Contact {
    since: Instant,
    from: AtomicU64,
    /// Milliseconds after `since`.
    at: AtomicU64,
    /// Silence after which a leader counts as gone.
    patience: Duration,
    /// Entries that the leader has committed.
    committed: AtomicU64,
    /// The same when it was first heard of after a silence.
    first_committed: AtomicU64,
}

impl Contact {
    /// None yet.
    pub(crate) fn new(patience: Duration) -> Self {
        Self {
            since: TypeConfig::now(),
            from: AtomicU64::new(0),
            at: AtomicU64::new(NEVER),
            patience,
            committed: AtomicU64::new(0),
            first_committed: AtomicU64::new(0),
        }
    }

    /// Notes a message of a leader that has committed so many entries. One without a quorum is as good
    /// as silent: nothing can be decided through it.
    pub(crate) fn note(&self, leader: NodeId, committed: u64, has_quorum: bool) {
        if !self.hears(leader) {
            self.first_committed.fetch_max(committed, Ordering::Relaxed);
        }
        self.committed.fetch_max(committed, Ordering::Relaxed);
        self.from.store(leader, Ordering::Relaxed);
        self.at.store(if has_quorum { self.now() } else { NEVER }, Ordering::Relaxed);
    }

    /// Whether `leader` was heard of lately.
    pub(crate) fn hears(&self, leader: NodeId) -> bool {
        self.silence(leader) < self.patience
    }

    /// For how long `leader` has been silent; a new leader counts as heard of only when it was.
    fn silence(&self, leader: NodeId) -> Duration {
        let heard = self.from.load(Ordering::Relaxed) == leader;
        let at = if heard { self.at.load(Ordering::Relaxed) } else { NEVER };
        match at {
            NEVER => Duration::MAX,
            at => Duration::from_millis(self.now().saturating_sub(at)),
        }
    }

    /// How many entries a node is behind that has applied so many, if that is too many.
    pub(crate) fn lag(&self, applied: u64) -> Option<u64> {
        let behind = self.committed.load(Ordering::Relaxed).saturating_sub(applied);
        let caught_up = applied >= self.first_committed.load(Ordering::Relaxed);
        (!caught_up || behind > LAG_MAX).then_some(behind)
    }

    /// Not [`NEVER`].
    fn now(&self) -> u64 {
        let elapsed = TypeConfig::now().saturating_duration_since(self.since);
        u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_node_that_was_away_catches_up_first() {
        let contact = Contact::new(Duration::from_secs(1));
        assert_eq!((contact.silence(2), contact.lag(0)), (Duration::MAX, None));
        contact.note(2, 500, true);
        assert!(contact.silence(2) < Duration::from_secs(1));
        assert_eq!((contact.lag(499), contact.lag(500)), (Some(1), None));
        // While it hears of the leader, it may be a little behind.
        contact.note(2, 1_000, true);
        assert_eq!((contact.lag(500), contact.lag(600)), (None, None));
        contact.note(2, 20_000, true);
        assert_eq!((contact.lag(9_999), contact.lag(10_000)), (Some(10_001), None));
        contact.note(2, 20_000, false);
        assert!(!contact.hears(2), "a leader without a quorum decides nothing");
    }
}
