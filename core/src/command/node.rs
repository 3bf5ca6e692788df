//! Commands about the nodes of the cluster.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Applied, Countable, Moment, Refusal, Text, check_count, check_text};
use crate::id::TokenId;
use crate::limits::{KEY_BYTES_MAX, NODES_MAX, SEALED_BYTES_MAX, TOKEN_MS_MAX, TOKENS_MAX};
use crate::node::{Authority, FOUNDER, JoinToken, Node, NodeId};
use crate::state::State;

/// What the founder of a cluster writes first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// What will certify the nodes.
    pub authority: Authority,
    /// Where the founder's peers will reach it.
    pub address: Arc<str>,
    /// The key of the founder's first certificate, a DER SubjectPublicKeyInfo.
    pub public_key: Arc<[u8]>,
}

/// A node that wants to join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admit {
    /// The token that it has shown.
    pub token: TokenId,
    /// Where its peers will reach it.
    pub address: Arc<str>,
    /// The key that its certificate is to be made for, a DER SubjectPublicKeyInfo.
    pub public_key: Arc<[u8]>,
    /// False for a node that is only to follow.
    pub votes: bool,
}

/// What changes about a node; what is left out stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeChange {
    /// Where its peers reach it.
    pub address: Option<Arc<str>>,
    /// Who leads if several can: the highest.
    pub priority: Option<u8>,
}

pub(super) fn found(state: &mut State, at: Moment, found: &Found) -> Result<(), Refusal> {
    if state.nodes.authority.is_some() {
        return Err(Refusal::FoundedAlready);
    }
    check_key(&found.authority.certificate)?;
    check_key(&found.public_key)?;
    if found.authority.key.as_bytes().len() > SEALED_BYTES_MAX {
        return Err(Refusal::KeyMalformed);
    }
    check_text(&found.address, false, Text::Address)?;
    state.nodes.authority = Some(Arc::new(found.authority.clone()));
    state.data_keys.current = found.authority.key.key();
    state.data_keys.revision = at.index;
    let founder = Node::new(found.address.clone(), found.public_key.clone(), true, at.now);
    state.nodes.nodes.insert(FOUNDER, Arc::new(founder));
    Ok(())
}

pub(super) fn create_token(
    state: &mut State,
    at: Moment,
    id: TokenId,
    public_key: &Arc<[u8]>,
    for_ms: u64,
    uses: u32,
) -> Result<(), Refusal> {
    check_key(public_key)?;
    if for_ms == 0 || for_ms > TOKEN_MS_MAX || uses == 0 || uses > NODES_MAX {
        return Err(Refusal::TokenMalformed);
    }
    if state.nodes.tokens.contains_key(&id) || state.nodes.token_of(public_key).is_some() {
        return Err(Refusal::IdTaken);
    }
    if state.nodes.tokens.len() >= TOKENS_MAX {
        // What has lapsed makes room; until then it is kept, so that its bearer is told why.
        let lapsed = state.nodes.tokens().filter(|(_, token)| !token.is_open(at.now));
        let oldest = lapsed.min_by_key(|(_, token)| token.expires).map(|(id, _)| id);
        let too_many = Refusal::TooMany { what: Countable::Tokens, max: TOKENS_MAX as u64 };
        state.nodes.tokens.remove(&oldest.ok_or(too_many)?);
    }
    let expires = at.now.plus_ms(for_ms);
    let token = JoinToken { public_key: public_key.clone(), expires, uses_left: uses };
    state.nodes.tokens.insert(id, token);
    Ok(())
}

pub(super) fn revoke_token(state: &mut State, id: TokenId) -> Result<(), Refusal> {
    state.nodes.tokens.remove(&id).map(drop).ok_or(Refusal::TokenUnknown)
}

