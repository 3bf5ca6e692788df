//! The store in readable form, for people. The node must not be running.
//!
//! Secrets are sealed before they enter the log, so they stay sealed here.

use std::collections::BTreeMap;
use std::path::Path;

use openraft::EntryPayload;
use openraft::entry::RaftEntry as _;
use watchword_core::{Entry, State};

use crate::runtime::{Membership, NodeId, RaftEntry};
use crate::storage::{self, OpenError, Storage};

/// A whole store.
pub struct Dump {
    /// Term of the vote that was given last.
    pub vote_term: Option<u64>,
    /// The snapshot.
    pub snapshot: Option<DumpedSnapshot>,
    /// Index of the last entry that the log has forgotten.
    pub purged: Option<u64>,
    /// Index of the last entry known to be committed, at least.
    pub committed: Option<u64>,
    /// The log, in order.
    pub entries: Vec<DumpedEntry>,
}

/// The snapshot of a store.
pub struct DumpedSnapshot {
    /// Index of the last entry in it.
    pub index: u64,
    /// Term of that entry.
    pub term: u64,
    /// Who belonged to the cluster.
    pub members: Members,
    /// The state.
    pub state: State,
}

/// One entry of the log.
pub struct DumpedEntry {
    /// Its index.
    pub index: u64,
    /// The term in which it was proposed.
    pub term: u64,
    /// Who proposed it.
    pub leader: NodeId,
    /// What it says.
    pub content: Content,
}

/// What an entry says.
pub enum Content {
    /// Nothing: a leader begins its term with such an entry.
    Nothing,
    /// A command.
    Command(Entry),
    /// Who belongs to the cluster.
    Members(Members),
}

/// Who belongs to the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    /// The voters; two sets while they change.
    pub voters: Vec<Vec<NodeId>>,
    /// The addresses of all members.
    pub addresses: BTreeMap<NodeId, String>,
}

/// Reads the store in `data_dir`.
///
/// # Errors
/// When there is none, it is in use, damaged or rolled back: by the name of the record.
pub fn dump(data_dir: &Path) -> Result<Dump, OpenError> {
    let (storage, recovered) = storage::open(data_dir, None)?;
    let damaged = |record: String, detail: String| OpenError::Damaged { record, detail };
    let mut entries = Vec::new();
    let mut next = recovered.purged.map_or(0, |purged| purged.index + 1);
    let end = recovered.last.map_or(0, |last| last.index + 1);
    while next < end {
        let read = storage
            .read(next, end)
            .map_err(|error| damaged(format!("entry {next} of the log"), error.to_string()))?;
        if read.is_empty() {
            return Err(OpenError::Gap { expected: next, found: "nothing".to_owned() });
        }
        next += read.len() as u64;
        entries.extend(read.into_iter().map(dumped_entry));
    }
    let snapshot = match &recovered.snapshot {
        None => None,
        Some(record) => {
            let name = format!("snapshot {}", record.generation);
            let bytes = snapshot_bytes(&storage, record.generation, record.chunks)
                .map_err(|error| damaged(name.clone(), error.to_string()))?;
            let state = State::decode(&bytes).map_err(|error| damaged(name, error.to_string()))?;
            Some(DumpedSnapshot {
                index: record.meta.last_log_id.map_or(0, |id| id.index),
                term: record.meta.last_log_id.map_or(0, |id| id.leader_id.term),
                members: members(record.meta.last_membership.membership()),
                state,
            })
        }
    };
    Ok(Dump {
        vote_term: recovered.vote.map(|vote| vote.leader_id.term),
        snapshot,
        purged: recovered.purged.map(|id| id.index),
        committed: recovered.committed.map(|id| id.index),
        entries,
    })
}

fn snapshot_bytes(storage: &Storage, generation: u64, chunks: u32) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for number in 0..chunks {
        bytes.extend(storage.read_chunk(generation, number)?);
    }
    Ok(bytes)
}

fn dumped_entry(entry: RaftEntry) -> DumpedEntry {
    let id = entry.log_id();
    DumpedEntry {
        index: id.index,
        term: id.leader_id.term,
        leader: id.leader_id.node_id,
        content: match entry.payload {
            EntryPayload::Blank => Content::Nothing,
            EntryPayload::Normal(logged) => Content::Command(logged.entry().clone()),
            EntryPayload::Membership(membership) => Content::Members(members(&membership)),
        },
    }
}

fn members(membership: &Membership) -> Members {
    let voters = membership.get_joint_config().iter();
    let nodes = membership.nodes();
    Members {
        voters: voters.map(|voters| voters.iter().copied().collect()).collect(),
        addresses: nodes.map(|(&id, node)| (id, node.addr.clone())).collect(),
    }
}
