//! The cluster's data key: seals secrets before they enter the log, and opens them.
//!
//! Log, snapshot, backup and wire hold sealed secrets only. On disk the data key itself is wrapped by
//! a key from a file or from a passphrase; it is in the clear in this process's memory alone.

use std::fmt;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use argon2::Argon2;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use serde::{Deserialize, Serialize};
use watchword_core::id::{ClientId, ClusterId, DeviceId, UserId};
use watchword_core::sealed::Sealed;
use zeroize::Zeroizing;

use crate::config::KeySource;
use crate::random::{self, RandomError};

/// Name of the file in the data directory that holds the wrapped data key.
const KEYRING_FILE: &str = "keyring.json";
const KEY_BYTES: usize = 32;
/// First byte of every sealed secret: AES-256-GCM, random nonce.
const SEALED_FORMAT: u8 = 1;

/// What a sealed secret belongs to. It is authenticated along with the secret, so that a sealed
/// secret moved to another record does not open.
#[derive(Clone, Copy, Debug)]
pub enum Owner {
    /// The password hash of a user.
    UserPassword(UserId),
    /// The key of a device.
    DeviceKey(DeviceId),
    /// The shared secret of a client.
    ClientSecret(ClientId),
    /// A challenge issued to a client.
    Challenge(ClientId),
    /// The data key itself, under the wrapping key.
    DataKey,
    /// The private key of a cluster's authority.
    AuthorityKey(ClusterId),
    /// The private key of a node's certificate.
    NodeKey(ClusterId),
}

impl Owner {
    fn additional_data(self) -> [u8; 17] {
        let (kind, id) = match self {
            Self::UserPassword(UserId(id)) => (1, id),
            Self::DeviceKey(DeviceId(id)) => (2, id),
            Self::ClientSecret(ClientId(id)) => (3, id),
            Self::Challenge(ClientId(id)) => (4, id),
            Self::DataKey => (5, [0; 16]),
            Self::AuthorityKey(ClusterId(id)) => (6, id),
            Self::NodeKey(ClusterId(id)) => (7, id),
        };
        let mut data = [kind; 17];
        if let Some((_, rest)) = data.split_first_mut() {
            rest.copy_from_slice(&id);
        }
        data
    }
}

/// Why a key could not be made, read or used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The random number generator failed.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The ciphertext is damaged, under another key, or another record's.
    #[error("a sealed secret does not open: damaged, or sealed under another key")]
    DoesNotOpen,
    /// Sealing failed.
    #[error("a secret could not be sealed")]
    Seal,
    /// A file could not be read or written.
    #[error("cannot access {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Others than the owner may read a key file.
    #[error("{path} is readable by others (mode {mode:03o}); run: chmod 600 {path}")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A key file does not hold a key.
    #[error("{0} does not hold 64 hexadecimal digits")]
    KeyFileMalformed(PathBuf),
    /// A passphrase file is empty.
    #[error("{0} holds no passphrase")]
    PassphraseEmpty(PathBuf),
    /// The keyring file is not one.
    #[error("{0} is damaged or from a newer release")]
    KeyringMalformed(PathBuf),
    /// The wrapped data key does not open.
    #[error("{0} does not open with the configured key or passphrase")]
    WrongKey(PathBuf),
    /// The file is there already.
    #[error("{0} exists already")]
    Exists(PathBuf),
}

/// The cluster's data key.
pub struct Keyring {
    key: LessSafeKey,
    bytes: Zeroizing<[u8; KEY_BYTES]>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keyring(..)")
    }
}

