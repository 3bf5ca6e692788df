//! The cluster's data key: seals secrets before they enter the log, and opens them.
//!
//! Log, snapshot, backup and wire hold sealed secrets only. On disk the data key itself is wrapped, by
//! a key from a file or from systemd, by a passphrase, or within a PKCS#11 token; it is in the clear
//! in this process's memory alone. While it is replaced there are two, and each seal tells which it is
//! under.

mod credential;
mod data_key;
mod keyring_file;
mod passphrase;
mod pkcs11;
mod private_file;
mod sealing;
mod wrapping;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use watchword_core::data_key::DataKeys as InForce;
use watchword_core::id::{ClientId, ClusterId, DeviceId, DirectoryId, RequestId, UserId};
use watchword_core::sealed::{KeyId, Sealed};
use zeroize::Zeroizing;

pub use data_key::DataKey;
use data_key::{DataKeys, KEYS_MAX};
use keyring_file::KeyringFile;
pub use passphrase::PassphraseKey;
pub use pkcs11::Pkcs11Error;
pub use private_file::{read_private, remove_private, replace_private};

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
    /// What a directory is asked with.
    DirectorySecret(DirectoryId),
    /// What is to be said to a request along with the verdict.
    Reply(RequestId),
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
            Self::DirectorySecret(DirectoryId(id)) => (9, id),
            Self::Reply(RequestId(id)) => (10, id),
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
    /// Something that should be a data key is none.
    #[error("these bytes are no data key")]
    DataKeyMalformed,
    /// The cluster has gone over to a key that this node was never handed.
    #[error("this node does not hold the data key {0} that the cluster uses")]
    NotHeld(KeyId),
    /// Two keys with one id could not be told apart.
    #[error("another data key has the id {0} already; try again")]
    KeyIdTaken(KeyId),
    /// Too many attempts to replace the data key were cut off.
    #[error("{KEYS_MAX} data keys are held already")]
    TooManyKeys,
    /// The keyring file is not one.
    #[error("{0} is damaged or from a newer release")]
    KeyringMalformed(PathBuf),
    /// The wrapped data key does not open.
    #[error("{0} does not open with the configured key or passphrase")]
    WrongKey(PathBuf),
    /// The data key is wrapped in another way than the node's file says.
    #[error(
        "the data key is wrapped by {wrapped_by}; [key] in the node's file says {configured}; after a \
         change of it, run: watchword rekey --wrap --old-config FILE"
    )]
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

/// The data keys that this node holds.
pub struct Keyring {
    held: ArcSwap<Held>,
    /// The file that holds them, wrapped. Locked by whoever changes what is held.
    file: Mutex<KeyringFile>,
}

#[derive(Clone)]
struct Held {
    /// What the file holds.
    keys: DataKeys,
    /// What it holds no more: what was sealed for a moment, a challenge, still opens until this
    /// process ends.
    retired: Vec<Arc<DataKey>>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keyring(..)")
    }
}

impl Keyring {
    fn new(keys: DataKeys, file: KeyringFile) -> Self {
        let held = Held { keys, retired: Vec::new() };
        Self { held: ArcSwap::from_pointee(held), file: Mutex::new(file) }
    }

    /// Seals `secret` for `owner` under the current key.
    ///
    /// # Errors
    /// When no random bytes can be drawn.
    pub fn seal(&self, owner: Owner, secret: &[u8]) -> Result<Sealed, KeyError> {
        self.held.load().keys.current.sealing.seal(owner, secret)
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
        let (id, _) = KeyId::split(sealed).ok_or(KeyError::DoesNotOpen)?;
        let held = self.held.load();
        held.get(id).ok_or(KeyError::DoesNotOpen)?.sealing.open(owner, sealed)
    }

    /// The key that seals.
    pub fn current(&self) -> Arc<DataKey> {
        self.held.load().keys.current.clone()
    }

    /// Ids of the keys that the file holds.
    pub fn ids(&self) -> Vec<KeyId> {
        self.held.load().keys.all.iter().map(|key| key.id()).collect()
    }

    /// Seals under the key in force from now on. A state that is old does not turn it back.
    ///
    /// # Errors
    /// [`KeyError::NotHeld`]; then it goes on as before.
    pub fn follow(&self, in_force: &InForce) -> Result<(), KeyError> {
        let current = self.current();
        let Some(id) = in_force.current.filter(|id| *id != current.id()) else { return Ok(()) };
        if in_force.generation < current.generation() {
            return Ok(());
        }
        let _alone = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let mut held = Held::clone(&self.held.load());
        held.keys.current = held.keys.get(id).ok_or(KeyError::NotHeld(id))?.clone();
        self.held.store(Arc::new(held));
        Ok(())
    }

