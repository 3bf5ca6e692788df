//! One replica of the replicated state: openraft on sled.
//!
//! A [`Cluster`] is a cheap handle to this node's replica. Commands go in through
//! [`Cluster::propose`], are written to the log of a quorum, and come out applied, in the same order
//! on every node. What survives what, and why, is told in DESIGN.md.
//!
//! The modules in reading order:
//!
//! * `options`: what a replica is told
//! * `open`: from a directory to a running replica, and back
//! * `propose`, `read`, `status`: what callers do
//! * `runtime`: the types that openraft is instantiated with
//! * `state_machine`: applies entries, lets others look at the state
//! * `snapshot`: the state on the medium, in pieces
//! * `log_store`: the log as openraft sees it
//! * `medium`: what both are kept on: `disk`, or `memory` for simulations
//! * `disk`: the thread that owns the store, and group commit
//! * `storage`: the store on sled
//! * `sidecar`: how far the store must at least have got
//! * `block`, `logged`, `record`: layouts
//! * `net`: the network below them: TCP, or a simulation's
//! * `transport`, `reception`: connections to peers, and from them: who is at the other end
//! * `network`, `service`: what is asked of peers, and done for them
//! * `contact`: when the leader was last heard of; `quorum`: whether it is heard itself
//! * `survey`: how the members are: their clocks and the digests of their states
//! * `message`: what peers send each other, in one list
//! * `membership`: who follows and who votes
//! * `hand_out`: a new key for every node
//! * `rescue`: going on without a lost majority, and beginning from a saved state
//! * `dump`: the store in readable form
//! * `contain`: a panic of the database becomes an error
//! * `blocking`: what keeps a core busy
//! * `probe`: where tests break the writing

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::sync::watch;
use watchword_core::State;

mod block;
mod blocking;
mod contact;
mod contain;
mod disk;
mod dump;
mod hand_out;
mod log_store;
mod logged;
mod medium;
mod membership;
mod memory;
mod message;
pub mod net;
mod network;
mod open;
mod options;
mod probe;
mod propose;
mod quorum;
mod read;
mod reception;
mod record;
mod rescue;
mod runtime;
mod service;
mod sidecar;
mod snapshot;
mod state_machine;
mod status;
mod storage;
mod survey;
#[cfg(test)]
mod tests;
mod transport;

pub use blocking::off_thread;
pub use dump::{Content, Dump, DumpedEntry, DumpedSnapshot, Members, dump};
pub use hand_out::HandOutError;
pub use membership::TransferError;
pub use memory::{Inspected, MemoryDisk};
pub use message::read_as_every_message;
pub use open::{NoLeader, ServeError, ShutdownError, SnapshotFailed};
pub use options::{KeepKey, Options, SNAPSHOT_AFTER_ENTRIES, Timing};
pub use propose::{ProposeError, Proposed};
pub use read::ReadError;
pub use rescue::{Remains, create_from, recover, remains};
pub use runtime::NodeId;
pub use status::{Member, Role, Status};
pub use storage::OpenError;
pub use survey::Peer;
pub use transport::{
    Bearer, Caller, ConnectionMark, Credentials, Transport, TransportError, node_name,
};

/// A handle to this node's replica. Clones are cheap and share it.
#[derive(Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
}

struct Inner {
    raft: runtime::Raft,
    view: Arc<state_machine::View>,
    medium: medium::Medium,
    clock: options::Clock,
    node_id: NodeId,
    proposer: propose::Proposer,
    network: network::Network,
    contact: Arc<contact::Contact>,
    /// Whether an administrator has taken this node out of service.
    drained: AtomicBool,
    /// Whether it is being shut down: what its peers still ask is not for openraft any more.
    stopping: AtomicBool,
    /// Silence after which the leader counts as gone.
    patience: Duration,
    transport: Option<Transport>,
    survey: Arc<survey::Survey>,
    read_rounds: read::Rounds,
    version: &'static str,
    instance: u64,
    keep_key: KeepKey,
}

impl Cluster {
    /// Looks at the state as this node knows it: it may be old, and never goes back. No entry is
    /// applied while `look` runs, so it should be done in microseconds, and must not look again.
    pub fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        self.inner.view.look(look)
    }

    /// A copy of the state that stands still. It costs nothing at once, but while it is kept, each
    /// change copies what it touches: whoever is asked on every login looks instead.
    pub fn state(&self) -> State {
        self.look(State::clone)
    }

    /// Index of the last entry that [`Cluster::look`] shows, for readers that wait for a change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.view.changes()
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("node_id", &self.inner.node_id).finish_non_exhaustive()
    }
}
