//! Which data key seals what.
//!
//! The state never holds a data key, only its id. That is enough to keep everything under one key:
//! what is sealed under another cannot enter, and a key is given up when nothing needs it any more.

use serde::{Deserialize, Serialize};

use crate::client::ClientKind;
use crate::id::{ClientId, DeviceId, DirectoryId, UserId};
use crate::sealed::{KeyId, Sealed};
use crate::state::State;

/// The data keys of the cluster, as far as the state knows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataKeys {
    /// What is sealed from now on is sealed under this one. `None` before the cluster is founded:
    /// then nothing is checked.
    pub current: Option<KeyId>,
    /// How often the data key was replaced.
    pub generation: u64,
    /// False while something may be sealed under an earlier key.
    pub is_settled: bool,
    /// Log index of the last change of any of this, or of what is sealed under which key.
    pub revision: u64,
}

impl Default for DataKeys {
    fn default() -> Self {
        Self { current: None, generation: 0, is_settled: true, revision: 0 }
    }
}

impl DataKeys {
    /// Whether `sealed` is sealed under the current key, as far as there is one.
    pub fn is_current(&self, sealed: &Sealed) -> bool {
        self.current.is_none() || sealed.key() == self.current
    }
}

/// One of the secrets that the state holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Secret {
    /// The password hash of a user.
    UserPassword(UserId),
    /// The key of a device.
    DeviceKey(DeviceId),
    /// The shared secret of a client.
    ClientSecret(ClientId),
    /// The private key of the cluster's authority.
    AuthorityKey,
    /// What a directory is asked with: the password of who searches, or the shared secret.
    DirectorySecret(DirectoryId),
}

impl State {
    /// Which data key seals what.
    pub fn data_keys(&self) -> &DataKeys {
        &self.data_keys
    }

    /// Everything sealed that the state holds.
    pub fn secrets(&self) -> impl Iterator<Item = (Secret, &Sealed)> {
        let passwords = self.users.iter().filter_map(|(&id, user)| {
            Some((Secret::UserPassword(id), &user.password.as_ref()?.hash))
        });
        let keys = self.devices.iter().map(|(&id, device)| (Secret::DeviceKey(id), &device.key));
        let secrets = self.clients.iter().map(|(&id, client)| {
            let ClientKind::Radius(radius) = &client.kind;
            (Secret::ClientSecret(id), &radius.secret)
        });
        let authority = self.nodes.authority().map(|held| (Secret::AuthorityKey, &held.key));
        let searching = self.directories.iter().filter_map(|(&id, directory)| {
            Some((Secret::DirectorySecret(id), directory.kind.secret()?))
        });
        passwords.chain(keys).chain(secrets).chain(authority).chain(searching)
    }

    /// One of them; `None` when there is no such secret.
    pub fn secret(&self, secret: Secret) -> Option<&Sealed> {
        match secret {
            Secret::UserPassword(id) => Some(&self.user(id)?.password.as_ref()?.hash),
            Secret::DeviceKey(id) => Some(&self.device(id)?.key),
            Secret::ClientSecret(id) => {
                let ClientKind::Radius(radius) = &self.client(id)?.kind;
                Some(&radius.secret)
            }
            Secret::AuthorityKey => Some(&self.nodes.authority()?.key),
            Secret::DirectorySecret(id) => self.directory(id)?.kind.secret(),
        }
    }
}
