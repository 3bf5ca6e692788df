//! Secrets that only ever appear sealed.
//!
//! The proposer seals a secret under the cluster's data key (AES-256-GCM, the owning record's id as
//! additional data) before it enters a command, so that log, snapshot, backup and wire hold no clear
//! secret. This crate cannot open one; of the layout it knows the header alone, which tells the key.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// First byte of everything sealed: HKDF-SHA-256, AES-256-GCM.
const FORMAT: u8 = 1;
/// The format and the id of the key.
pub const HEADER_BYTES: usize = 1 + KEY_ID_BYTES;
/// Length of a [`KeyId`].
pub const KEY_ID_BYTES: usize = 4;

/// Tells one key from another. It is a part of a hash of the key and gives nothing of it away.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyId(pub [u8; KEY_ID_BYTES]);

impl KeyId {
    /// What everything sealed under this key begins with.
    pub fn header(self) -> [u8; HEADER_BYTES] {
        let [a, b, c, d] = self.0;
        [FORMAT, a, b, c, d]
    }

    /// The key that `sealed` is sealed under, and what follows the header; `None` when it is nothing
    /// sealed.
    pub fn split(sealed: &[u8]) -> Option<(Self, &[u8])> {
        let (&[format, a, b, c, d], rest) = sealed.split_first_chunk::<HEADER_BYTES>()?;
        (format == FORMAT).then_some((Self([a, b, c, d]), rest))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Ciphertext of one secret. Its layout behind the header belongs to whoever holds the data key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed(Arc<[u8]>);

impl Sealed {
    /// Wraps ciphertext.
    pub fn new(ciphertext: &[u8]) -> Self {
        Self(ciphertext.into())
    }

    /// The ciphertext.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The key that it is sealed under; `None` for bytes that nothing was sealed to.
    pub fn key(&self) -> Option<KeyId> {
        KeyId::split(&self.0).map(|(key, _)| key)
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_header_tells_the_key_and_garbage_tells_none(
            id in any::<[u8; 4]>(),
            rest in any::<Vec<u8>>(),
        ) {
            let sealed = [&KeyId(id).header()[..], &rest].concat();
            prop_assert_eq!(KeyId::split(&sealed), Some((KeyId(id), &rest[..])));
            let told = KeyId::split(&rest);
            prop_assert_eq!(told.is_some(), rest.len() >= 5 && rest[0] == FORMAT);
        }
    }
}
