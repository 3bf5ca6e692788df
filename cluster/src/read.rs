//! Reads that must be fresh.
//!
//! Whoever decides something looks at [`Cluster::look`]'s state, which may be old, and is corrected by
//! `apply`. Whoever shows something that must be true now asks here: the leader confirms with a
//! quorum that it still leads (ReadIndex), and the read waits until everything that was committed
//! before it is applied. No clock is relied on.

use std::time::Duration;

use openraft::ReadPolicy;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{LinearizableReadError, RaftError};
use openraft::type_config::TypeConfigExt;
use serde::{Deserialize, Serialize};
use watchword_core::State;

use crate::Cluster;
use crate::network;
use crate::runtime::TypeConfig;
use crate::status;

/// How long a fresh read waits for a leader, for its answer, and until this node has caught up with it.
const PATIENCE: Duration = Duration::from_secs(3);
/// Pause before the leader is looked for once more.
const RETRY: Duration = Duration::from_millis(20);

/// Why a fresh read is not possible.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum ReadError {
    /// No leader is known, or it cannot be reached.
    #[error("the leader of the cluster cannot be reached")]
    NoLeader,
    /// The leader did not reach a quorum.
    #[error("a quorum of the cluster cannot be reached")]
    NoQuorum,
    /// This node has not caught up with the leader in time.
    #[error("this node lags behind the leader")]
    Lagging,
    /// This node has stopped.
    #[error("the replica has stopped: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },
}

impl Cluster {
    /// A copy of the state that holds everything that was committed before this call.
    ///
    /// # Errors
    /// As [`Cluster::catch_up`].
    pub async fn read(&self) -> Result<State, ReadError> {
        self.catch_up().await.map(|()| self.state())
    }

    /// Waits until this node's state holds everything that was committed before this call.
    ///
    /// # Errors
    /// When no leader can prove that it leads, or this node cannot catch up with it.
    pub async fn catch_up(&self) -> Result<(), ReadError> {
        let deadline = TypeConfig::now() + PATIENCE;
        let index = loop {
            let index = match self.read_index().await {
                Err(ReadError::NoLeader) => self.ask_read_index().await,
                index => index,
            };
            match index {
                // An election is over in a moment.
                Err(ReadError::NoLeader) if TypeConfig::now() < deadline => {
                    TypeConfig::sleep(RETRY).await;
                }
                index => break index?,
            }
        };
        let mut changes = self.changes();
        match TypeConfig::timeout(PATIENCE, changes.wait_for(|applied| *applied >= index)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(ReadError::Lagging),
        }
    }

    /// The index that a fresh read must wait for, if this node leads.
    pub(crate) async fn read_index(&self) -> Result<u64, ReadError> {
        match self.inner.raft.ensure_linearizable(ReadPolicy::ReadIndex).await {
            Ok(read) => Ok(read.log_id().index),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(_))) => {
                Err(ReadError::NoLeader)
            }
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
                Err(ReadError::NoQuorum)
            }
            Err(RaftError::Fatal(fatal)) => {
                Err(ReadError::Stopped { reason: self.stop_reason(&fatal) })
            }
        }
    }

    /// The same, from the leader.
    async fn ask_read_index(&self) -> Result<u64, ReadError> {
        let leader = status::leader(&self.inner.raft.server_metrics().borrow_watched());
        // openraft goes on naming one that has fallen silent.
        let leader = leader.filter(|(leader, _)| self.inner.contact.hears(*leader));
        let (leader, address) = leader.ok_or(ReadError::NoLeader)?;
        let peer = self.inner.network.peer(leader, &address);
        let mut peer = peer.ok_or(ReadError::NoLeader)?;
        let request = network::frame(&()).map_err(|_| ReadError::NoLeader)?;
        let answer = TypeConfig::timeout(PATIENCE, peer.read_index(request)).await;
        let answer = answer.map_err(|_| ReadError::NoLeader)?.map_err(|_| ReadError::NoLeader)?;
        network::open(&answer.into_inner()).map_err(|_| ReadError::NoLeader)?
    }
}
