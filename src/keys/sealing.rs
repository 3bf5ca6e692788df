//! Sealing under one key.
//!
//! Each seal has a key of its own, derived from this one, 128 random bits and what the secret belongs
//! to. So there is no number of secrets after which a nonce may repeat, however many challenges a
//! cluster issues, and a sealed secret that was moved to another record does not open.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Prk};
use sha2::{Digest, Sha256};
use watchword_core::sealed::{HEADER_BYTES, KEY_ID_BYTES, KeyId, Sealed};
use zeroize::Zeroizing;

use super::{KeyError, Owner};
use crate::random;

pub(super) const KEY_BYTES: usize = 32;
const SALT_BYTES: usize = 16;

/// A key that other keys are derived from.
pub(super) struct SealingKey {
    id: KeyId,
    key: Prk,
}

impl SealingKey {
    /// The key with these bytes, if there are 32.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        // Uniformly random already, so HKDF's first half (RFC 5869 section 3.3) is left out.
        (bytes.len() == KEY_BYTES)
            .then(|| Self { id: id_of(bytes), key: Prk::new_less_safe(HKDF_SHA256, bytes) })
    }

    /// What tells it from others.
    pub(super) fn id(&self) -> KeyId {
        self.id
    }

    /// Seals `secret` for `owner`: header, salt, ciphertext and 128-bit tag, so 37 bytes more than
    /// the secret.
    pub(super) fn seal(&self, owner: Owner, secret: &[u8]) -> Result<Sealed, KeyError> {
        let salt = random::bytes::<SALT_BYTES>()?;
        let mut text = secret.to_vec();
        let key = self.derive(owner, &salt).ok_or(KeyError::Seal)?;
        let header: [u8; HEADER_BYTES] = self.id.header();
        key.seal_in_place_append_tag(only_nonce(), Aad::from(header), &mut text)
            .map_err(|_| KeyError::Seal)?;
        Ok(Sealed::new(&[&header[..], &salt, &text].concat()))
    }

    /// Opens what was sealed for `owner`; the bytes may come from anywhere.
    pub(super) fn open(&self, owner: Owner, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        self.try_open(owner, sealed).ok_or(KeyError::DoesNotOpen)
    }

    fn try_open(&self, owner: Owner, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (id, rest) = KeyId::split(sealed)?;
        let (salt, text) = rest.split_first_chunk::<SALT_BYTES>()?;
        if id != self.id {
            return None;
        }
        let mut text = Zeroizing::new(text.to_vec());
        let key = self.derive(owner, salt)?;
        let length = key.open_in_place(only_nonce(), Aad::from(id.header()), &mut text).ok()?.len();
        text.truncate(length);
        Some(text)
    }

    fn derive(&self, owner: Owner, salt: &[u8; SALT_BYTES]) -> Option<LessSafeKey> {
        let owner = owner.additional_data();
        let info = [&b"watchword seal"[..], &owner, salt];
        let derived = self.key.expand(&info, &AES_256_GCM).ok()?;
        Some(LessSafeKey::new(UnboundKey::from(derived)))
    }
}

/// A few bits of a hash of the key: enough to tell keys apart, and no help to whoever looks for it.
fn id_of(key: &[u8]) -> KeyId {
    let hash = Sha256::new().chain_update(b"watchword key id").chain_update(key).finalize();
    let mut id = [0; KEY_ID_BYTES];
    id.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
    KeyId(id)
}

/// A derived key seals one secret, so its nonce is used once.
fn only_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}
