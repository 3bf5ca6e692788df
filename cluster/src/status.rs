//! What a node knows about its cluster and itself.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::metrics::RaftServerMetrics;
use openraft::{RaftMetrics, ServerState};
use serde::{Deserialize, Serialize};

use crate::Cluster;
use crate::quorum;
use crate::runtime::{Membership, NodeId, TypeConfig};
use crate::service::REMOVED;
use crate::survey::Peer;

/// What this node does in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// It proposes.
    Leader,
    /// It campaigns.
    Candidate,
    /// It follows a leader and votes.
    Follower,
    /// It follows a leader and does not vote.
    Learner,
    /// It has stopped, by request or because its store failed.
    Stopped,
}

/// One member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Member {
    /// Its id.
    pub id: NodeId,
    /// Where its peers reach it.
    pub address: String,
}

/// What a node knows about its cluster and itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// This node.
    pub node_id: NodeId,
    /// What it does.
    pub role: Role,
    /// The current term.
    pub term: u64,
    /// The leader, as far as this node knows.
    pub leader: Option<NodeId>,
    /// Index of the last entry of its log.
    pub last_log: Option<u64>,
    /// Index of the last entry that it knows to be committed.
    pub committed: Option<u64>,
    /// Index of the last entry in its state.
    pub applied: Option<u64>,
    /// Index of the last entry in its snapshot.
    pub snapshot: Option<u64>,
    /// Index of the last entry that its log has forgotten.
    pub purged: Option<u64>,
    /// Who votes.
    pub voters: Vec<Member>,
    /// Sets of voters, of each of which a majority decides: two in the middle of a change, one otherwise.
    pub configurations: Vec<BTreeSet<NodeId>>,
    /// Who follows without a vote.
    pub learners: Vec<Member>,
    /// Whether the leader was heard of lately; if this node leads, whether a quorum was.
    pub in_contact: bool,
    /// Whether it was taken out of service.
    pub drained: bool,
    /// What the other members have said of themselves.
    pub peers: Vec<Peer>,
    /// Milliseconds by which this node's clock is ahead of the voters' median, once that is known.
    pub clock_error_ms: Option<i64>,
    /// Index of the latest checkpoint at which all voters that answer hold the same state.
    pub equal_at: Option<u64>,
    /// Index of the first checkpoint at which some member's state differed from this node's.
    pub differs_at: Option<u64>,
    /// Why nothing may be decided by this node's clock or on its state.
    pub unfit: Option<String>,
    /// Why this node must not examine anything yet.
    pub lagging: Option<String>,
    /// Why this node has stopped: its store failed.
    pub fault: Option<String>,
}

impl Status {
    /// What keeps this node from having decisions committed, as far as it knows.
    pub fn unready(&self) -> Option<String> {
        let reason = match &self.fault {
            Some(fault) => fault,
            None if self.role == Role::Stopped => "the replica has stopped",
            None if self.drained => "taken out of service",
            None if self.unfit.is_some() => return self.unfit.clone(),
            None if self.leader.is_none() => "no leader",
            None if self.in_contact => return self.lagging.clone(),
            None if self.leader == Some(self.node_id) => "the other voters do not answer",
            None => "the leader is silent",
        };
        Some(reason.to_owned())
    }

    /// How many voters may fail before nothing can be committed any more.
    pub fn failure_tolerance(&self) -> usize {
        failure_tolerance(&self.configurations)
    }

    /// Whether this node can have decisions committed, as far as it knows: its store works and it is
    /// in contact with the leader, or as the leader with a quorum.
    pub fn is_ready(&self) -> bool {
        self.unready().is_none()
    }
}

