//! Hands a new key to every node, over the connections between members and never through the log.
//!
//! What the key is for, and how a node keeps it, is not known here.

use std::future::Future;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use openraft::Instant as _;
use openraft::type_config::TypeConfigExt;
use tonic::{Code, Response, Status};
use watchword_proto::Frame;

use crate::Cluster;
use crate::network::{self, Client, is_unsent};
use crate::runtime::{NodeId, TypeConfig};

/// How long a node may take to write a key down: a passphrase or a token takes its time.
const PATIENCE: Duration = Duration::from_secs(15);
/// For how long a node is tried that is not reached, and the pause between two attempts.
const UNREACHED: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(100);

/// A node has not got the key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandOutError {
    /// It does not answer.
    #[error("node {0} does not answer; bring it back or remove it first")]
    Silent(NodeId),
    /// It answers that it cannot, or will not.
    #[error("node {node} does not take the new data key: {reason}")]
    Refused {
        /// Which.
        node: NodeId,
        /// Why.
        reason: String,
    },
}

impl Cluster {
    /// Asks every other node whether it is there. Nothing is handed out before all are: a key that
    /// some nodes have and that is never used lies about in their keyrings.
    ///
    /// # Errors
    /// Names the one that does not answer.
    pub async fn ask_everybody(&self) -> Result<(), HandOutError> {
        let request = network::frame(&()).unwrap_or_default();
        self.call_everybody(async |mut peer| peer.survey(request.clone()).await).await.map(drop)
    }

    /// Hands `key` to every other node of the record; gives the ids of all, this one included. Each
    /// has it on its disk when this returns.
    ///
    /// # Errors
    /// Names one that has not got it; others may have.
    pub async fn hand_out(&self, key: &[u8]) -> Result<Vec<NodeId>, HandOutError> {
        let request = Frame { data: key.to_vec().into() };
        self.call_everybody(async |mut peer| peer.hold_key(request.clone()).await).await
    }

    async fn call_everybody<F>(
        &self,
        call: impl Fn(Client) -> F,
    ) -> Result<Vec<NodeId>, HandOutError>
    where
        F: Future<Output = Result<Response<Frame>, Status>> + Send,
    {
        let (state, me) = (self.state(), self.inner.node_id);
        let calls: FuturesUnordered<_> = state
            .nodes()
            .present()
            .filter(|(id, _)| *id != me)
            .map(|(id, node)| self.call_in_time(id, node.address.to_string(), &call))
            .collect();
        let mut answers: Vec<_> = calls.collect().await;
        answers.sort_unstable_by_key(|(id, _)| *id);
        let mut nodes = vec![me];
        for (id, answer) in answers {
            answer?;
            nodes.push(id);
        }
        Ok(nodes)
    }

    /// One call, again while the node is not reached at all.
    async fn call_in_time<F>(
        &self,
        node: NodeId,
        address: String,
        call: &impl Fn(Client) -> F,
    ) -> (NodeId, Result<(), HandOutError>)
    where
        F: Future<Output = Result<Response<Frame>, Status>> + Send,
    {
        let silent = (node, Err(HandOutError::Silent(node)));
        let begun = TypeConfig::now();
        loop {
            let Some(peer) = self.inner.network.peer(node, &address) else { return silent };
            let status = match TypeConfig::timeout(PATIENCE, call(peer)).await {
                Ok(Ok(_)) => return (node, Ok(())),
                Ok(Err(status)) => status,
                Err(_) => return silent,
            };
            self.inner.network.note(&status);
            if is_unsent(&status) && begun.elapsed() < UNREACHED {
                TypeConfig::sleep(PAUSE).await;
            } else if is_unsent(&status) || status.code() == Code::Unavailable {
                return silent;
            } else {
                let reason = status.message().to_owned();
                return (node, Err(HandOutError::Refused { node, reason }));
            }
        }
    }
}
