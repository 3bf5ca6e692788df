//! Reads that must be fresh.
//!
//! Whoever decides something reads [`Cluster::state`], which may be old, and is corrected by
//! `apply`. Whoever shows something that must be true now asks here: the leader confirms with a
//! quorum that it still leads (ReadIndex), and the read waits until everything that was committed
//! before it is applied. No clock is relied on.

use std::sync::Arc;

use openraft::ReadPolicy;
use openraft::errors::{LinearizableReadError, RaftError};
use watchword_core::State;

use crate::Cluster;
use crate::runtime::NodeId;

/// Why a fresh read is not possible.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Only the leader can tell.
    #[error("this node is not the leader")]
    NotLeader {
        /// Who is, as far as this node knows.
        leader: Option<NodeId>,
    },
    /// The leader did not reach a quorum.
    #[error("a quorum of the cluster cannot be reached")]
    NoQuorum,
    /// This node has stopped.
    #[error("the replica has stopped: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },
}

impl Cluster {
    /// A state that holds everything that was committed before this call.
    ///
    /// # Errors
    /// When this node does not lead, or cannot prove that it does.
    pub async fn read(&self) -> Result<Arc<State>, ReadError> {
        match self.inner.raft.ensure_linearizable(ReadPolicy::ReadIndex).await {
            Ok(_) => Ok(self.state()),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                Err(ReadError::NotLeader { leader: forward.leader_id })
            }
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
                Err(ReadError::NoQuorum)
            }
            Err(RaftError::Fatal(fatal)) => {
                Err(ReadError::Stopped { reason: self.stop_reason(&fatal) })
            }
        }
    }
}
