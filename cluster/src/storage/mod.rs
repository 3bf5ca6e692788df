//! The durable store: log, vote and snapshot in sled, the sidecar beside it.
//!
//! It does one thing at a time and knows no threads or futures; [`crate::disk`] decides what is
//! written together. What sled is trusted with, and what not, is told in DESIGN.md; the rules kept
//! here are:
//!
//! * a change counts as made after [`Storage::commit`], which flushes sled's buffers, syncs the file
//!   through a descriptor of our own (sled's flush does not) and then writes the sidecar;
//! * every record carries our checksum, and opening reads every one of them;
//! * no value is so long that sled would move it into a file of its own, which it never syncs.
//!
//! The modules in reading order:
//!
//! * `create`: a new store
//! * `open`: from the files to a store that is known to be whole
//! * `check`: what opening demands of every record
//! * `store`: the open store: what is written, made durable and read
//! * `database`: trees, keys and records: the only file that names sled
//! * `error`: why a store cannot be created or opened
//!
//! ```text
//! data_dir/raft.lock          held while the store is open
//! data_dir/raft.new/          a store that is being created
//! data_dir/raft.restore/      one that is being filled before it takes its place
//! data_dir/raft/sled/         the database, see `database`
//! data_dir/raft/sidecar       see `sidecar`
//! data_dir/raft/removed       there once a member has said that this node was removed
//! ```

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::runtime::NodeId;

mod check;
mod create;
mod database;
mod error;
mod open;
mod store;

pub(crate) use create::{clear_aside, create, place};
pub use error::OpenError;
pub(crate) use open::open;
pub(crate) use store::Storage;

/// Length of the pieces of a snapshot; small for the same reason as blocks are.
pub(crate) const CHUNK_BYTES: usize = 4096;

const STORE: &str = "raft";
const LOCK: &str = "raft.lock";
const DATABASE: &str = "sled";
const SIDECAR: &str = "sidecar";
const REMOVED: &str = "removed";

/// The file that says that this node was removed from its cluster.
pub(crate) fn removed_marker(data_dir: &Path) -> PathBuf {
    data_dir.join(STORE).join(REMOVED)
}

/// Whose store it is.
#[derive(Serialize, Deserialize)]
struct Identity {
    node_id: NodeId,
}

/// Whether there is a store in `data_dir`; one that was not finished is none.
pub(crate) fn exists(data_dir: &Path) -> io::Result<bool> {
    data_dir.join(STORE).try_exists()
}

/// Keeps every other process away from the store, for as long as the file is open.
pub(crate) fn lock(data_dir: &Path) -> Result<File, OpenError> {
    let failed = |source| OpenError::Io { dir: data_dir.join(STORE), source };
    let path = data_dir.join(LOCK);
    let file = File::options().write(true).create(true).truncate(false).open(path);
    let file = file.map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(data_dir.join(STORE))),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}
