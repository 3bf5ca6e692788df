//! The state as bytes.
//!
//! Equal states give equal bytes, whatever history led to them: maps are written in order, and what
//! can be derived (the index of names, the index of decisions) is not written. The bytes are the
//! unit of the snapshot, and their digest is how nodes compare states.

use std::sync::Arc;

use serde::ser::SerializeSeq;
use serde::{Deserialize, Serialize, Serializer};

use crate::attempt::{Attempts, AttemptsParts, AttemptsRef};
use crate::challenge::{AnsweredChallenges, ChallengeRef};
use crate::client::Client;
use crate::codec::{self, DecodeError, EncodeError};
use crate::data_key::DataKeys;
use crate::device::Device;
use crate::directory::Directory;
use crate::id::{ClientId, DeviceId, DirectoryId, UserId};
use crate::map::OrdMap;
use crate::node::{Nodes, NodesParts};
use crate::reply::{HeldReplies, HeldReply};
use crate::settings::{Settings, SettingsParts};
use crate::state::State;
use crate::time::Timestamp;
use crate::user::User;

/// The bytes are no state.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// They cannot be decoded.
    #[error("the snapshot cannot be decoded")]
    Decode(#[source] DecodeError),
    /// Its parts contradict each other.
    #[error("the snapshot's {0} contradict each other")]
    Contradiction(&'static str),
}

/// The first released form, as it is read. Never edited; a new form is a new struct and a new format.
#[derive(Deserialize)]
struct SnapshotV1 {
    time: Timestamp,
    feature_level: u32,
    users: Vec<(UserId, Arc<User>)>,
    devices: Vec<(DeviceId, Arc<Device>)>,
    clients: Vec<(ClientId, Arc<Client>)>,
    clients_revision: u64,
    directories: Vec<(DirectoryId, Arc<Directory>)>,
    directories_revision: u64,
    settings: SettingsParts,
    answered_challenges: Vec<ChallengeRef>,
    held_replies: Vec<HeldReply>,
    attempts: AttemptsParts,
    nodes: NodesParts,
    data_keys: DataKeys,
}

/// The same form as it is written: straight from the maps, so that a snapshot of a large state needs
/// no copy of it.
#[derive(Serialize)]
struct SnapshotV1Ref<'a> {
    time: Timestamp,
    feature_level: u32,
    users: Pairs<'a, UserId, Arc<User>>,
    devices: Pairs<'a, DeviceId, Arc<Device>>,
    clients: Pairs<'a, ClientId, Arc<Client>>,
    clients_revision: u64,
    directories: Pairs<'a, DirectoryId, Arc<Directory>>,
    directories_revision: u64,
    settings: SettingsParts,
    answered_challenges: Vec<ChallengeRef>,
    held_replies: Vec<&'a HeldReply>,
    attempts: AttemptsRef<'a>,
    nodes: NodesParts,
    data_keys: DataKeys,
}

/// A map that is written as a sequence of pairs, in order.
struct Pairs<'a, K, V>(&'a OrdMap<K, V>);

impl<K: Ord + Clone + Serialize, V: Clone + Serialize> Serialize for Pairs<'_, K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut sequence = serializer.serialize_seq(Some(self.0.len()))?;
        for pair in self.0.iter() {
            sequence.serialize_element(&pair)?;
        }
        sequence.end()
    }
}

impl State {
    /// The state as bytes.
    ///
    /// # Errors
    /// When a part cannot be encoded.
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        // Taking the memory at once saves the copies of a growing vector; typical records are a
        // little smaller.
        let records = self.users.len() + self.devices.len();
        let attempts = usize::try_from(self.attempts.next() - self.attempts.first()).unwrap_or(0);
        let mut bytes = Vec::with_capacity(4_096 + 160 * records + 96 * attempts);
        let snapshot = SnapshotV1Ref {
            time: self.time,
            feature_level: self.feature_level,
            users: Pairs(&self.users),
            devices: Pairs(&self.devices),
            clients: Pairs(&self.clients),
            clients_revision: self.clients_revision,
            directories: Pairs(&self.directories),
            directories_revision: self.directories_revision,
            settings: self.settings.to_parts(),
            answered_challenges: self.answered_challenges.iter().collect(),
            held_replies: self.held_replies.iter().collect(),
            attempts: AttemptsRef(&self.attempts),
            nodes: self.nodes.to_parts(),
            data_keys: self.data_keys,
        };
        codec::encode_into(&snapshot, &mut bytes)?;
        Ok(bytes)
    }

    /// The inverse of [`State::encode`].
    ///
    /// # Errors
    /// When `bytes` are no state.
    pub fn decode(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let parts: SnapshotV1 =
            codec::decode_in_proportion(bytes).map_err(SnapshotError::Decode)?;
        let names = parts.users.iter().map(|(id, user)| (user.name.clone(), *id)).collect();
        let state = Self {
            time: parts.time,
            feature_level: parts.feature_level,
            user_names: names,
            users: parts.users.into_iter().collect(),
            devices: parts.devices.into_iter().collect(),
            clients: parts.clients.into_iter().collect(),
            clients_revision: parts.clients_revision,
            directories: parts.directories.into_iter().collect(),
            directories_revision: parts.directories_revision,
            settings: Settings::from_parts(parts.settings),
            answered_challenges: AnsweredChallenges::from_records(parts.answered_challenges),
            held_replies: HeldReplies::from_records(parts.held_replies),
            attempts: Attempts::from_parts(parts.attempts)
                .ok_or(SnapshotError::Contradiction("attempts"))?,
            nodes: Nodes::from_parts(parts.nodes),
            data_keys: parts.data_keys,
        };
        if state.user_names.len() != state.users.len() {
            return Err(SnapshotError::Contradiction("user names"));
        }
        #[cfg(mutant = "snapshot_without_used")]
        let state = state.without_used();
        Ok(state)
    }

    #[cfg(mutant = "snapshot_without_used")]
    fn without_used(mut self) -> Self {
        let devices: Vec<_> = self.devices.iter().map(|(id, _)| *id).collect();
        for id in devices {
            match self.device_mut(id).map(|device| &mut device.oath) {
                Some(crate::device::Oath::Totp(totp)) => totp.last_step = None,
                Some(crate::device::Oath::Hotp(hotp)) => hotp.next_counter = 0,
                None => {}
            }
        }
        self
    }

    /// SHA-256 of [`State::encode`]: nodes with equal digests hold equal states.
    ///
    /// # Errors
    /// When a part cannot be encoded.
    pub fn digest(&self) -> Result<[u8; 32], EncodeError> {
        use sha2::Digest;
        Ok(sha2::Sha256::digest(self.encode()?).into())
    }
}
