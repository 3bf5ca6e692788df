//! The shared secret of one RADIUS peer, prepared for the hot path.
//!
//! Everything that RADIUS signs or hides is keyed by the shared secret. The first two blocks of an
//! HMAC depend on the key alone, so they are computed once here instead of once per packet.
//! The secret is never printed, and its octets are wiped when it is dropped.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use zeroize::Zeroizing;

/// Octets of an MD5 digest: of an authenticator, of a Message-Authenticator, of a password block.
pub const DIGEST_BYTES: usize = 16;

/// A shared secret, RFC 2865 section 3. Any number of octets but none.
#[derive(Clone)]
pub struct Secret {
    octets: Zeroizing<Box<[u8]>>,
    keyed: Hmac<Md5>,
}

/// An empty secret would let anybody sign; RFC 2865 section 3 forbids it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// There are no octets.
    #[error("the shared secret is empty")]
    Empty,
}

impl Secret {
    /// Prepares `octets` as a shared secret.
    ///
    /// # Errors
    /// [`SecretError::Empty`] when there are none.
    pub fn new(octets: &[u8]) -> Result<Self, SecretError> {
        if octets.is_empty() {
            return Err(SecretError::Empty);
        }
        // An HMAC key may have any length, so the only failure that the type allows cannot happen;
        // it is reported as the one error there is rather than unwrapped.
        let keyed = Hmac::new_from_slice(octets).map_err(|_| SecretError::Empty)?;
        Ok(Self { octets: Zeroizing::new(octets.into()), keyed })
    }

    /// HMAC-MD5 of the `parts` in order, keyed with the secret (RFC 2104).
    pub fn hmac_md5(&self, parts: &[&[u8]]) -> [u8; DIGEST_BYTES] {
        let mut hmac = self.keyed.clone();
        for part in parts {
            hmac.update(part);
        }
        hmac.finalize().into_bytes().into()
    }

    /// MD5 of the `parts` in order and the secret behind them (RFC 2865 section 3).
    pub fn md5_suffixed(&self, parts: &[&[u8]]) -> [u8; DIGEST_BYTES] {
        let mut md5 = Md5::new();
        for part in parts {
            md5.update(part);
        }
        md5.update(&self.octets[..]);
        md5.finalize().into()
    }

    /// MD5 of the secret and `part` behind it (RFC 2865 section 5.2).
    pub fn md5_prefixed(&self, part: &[u8]) -> [u8; DIGEST_BYTES] {
        let mut md5 = Md5::new();
        md5.update(&self.octets[..]);
        md5.update(part);
        md5.finalize().into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_secret_is_refused() {
        assert_eq!(Secret::new(b"").err(), Some(SecretError::Empty));
    }

    #[test]
    fn a_secret_is_never_printed() {
        let secret = Secret::new(b"xyzzy5461").expect("not empty");
        assert_eq!(format!("{secret:?}"), "Secret(..)");
    }

    /// RFC 2202 section 2, cases 2 and 6: a short key, and a key longer than a block.
    #[test]
    fn hmac_md5_matches_rfc_2202() {
        let short = Secret::new(b"Jefe").expect("not empty");
        assert_eq!(
            short.hmac_md5(&[b"what do ya want ", b"for nothing?"]),
            0x750c_783e_6ab0_b503_eaa8_6e31_0a5d_b738_u128.to_be_bytes()
        );
        let long = Secret::new(&[0xaa; 80]).expect("not empty");
        assert_eq!(
            long.hmac_md5(&[b"Test Using Larger Than Block-Size Key - Hash Key First"]),
            0x6b1a_b7fe_4bd7_bf8f_0b62_e6ce_61b9_d0cd_u128.to_be_bytes()
        );
    }
}