impl Cluster {
    /// What this node knows about the cluster and itself.
    pub fn status(&self) -> Status {
        let metrics: RaftMetrics<TypeConfig> = self.inner.raft.metrics().borrow_watched().clone();
        let membership = metrics.membership_config.membership();
        let member = |id: NodeId| Member {
            id,
            address: membership.get_node(&id).map(|node| node.addr.clone()).unwrap_or_default(),
        };
        let fault = self.fault().map(str::to_owned);
        let stopped = fault.is_some() || metrics.running_state.is_err();
        Status {
            node_id: self.inner.node_id,
            role: if stopped { Role::Stopped } else { role(metrics.state) },
            term: metrics.current_term,
            leader: metrics.current_leader,
            last_log: metrics.last_log_index,
            committed: metrics.local_committed.map(|id| id.index),
            applied: metrics.last_applied.map(|id| id.index),
            snapshot: metrics.snapshot.map(|id| id.index),
            purged: metrics.purged.map(|id| id.index),
            voters: membership.voter_ids().map(member).collect(),
            learners: membership.learner_ids().map(member).collect(),
            configurations: membership.get_joint_config().clone(),
            in_contact: self.in_contact(&metrics),
            drained: self.inner.drained.load(Ordering::Relaxed),
            peers: self.inner.survey.peers(),
            clock_error_ms: self.inner.survey.clock_error_ms((self.inner.clock)()),
            equal_at: self.inner.survey.equal_at(),
            differs_at: self.inner.survey.differs_at(),
            unfit: self.unfit(),
            lagging: self.lagging(),
            fault,
        }
    }

    fn in_contact(&self, metrics: &RaftMetrics<TypeConfig>) -> bool {
        let me = self.inner.node_id;
        match metrics.current_leader {
            None => false,
            Some(leader) if leader != me => self.inner.contact.hears(leader),
            Some(_) => quorum::is_heard(metrics, self.inner.patience),
        }
    }

    /// Whether `node` votes or follows, by the latest membership that this node knows.
    pub(crate) fn is_member(&self, node: NodeId) -> bool {
        let metrics = self.inner.raft.server_metrics();
        let known = metrics.borrow_watched().membership_config.clone();
        known.membership().get_node(&node).is_some()
    }

    /// Why this node may do nothing any more: its store failed, or it was removed.
    pub(crate) fn fault(&self) -> Option<&str> {
        let removed = || self.inner.network.is_removed().then_some(REMOVED);
        self.inner.medium.progress().fault().or_else(removed)
    }
}

/// The leader as openraft names it, and where its peers reach it.
pub(crate) fn leader(metrics: &RaftServerMetrics<TypeConfig>) -> Option<(NodeId, String)> {
    let leader = metrics.current_leader?;
    let address = metrics.membership_config.membership().get_node(&leader);
    Some((leader, address.map(|node| node.addr.clone()).unwrap_or_default()))
}

fn role(state: ServerState) -> Role {
    match state {
        ServerState::Leader => Role::Leader,
        ServerState::Candidate => Role::Candidate,
        ServerState::Follower => Role::Follower,
        ServerState::Learner => Role::Learner,
        ServerState::Shutdown => Role::Stopped,
    }
}

fn failure_tolerance(configurations: &[BTreeSet<NodeId>]) -> usize {
    let tolerance = |voters: &BTreeSet<NodeId>| voters.len().saturating_sub(1) / 2;
    configurations.iter().map(tolerance).min().unwrap_or(0)
}

/// True when this node is the only one that votes, so that nobody else can hold a different log.
pub(crate) fn is_sole_voter(membership: &Membership, node_id: NodeId) -> bool {
    membership.get_joint_config().iter().all(|voters| voters.iter().eq([&node_id]))
        && !membership.get_joint_config().is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_of_a_membership_change_count() {
        let membership = |voters: &[&[NodeId]]| -> Membership {
            let configs = voters.iter().map(|ids| ids.iter().copied().collect()).collect();
            Membership::new_with_defaults(configs, [])
        };
        let tolerance =
            |voters: &[&[NodeId]]| failure_tolerance(membership(voters).get_joint_config());
        assert_eq!(tolerance(&[&[1]]), 0);
        assert_eq!(tolerance(&[&[1, 2, 3]]), 1);
        assert_eq!(tolerance(&[&[1, 2, 3, 4, 5], &[1, 2]]), 0);
        assert!(is_sole_voter(&membership(&[&[1]]), 1));
        assert!(!is_sole_voter(&membership(&[&[1]]), 2));
        assert!(!is_sole_voter(&membership(&[&[1, 2], &[1]]), 1));
        assert!(!is_sole_voter(&membership(&[]), 1));
    }
}
