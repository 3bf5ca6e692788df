//! The state as bytes.
//!
//! Equal states give equal bytes, whatever history led to them: maps are written in order, and what
//! can be derived (the index of names, the index of decisions) is not written. The bytes are the
//! unit of the snapshot, and their digest is how nodes compare states.

use serde::{Deserialize, Serialize};

use crate::attempt::{Attempts, AttemptsParts};
use crate::challenge::{AnsweredChallenges, ChallengeRef};
use crate::client::Client;
use crate::codec::{self, DecodeError, EncodeError};
use crate::device::Device;
use crate::id::{ClientId, DeviceId, UserId};
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

/// The first released form. Never edited; a new form is a new struct and a new format.
#[derive(Serialize, Deserialize)]
struct SnapshotV1 {
    time: Timestamp,
    feature_level: u32,
    users: Vec<(UserId, User)>,
    devices: Vec<(DeviceId, Device)>,
    clients: Vec<(ClientId, Client)>,
    clients_revision: u64,
    settings: SettingsParts,
    answered_challenges: Vec<ChallengeRef>,
    attempts: AttemptsParts,
}

impl State {
    /// The state as bytes.
    ///
    /// # Errors
    /// When a part cannot be encoded.
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        fn pairs<'a, K: Copy + 'a, V: Clone + 'a>(
            map: impl Iterator<Item = (&'a K, &'a V)>,
        ) -> Vec<(K, V)> {
            map.map(|(key, value)| (*key, value.clone())).collect()
        }
        codec::encode(&SnapshotV1 {
            time: self.time,
            feature_level: self.feature_level,
            users: pairs(self.users.iter()),
            devices: pairs(self.devices.iter()),
            clients: pairs(self.clients.iter()),
            clients_revision: self.clients_revision,
            settings: self.settings.to_parts(),
            answered_challenges: self.answered_challenges.iter().collect(),
            attempts: self.attempts.to_parts(),
        })
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
            settings: Settings::from_parts(parts.settings),
            answered_challenges: AnsweredChallenges::from_records(parts.answered_challenges),
            attempts: Attempts::from_parts(parts.attempts)
                .ok_or(SnapshotError::Contradiction("attempts"))?,
        };
        if state.user_names.size() != state.users.size() {
            return Err(SnapshotError::Contradiction("user names"));
        }
        Ok(state)
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
