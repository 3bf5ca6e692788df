//! Files that only their owner may read.

use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use zeroize::Zeroizing;

use super::KeyError;

/// Reads a file that nobody but its owner may be able to read.
///
/// # Errors
/// When it cannot be read or others may read it.
pub fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let failed = |source| KeyError::File { path: path.to_owned(), source };
    let mode = std::fs::metadata(path).map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Exposed { path: path.to_owned(), mode });
    }
    std::fs::read(path).map(Zeroizing::new).map_err(failed)
}

/// Writes a file that only its owner may read in the place of the one before, durably: whoever
/// reads finds the old or the new one.
///
/// # Errors
/// When it cannot be written; then the old one stands.
pub fn replace_private(path: &Path, bytes: &[u8]) -> Result<(), KeyError> {
    let new = path.with_added_extension("new");
    let failed = |source| KeyError::File { path: path.to_owned(), source };
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    write_private(&new, bytes)?;
    std::fs::rename(&new, path).map_err(failed)?;
    sync_parent(path).map_err(failed)
}

/// Removes a file that [`replace_private`] wrote, and what one that was cut off has left, durably.
/// That there is none is no error.
///
/// # Errors
/// When it is there and cannot be removed.
pub fn remove_private(path: &Path) -> Result<(), KeyError> {
    let failed = |source| KeyError::File { path: path.to_owned(), source };
    let mut was_there = false;
    for path in [path, &path.with_added_extension("new")] {
        match std::fs::remove_file(path) {
            Ok(()) => was_there = true,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
    }
    if was_there { sync_parent(path).map_err(failed) } else { Ok(()) }
}

fn sync_parent(path: &Path) -> std::io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    std::fs::File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

/// Writes a new file that only its owner may read, durably.
///
/// # Errors
/// When it cannot be written, or is there already.
pub(super) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), KeyError> {
    let write = || {
        let mut file =
            std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        sync_parent(path)
    };
    write().map_err(|source| KeyError::File { path: path.to_owned(), source })
}
