//! Why a store cannot be created or opened, in words for whoever must rebuild the node.

use std::io;
use std::path::PathBuf;

use crate::runtime::NodeId;

/// Why a store cannot be created or opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Nothing was created here yet.
    #[error("there is no store in {}", .0.display())]
    Missing(PathBuf),
    /// Something was created here already.
    #[error("there is a store in {} already", .0.display())]
    Exists(PathBuf),
    /// Another process, or another part of this one, has it open.
    #[error("the store in {} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// It is another node's.
    #[error("the store belongs to node {found}, not to node {expected}")]
    WrongNode {
        /// Whose it is.
        found: NodeId,
        /// Who asked.
        expected: NodeId,
    },
    /// The node was told so by a member.
    #[error("this node was removed from the cluster; empty its data directory to join again")]
    Removed,
    /// A record is not what was written.
    #[error(
        "the store is damaged: {record}: {detail}; this node must not run on it, rebuild it from \
         the other members"
    )]
    Damaged {
        /// Which record.
        record: String,
        /// What is wrong with it.
        detail: String,
    },
    /// Entries are missing.
    #[error(
        "the log has a gap: entry {expected} is missing, {found} follows; this node must not run on \
         it, rebuild it from the other members"
    )]
    Gap {
        /// Index of the first missing entry.
        expected: u64,
        /// What is there instead.
        found: String,
    },
    /// The store is older than what this node has promised.
    #[error(
        "the store was rolled back: the {record} in it is {found}, but {promised} was acknowledged; \
         this node must not run on it, rebuild it from the other members"
    )]
    RolledBack {
        /// Which record.
        record: &'static str,
        /// What the store holds.
        found: String,
        /// What the sidecar says.
        promised: String,
    },
    /// The file system or the database failed.
    #[error("the store in {} cannot be opened", dir.display())]
    Io {
        /// Where it is.
        dir: PathBuf,
        /// What failed.
        source: io::Error,
    },
    /// The replication could not be started on what was read.
    #[error("the replication cannot be started: {0}")]
    Raft(String),
    /// The timing contradicts itself.
    #[error("the replication's timing is unusable: {0}")]
    Timing(String),
}

/// What a record that cannot be believed is reported as.
pub(super) fn damaged(record: &str, detail: impl ToString) -> OpenError {
    OpenError::Damaged { record: record.to_owned(), detail: detail.to_string() }
}
