//! The keyring file: the data key, wrapped in the way that the node's file names.

use std::path::Path;

use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::private_file::{read_private, replace_private, write_private};
use super::sealing::KEY_BYTES;
use super::wrapping::{WrappedBy, unwrap, wrap};
use super::{KeyError, Keyring};
use crate::config::KeySource;
use crate::random;

/// Its name in the data directory.
pub(super) const KEYRING_FILE: &str = "keyring.json";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyringFile {
    format: u32,
    wrapped_by: WrappedBy,
    wrapped_data_key: String,
}

impl Keyring {
    /// Whether there is one in `data_dir`.
    pub fn exists(data_dir: &Path) -> bool {
        data_dir.join(KEYRING_FILE).exists()
    }

    /// Makes a new data key, wraps it by `source` and writes it to `data_dir`. A missing key file is
    /// made too.
    ///
    /// # Errors
    /// When there is a keyring already, or a file cannot be read or written.
    pub fn create(data_dir: &Path, source: &KeySource) -> Result<Self, KeyError> {
        Self::adopt(data_dir, source, &*Zeroizing::new(random::bytes::<KEY_BYTES>()?))
    }

    /// Like [`Keyring::create`], with the data key of a cluster that this node was admitted to.
    ///
    /// # Errors
    /// As [`Keyring::create`]; also when the key has not 32 bytes.
    pub fn adopt(data_dir: &Path, source: &KeySource, data_key: &[u8]) -> Result<Self, KeyError> {
        let path = data_dir.join(KEYRING_FILE);
        if path.exists() {
            return Err(KeyError::Exists(path));
        }
        write_private(&path, &wrapped_file(source, data_key)?)?;
        Self::from_bytes(data_key)
    }

    /// Wraps the data key by `source` from now on, whatever wrapped it before, and replaces the
    /// keyring in `data_dir` durably. A missing key file is made. What wrapped it before still opens
    /// old copies of the keyring.
    ///
    /// # Errors
    /// When `source` cannot be used or the keyring cannot be written; then the old one stands.
    pub fn rewrap(&self, data_dir: &Path, source: &KeySource) -> Result<(), KeyError> {
        let file = wrapped_file(source, self.export())?;
        replace_private(&data_dir.join(KEYRING_FILE), &file)
    }

    /// Reads and unwraps the data key.
    ///
    /// # Errors
    /// When a file cannot be read, is exposed or malformed, or the key is another one.
    pub fn load(data_dir: &Path, source: &KeySource) -> Result<Self, KeyError> {
        let path = data_dir.join(KEYRING_FILE);
        let malformed = || KeyError::KeyringMalformed(path.clone());
        let text = read_private(&path)?;
        let file: KeyringFile = serde_json::from_slice(&text).map_err(|_| malformed())?;
        if file.format != 1 {
            return Err(malformed());
        }
        let wrapped = BASE64.decode(file.wrapped_data_key.as_bytes()).map_err(|_| malformed())?;
        match unwrap(source, &file.wrapped_by, &wrapped) {
            Ok(data_key) => Self::from_bytes(&data_key),
            Err(KeyError::DoesNotOpen) => Err(KeyError::WrongKey(path)),
            Err(error) => Err(error),
        }
    }

    /// Tries whether `source` can wrap a data key, without keeping anything.
    ///
    /// # Errors
    /// As [`Keyring::create`].
    pub fn try_source(source: &KeySource) -> Result<(), KeyError> {
        wrap(source, &*Zeroizing::new(random::bytes::<KEY_BYTES>()?)).map(drop)
    }
}

