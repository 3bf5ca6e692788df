//! The keyring file: the data keys, wrapped in the way that the node's file names.

use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::data_key::{DataKey, DataKeys};
use super::private_file::{read_private, replace_private};
use super::sealing::KEY_BYTES;
use super::wrapping::{WrappedBy, unwrap, wrap};
use super::{KeyError, Keyring};
use crate::config::KeySource;
use crate::random;

/// Its name in the data directory.
const KEYRING_FILE: &str = "keyring.json";

/// Where the file is, and what wraps what is in it.
pub(super) struct KeyringFile {
    path: PathBuf,
    source: KeySource,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    format: u32,
    wrapped_by: WrappedBy,
    /// All keys as one, so that it can never hold a part of them.
    wrapped_data_keys: String,
}

impl KeyringFile {
    /// Puts `keys` in the place of what it holds, durably: a crash leaves the one or the other.
    pub(super) fn replace(&self, keys: &DataKeys) -> Result<(), KeyError> {
        replace_private(&self.path, &self.content(keys)?)
    }

    /// Makes a missing key file: only where nothing is wrapped by it yet. Later, one that is missing
    /// is one that is not mounted.
    fn make_key_file(&self) -> Result<(), KeyError> {
        let KeySource::File(key_file) = &self.source else { return Ok(()) };
        if key_file.exists() {
            return Ok(());
        }
        let key = Zeroizing::new(random::bytes::<KEY_BYTES>()?);
        let text = Zeroizing::new(HEXLOWER_PERMISSIVE.encode(&*key) + "\n");
        replace_private(key_file, text.as_bytes())
    }

    /// What it has to hold.
    fn content(&self, keys: &DataKeys) -> Result<Vec<u8>, KeyError> {
        let (wrapped_by, wrapped) = wrap(&self.source, &keys.encode())?;
        let content = Content { format: 1, wrapped_by, wrapped_data_keys: BASE64.encode(&wrapped) };
        Ok((serde_json::to_string_pretty(&content).map_err(|_| KeyError::Seal)? + "\n")
            .into_bytes())
    }
}

impl Keyring {
    /// Whether there is one in `data_dir`.
    pub fn exists(data_dir: &Path) -> bool {
        data_dir.join(KEYRING_FILE).exists()
    }

    /// Makes a first data key, wraps it by `source` and writes it to `data_dir`. A missing key file
    /// is made too.
    ///
    /// # Errors
    /// When there is a keyring already, or a file cannot be read or written.
    pub fn create(data_dir: &Path, source: &KeySource) -> Result<Self, KeyError> {
        Self::write(data_dir, source, DataKeys::only(DataKey::generate(0)?))
    }

    /// Like [`Keyring::create`], with the data keys of a cluster that this node was admitted to, or
    /// of a backup, as [`Keyring::export`] gave them.
    ///
    /// # Errors
    /// As [`Keyring::create`]; also when they are no keys.
    pub fn adopt(data_dir: &Path, source: &KeySource, exported: &[u8]) -> Result<Self, KeyError> {
        Self::write(data_dir, source, DataKeys::decode(exported)?)
    }

    fn write(data_dir: &Path, source: &KeySource, keys: DataKeys) -> Result<Self, KeyError> {
        let path = data_dir.join(KEYRING_FILE);
        if path.exists() {
            return Err(KeyError::Exists(path));
        }
        let file = KeyringFile { path, source: source.clone() };
        file.make_key_file()?;
        file.replace(&keys)?;
        Ok(Self::new(keys, file))
    }

