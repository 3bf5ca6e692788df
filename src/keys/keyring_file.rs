//! The keyring file: the data key, wrapped by a key from a file or from a passphrase.

use std::path::Path;

use argon2::Argon2;
use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use serde::{Deserialize, Serialize};
use watchword_core::sealed::Sealed;
use zeroize::Zeroizing;

use super::private_file::{read_private, write_private};
use super::sealing::{KEY_BYTES, SealingKey};
use super::{KeyError, Keyring, Owner};
use crate::config::KeySource;
use crate::random;

/// Its name in the data directory.
pub(super) const KEYRING_FILE: &str = "keyring.json";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyringFile {
    format: u32,
    /// Present when a passphrase wraps the key.
    passphrase_salt: Option<String>,
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
        if let KeySource::File(key_file) = source
            && !key_file.exists()
        {
            let key = Zeroizing::new(random::bytes::<KEY_BYTES>()?);
            let text = Zeroizing::new(HEXLOWER_PERMISSIVE.encode(&*key) + "\n");
            write_private(key_file, text.as_bytes())?;
        }
        let salt = random::bytes::<16>()?;
        let wrapped = wrapping_key(source, &salt)?.seal(Owner::DataKey, data_key)?;
        let file = KeyringFile {
            format: 1,
            passphrase_salt: matches!(source, KeySource::Passphrase(_))
                .then(|| BASE64.encode(&salt)),
            wrapped_data_key: BASE64.encode(wrapped.as_bytes()),
        };
        let text = serde_json::to_string_pretty(&file).map_err(|_| KeyError::Seal)? + "\n";
        write_private(&path, text.as_bytes())?;
        Self::from_bytes(data_key)
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
        let decode = |text: &str| BASE64.decode(text.as_bytes()).map_err(|_| malformed());
        let salt = file.passphrase_salt.as_deref().map(decode).transpose()?.unwrap_or_default();
        let wrapped = Sealed::new(&decode(&file.wrapped_data_key)?);
        let data_key = wrapping_key(source, &salt)?
            .open(Owner::DataKey, wrapped.as_bytes())
            .map_err(|_| KeyError::WrongKey(path))?;
        Self::from_bytes(&data_key)
    }
}

/// The key that wraps the data key.
fn wrapping_key(source: &KeySource, salt: &[u8]) -> Result<SealingKey, KeyError> {
    match source {
        KeySource::File(path) => {
            let text = read_private(path)?;
            let key = HEXLOWER_PERMISSIVE.decode(text.trim_ascii()).map(Zeroizing::new);
            let key = key.ok().and_then(|key| SealingKey::from_bytes(&key));
            key.ok_or_else(|| KeyError::KeyFileMalformed(path.clone()))
        }
        KeySource::Passphrase(path) => {
            let text = read_private(path)?;
            let passphrase = text.trim_ascii_end();
            if passphrase.is_empty() {
                return Err(KeyError::PassphraseEmpty(path.clone()));
            }
            let mut key = Zeroizing::new([0; KEY_BYTES]);
            // Argon2id, version 0x13, 19 MiB, two passes: the library's default, RFC 9106.
            Argon2::default()
                .hash_password_into(passphrase, salt, &mut *key)
                .map_err(|_| KeyError::DoesNotOpen)?;
            SealingKey::from_bytes(&*key).ok_or(KeyError::DoesNotOpen)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

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
}
