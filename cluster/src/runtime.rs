//! The types that openraft is instantiated with, under Raft's own short names.
//!
//! Time, tasks and random numbers reach openraft, and this crate, through [`Runtime`] only. A simulation
//! needs no other one: it pauses tokio's clock and stands in for the C library's random numbers.

use openraft::alias::{EntryOf, LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf, VoteOf};
use watchword_core::Applied;

use crate::logged::Logged;
use crate::snapshot::SnapshotData;
use crate::state_machine::StateMachine;

/// Where time, tasks and random numbers come from.
pub(crate) type Runtime = openraft::impls::TokioRuntime;

pub use watchword_core::node::NodeId;

openraft::declare_raft_types!(
    /// openraft's type parameters.
    pub(crate) TypeConfig:
        D = Logged,
        R = Applied,
        NodeId = NodeId,
        Node = openraft::BasicNode,
        AsyncRuntime = Runtime,
);

/// Term, leader and index: names one entry of the log.
pub(crate) type LogId = LogIdOf<TypeConfig>;
/// Whom this node has voted for, and whether a quorum did.
pub(crate) type Vote = VoteOf<TypeConfig>;
/// An entry of the log: a command, a membership, or nothing.
pub(crate) type RaftEntry = EntryOf<TypeConfig>;
/// Who belongs to the cluster.
pub(crate) type Membership = openraft::Membership<NodeId, openraft::BasicNode>;
/// A membership and the entry that brought it.
pub(crate) type StoredMembership = StoredMembershipOf<TypeConfig>;
/// What a snapshot covers.
pub(crate) type SnapshotMeta = SnapshotMetaOf<TypeConfig>;
/// A snapshot as openraft hands it around.
pub(crate) type Snapshot = SnapshotOf<TypeConfig, SnapshotData>;
/// A point in time of the runtime.
pub(crate) type Instant = openraft::alias::InstantOf<TypeConfig>;
/// openraft itself.
pub(crate) type Raft = openraft::Raft<TypeConfig, StateMachine>;