    /// Wraps the data keys by `source` from now on, whatever wrapped them before, and replaces the
    /// file durably. A missing key file is made. What wrapped them before still opens old copies of
    /// the keyring.
    ///
    /// # Errors
    /// When `source` cannot be used or the keyring cannot be written; then the old one stands.
    pub fn rewrap(&self, source: &KeySource) -> Result<(), KeyError> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let new = KeyringFile { path: file.path.clone(), source: source.clone() };
        new.make_key_file()?;
        new.replace(&self.held.load().keys)?;
        *file = new;
        Ok(())
    }

    /// Reads and unwraps the data keys.
    ///
    /// # Errors
    /// When a file cannot be read, is exposed or malformed, or the key is another one.
    pub fn load(data_dir: &Path, source: &KeySource) -> Result<Self, KeyError> {
        let path = data_dir.join(KEYRING_FILE);
        let malformed = || KeyError::KeyringMalformed(path.clone());
        let text = read_private(&path)?;
        let content: Content = serde_json::from_slice(&text).map_err(|_| malformed())?;
        if content.format != 1 {
            return Err(malformed());
        }
        let wrapped = BASE64.decode(content.wrapped_data_keys.as_bytes());
        let wrapped = wrapped.map_err(|_| malformed())?;
        let keys = match unwrap(source, &content.wrapped_by, &wrapped) {
            Ok(keys) => DataKeys::decode(&keys).map_err(|_| malformed())?,
            Err(KeyError::DoesNotOpen) => return Err(KeyError::WrongKey(path)),
            Err(error) => return Err(error),
        };
        Ok(Self::new(keys, KeyringFile { path, source: source.clone() }))
    }

    /// Tries whether `source` can wrap a data key, without keeping anything.
    ///
    /// # Errors
    /// As [`Keyring::create`].
    pub fn try_source(source: &KeySource) -> Result<(), KeyError> {
        wrap(source, &*Zeroizing::new(random::bytes::<KEY_BYTES>()?)).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;

    use super::*;
    use crate::keys::Owner;
    use crate::keys::private_file::write_private;

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
            keys.rewrap(new).expect("wraps");
            let again = Keyring::load(dir.path(), new).expect("opens");
            assert_eq!(again.current().as_bytes(), keys.current().as_bytes());
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
        assert!(matches!(keys.rewrap(&absent), Err(KeyError::File { .. })));
        assert!(matches!(Keyring::try_source(&absent), Err(KeyError::File { .. })));
        assert_eq!(std::fs::read(dir.path().join(KEYRING_FILE)).expect("it is there"), before);
        Keyring::try_source(&source).expect("it can be used");
    }

    #[test]
    fn what_wraps_the_keyring_is_not_made_anew_when_it_is_missing_later() {
        let dir = directory();
        let key_file = dir.path().join("key");
        let source = KeySource::File(key_file.clone());
        let keys = Keyring::create(dir.path(), &source).expect("creates");
        let text = std::fs::read(&key_file).expect("it is there");
        std::fs::remove_file(&key_file).expect("removes");
        let next = || DataKey::generate(1).expect("a key");
        assert!(matches!(keys.hold(next()), Err(KeyError::File { .. })));
        assert!(!key_file.exists() && keys.ids().len() == 1);
        write_private(&key_file, &text).expect("writes");
        keys.hold(next()).expect("written");
        assert_eq!(Keyring::load(dir.path(), &source).expect("opens").ids().len(), 2);
    }

    #[test]
    fn a_keyring_that_was_changed_anywhere_opens_to_the_same_keys_or_not_at_all() {
        let dir = directory();
        let source = KeySource::File(dir.path().join("key"));
        let ids = Keyring::create(dir.path(), &source).expect("creates").ids();
        let path = dir.path().join(KEYRING_FILE);
        let whole = std::fs::read(&path).expect("it is there");
        proptest!(|(
            bytes in prop::collection::vec(any::<u8>(), 0..50),
            at in any::<prop::sample::Index>(),
            replaced in 0..50_usize,
        )| {
            let at = at.index(whole.len() + 1);
            let behind = (at + replaced).min(whole.len());
            let changed = [&whole[..at], &bytes, &whole[behind..]].concat();
            for text in [bytes, changed] {
                std::fs::write(&path, &text).expect("writes");
                match Keyring::load(dir.path(), &source) {
                    Ok(keys) => prop_assert_eq!(keys.ids(), ids.clone()),
                    Err(KeyError::KeyringMalformed(_) | KeyError::WrongKey(_)) => {}
                    Err(error) => prop_assert!(false, "{}", error),
                }
            }
        });
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
        for key in [&keys.current().as_bytes()[..], &wrapping] {
            assert!(!file.contains(&BASE64.encode(key)), "{file}");
            assert!(!file.contains(&HEXLOWER_PERMISSIVE.encode(key)), "{file}");
        }
    }
}
