//! One data key, several of them, and how they travel: within a wrapped keyring, within a backup, and
//! from node to node.

use std::fmt;
use std::sync::Arc;

use watchword_core::sealed::{KEY_ID_BYTES, KeyId};
use zeroize::Zeroizing;

use super::KeyError;
use super::sealing::{KEY_BYTES, SealingKey};
use crate::random;

const GENERATION_BYTES: usize = 8;
/// A key as it travels: its generation, and itself.
const DATA_KEY_BYTES: usize = GENERATION_BYTES + KEY_BYTES;
/// Keys that are held at once. Each attempt to replace the data key that is cut off leaves one behind
/// until a later one comes to its end.
pub(super) const KEYS_MAX: usize = 64;

/// A key that secrets are sealed under.
pub struct DataKey {
    generation: u64,
    bytes: Zeroizing<[u8; KEY_BYTES]>,
    pub(super) sealing: SealingKey,
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataKey").field("id", &self.id()).finish_non_exhaustive()
    }
}

impl DataKey {
    /// A new one that is to follow `generation - 1` others.
    ///
    /// # Errors
    /// When no random bytes can be drawn.
    pub fn generate(generation: u64) -> Result<Self, KeyError> {
        Self::new(generation, Zeroizing::new(random::bytes()?))
    }

    fn new(generation: u64, bytes: Zeroizing<[u8; KEY_BYTES]>) -> Result<Self, KeyError> {
        let sealing = SealingKey::from_bytes(&*bytes).ok_or(KeyError::DataKeyMalformed)?;
        Ok(Self { generation, bytes, sealing })
    }

    /// What tells it from others.
    pub fn id(&self) -> KeyId {
        self.sealing.id()
    }

    /// How many keys were in force before it, or would have been.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The key itself.
    pub fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.bytes
    }

    /// The key as it travels: only within what is wrapped, or between members.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new([&self.generation.to_be_bytes()[..], &*self.bytes].concat())
    }

    /// The inverse of [`DataKey::encode`].
    ///
    /// # Errors
    /// When `bytes` are no key.
    pub fn decode(bytes: &[u8]) -> Result<Self, KeyError> {
        let (generation, key) =
            bytes.split_first_chunk::<GENERATION_BYTES>().ok_or(KeyError::DataKeyMalformed)?;
        let key = key.try_into().map(Zeroizing::new).map_err(|_| KeyError::DataKeyMalformed)?;
        Self::new(u64::from_be_bytes(*generation), key)
    }
}

/// Several keys, one of which is in force.
#[derive(Clone)]
pub(super) struct DataKeys {
    /// Seals.
    pub(super) current: Arc<DataKey>,
    /// All, the current one among them.
    pub(super) all: Vec<Arc<DataKey>>,
}

impl DataKeys {
    /// One alone.
    pub(super) fn only(key: DataKey) -> Self {
        let key = Arc::new(key);
        Self { current: key.clone(), all: vec![key] }
    }

    /// The key with this id.
    pub(super) fn get(&self, id: KeyId) -> Option<&Arc<DataKey>> {
        self.all.iter().find(|key| key.id() == id)
    }

    /// As bytes: the id of the current one, and each as [`DataKey::encode`] writes it.
    pub(super) fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes =
            Zeroizing::new(Vec::with_capacity(KEY_ID_BYTES + self.all.len() * DATA_KEY_BYTES));
        bytes.extend_from_slice(&self.current.id().0);
        self.all.iter().for_each(|key| bytes.extend_from_slice(&key.encode()));
        bytes
    }

    /// The inverse of [`DataKeys::encode`].
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, KeyError> {
        let (current, keys) =
            bytes.split_first_chunk::<KEY_ID_BYTES>().ok_or(KeyError::DataKeyMalformed)?;
        if keys.len() > KEYS_MAX * DATA_KEY_BYTES {
            return Err(KeyError::DataKeyMalformed);
        }
        let keys = keys.chunks(DATA_KEY_BYTES).map(|key| DataKey::decode(key).map(Arc::new));
        let all: Vec<_> = keys.collect::<Result<_, _>>()?;
        let current = all.iter().find(|key| key.id() == KeyId(*current));
        let current = current.ok_or(KeyError::DataKeyMalformed)?.clone();
        Ok(Self { current, all })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(n: u8) -> DataKey {
        DataKey::new(n.into(), Zeroizing::new([n; KEY_BYTES])).expect("a key")
    }

    #[test]
    fn what_travels_arrives() {
        let mut keys = DataKeys::only(key(1));
        keys.all.push(Arc::new(key(2)));
        keys.current = keys.all[1].clone();
        let arrived = DataKeys::decode(&keys.encode()).expect("decodes");
        assert_eq!(arrived.current.id(), key(2).id());
        let told = arrived.all.iter().map(|key| (key.generation(), *key.as_bytes()));
        assert_eq!(told.collect::<Vec<_>>(), [(1, [1; 32]), (2, [2; 32])]);
        let bytes = keys.encode();
        for length in 0..bytes.len() {
            // What is cut off between two keys may lack the current one, or is one key fewer.
            assert!(DataKeys::decode(&bytes[..length]).is_err(), "{length}");
        }
        assert!(!format!("{:?}", key(1)).contains('['));
    }

    proptest! {
        #[test]
        fn decoding_never_panics(bytes in any::<Vec<u8>>()) {
            prop_assert_eq!(DataKey::decode(&bytes).is_ok(), bytes.len() == DATA_KEY_BYTES);
            prop_assert!(DataKeys::decode(&bytes).is_err());
        }
    }
}