/// Admits a node. One that asks again, with the same key and token, gets the same id, also when the
/// token is used up meanwhile: its first answer was lost.
pub(super) fn admit(state: &mut State, at: Moment, admit: &Admit) -> Result<Applied, Refusal> {
    let token = state.nodes.tokens.get(&admit.token).ok_or(Refusal::TokenUnknown)?.clone();
    check_key(&admit.public_key)?;
    if token.expires <= at.now {
        return Err(Refusal::TokenExpired);
    }
    let known = state.nodes.iter().find(|(_, node)| node.public_key == admit.public_key);
    if let Some((id, node)) = known {
        return match node.removed {
            Some(_) => Err(Refusal::NodeRemoved(id)),
            // A node's key is no secret: every certificate shows it.
            None if node.admitted_by != Some(admit.token) => {
                Err(Refusal::NodeAdmittedOtherwise(id))
            }
            None => Ok(Applied::Admitted(id)),
        };
    }
    check_address(state, None, &admit.address)?;
    if token.uses_left == 0 {
        return Err(Refusal::TokenUsed);
    }
    check_count(state.nodes.present().count() + 1, NODES_MAX as usize, Countable::Nodes)?;
    let id = state.nodes.iter().last().map_or(FOUNDER, |(last, _)| last + 1);
    let node = Node::new(admit.address.clone(), admit.public_key.clone(), admit.votes, at.now);
    let node = Node { admitted_by: Some(admit.token), ..node };
    state.nodes.nodes.insert(id, Arc::new(node));
    let uses_left = token.uses_left - 1;
    state.nodes.tokens.insert(admit.token, JoinToken { uses_left, ..token });
    Ok(Applied::Admitted(id))
}

pub(super) fn edit(state: &mut State, id: NodeId, change: &NodeChange) -> Result<(), Refusal> {
    if let Some(address) = &change.address {
        check_address(state, Some(id), address)?;
    }
    let node = state.nodes.nodes.get_mut(&id).map(Arc::make_mut).ok_or(Refusal::NodeUnknown(id))?;
    if node.removed.is_some() {
        return Err(Refusal::NodeRemoved(id));
    }
    if let Some(address) = &change.address {
        node.address = address.clone();
    }
    node.priority = change.priority.unwrap_or(node.priority);
    Ok(())
}

pub(super) fn recover(state: &mut State, at: Moment, id: NodeId) {
    let others: Vec<_> = state.nodes.iter().map(|(other, _)| other).collect();
    for other in others.into_iter().filter(|&other| other != id) {
        if let Some(node) = state.nodes.nodes.get_mut(&other).map(Arc::make_mut) {
            node.removed.get_or_insert(at.now);
        }
    }
    // It may have been a follower only, or on its way out; nobody else is left.
    if let Some(node) = state.nodes.nodes.get_mut(&id).map(Arc::make_mut) {
        node.votes = true;
        node.removed = None;
    }
    state.nodes.epoch += 1;
}

/// Checks that no other node is at `address`.
fn check_address(state: &State, me: Option<NodeId>, address: &Arc<str>) -> Result<(), Refusal> {
    check_text(address, true, Text::Address)?;
    let is_there = |(id, node): &(NodeId, &Node)| Some(*id) != me && node.address == *address;
    match state.nodes.present().find(is_there) {
        None => Ok(()),
        Some((node, _)) => Err(Refusal::NodeAddressTaken { address: address.clone(), node }),
    }
}

pub(super) fn remove(state: &mut State, at: Moment, id: NodeId) -> Result<(), Refusal> {
    let votes = |node: &Node| node.votes && node.removed.is_none();
    let is_last = !state.nodes.iter().any(|(other, node)| other != id && votes(node));
    let node = state.nodes.nodes.get_mut(&id).map(Arc::make_mut).ok_or(Refusal::NodeUnknown(id))?;
    if is_last && votes(node) {
        return Err(Refusal::LastVoter(id));
    }
    node.removed.get_or_insert(at.now);
    Ok(())
}

fn check_key(key: &[u8]) -> Result<(), Refusal> {
    let fits = !key.is_empty() && key.len() <= KEY_BYTES_MAX;
    if fits { Ok(()) } else { Err(Refusal::KeyMalformed) }
}