    /// Keeps `key` beside the others; it is on disk when this returns. Uses what wraps the keyring.
    ///
    /// # Errors
    /// When it cannot be written, or there are too many.
    pub fn hold(&self, key: DataKey) -> Result<(), KeyError> {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let mut held = Held::clone(&self.held.load());
        match held.get(key.id()) {
            Some(other) if other.as_bytes() == key.as_bytes() => return Ok(()),
            Some(other) => return Err(KeyError::KeyIdTaken(other.id())),
            None if held.keys.all.len() >= KEYS_MAX => return Err(KeyError::TooManyKeys),
            None => held.keys.all.push(Arc::new(key)),
        }
        file.replace(&held.keys)?;
        self.held.store(Arc::new(held));
        Ok(())
    }

    /// Whether the file holds keys that nobody needs any more.
    pub fn has_retired(&self, in_force: &InForce) -> bool {
        let held = self.held.load();
        in_force.is_settled && held.keys.all.iter().any(|key| is_over(key, in_force))
    }

    /// Takes the keys that nobody needs any more out of the file, durably.
    ///
    /// # Errors
    /// When the key in force is not held, or the file cannot be written; then nothing changes.
    pub fn retire(&self, in_force: &InForce) -> Result<(), KeyError> {
        self.follow(in_force)?;
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let mut held = Held::clone(&self.held.load());
        let keys = std::mem::take(&mut held.keys.all);
        let (over, needed) = keys.into_iter().partition(|key| is_over(key, in_force));
        held.keys.all = needed;
        held.retired.extend::<Vec<_>>(over);
        file.replace(&held.keys)?;
        self.held.store(Arc::new(held));
        Ok(())
    }

    /// The keys that a state with these in force needs, for a node that was admitted or a backup. They
    /// must leave this process only through a connection between nodes, or encrypted.
    ///
    /// # Errors
    /// [`KeyError::NotHeld`].
    pub fn export(&self, in_force: &InForce) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let held = self.held.load();
        let current = match in_force.current {
            Some(id) => held.get(id).ok_or(KeyError::NotHeld(id))?,
            None => &held.keys.current,
        };
        // Those that were retired since may be needed by the state as it was.
        let earlier = held.keys.all.iter().chain(&held.retired).filter(|key| {
            !in_force.is_settled
                && key.generation() <= in_force.generation
                && key.id() != current.id()
        });
        let all = [current].into_iter().chain(earlier).take(KEYS_MAX).cloned().collect();
        Ok(DataKeys { current: current.clone(), all }.encode())
    }

    /// Whether all keys in `exported` are held.
    ///
    /// # Errors
    /// When `exported` is not what [`Keyring::export`] gives.
    pub fn holds(&self, exported: &[u8]) -> Result<bool, KeyError> {
        let (held, keys) = (self.held.load(), DataKeys::decode(exported)?);
        let is_held = |key: &Arc<DataKey>| {
            held.get(key.id()).is_some_and(|other| other.as_bytes() == key.as_bytes())
        };
        Ok(keys.all.iter().all(is_held))
    }
}

impl Held {
    fn get(&self, id: KeyId) -> Option<&Arc<DataKey>> {
        self.keys.get(id).or_else(|| self.retired.iter().find(|key| key.id() == id))
    }
}

