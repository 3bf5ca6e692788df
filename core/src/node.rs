//! The nodes of the cluster: who was admitted, by which token, and who certifies them.
//!
//! Raft's own membership says who votes now. This record says what Raft does not: ids are never given
//! out twice, a node that was removed stays recognisable, and a token admits only as many nodes as it
//! was made for.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::{ClusterId, TokenId};
use crate::map::OrdMap;
use crate::sealed::Sealed;
use crate::time::Timestamp;

/// Identifies a node of the cluster, for ever: a node that is replaced gets a new one.
pub type NodeId = u64;

/// The id of the node that founds a cluster.
pub const FOUNDER: NodeId = 1;

/// The priority of a node for which none was set.
pub const PRIORITY_DEFAULT: u8 = 100;

/// What certifies the cluster's nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// The cluster that it belongs to.
    pub cluster: ClusterId,
    /// Its own certificate, DER.
    pub certificate: Arc<[u8]>,
    /// Its private key (PKCS#8, DER), sealed for the cluster's id.
    pub key: Sealed,
}

/// Permission to join, made by an administrator. Who knows the token holds its private key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    /// The token's public key: a DER SubjectPublicKeyInfo.
    pub public_key: Arc<[u8]>,
    /// When it lapses.
    pub expires: Timestamp,
    /// Nodes that it may still admit.
    pub uses_left: u32,
}

impl JoinToken {
    /// Whether it still admits a node at `now`.
    pub fn is_open(&self, now: Timestamp) -> bool {
        self.uses_left > 0 && self.expires > now
    }
}

/// One node that was admitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Where its peers reach it: host and port.
    pub address: Arc<str>,
    /// The key that its first certificate was made for, a DER SubjectPublicKeyInfo: a node that asks
    /// twice, because the first answer was lost, is the same node.
    pub public_key: Arc<[u8]>,
    /// The token that admitted it; none for the founder. No other token's bearer is told that the
    /// node was admitted: what comes with that answer opens every secret.
    pub admitted_by: Option<TokenId>,
    /// False for a node that only follows.
    pub votes: bool,
    /// Who leads if several can: the highest.
    pub priority: u8,
    /// When it was admitted.
    pub admitted: Timestamp,
    /// When it was removed. It must never decide anything again.
    pub removed: Option<Timestamp>,
}

impl Node {
    /// A node as it comes: without a token, with the usual priority, and not removed.
    pub(crate) fn new(
        address: Arc<str>,
        public_key: Arc<[u8]>,
        votes: bool,
        admitted: Timestamp,
    ) -> Self {
        Self {
            address,
            public_key,
            admitted_by: None,
            votes,
            priority: PRIORITY_DEFAULT,
            admitted,
            removed: None,
        }
    }
}

/// The nodes, the tokens, and the authority.
#[derive(Clone, Default)]
pub struct Nodes {
    pub(crate) epoch: u64,
    pub(crate) authority: Option<Arc<Authority>>,
    pub(crate) nodes: OrdMap<NodeId, Arc<Node>>,
    pub(crate) tokens: OrdMap<TokenId, JoinToken>,
}

impl Nodes {
    /// How often the cluster went on without a majority that was lost. Whoever is of an earlier epoch
    /// must not decide anything.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The authority, once the cluster is founded.
    pub fn authority(&self) -> Option<&Arc<Authority>> {
        self.authority.as_ref()
    }

    /// The node with this id, also when it was removed.
    pub fn get(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(&id).map(Arc::as_ref)
    }

    /// All nodes that were ever admitted, by id.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.nodes.iter().map(|(&id, node)| (id, node.as_ref()))
    }

    /// The nodes that belong to the cluster, by id.
    pub fn present(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.iter().filter(|(_, node)| node.removed.is_none())
    }

    /// Whether `id` was a node and is none any more.
    pub fn is_removed(&self, id: NodeId) -> bool {
        self.get(id).is_some_and(|node| node.removed.is_some())
    }

    /// The token with this id, also when it is used up.
    pub fn token(&self, id: TokenId) -> Option<&JoinToken> {
        self.tokens.get(&id)
    }

    /// The token whose public key this is.
    pub fn token_of(&self, public_key: &[u8]) -> Option<(TokenId, &JoinToken)> {
        let found = self.tokens.iter().find(|(_, token)| *token.public_key == *public_key);
        found.map(|(&id, token)| (id, token))
    }

    /// All tokens, by id.
    pub fn tokens(&self) -> impl Iterator<Item = (TokenId, &JoinToken)> {
        self.tokens.iter().map(|(&id, token)| (id, token))
    }

    pub(crate) fn to_parts(&self) -> NodesParts {
        NodesParts {
            epoch: self.epoch,
            authority: self.authority.clone(),
            nodes: self.nodes.iter().map(|(&id, node)| (id, node.clone())).collect(),
            tokens: self.tokens.iter().map(|(&id, token)| (id, token.clone())).collect(),
        }
    }

    pub(crate) fn from_parts(parts: NodesParts) -> Self {
        Self {
            epoch: parts.epoch,
            authority: parts.authority,
            nodes: parts.nodes.into_iter().collect(),
            tokens: parts.tokens.into_iter().collect(),
        }
    }
}

/// [`Nodes`] in a snapshot.
#[derive(Serialize, Deserialize)]
pub(crate) struct NodesParts {
    epoch: u64,
    authority: Option<Arc<Authority>>,
    nodes: Vec<(NodeId, Arc<Node>)>,
    tokens: Vec<(TokenId, JoinToken)>,
}
