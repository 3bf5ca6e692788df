//! Credentials that systemd hands to a unit (`LoadCredential=`, `LoadCredentialEncrypted=`).
//!
//! They lie in a directory of the unit's own, which `CREDENTIALS_DIRECTORY` names. It is in memory,
//! and systemd decides who may enter it. What is checked here is that not everybody may read the
//! file. The bits of its group are not looked at, as they are with a key file: systemd gives a unit
//! with `User=` access by an access list, whose mask shows there (mode 0440, owner and group root).

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::KeyError;

/// Where the credential `name` lies, and what it holds.
///
/// # Errors
/// When this process gets no credentials, not this one, or when everybody may read it.
pub(super) fn read_credential(name: &str) -> Result<(PathBuf, Zeroizing<Vec<u8>>), KeyError> {
    match std::env::var_os("CREDENTIALS_DIRECTORY").filter(|path| !path.is_empty()) {
        Some(directory) => read_in(Path::new(&directory), name),
        None => Err(KeyError::NoCredentials(name.to_owned())),
    }
}

fn read_in(directory: &Path, name: &str) -> Result<(PathBuf, Zeroizing<Vec<u8>>), KeyError> {
    let path = directory.join(name);
    let failed = |source: std::io::Error| match source.kind() {
        ErrorKind::NotFound => {
            KeyError::CredentialAbsent { name: name.to_owned(), path: path.clone() }
        }
        _ => KeyError::File { path: path.clone(), source },
    };
    let mode = std::fs::metadata(&path).map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o007 != 0 {
        return Err(KeyError::CredentialExposed { path, mode });
    }
    let text = std::fs::read(&path).map(Zeroizing::new).map_err(failed)?;
    Ok((path, text))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};

    use super::*;

    #[test]
    fn a_credential_is_read_as_systemd_leaves_it_and_not_when_everybody_may() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("data-key");
        fs::write(&path, "digits").expect("writes");
        for mode in [0o400, 0o440, 0o600] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).expect("chmod");
            let (found, text) = read_in(dir.path(), "data-key").expect("reads");
            assert_eq!((found, &**text), (path.clone(), &b"digits"[..]));
        }
        fs::set_permissions(&path, Permissions::from_mode(0o444)).expect("chmod");
        let exposed = read_in(dir.path(), "data-key");
        assert!(matches!(exposed, Err(KeyError::CredentialExposed { mode: 0o444, .. })));
    }

    #[test]
    fn an_absent_credential_is_told_from_one_that_cannot_be_read() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let error = read_in(dir.path(), "data-key").expect_err("absent").to_string();
        assert!(error.contains("systemd_credential"), "{error}");
        assert!(error.contains("LoadCredentialEncrypted=data-key:"), "{error}");
        let error = read_in(dir.path().parent().expect("one"), &dir_name(dir.path()));
        assert!(error.is_err(), "a directory is no credential");
    }

    fn dir_name(path: &Path) -> String {
        path.file_name().expect("a name").to_string_lossy().into_owned()
    }
}
