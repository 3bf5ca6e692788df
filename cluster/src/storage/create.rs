//! A new store: built under another name, made durable, then renamed.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use openraft::entry::RaftEntry as _;

use super::database::Database;
use super::{DATABASE, Identity, OpenError, SIDECAR, STORE, lock};
use crate::block::BlockWriter;
use crate::contain::contain;
use crate::runtime::{NodeId, RaftEntry};
use crate::sidecar::{Marks, Sidecar};

const UNFINISHED: &str = "raft.new";
const ASIDE: &str = "raft.restore";

/// Makes a store that holds `first` as its only entry, or none, for a node that is to join.
///
/// It is built under another name and renamed when it is complete and durable.
pub(crate) fn create(
    data_dir: &Path,
    node_id: NodeId,
    first: Option<&RaftEntry>,
) -> Result<(), OpenError> {
    let (store, unfinished) = (data_dir.join(STORE), data_dir.join(UNFINISHED));
    let failed = |source| OpenError::Io { dir: store.clone(), source };
    fs::create_dir_all(data_dir).map_err(failed)?;
    let _lock = lock(data_dir)?;
    if store.try_exists().map_err(failed)? {
        return Err(OpenError::Exists(store));
    }
    if unfinished.try_exists().map_err(failed)? {
        fs::remove_dir_all(&unfinished).map_err(failed)?;
    }
    // Secrets in it are sealed, but who belongs to the cluster is nobody's business.
    fs::DirBuilder::new().mode(0o700).create(&unfinished).map_err(failed)?;
    contain(|| fill(&unfinished, node_id, first))
        .unwrap_or_else(|panic| Err(io::Error::other(panic)))
        .map_err(failed)?;
    fs::rename(&unfinished, &store).map_err(failed)?;
    sync_dir(data_dir).map_err(failed)?;
    // The entry of `data_dir` itself may be as new as the store.
    data_dir.parent().map_or(Ok(()), sync_dir).map_err(failed)
}

/// An empty place beside the store, for one that is filled before it takes its place.
pub(crate) fn clear_aside(data_dir: &Path) -> Result<PathBuf, OpenError> {
    let (store, aside) = (data_dir.join(STORE), data_dir.join(ASIDE));
    let failed = |source| OpenError::Io { dir: store.clone(), source };
    if store.try_exists().map_err(failed)? {
        return Err(OpenError::Exists(store));
    }
    if aside.try_exists().map_err(failed)? {
        fs::remove_dir_all(&aside).map_err(failed)?;
    }
    fs::DirBuilder::new().mode(0o700).create(&aside).map_err(failed)?;
    Ok(aside)
}

/// Puts the store that was made aside in its place, durably.
pub(crate) fn place(data_dir: &Path) -> io::Result<()> {
    let aside = data_dir.join(ASIDE);
    fs::rename(aside.join(STORE), data_dir.join(STORE))?;
    sync_dir(data_dir)?;
    data_dir.parent().map_or(Ok(()), sync_dir)?;
    fs::remove_dir_all(aside)
}

fn fill(dir: &Path, node_id: NodeId, first: Option<&RaftEntry>) -> io::Result<()> {
    let path = dir.join(DATABASE);
    let database = Database::create(&path)?;
    database.put_record("identity", &Identity { node_id })?;
    if let Some(first) = first {
        database.put_block(BlockWriter::start(first).map_err(io::Error::other)?)?;
    }
    database.flush()?;
    drop(database);
    for entry in fs::read_dir(&path)? {
        let path = entry?.path();
        File::open(&path)?.sync_all()?;
    }
    let marks = Marks { vote: None, last: first.map(|first| first.log_id()) };
    Sidecar::create(&dir.join(SIDECAR), node_id, marks)?;
    sync_dir(&path)?;
    sync_dir(dir)
}

/// Makes the names in a directory durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    File::open(dir)?.sync_all()
}
