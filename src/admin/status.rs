//! How this node and its cluster are.

use serde::{Deserialize, Serialize};

use super::{Admin, rfc3339};

/// Node and cluster as shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StatusView {
    /// This release.
    pub version: String,
    /// This node's id.
    pub node: u64,
    /// `leader`, `follower`, `learner`, `candidate` or `stopped`.
    pub role: String,
    /// The leader's id.
    pub leader: Option<u64>,
    /// The term.
    pub term: u64,
    /// Ids of the voters.
    pub voters: Vec<u64>,
    /// How many more voters may fail.
    pub failure_tolerance: usize,
    /// Whether this node can commit.
    pub ready: bool,
    /// What keeps it from that.
    pub not_ready: Option<String>,
    /// Milliseconds by which its clock is ahead of the voters' median, once that is known.
    pub clock_error_ms: Option<i64>,
    /// Index of the latest checkpoint at which all voters that answer held the same state.
    pub states_equal_at: Option<u64>,
    /// Index of the first checkpoint at which another node's state differed from this node's.
    pub states_differ_at: Option<u64>,
    /// What is wrong with this node.
    pub fault: Option<String>,
    /// Index of the last entry in the log.
    pub last_log: u64,
    /// Index of the last entry applied.
    pub applied: u64,
    /// Index of the last entry that the snapshot covers.
    pub snapshot: u64,
    /// The state's time.
    pub time: String,
    /// Users.
    pub users: usize,
    /// Devices.
    pub devices: usize,
    /// Clients.
    pub clients: usize,
    /// Attempts ever recorded.
    pub attempts: u64,
    /// Feature level in force.
    pub feature_level: u32,
    /// Id of the data key.
    pub data_key: Option<String>,
    /// Data keys that this node's keyring file holds.
    pub data_keys_held: usize,
    /// Whether something may still be sealed under an earlier one.
    pub rekey_unfinished: bool,
    /// Revision of the settings.
    pub settings_revision: u64,
}

impl Admin {
    /// How things are, as far as this node knows.
    pub fn status(&self) -> StatusView {
        let status = self.cluster.status();
        let state = self.cluster.state();
        StatusView {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: status.node_id,
            role: format!("{:?}", status.role).to_lowercase(),
            leader: status.leader,
            term: status.term,
            ready: status.is_ready(),
            not_ready: status.unready(),
            clock_error_ms: status.clock_error_ms,
            states_equal_at: status.equal_at,
            states_differ_at: status.differs_at,
            voters: status.voters.iter().map(|voter| voter.id).collect(),
            failure_tolerance: status.failure_tolerance(),
            fault: status.fault,
            last_log: status.last_log.unwrap_or(0),
            applied: status.applied.unwrap_or(0),
            snapshot: status.snapshot.unwrap_or(0),
            time: rfc3339(state.time()),
            users: state.user_count(),
            devices: state.device_count(),
            clients: state.clients().count(),
            attempts: state.attempts().next(),
            feature_level: state.feature_level(),
            data_key: state.data_keys().current.map(|key| key.to_string()),
            data_keys_held: self.keys.ids().len(),
            rekey_unfinished: !state.data_keys().is_settled,
            settings_revision: state.settings().revision(),
        }
    }
}