/// Whether nobody needs `key` any more, once everything is sealed under the key in force. One of a
/// later generation may be about to follow.
fn is_over(key: &DataKey, in_force: &InForce) -> bool {
    let is_current = in_force.current.is_none_or(|current| current == key.id());
    !is_current && key.generation() <= in_force.generation
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KeySource;

    /// A keyring with a first key, and its directory.
    fn keyring() -> (Keyring, tempfile::TempDir, KeySource) {
        let dir = tempfile::tempdir().expect("temporary directory");
        let source = KeySource::File(dir.path().join("key"));
        (Keyring::create(dir.path(), &source).expect("creates"), dir, source)
    }

    fn in_force(key: KeyId, generation: u64, is_settled: bool) -> InForce {
        InForce { current: Some(key), generation, is_settled, revision: 0 }
    }

    #[test]
    fn a_secret_opens_only_for_its_owner_and_undamaged() {
        let (keys, _dir, _) = keyring();
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
        let (keys, _dir, _) = keyring();
        let seal = || keys.seal(Owner::DataKey, b"secret").expect("seals");
        assert_ne!(seal(), seal());
    }

    #[test]
    fn a_key_is_held_before_it_is_used_and_the_one_before_opens_until_the_process_ends() {
        let (keys, dir, source) = keyring();
        let load = || Keyring::load(dir.path(), &source).expect("opens");
        let first = keys.current().id();
        let old = keys.seal(Owner::DataKey, b"old").expect("seals");
        let next = DataKey::generate(1).expect("a key");
        let second = next.id();
        let unheld = keys.follow(&in_force(second, 1, false));
        assert!(matches!(unheld, Err(KeyError::NotHeld(id)) if id == second));
        let again = DataKey::decode(&next.encode()).expect("a key");
        keys.hold(next).expect("written");
        keys.hold(again).expect("held already");
        assert_eq!(load().ids(), [first, second]);
        assert_eq!(keys.current().id(), first, "not in force yet");
        assert!(!keys.has_retired(&in_force(first, 0, true)), "it is about to follow");

        keys.follow(&in_force(second, 1, false)).expect("held");
        keys.follow(&in_force(first, 0, true)).expect("a state that is old");
        assert_eq!(keys.current().id(), second);
        let new = keys.seal(Owner::DataKey, b"new").expect("seals");
        assert_eq!((old.key(), new.key()), (Some(first), Some(second)));
        assert!(!keys.has_retired(&in_force(second, 1, false)));
        let settled = in_force(second, 1, true);
        assert!(keys.has_retired(&settled));
        keys.retire(&settled).expect("written");
        assert!(!keys.has_retired(&settled));
        assert!(keys.open(Owner::DataKey, &old).is_ok() && keys.open(Owner::DataKey, &new).is_ok());
        let restarted = load();
        assert_eq!((restarted.current().id(), restarted.ids()), (second, vec![second]));
        assert!(restarted.open(Owner::DataKey, &old).is_err());
        assert_eq!(**restarted.open(Owner::DataKey, &new).expect("opens"), *b"new");
    }

    #[test]
    fn a_key_of_an_attempt_that_was_cut_off_goes_with_the_next_and_a_later_one_stays() {
        let (keys, _dir, _) = keyring();
        let [lost, used, later] = [1, 1, 2].map(|number| DataKey::generate(number).expect("a key"));
        let (current, next) = (used.id(), later.id());
        for key in [lost, used, later] {
            keys.hold(key).expect("written");
        }
        keys.retire(&in_force(current, 1, true)).expect("written");
        assert_eq!(keys.ids(), [current, next]);
    }

    #[test]
    fn what_is_exported_is_what_the_state_needs_also_when_it_was_retired_meanwhile() {
        let (keys, _dir, _) = keyring();
        let first = keys.current().id();
        let next = DataKey::generate(1).expect("a key");
        let second = next.id();
        keys.hold(next).expect("written");
        keys.hold(DataKey::generate(2).expect("a key")).expect("written");
        let ids = |in_force: &InForce| {
            let exported = keys.export(in_force).expect("held");
            assert!(keys.holds(&exported).expect("keys"));
            let keys = DataKeys::decode(&exported).expect("keys");
            (keys.current.id(), keys.all.iter().map(|key| key.id()).collect::<Vec<_>>())
        };
        assert_eq!(ids(&in_force(first, 0, true)), (first, vec![first]));
        let rotating = in_force(second, 1, false);
        assert_eq!(ids(&rotating), (second, vec![second, first]));
        keys.retire(&in_force(second, 1, true)).expect("written");
        assert_eq!(ids(&rotating), (second, vec![second, first]));
        assert_eq!(ids(&in_force(second, 1, true)), (second, vec![second]));
        let (other, _other_dir, _) = keyring();
        assert!(!other.holds(&keys.export(&rotating).expect("held")).expect("keys"));
        assert!(other.holds(b"garbage").is_err());
    }

    #[test]
    fn the_number_of_keys_has_a_bound() {
        let (keys, _dir, _) = keyring();
        for _ in 1..KEYS_MAX {
            keys.hold(DataKey::generate(1).expect("a key")).expect("written");
        }
        let one_more = keys.hold(DataKey::generate(1).expect("a key"));
        assert!(matches!(one_more, Err(KeyError::TooManyKeys)));
    }

    #[test]
    fn debug_shows_no_key() {
        let (keys, _dir, _) = keyring();
        assert_eq!(format!("{keys:?}"), "Keyring(..)");
    }
}
