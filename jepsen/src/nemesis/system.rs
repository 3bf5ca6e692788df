//! The cluster under test, as far as a nemesis must know it.
//!
//! Hosts are numbered as in the laboratory, from 0, and each runs at most one node. Whoever
//! implements this keeps the processes; a nemesis signals them only by the id it is given here.

use std::path::PathBuf;

use anyhow::Result;

/// What can be asked of the cluster, and done to it by its administrator.
pub trait System: Sync {
    /// Who leads, if one does.
    fn leader(&self) -> Option<usize>;

    /// The hosts whose nodes vote, as the cluster says.
    ///
    /// # Errors
    /// When nobody answers.
    fn members(&self) -> Result<Vec<usize>>;

    /// The process id of the node on `host`, if it runs.
    fn pid(&self, host: usize) -> Option<u32>;

    /// Whether the node has ended by itself, or has given up because its store failed; then it is killed. Asked
    /// by a fault that explains it: otherwise it is a defect.
    ///
    /// # Errors
    /// When it cannot be killed.
    fn take_end(&self, host: usize) -> Result<bool>;

    /// Whether the node can commit.
    fn is_ready(&self, host: usize) -> bool;

    /// The index of the last entry that the node has applied, if it answers.
    fn applied(&self, host: usize) -> Option<u64>;

    /// The index of the last entry in the node's log, if it answers.
    fn last_log(&self, host: usize) -> Option<u64>;

    /// How far the node's clock is off, in seconds, as the cluster itself measures it; ahead is
    /// positive.
    fn clock_offset(&self, host: usize) -> Option<f64>;

    /// How many entries a node must miss to be brought up by a snapshot.
    fn snapshot_lag(&self) -> u64;

    /// The directory with the node's store, on its host's disk.
    ///
    /// # Errors
    /// When there is no such host.
    fn store(&self, host: usize) -> Result<PathBuf>;

    /// Kills the node's process (SIGKILL) and reaps it. Nothing, when none runs.
    ///
    /// # Errors
    /// When it does not go.
    fn kill(&self, host: usize) -> Result<()>;

    /// Starts the node, and waits until its socket is served, not until it is ready. Nothing, when
    /// it runs. One that was drained serves again.
    ///
    /// # Errors
    /// When it ends by itself, with what it said.
    fn start(&self, host: usize) -> Result<()>;

    /// Stops the node in order (SIGTERM), and waits for that. Nothing, when none runs.
    ///
    /// # Errors
    /// When it does not end.
    fn stop(&self, host: usize) -> Result<()>;

    /// Starts the node, whose store was damaged, and expects it to refuse: what it said, or none when it
    /// serves.
    ///
    /// # Errors
    /// When it neither ends nor serves.
    fn start_refused(&self, host: usize) -> Result<Option<String>>;

    /// Takes the node out of service, so that it may be stopped without harm.
    ///
    /// # Errors
    /// When the node refuses.
    fn drain(&self, host: usize) -> Result<()>;

    /// Has the node on `host` lead, and waits until it does.
    ///
    /// # Errors
    /// When it does not.
    fn transfer(&self, host: usize) -> Result<()>;

    /// Removes the member on `host` and stops its process. A majority of the others must be ready.
    ///
    /// # Errors
    /// When the cluster refuses.
    fn remove(&self, host: usize) -> Result<()>;

    /// Has a host whose node was removed join with an empty directory, and waits until it votes.
    ///
    /// # Errors
    /// When the cluster refuses, or the node is not made a voter.
    fn add(&self, host: usize) -> Result<()>;

    /// Gives the host a new node for the one whose data is lost: kills it, wipes its directory, has
    /// it replaced by the others, joins, and waits until it votes.
    ///
    /// # Errors
    /// When the cluster refuses, or the node is not made a voter.
    fn replace(&self, host: usize) -> Result<()>;
}
