//! When the leader was last heard of.
//!
//! openraft goes on naming a leader that has fallen silent for as long as no other is elected. A
//! node that is cut off must know that it is: it can have nothing decided.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openraft::Instant as _;
use openraft::type_config::TypeConfigExt;

use crate::runtime::{Instant, NodeId, TypeConfig};

/// The last message of a leader to this node.
pub(crate) struct Contact {
    since: Instant,
    from: AtomicU64,
    /// Milliseconds after `since`.
    at: AtomicU64,
}

impl Contact {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self { since: TypeConfig::now(), from: AtomicU64::new(0), at: AtomicU64::new(0) }
    }

    /// Notes a message of a leader.
    pub(crate) fn note(&self, leader: NodeId) {
        self.from.store(leader, Ordering::Relaxed);
        self.at.store(self.now(), Ordering::Relaxed);
    }

    /// For how long `leader` has been silent; a new leader counts as heard of only when it was.
    pub(crate) fn silence(&self, leader: NodeId) -> Duration {
        let heard = self.from.load(Ordering::Relaxed) == leader;
        let at = if heard { self.at.load(Ordering::Relaxed) } else { 0 };
        Duration::from_millis(self.now().saturating_sub(at))
    }

    fn now(&self) -> u64 {
        let elapsed = TypeConfig::now().saturating_duration_since(self.since);
        u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
    }
}
