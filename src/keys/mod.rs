//! The cluster's data key: seals secrets before they enter the log, and opens them.
//!
//! Log, snapshot, backup and wire hold sealed secrets only. On disk the data key itself is wrapped, by
//! a key from a file or from systemd, by a passphrase, or within a PKCS#11 token; it is in the clear
//! in this process's memory alone.

mod credential;
mod keyring_file;
mod passphrase;
mod pkcs11;
mod private_file;
mod sealing;
mod wrapping;

use std::fmt;
use std::path::PathBuf;

use watchword_core::id::{ClientId, ClusterId, DeviceId, UserId};
use watchword_core::sealed::Sealed;
use zeroize::Zeroizing;

pub use passphrase::PassphraseKey;
pub use pkcs11::Pkcs11Error;
pub use private_file::{read_private, replace_private};
use sealing::{KEY_BYTES, SealingKey};

use crate::random::RandomError;

/// What a sealed secret belongs to. It goes into the key of the seal, so that a sealed secret
/// moved to another record does not open.
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
    /// A part of a backup, by its place in it.
    BackupPart([u8; 16]),
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
            Self::BackupPart(id) => (8, id),
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
    /// The data key is wrapped in another way than the node's file says.
    #[error("the data key is wrapped by {wrapped_by}; [key] in the node's file says {configured}")]
    WrappedOtherwise {
        /// What the keyring says.
        wrapped_by: &'static str,
        /// What the node's file says.
        configured: String,
    },
    /// The file is there already.
    #[error("{0} exists already")]
    Exists(PathBuf),
    /// Nobody hands credentials to this process.
    #[error(
        "[key] systemd_credential: CREDENTIALS_DIRECTORY is not set; run this within a unit that has \
         LoadCredentialEncrypted={0}:FILE"
    )]
    NoCredentials(String),
    /// This process gets credentials, but not this one.
    #[error(
        "[key] systemd_credential: there is no {path}; the unit needs \
         LoadCredentialEncrypted={name}:FILE"
    )]
    CredentialAbsent {
        /// Its name.
        name: String,
        /// Where it should be.
        path: PathBuf,
    },
    /// Everybody may read a credential.
    #[error(
        "[key] systemd_credential: everybody may read {path} (mode {mode:03o}); leave it to \
         LoadCredentialEncrypted= to make it"
    )]
    CredentialExposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A PKCS#11 token does not do what it should.
    #[error(transparent)]
    Pkcs11(#[from] Pkcs11Error),
}

/// The cluster's data key.
pub struct Keyring {
    key: SealingKey,
    bytes: Zeroizing<[u8; KEY_BYTES]>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keyring(..)")
    }
}

impl Keyring {
    /// Seals `secret` for `owner`.
    ///
    /// # Errors
    /// When no random bytes can be drawn.
    pub fn seal(&self, owner: Owner, secret: &[u8]) -> Result<Sealed, KeyError> {
        self.key.seal(owner, secret)
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
        self.key.open(owner, sealed)
    }

    /// The data key itself, for a node that was admitted. It must leave this process only through
    /// a connection between nodes.
    pub fn export(&self) -> &[u8] {
        &*self.bytes
    }

    fn from_bytes(key: &[u8]) -> Result<Self, KeyError> {
        let bytes = Zeroizing::new(key.try_into().map_err(|_| KeyError::DoesNotOpen)?);
        let key = SealingKey::from_bytes(key).ok_or(KeyError::DoesNotOpen)?;
        Ok(Self { key, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn debug_shows_no_key() {
        let keys = Keyring::from_bytes(&[7; 32]).expect("key");
        assert_eq!(format!("{keys:?}"), "Keyring(..)");
    }
}
