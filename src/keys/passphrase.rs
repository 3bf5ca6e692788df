//! A key that a passphrase gives.

use std::fmt;

use argon2::Argon2;
use watchword_core::sealed::Sealed;
use zeroize::Zeroizing;

use super::sealing::{KEY_BYTES, SealingKey};
use super::{KeyError, Owner};

/// A key derived from a passphrase: argon2id, version 0x13, 19 MiB, two passes (RFC 9106).
pub struct PassphraseKey(pub(super) SealingKey);

impl fmt::Debug for PassphraseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PassphraseKey(..)")
    }
}

impl PassphraseKey {
    /// The key of this passphrase and salt. Takes tens of milliseconds.
    ///
    /// # Errors
    /// When the salt is too short.
    pub fn derive(passphrase: &[u8], salt: &[u8]) -> Result<Self, KeyError> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        Argon2::default()
            .hash_password_into(passphrase, salt, &mut *key)
            .map_err(|_| KeyError::DoesNotOpen)?;
        SealingKey::from_bytes(&*key).map(Self).ok_or(KeyError::DoesNotOpen)
    }

    /// Seals `secret` for `owner`.
    ///
    /// # Errors
    /// When no random bytes can be drawn.
    pub fn seal(&self, owner: Owner, secret: &[u8]) -> Result<Sealed, KeyError> {
        self.0.seal(owner, secret)
    }

    /// Opens what was sealed for `owner`.
    ///
    /// # Errors
    /// [`KeyError::DoesNotOpen`].
    pub fn open(&self, owner: Owner, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        self.0.open(owner, sealed)
    }
}
