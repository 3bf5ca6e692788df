//! From the files to a store that is known to be whole.

use std::fs::File;
use std::path::Path;

use super::create::sync_dir;
use super::database::{self, Database};
use super::error::damaged;
use super::{DATABASE, Identity, OpenError, SIDECAR, STORE, Storage, check, lock, removed_marker};
use crate::contain::contain;
use crate::medium::Recovered;
use crate::probe::Probe;
use crate::runtime::NodeId;
use crate::sidecar::{Marks, Sidecar, SidecarError};

/// Opens the store and checks every record in it.
pub(crate) fn open(
    data_dir: &Path,
    node_id: Option<NodeId>,
) -> Result<(Storage, Recovered), OpenError> {
    let dir = data_dir.join(STORE);
    let failed = |source| OpenError::Io { dir: dir.clone(), source };
    if !dir.try_exists().map_err(failed)? {
        return Err(OpenError::Missing(dir));
    }
    let lock = lock(data_dir)?;
    if removed_marker(data_dir).try_exists().map_err(failed)? {
        return Err(OpenError::Removed);
    }
    // sled would quietly make a new database where it finds none.
    let file = dir.join(DATABASE).join(database::FILE);
    if !file.try_exists().map_err(failed)? {
        return Err(damaged("the database", "its file is missing"));
    }
    contain(|| open_checked(&dir, node_id, lock))
        .unwrap_or_else(|panic| Err(damaged("the database", panic)))
}

fn open_checked(
    dir: &Path,
    node_id: Option<NodeId>,
    lock: File,
) -> Result<(Storage, Recovered), OpenError> {
    let failed = |source| OpenError::Io { dir: dir.to_owned(), source };
    let path = dir.join(DATABASE);
    // `raft.lock` keeps other processes away: whoever still holds sled's own lock is a worker of a
    // database that this process has just closed, and lets go in a moment.
    let file = File::open(path.join(database::FILE)).map_err(failed)?;
    file.lock().map_err(failed)?;
    file.unlock().map_err(failed)?;
    // A process that was killed may have left what only the kernel holds. From here on it counts as
    // durable: the node answers for it, and the database notes that it is there.
    file.sync_all().map_err(failed)?;
    let database = Database::open(&path, failed)?;
    // The note of what is there takes an older one's place by its name. The older one tells of what may soon be
    // overwritten, so the names must be durable before anything is written.
    sync_dir(&path).map_err(failed)?;
    let identity: Identity = database
        .read_record("identity")?
        .ok_or_else(|| damaged("record \"identity\"", "missing"))?;
    let expected = node_id.unwrap_or(identity.node_id);
    if identity.node_id != expected {
        return Err(OpenError::WrongNode { found: identity.node_id, expected });
    }
    let sidecar = Sidecar::open(&dir.join(SIDECAR), expected).map_err(|error| match error {
        SidecarError::Io(source) => failed(source),
        other => damaged("the sidecar", other),
    })?;
    let mut recovered = Recovered {
        vote: database.read_record("vote")?,
        purged: database.read_record("purged")?,
        committed: database.read_record("committed")?,
        snapshot: database.read_record("snapshot")?,
        ..Recovered::default()
    };
    check::scan_log(&database, &mut recovered)?;
    check::scan_snapshot(&database, &recovered)?;
    let marks = Marks { vote: recovered.vote, last: recovered.last };
    check::check_age(marks, sidecar.marks())?;

    let storage = Storage {
        database,
        file,
        sidecar,
        marks,
        purged: recovered.purged,
        committed: recovered.committed,
        filling: None,
        probe: Probe::none(),
        _lock: lock,
    };
    Ok((storage, recovered))
}
