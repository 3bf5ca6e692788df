//! The cluster's own certificate authority, the nodes' certificates, and the tokens that admit nodes.
//!
//! All keys are Ed25519 (RFC 8032, RFC 8410). The authority's private key lies sealed in the
//! replicated state, so that any node can admit another and renew its own certificate. A token is a
//! private key and the hash of the authority's certificate: its bearer can prove that it was admitted
//! and can tell the cluster from an impostor, and the cluster stores nothing that would help a thief.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use data_encoding::BASE32_NOPAD;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ED25519, PublicKeyData, SignatureAlgorithm,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use watchword_core::id::ClusterId;
use watchword_core::time::Timestamp;
use zeroize::Zeroizing;

use crate::random::{self, RandomError};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// How long a node's certificate is valid.
const NODE_DAYS: u64 = 90;
/// Age at which a node renews its certificate, in milliseconds.
pub const RENEW_AFTER_MS: u64 = 30 * DAY_MS;
/// How long the authority is valid: longer than the cluster will live.
const AUTHORITY_DAYS: u64 = 36_500;
/// Clocks differ: certificates are valid from this long ago.
const BACKDATED_MS: u64 = DAY_MS;
/// What precedes the 32 bytes of an Ed25519 key in a SubjectPublicKeyInfo (RFC 8410 section 4).
const KEY_PREFIX: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const KEY_BYTES: usize = 32;
/// Length of the hash of an authority's certificate.
pub const HASH_BYTES: usize = 32;
/// What every token begins with.
const TOKEN_MARK: &str = "wwjoin-";

/// A certificate or key could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The library refused.
    #[error("a certificate could not be made")]
    Certificate(#[from] rcgen::Error),
    /// A key was refused.
    #[error("a key cannot be used")]
    Key,
    /// A signature is missing, or is not by the key that it should be by.
    #[error("the node has not proven that it holds the private half of its key")]
    NotProven,
    /// No random numbers.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The text is no token.
    #[error("this is no join token; make one with: watchword token create")]
    Token,
}

/// A private key with its public half.
pub struct PrivateKey {
    pair: KeyPair,
    pkcs8: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

impl PrivateKey {
    /// A new key.
    ///
    /// # Errors
    /// Without random numbers.
    pub fn generate() -> Result<Self, PkiError> {
        Self::from_seed(&Zeroizing::new(random::bytes::<KEY_BYTES>()?))
    }

    fn from_seed(seed: &[u8; KEY_BYTES]) -> Result<Self, PkiError> {
        let key = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| PkiError::Key)?;
        Self::from_pkcs8(key.to_pkcs8().map_err(|_| PkiError::Key)?.as_ref())
    }

    /// The key that [`PrivateKey::pkcs8`] gave.
    ///
    /// # Errors
    /// When it is none.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, PkiError> {
        let der = PrivatePkcs8KeyDer::from(pkcs8);
        let pair = KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ED25519)?;
        Ok(Self { pair, pkcs8: Zeroizing::new(pkcs8.to_vec()) })
    }

    /// The key as PKCS#8 in DER.
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The public half: a SubjectPublicKeyInfo in DER.
    pub fn public_key(&self) -> Vec<u8> {
        self.pair.subject_public_key_info()
    }

    /// Signs `message`.
    ///
    /// # Errors
    /// Never with a key that was made here.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, PkiError> {
        let key = Ed25519KeyPair::from_pkcs8(&self.pkcs8).map_err(|_| PkiError::Key)?;
        Ok(key.sign(message).as_ref().to_vec())
    }
}

/// Checks that `signature` of `message` is by the private half of `public_key`, a
/// SubjectPublicKeyInfo in DER.
///
/// # Errors
/// When it is not, or the key is no Ed25519 key.
pub fn verify(public_key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), PkiError> {
    let key = UnparsedPublicKey::new(&ED25519, ed25519_key(public_key)?);
    key.verify(message, signature).map_err(|_| PkiError::NotProven)
}

/// The key itself within a SubjectPublicKeyInfo.
fn ed25519_key(public_key: &[u8]) -> Result<&[u8], PkiError> {
    let key = public_key.strip_prefix(KEY_PREFIX).filter(|key| key.len() == KEY_BYTES);
    key.ok_or(PkiError::Key)
}

/// What tells one authority's `certificate` from another's.
pub fn authority_hash(certificate: &[u8]) -> [u8; HASH_BYTES] {
    Sha256::digest(certificate).into()
}

