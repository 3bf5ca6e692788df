//! Reads that must be fresh.
//!
//! Whoever decides something looks at [`Cluster::look`]'s state, which may be old, and is corrected by
//! `apply`. Whoever shows something that must be true now asks here: the leader confirms with a
//! quorum that it still leads (ReadIndex), and the read waits until everything that was committed
//! before it is applied. No clock is relied on.

use std::sync::atomic::{AtomicU64, Ordering};
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

/// Lets readers that come while the leader is being asked share the next round: however many read at
/// once, two rounds serve them all. The round under way serves none of them, because what it learns may
/// be older than they are.
pub(crate) struct Rounds {
    begun: AtomicU64,
    /// The latest round that ended, and what it learned.
    ended: tokio::sync::Mutex<(u64, Result<u64, ReadError>)>,
}

impl Rounds {
    /// None yet.
    pub(crate) fn new() -> Self {
        let ended = tokio::sync::Mutex::new((0, Err(ReadError::NoLeader)));
        Self { begun: AtomicU64::new(0), ended }
    }

    /// What a round learns that begins after this call.
    async fn share(
        &self,
        ask: impl AsyncFnOnce() -> Result<u64, ReadError>,
    ) -> Result<u64, ReadError> {
        let before = self.begun.load(Ordering::SeqCst);
        let mut ended = self.ended.lock().await;
        if ended.0 <= before {
            let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
            // Whoever gives up here leaves the round before in place.
            let learned = ask().await;
            *ended = (number, learned);
        }
        ended.1.clone()
    }
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
        if cfg!(mutant = "read_locally") {
            return Ok(());
        }
        let deadline = TypeConfig::now() + PATIENCE;
        let index = TypeConfig::timeout_at(deadline, self.leaders_index()).await;
        let index = index.unwrap_or(Err(ReadError::NoLeader))?;
        let mut changes = self.changes();
        let caught_up = changes.wait_for(|applied| *applied >= index);
        match TypeConfig::timeout_at(deadline, caught_up).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(ReadError::Lagging),
        }
    }

    /// The index that a fresh read must wait for, as soon as there is a leader to tell it.
    async fn leaders_index(&self) -> Result<u64, ReadError> {
        let asked = &self.inner.read_rounds;
        loop {
            let index = asked.share(async || match self.read_index().await {
                Err(ReadError::NoLeader) => self.ask_read_index().await,
                index => index,
            });
            match index.await {
                // An election is over in a moment.
                Err(ReadError::NoLeader) => TypeConfig::sleep(RETRY).await,
                index => return index,
            }
        }
    }

    /// The index that a fresh read must wait for, if this node leads.
    pub(crate) async fn read_index(&self) -> Result<u64, ReadError> {
        if cfg!(mutant = "trust_leadership") {
            let leader = status::leader(&self.inner.raft.server_metrics().borrow_watched());
            let leads = leader.is_some_and(|(leader, _)| leader == self.inner.node_id);
            return if leads { Ok(self.inner.view.applied()) } else { Err(ReadError::NoLeader) };
        }
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
        let answer = answer.map_err(|_| ReadError::NoLeader)?;
        let answer = answer.and_then(|answer| network::open(&answer.into_inner()));
        answer.unwrap_or_else(|status| {
            self.inner.network.note(&status);
            tracing::debug!(leader, %status, "the leader gives no index to read at");
            Err(ReadError::NoLeader)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn readers_share_a_round_that_begins_after_them() {
        let rounds = Arc::new(Rounds::new());
        let (go_on, asked) = (Arc::new(Notify::new()), Arc::new(AtomicU64::new(0)));
        let read = || {
            let (rounds, go_on, asked) = (rounds.clone(), go_on.clone(), asked.clone());
            tokio::spawn(async move {
                let ask = async || {
                    let number = asked.fetch_add(1, Ordering::Relaxed) + 1;
                    go_on.notified().await;
                    Ok(number)
                };
                rounds.share(ask).await
            })
        };
        let first = read();
        while asked.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        let others = [read(), read(), read()];
        tokio::task::yield_now().await;
        go_on.notify_one();
        assert_eq!(first.await.expect("no panic"), Ok(1));
        // One that gives up in the middle of the round takes nobody along.
        while asked.load(Ordering::Relaxed) == 1 {
            tokio::task::yield_now().await;
        }
        others[0].abort();
        go_on.notify_one();
        let [_, second, third] = others;
        go_on.notify_one();
        let (second, third) = (second.await.expect("no panic"), third.await.expect("no panic"));
        assert!(second.is_ok() && second == third, "{second:?} {third:?}");
        assert!(asked.load(Ordering::Relaxed) <= 3);
    }
}
