//! What a replica is told when it is opened.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openraft::{Config, SnapshotPolicy};
use watchword_core::time::Timestamp;

use crate::runtime::NodeId;
use crate::storage::OpenError;
use crate::transport::Transport;

/// Entries between two snapshots. A snapshot costs about as much CPU as the state is long; a restart
/// replays up to this many entries. See DESIGN.md for the figures.
pub const SNAPSHOT_AFTER_ENTRIES: u64 = 400_000;
/// Entries that stay in the log behind a snapshot, so that a peer that was away for a moment need
/// not be sent the whole state.
const LOG_TAIL_ENTRIES: u64 = 10_000;
/// Entries that go to a peer in one message at most.
const PAYLOAD_ENTRIES_MAX: u64 = 1_024;
/// Entries that are written to the log as one piece at most.
const BATCH_ENTRIES_MAX: u64 = 4_096;

/// Writes a key down that another member hands to this node; says why if it cannot. May block.
pub type KeepKey = Arc<dyn Fn(&[u8]) -> Result<(), String> + Send + Sync>;

/// What shows the time.
pub(crate) type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What a replica is told when it is opened.
#[derive(Clone)]
pub struct Options {
    /// The node's data directory; the store lives in its subdirectory `raft`.
    pub data_dir: PathBuf,
    /// This node's id. It belongs to the store: another id is refused.
    pub node_id: NodeId,
    /// The clock that stamps proposals. This crate never reads the operating system's.
    pub clock: Clock,
    /// When a silent leader is given up.
    pub timing: Timing,
    /// Entries between two snapshots.
    pub snapshot_after_entries: u64,
    /// How peers are reached. Without it the node is alone.
    pub transport: Option<Transport>,
    /// How long a learner must have kept up before it votes.
    pub settle: Duration,
    /// Time between two comparisons of the members' states.
    pub checkpoint: Duration,
    /// The epoch in which this node joined the cluster.
    pub epoch: u64,
    /// Different for every run of every node, so that two that run as the same node are told apart.
    pub instance: u64,
    /// The release, as other members show it.
    pub version: &'static str,
    /// What becomes of a key that another member hands out.
    pub keep_key: KeepKey,
}

impl Options {
    /// Options with the default timing.
    pub fn new(data_dir: impl Into<PathBuf>, node_id: NodeId, clock: Clock) -> Self {
        Self {
            data_dir: data_dir.into(),
            node_id,
            clock,
            timing: Timing::default(),
            snapshot_after_entries: SNAPSHOT_AFTER_ENTRIES,
            transport: None,
            settle: Duration::from_secs(2),
            checkpoint: Duration::from_secs(60),
            epoch: 0,
            instance: next_instance(),
            version: env!("CARGO_PKG_VERSION"),
            keep_key: Arc::new(|_| Err("it keeps no keys".to_owned())),
        }
    }
}

/// Different within this process; a caller with random numbers gives better ones.
fn next_instance() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("data_dir", &self.data_dir)
            .field("node_id", &self.node_id)
            .field("timing", &self.timing)
            .field("snapshot_after_entries", &self.snapshot_after_entries)
            .finish_non_exhaustive()
    }
}

/// When a silent leader is given up. A new leader is there after the longer election timeout and a
/// part of the shorter one; the values must be the same on all members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Time between two signs of life of an idle leader.
    pub heartbeat: Duration,
    /// A follower waits at least this long before it campaigns.
    pub election_min: Duration,
    /// A follower waits less than this before it campaigns.
    pub election_max: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(100),
            election_min: Duration::from_millis(300),
            election_max: Duration::from_millis(600),
        }
    }
}

/// openraft's configuration.
pub(crate) fn config(options: &Options) -> Result<Config, OpenError> {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let config = Config {
        cluster_name: "watchword".to_owned(),
        heartbeat_interval: ms(options.timing.heartbeat),
        election_timeout_min: ms(options.timing.election_min),
        election_timeout_max: ms(options.timing.election_max),
        enable_pre_vote: Some(true),
        // A leader may have sent entries that it had not yet written itself. If it went on in the
        // same term after a restart, it would give their indexes to other entries.
        enable_leader_restore: Some(false),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(options.snapshot_after_entries),
        max_in_snapshot_log_to_keep: LOG_TAIL_ENTRIES.min(options.snapshot_after_entries / 2),
        max_payload_entries: PAYLOAD_ENTRIES_MAX,
        max_append_entries: Some(BATCH_ENTRIES_MAX),
        api_batch_capacity: BATCH_ENTRIES_MAX,
        ..Config::default()
    };
    config.validate().map_err(|error| OpenError::Timing(error.to_string()))
}