/// The keyring file.
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
            .open(Owner::DataKey, &wrapped)
            .map_err(|_| KeyError::WrongKey(path))?;
        Self::from_bytes(&data_key)
    }

    /// Seals `secret` for `owner`: a format byte, a random 96-bit nonce, the ciphertext and a
    /// 128-bit tag, so 29 bytes more than the secret.
    ///
    /// # Errors
    /// When no nonce can be drawn.
    pub fn seal(&self, owner: Owner, secret: &[u8]) -> Result<Sealed, KeyError> {
        let nonce = random::bytes::<NONCE_LEN>()?;
        let mut bytes = Vec::with_capacity(1 + NONCE_LEN + secret.len() + AES_256_GCM.tag_len());
        bytes.push(SEALED_FORMAT);
        bytes.extend_from_slice(&nonce);
        let mut text = secret.to_vec();
        let additional_data = Aad::from(owner.additional_data());
        self.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                additional_data,
                &mut text,
            )
            .map_err(|_| KeyError::Seal)?;
        bytes.append(&mut text);
        Ok(Sealed::new(&bytes))
    }

    /// Opens what was sealed for `owner`.
    ///
    /// # Errors
    /// [`KeyError::DoesNotOpen`].
    pub fn open(&self, owner: Owner, sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        self.open_bytes(owner, sealed.as_bytes())
    }

    /// Opens bytes that claim to be sealed for `owner`; they may come from anywhere.
    ///
    /// # Errors
    /// [`KeyError::DoesNotOpen`].
    pub fn open_bytes(&self, owner: Owner, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let (&format, rest) = sealed.split_first().ok_or(KeyError::DoesNotOpen)?;
        let (nonce, text) = rest.split_first_chunk::<NONCE_LEN>().ok_or(KeyError::DoesNotOpen)?;
        if format != SEALED_FORMAT {
            return Err(KeyError::DoesNotOpen);
        }
        let mut text = Zeroizing::new(text.to_vec());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let additional_data = Aad::from(owner.additional_data());
        let length = self
            .key
            .open_in_place(nonce, additional_data, &mut text)
            .map_err(|_| KeyError::DoesNotOpen)?
            .len();
        text.truncate(length);
        Ok(text)
    }

    /// The data key itself, for a node that was admitted. It must leave this process only through
    /// a connection between nodes.
    pub fn export(&self) -> &[u8] {
        &*self.bytes
    }

    fn from_bytes(key: &[u8]) -> Result<Self, KeyError> {
        let bytes = Zeroizing::new(key.try_into().map_err(|_| KeyError::DoesNotOpen)?);
        let key = UnboundKey::new(&AES_256_GCM, key).map_err(|_| KeyError::DoesNotOpen)?;
        Ok(Self { key: LessSafeKey::new(key), bytes })
    }
}

/// The key that wraps the data key.
fn wrapping_key(source: &KeySource, salt: &[u8]) -> Result<Keyring, KeyError> {
    match source {
        KeySource::File(path) => {
            let text = read_private(path)?;
            let digits = text.trim_ascii();
            let key = HEXLOWER_PERMISSIVE.decode(digits).map(Zeroizing::new);
            match key {
                Ok(key) if key.len() == KEY_BYTES => Keyring::from_bytes(&key),
                _ => Err(KeyError::KeyFileMalformed(path.clone())),
            }
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
            Keyring::from_bytes(&*key)
        }
    }
}

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
    let new = path.with_extension("new");
    let failed = |source| KeyError::File { path: path.to_owned(), source };
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    write_private(&new, bytes)?;
    std::fs::rename(&new, path).map_err(failed)?;
    sync_parent(path).map_err(failed)
}

fn sync_parent(path: &Path) -> std::io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    std::fs::File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

/// Writes a new file that only its owner may read, durably.
fn write_private(path: &Path, bytes: &[u8]) -> Result<(), KeyError> {
    let write = || {
        let mut file =
            std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        sync_parent(path)
    };
    write().map_err(|source| KeyError::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().expect("temporary directory")
    }

    #[test]
    fn a_secret_opens_only_for_its_owner_and_undamaged() {
        let keys = Keyring::from_bytes(&[7; 32]).expect("key");
        let owner = Owner::DeviceKey(DeviceId([1; 16]));
        let sealed = keys.seal(owner, b"secret").expect("seals");
        assert_eq!(**keys.open(owner, &sealed).expect("opens"), *b"secret");
        for other in [
            Owner::DeviceKey(DeviceId([2; 16])),
            Owner::UserPassword(UserId([1; 16])),
            Owner::ClientSecret(ClientId([1; 16])),
        ] {
            assert!(keys.open(other, &sealed).is_err(), "{other:?}");
        }
        for position in 0..sealed.as_bytes().len() {
            let mut damaged = sealed.as_bytes().to_vec();
            damaged[position] ^= 1;
            assert!(keys.open_bytes(owner, &damaged).is_err(), "byte {position}");
        }
        for length in 0..sealed.as_bytes().len() {
            assert!(keys.open_bytes(owner, &sealed.as_bytes()[..length]).is_err());
        }
    }

    #[test]
    fn the_same_secret_is_sealed_differently_each_time() {
        let keys = Keyring::from_bytes(&[7; 32]).expect("key");
        let seal = || keys.seal(Owner::DataKey, b"secret").expect("seals");
        assert_ne!(seal(), seal());
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
    fn debug_shows_no_key() {
        let keys = Keyring::from_bytes(&[7; 32]).expect("key");
        assert_eq!(format!("{keys:?}"), "Keyring(..)");
    }
}
