//! Going on after a majority was lost for good, and beginning anew from a saved state.
//!
//! Both write into a store that nobody runs on, what Raft itself could never agree on.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use openraft::entry::RaftEntry as _;
use openraft::{BasicNode, EntryPayload};
use watchword_core::command::Command;
use watchword_core::time::Timestamp;
use watchword_core::{Entry, State};

use crate::block::log_id;
use crate::logged::Logged;
use crate::medium::{Medium, Recovered, Request};
use crate::open::{create_store, failed, open_store};
use crate::runtime::{LogId, Membership, NodeId, RaftEntry, SnapshotMeta, StoredMembership, Vote};
use crate::snapshot::Shelf;
use crate::storage::{self, OpenError};

/// What a store holds on which a node is to go on alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remains {
    /// Index and term of the last entry.
    pub last: (u64, u64),
    /// Who votes.
    pub voters: Vec<NodeId>,
}

/// What the store in `data_dir` holds. Changes nothing.
///
/// # Errors
/// When there is no store, it is in use or damaged.
pub async fn remains(data_dir: &Path, node_id: NodeId) -> Result<Remains, OpenError> {
    let (disk, recovered) = open_store(data_dir, node_id).await?;
    close(data_dir, disk).await?;
    let last = recovered.last.ok_or_else(|| OpenError::Missing(data_dir.to_owned()))?;
    let voters = recovered.effective_membership().map(|stored| stored.voter_ids().collect());
    Ok(Remains { last: (last.index, last.leader_id.term), voters: voters.unwrap_or_default() })
}

/// Makes `node_id` the only voter of what its store holds, and removes all other nodes from the
/// record, in one step. What the lost majority has committed and this node has not got is gone.
///
/// # Errors
/// As [`remains`], or when the store fails.
pub async fn recover(data_dir: &Path, node_id: NodeId, now: Timestamp) -> Result<(), OpenError> {
    let (disk, recovered) = open_store(data_dir, node_id).await?;
    let written = go_on_alone(&disk, &recovered, node_id, now).await;
    close(data_dir, disk).await?;
    written.map_err(failed(data_dir))
}

async fn go_on_alone(
    disk: &Medium,
    recovered: &Recovered,
    node_id: NodeId,
    now: Timestamp,
) -> io::Result<()> {
    let last = recovered.last.ok_or_else(|| io::Error::other("the store holds nothing"))?;
    let address = recovered
        .effective_membership()
        .and_then(|stored| stored.membership().get_node(&node_id))
        .ok_or_else(|| io::Error::other("the store does not know this node as a member"))?;
    // Above every term that this node has heard of: what it has not heard of is fenced by the epoch.
    let voted = recovered.vote.map_or(0, |vote| vote.leader_id.term);
    let term = voted.max(last.leader_id.term) + 1;
    disk.call(|done| Request::Vote { vote: Vote::new(term, node_id), done }).await?;
    let command = Entry { time: now, command: Command::Recover { node: node_id } };
    let entry =
        |offset: u64, payload| RaftEntry::new(log_id(term, node_id, last.index + offset), payload);
    let alone = Membership::from(BTreeMap::from([(node_id, address.clone())]));
    let entries = vec![
        entry(1, EntryPayload::Membership(alone)),
        entry(2, EntryPayload::Normal(Logged::new(command).map_err(io::Error::other)?)),
    ];
    disk.append(entries).await
}

/// Creates a store that begins with `state`, as of log index `index`, with this node as the only
/// voter.
///
/// It is filled aside and takes its place when it holds everything: a store that is there is whole.
///
/// # Errors
/// When there is a store already, or the file system fails.
pub async fn create_from(
    data_dir: &Path,
    node_id: NodeId,
    address: String,
    index: u64,
    state: &State,
) -> Result<(), OpenError> {
    let bytes = state.encode().map_err(|error| failed(data_dir)(io::Error::other(error)))?;
    let _lock = storage::lock(data_dir)?;
    let aside = storage::clear_aside(data_dir)?;
    create_store(&aside, node_id, None).await?;
    let (disk, _) = open_store(&aside, node_id).await?;
    let written = begin_with(&disk, node_id, address, index, &bytes).await;
    close(&aside, disk).await?;
    written.and_then(|()| storage::place(data_dir)).map_err(failed(data_dir))
}

async fn begin_with(
    disk: &Medium,
    node_id: NodeId,
    address: String,
    index: u64,
    bytes: &[u8],
) -> io::Result<()> {
    let last: LogId = log_id(1, node_id, index.max(1));
    let alone = Membership::from(BTreeMap::from([(node_id, BasicNode::new(address))]));
    let meta = SnapshotMeta {
        last_log_id: Some(last),
        last_membership: StoredMembership::new(Some(last), alone),
    };
    disk.call(|done| Request::Vote { vote: Vote::new(1, node_id), done }).await?;
    Shelf::new(disk.clone(), None).put(meta, bytes).await?;
    disk.call(|done| Request::Purge { upto: last, done }).await
}

async fn close(data_dir: &Path, disk: Medium) -> Result<(), OpenError> {
    let closed = disk.call(|done| Request::Close { done }).await;
    closed.map_err(failed(data_dir))
}
