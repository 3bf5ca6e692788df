//! Proof that a node which joins holds the key that it wants certified.
//!
//! A node's public key is no secret: every certificate shows it. Whoever asks as the node that has a
//! key is answered with all that this node would get, so it signs the question with it. What it signs
//! is good for one token, one cluster and one connection, and for nothing else that the key signs.

use crate::pki::{self, PkiError, PrivateKey};

/// What the signature is for: no other signature of a node's key begins so.
const CONTEXT: &[u8] = b"watchword join 1: I hold this key";

/// What a node says of itself when it asks to be admitted.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The public key of the token that it shows, a DER SubjectPublicKeyInfo.
    pub token: &'a [u8],
    /// The hash of the certificate of the cluster's authority.
    pub authority: [u8; pki::HASH_BYTES],
    /// The mark of the connection by which it asks.
    pub connection: [u8; 32],
    /// The key that it wants certified, a DER SubjectPublicKeyInfo.
    pub public_key: &'a [u8],
}

impl Claim<'_> {
    /// Proves it with the private half of the key.
    ///
    /// # Errors
    /// When the key does not sign.
    pub fn prove(&self, key: &PrivateKey) -> Result<Vec<u8>, PkiError> {
        key.sign(&self.message())
    }

    /// Checks what [`Claim::prove`] gave.
    ///
    /// # Errors
    /// When it is of another key, or for another claim, or the key is none.
    pub fn check(&self, proof: &[u8]) -> Result<(), PkiError> {
        pki::verify(self.public_key, &self.message(), proof)
    }

    /// The length goes before each part, so that no two claims are the same message.
    fn message(&self) -> Vec<u8> {
        let parts = [CONTEXT, self.token, &self.authority, &self.connection, self.public_key];
        let mut message = Vec::new();
        for part in parts {
            message.extend_from_slice(&(part.len() as u64).to_be_bytes());
            message.extend_from_slice(part);
        }
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> PrivateKey {
        PrivateKey::generate().expect("a key")
    }

    #[test]
    fn a_proof_is_good_for_one_claim_and_by_one_key() {
        let (node, other) = (key(), key());
        let (mine, theirs) = (node.public_key(), other.public_key());
        let claim = Claim {
            token: b"token",
            authority: [1; pki::HASH_BYTES],
            connection: [2; 32],
            public_key: &mine,
        };
        let proof = claim.prove(&node).expect("signed");
        claim.check(&proof).expect("it holds the key");
        let elsewhere = [
            Claim { token: b"another", ..claim },
            Claim { authority: [3; pki::HASH_BYTES], ..claim },
            Claim { connection: [3; 32], ..claim },
            Claim { public_key: &theirs, ..claim },
        ];
        for other in elsewhere {
            assert!(matches!(other.check(&proof), Err(PkiError::NotProven)), "{other:?}");
        }
        let foreign = claim.prove(&other).expect("signed");
        for wrong in [&b""[..], &proof[1..], &foreign, &[0; 64]] {
            assert!(matches!(claim.check(wrong), Err(PkiError::NotProven)));
        }
        let no_key = Claim { public_key: b"no key", ..claim };
        assert!(matches!(no_key.check(&proof), Err(PkiError::Key)));
    }

    #[test]
    fn what_moves_from_one_part_to_the_next_is_another_claim() {
        let node = key();
        let public_key = node.public_key();
        let claim = |token| Claim {
            token,
            authority: [0; pki::HASH_BYTES],
            connection: [0; 32],
            public_key: &public_key,
        };
        assert_ne!(claim(b"").message(), claim(&[0]).message());
    }
}