/// The authority of a cluster, able to sign.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Authority {
    /// A new authority's key and certificate.
    ///
    /// # Errors
    /// Without random numbers.
    pub fn create(cluster: ClusterId, now: Timestamp) -> Result<(Self, PrivateKey), PkiError> {
        let key = PrivateKey::generate()?;
        let mut params = Self::params(cluster);
        (params.not_before, params.not_after) = validity(now, AUTHORITY_DAYS)?;
        let certificate = params.self_signed(&key.pair)?.der().clone();
        Ok((Self::open(cluster, certificate, key.pkcs8())?, key))
    }

    /// The authority with this certificate and private key.
    ///
    /// # Errors
    /// When the key is none.
    pub fn open(
        cluster: ClusterId,
        certificate: CertificateDer<'static>,
        pkcs8: &[u8],
    ) -> Result<Self, PkiError> {
        let key = PrivateKey::from_pkcs8(pkcs8)?;
        Ok(Self { issuer: Issuer::new(Self::params(cluster), key.pair), certificate })
    }

    fn params(cluster: ClusterId) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("Watchword cluster {cluster}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
    }

    /// Its certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// A certificate that says that the holder of `public_key` is called `name`.
    ///
    /// # Errors
    /// When the key is no Ed25519 key.
    pub fn certify(
        &self,
        name: &str,
        public_key: &[u8],
        now: Timestamp,
    ) -> Result<CertificateDer<'static>, PkiError> {
        let key = Ed25519PublicKey(ed25519_key(public_key)?);
        let mut params = CertificateParams::new([name.to_owned()])?;
        params.distinguished_name = DistinguishedName::new();
        (params.not_before, params.not_after) = validity(now, NODE_DAYS)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        Ok(params.signed_by(&key, &self.issuer)?.der().clone())
    }
}

struct Ed25519PublicKey<'a>(&'a [u8]);

impl PublicKeyData for Ed25519PublicKey<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ED25519
    }
}

fn validity(now: Timestamp, days: u64) -> Result<(OffsetDateTime, OffsetDateTime), PkiError> {
    let at = |ms: u64| {
        let seconds = i64::try_from(ms / 1000).map_err(|_| PkiError::Key)?;
        OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| PkiError::Key)
    };
    Ok((at(now.0.saturating_sub(BACKDATED_MS))?, at(now.0.saturating_add(days * DAY_MS))?))
}

/// A join token. Shown once; whoever has it may join.
pub struct Token {
    seed: Zeroizing<[u8; KEY_BYTES]>,
    authority_hash: [u8; HASH_BYTES],
}

impl Token {
    /// A new token for the cluster of `authority`.
    ///
    /// # Errors
    /// Without random numbers.
    pub fn create(authority: &[u8]) -> Result<Self, PkiError> {
        let seed = Zeroizing::new(random::bytes()?);
        Ok(Self { seed, authority_hash: authority_hash(authority) })
    }

    /// The key that its bearer holds.
    ///
    /// # Errors
    /// Never with a token that was made here.
    pub fn key(&self) -> Result<PrivateKey, PkiError> {
        PrivateKey::from_seed(&self.seed)
    }

    /// A certificate for that key, signed by itself: TLS wants one.
    ///
    /// # Errors
    /// As [`Token::key`].
    pub fn certificate(&self) -> Result<(CertificateDer<'static>, PrivateKey), PkiError> {
        let key = self.key()?;
        let certificate = CertificateParams::default().self_signed(&key.pair)?.der().clone();
        Ok((certificate, key))
    }

    /// Whether `certificate` is the authority's that the token was made for.
    pub fn is_of(&self, certificate: &[u8]) -> bool {
        authority_hash(certificate) == self.authority_hash
    }

    /// The hash of the certificate of the authority that the token was made for.
    pub fn authority_hash(&self) -> [u8; HASH_BYTES] {
        self.authority_hash
    }

    /// The token as text.
    pub fn text(&self) -> Zeroizing<String> {
        let bytes = Zeroizing::new([&self.seed[..], &self.authority_hash].concat());
        Zeroizing::new(format!("{TOKEN_MARK}{}", BASE32_NOPAD.encode(&bytes).to_lowercase()))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl FromStr for Token {
    type Err = PkiError;

    fn from_str(text: &str) -> Result<Self, PkiError> {
        let digits = text.trim().strip_prefix(TOKEN_MARK).ok_or(PkiError::Token)?;
        let digits = Zeroizing::new(digits.to_uppercase());
        let bytes = BASE32_NOPAD.decode(digits.as_bytes()).map(Zeroizing::new);
        let bytes = bytes.map_err(|_| PkiError::Token)?;
        let (seed, hash) = bytes.split_first_chunk().ok_or(PkiError::Token)?;
        let authority_hash = hash.try_into().map_err(|_| PkiError::Token)?;
        Ok(Self { seed: Zeroizing::new(*seed), authority_hash })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CLUSTER: ClusterId = ClusterId([3; 16]);
    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    #[test]
    fn a_token_survives_being_written_down() {
        let token = Token::create(b"authority").expect("a token");
        let again: Token =
            token.text().to_uppercase().replace("WWJOIN-", "wwjoin-").parse().expect("a token");
        assert_eq!(
            token.key().expect("a key").public_key(),
            again.key().expect("a key").public_key()
        );
        assert!(again.is_of(b"authority") && !again.is_of(b"another"));
    }

    #[test]
    fn an_authority_opens_again_and_certifies() {
        let (authority, key) = Authority::create(CLUSTER, NOW).expect("made");
        let certificate = authority.certificate().clone();
        let again = Authority::open(CLUSTER, certificate, key.pkcs8()).expect("opens");
        let node = PrivateKey::generate().expect("a key");
        assert!(again.certify("node-1.x.watchword", &node.public_key(), NOW).is_ok());
        assert!(matches!(again.certify("n", b"no key", NOW), Err(PkiError::Key)));
    }

    proptest! {
        #[test]
        fn any_text_is_a_token_or_refused(text in "(wwjoin-)?[a-z2-7]{0,120}") {
            if let Ok(token) = text.parse::<Token>() {
                prop_assert!(token.key().is_ok());
            }
        }
    }
}