/// The keyring file of `data_key`. Makes a missing key file.
fn wrapped_file(source: &KeySource, data_key: &[u8]) -> Result<Vec<u8>, KeyError> {
    if let KeySource::File(key_file) = source
        && !key_file.exists()
    {
        let key = Zeroizing::new(random::bytes::<KEY_BYTES>()?);
        let text = Zeroizing::new(HEXLOWER_PERMISSIVE.encode(&*key) + "\n");
        write_private(key_file, text.as_bytes())?;
    }
    let (wrapped_by, wrapped) = wrap(source, data_key)?;
    let file = KeyringFile { format: 1, wrapped_by, wrapped_data_key: BASE64.encode(&wrapped) };
    Ok((serde_json::to_string_pretty(&file).map_err(|_| KeyError::Seal)? + "\n").into_bytes())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::keys::Owner;

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().expect("temporary directory")
    }

    #[test]
    fn a_keyring_opens_again_by_key_file_and_by_passphrase() {
        let dir = directory();
        let passphrase = dir.path().join("passphrase");
        write_private(&passphrase, b"correct horse\n").expect("writes");
        for source in [KeySource::File(dir.path().join("key")), KeySource::Passphrase(passphrase)] {
            let keys = Keyring::create(dir.path(), &source).expect("creates");
            let sealed = keys.seal(Owner::DataKey, b"x").expect("seals");
            let again = Keyring::load(dir.path(), &source).expect("opens");
            assert_eq!(**again.open(Owner::DataKey, &sealed).expect("opens"), *b"x");
            assert!(matches!(Keyring::create(dir.path(), &source), Err(KeyError::Exists(_))));
            std::fs::remove_file(dir.path().join(KEYRING_FILE)).expect("removes");
        }
    }

    #[test]
    fn another_key_an_exposed_file_and_a_damaged_keyring_are_refused() {
        let dir = directory();
        let key_file = dir.path().join("key");
        let source = KeySource::File(key_file.clone());
        Keyring::create(dir.path(), &source).expect("creates");

        let other = dir.path().join("other");
        write_private(&other, &[b'0'; 64]).expect("writes");
        let opened = Keyring::load(dir.path(), &KeySource::File(other));
        assert!(matches!(opened, Err(KeyError::WrongKey(_))));

        let open_to_all = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(&key_file, open_to_all).expect("chmod");
        let exposed = Keyring::load(dir.path(), &source);
        assert!(matches!(exposed, Err(KeyError::Exposed { mode: 0o644, .. })));

        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&key_file, private).expect("chmod");
        std::fs::write(dir.path().join(KEYRING_FILE), "{}").expect("writes");
        let damaged = Keyring::load(dir.path(), &source);
        assert!(matches!(damaged, Err(KeyError::KeyringMalformed(_))));
    }

    #[test]
    fn a_keyring_wrapped_anew_opens_by_the_new_way_alone_and_holds_the_same_key() {
        let dir = directory();
        let passphrase = dir.path().join("passphrase");
        write_private(&passphrase, b"correct horse\n").expect("writes");
        let passphrase = KeySource::Passphrase(passphrase);
        let [first, second] = ["key", "new-key"].map(|name| KeySource::File(dir.path().join(name)));
        let keys = Keyring::create(dir.path(), &first).expect("creates");
        for (old, new) in [(&first, &passphrase), (&passphrase, &second), (&second, &first)] {
            keys.rewrap(dir.path(), new).expect("wraps");
            let again = Keyring::load(dir.path(), new).expect("opens");
            assert_eq!(again.export(), keys.export());
            let error = Keyring::load(dir.path(), old).expect_err("the old way is over");
            let same_kind = matches!((old, new), (KeySource::File(_), KeySource::File(_)));
            let expected = match error {
                KeyError::WrongKey(_) => same_kind,
                KeyError::WrappedOtherwise { .. } => !same_kind,
                _ => false,
            };
            assert!(expected, "{error}");
        }
        let mode = std::fs::metadata(dir.path().join(KEYRING_FILE)).expect("it is there");
        assert_eq!(mode.permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_way_that_cannot_be_used_leaves_the_keyring_as_it_was() {
        let dir = directory();
        let source = KeySource::File(dir.path().join("key"));
        let keys = Keyring::create(dir.path(), &source).expect("creates");
        let before = std::fs::read(dir.path().join(KEYRING_FILE)).expect("it is there");
        let absent = KeySource::Passphrase(dir.path().join("absent"));
        assert!(matches!(keys.rewrap(dir.path(), &absent), Err(KeyError::File { .. })));
        assert!(matches!(Keyring::try_source(&absent), Err(KeyError::File { .. })));
        assert_eq!(std::fs::read(dir.path().join(KEYRING_FILE)).expect("it is there"), before);
        Keyring::try_source(&source).expect("it can be used");
    }

    #[test]
    fn neither_key_is_in_the_keyring_file() {
        let dir = directory();
        let key_file = dir.path().join("key");
        let keys =
            Keyring::create(dir.path(), &KeySource::File(key_file.clone())).expect("creates");
        let file = std::fs::read_to_string(dir.path().join(KEYRING_FILE)).expect("it is there");
        let wrapping = std::fs::read_to_string(key_file).expect("it is there");
        let wrapping = HEXLOWER_PERMISSIVE.decode(wrapping.trim().as_bytes()).expect("digits");
        for key in [keys.export(), &wrapping] {
            assert!(!file.contains(&BASE64.encode(key)), "{file}");
            assert!(!file.contains(&HEXLOWER_PERMISSIVE.encode(key)), "{file}");
        }
    }
}
