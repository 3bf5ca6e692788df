//! Whether a leader still has a quorum, for whoever follows it.
//!
//! Raft's leader goes on leading when most of the others have fallen silent. The few that still hear of
//! it would take requests that nobody can decide, so it tells them with each of its messages.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use openraft::Instant as _;
use openraft::RaftMetrics;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::type_config::TypeConfigExt;
use openraft::type_config::alias::WatchReceiverOf;

use crate::runtime::{Instant, TypeConfig};
use crate::status::is_sole_voter;

/// What this node knows of its followers while it leads.
pub(crate) struct Quorum {
    metrics: WatchReceiverOf<TypeConfig, RaftMetrics<TypeConfig>>,
    /// Silence after which a quorum counts as lost.
    patience: Duration,
    /// The term in which it was last found leading, and since when.
    elected: Mutex<Option<(u64, Instant)>>,
}

impl Quorum {
    /// Of the replica with these metrics.
    pub(crate) fn new(
        metrics: WatchReceiverOf<TypeConfig, RaftMetrics<TypeConfig>>,
        patience: Duration,
    ) -> Self {
        Self { metrics, patience, elected: Mutex::default() }
    }

    /// Whether the followers may count on this leader: a quorum has answered lately, or has only just
    /// elected it.
    pub(crate) fn stands(&self) -> bool {
        let metrics = self.metrics.borrow_watched();
        let mut elected = self.elected.lock().unwrap_or_else(PoisonError::into_inner);
        let since = match *elected {
            Some((term, since)) if term == metrics.current_term => since,
            _ => TypeConfig::now(),
        };
        *elected = Some((metrics.current_term, since));
        is_heard(&metrics, self.patience) || since.elapsed() < self.patience
    }
}

/// Whether a quorum has answered the leader lately. One that votes alone is its own.
pub(crate) fn is_heard(metrics: &RaftMetrics<TypeConfig>, patience: Duration) -> bool {
    is_sole_voter(metrics.membership_config.membership(), metrics.id)
        || metrics.last_quorum_acked.is_some_and(|acked| acked.elapsed() < patience)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::runtime::{Membership, NodeId, StoredMembership};

    #[test]
    fn a_leader_that_votes_alone_needs_nobody() {
        let heard = |voters: &[NodeId]| {
            let membership =
                Membership::new_with_defaults(vec![voters.iter().copied().collect()], [9]);
            let mut metrics = RaftMetrics::new_initial(1);
            metrics.membership_config = Arc::new(StoredMembership::new(None, membership));
            is_heard(&metrics, Duration::from_secs(1))
        };
        assert!(heard(&[1]), "its learners can count on it");
        assert!(!heard(&[1, 2]));
    }
}
