//! Wraps and unwraps the data keys, in each way that the node's file may name.
//!
//! Nothing is written here: what cannot be wrapped, or would not open again, leaves the disk as it
//! was.

use std::path::Path;

use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::credential::read_credential;
use super::private_file::read_private;
use super::sealing::SealingKey;
use super::{KeyError, Owner, PassphraseKey, pkcs11};
use crate::config::KeySource;
use crate::random;

const SALT_BYTES: usize = 16;

/// What wraps a data key, as its keyring says it. A key file and a credential are the same: whoever
/// moves the key from one to the other need not wrap anything anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum WrappedBy {
    /// A key that a file or systemd hands out.
    Key,
    /// A key derived from a passphrase.
    Passphrase {
        /// Base64.
        salt: String,
    },
    /// A key within a PKCS#11 token.
    Pkcs11,
}

/// Wraps `data_key` by `source`, and makes sure that it opens again.
///
/// # Errors
/// When the source cannot be used.
pub(super) fn wrap(source: &KeySource, data_key: &[u8]) -> Result<(WrappedBy, Vec<u8>), KeyError> {
    let seal = |key: SealingKey| key.seal(Owner::DataKey, data_key);
    let (by, wrapped) = match source {
        KeySource::File(path) => (WrappedBy::Key, seal(key_of_file(path)?)?.as_bytes().to_vec()),
        KeySource::SystemdCredential(name) => {
            (WrappedBy::Key, seal(key_of_credential(name)?)?.as_bytes().to_vec())
        }
        KeySource::Passphrase(path) => {
            let salt = random::bytes::<SALT_BYTES>()?;
            let wrapped = seal(key_of_passphrase(path, &salt)?)?;
            let salt = BASE64.encode(&salt);
            (WrappedBy::Passphrase { salt }, wrapped.as_bytes().to_vec())
        }
        KeySource::Pkcs11(config) => {
            (WrappedBy::Pkcs11, pkcs11::seal(config, Owner::DataKey, data_key)?)
        }
    };
    // A token may be able to encrypt and not to decrypt. A data key that does not open again takes
    // everything that is sealed under it along.
    if **unwrap(source, &by, &wrapped)? != *data_key {
        return Err(KeyError::Seal);
    }
    Ok((by, wrapped))
}

/// Opens what [`wrap`] made.
///
/// # Errors
/// [`KeyError::DoesNotOpen`] when the key is another one; others when the source cannot be used.
pub(super) fn unwrap(
    source: &KeySource,
    by: &WrappedBy,
    wrapped: &[u8],
) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let key = match (source, by) {
        (KeySource::File(path), WrappedBy::Key) => key_of_file(path)?,
        (KeySource::SystemdCredential(name), WrappedBy::Key) => key_of_credential(name)?,
        (KeySource::Passphrase(path), WrappedBy::Passphrase { salt }) => {
            let salt = BASE64.decode(salt.as_bytes()).map_err(|_| KeyError::DoesNotOpen)?;
            key_of_passphrase(path, &salt)?
        }
        (KeySource::Pkcs11(config), WrappedBy::Pkcs11) => {
            return Ok(pkcs11::open(config, Owner::DataKey, wrapped)?);
        }
        _ => {
            let wrapped_by = match by {
                WrappedBy::Key => "a key file or credential",
                WrappedBy::Passphrase { .. } => "a passphrase",
                WrappedBy::Pkcs11 => "a PKCS#11 token",
            };
            return Err(KeyError::WrappedOtherwise { wrapped_by, configured: source.to_string() });
        }
    };
    key.open(Owner::DataKey, wrapped)
}

fn key_of_file(path: &Path) -> Result<SealingKey, KeyError> {
    key_of_digits(path, &read_private(path)?)
}

fn key_of_credential(name: &str) -> Result<SealingKey, KeyError> {
    let (path, text) = read_credential(name)?;
    key_of_digits(&path, &text)
}

fn key_of_digits(path: &Path, text: &[u8]) -> Result<SealingKey, KeyError> {
    let key = HEXLOWER_PERMISSIVE.decode(text.trim_ascii()).map(Zeroizing::new);
    let key = key.ok().and_then(|key| SealingKey::from_bytes(&key));
    key.ok_or_else(|| KeyError::KeyFileMalformed(path.to_owned()))
}

fn key_of_passphrase(path: &Path, salt: &[u8]) -> Result<SealingKey, KeyError> {
    let text = read_private(path)?;
    let passphrase = text.trim_ascii_end();
    if passphrase.is_empty() {
        return Err(KeyError::PassphraseEmpty(path.to_owned()));
    }
    Ok(PassphraseKey::derive(passphrase, salt)?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keyring_says_in_words_what_wraps_the_key() {
        let passphrase = WrappedBy::Passphrase { salt: "AAAA".to_owned() };
        for (by, text) in [
            (WrappedBy::Key, r#""key""#),
            (WrappedBy::Pkcs11, r#""pkcs11""#),
            (passphrase, r#"{"passphrase":{"salt":"AAAA"}}"#),
        ] {
            assert_eq!(serde_json::to_string(&by).expect("writes"), text);
            assert_eq!(serde_json::from_str::<WrappedBy>(text).expect("reads"), by);
        }
        assert!(serde_json::from_str::<WrappedBy>(r#""goodwill""#).is_err());
    }

    #[test]
    fn a_key_has_64_hexadecimal_digits() {
        let path = Path::new("key");
        let digits = "0123456789abcdefABCDEF".repeat(3);
        let good = digits.get(..64).expect("enough");
        assert!(key_of_digits(path, good.as_bytes()).is_ok());
        assert!(key_of_digits(path, format!("  {good}\n").as_bytes()).is_ok());
        for bad in ["", "0123", good.get(..62).expect("enough"), &digits, &"x".repeat(64)] {
            let refused = key_of_digits(path, bad.as_bytes());
            assert!(matches!(refused, Err(KeyError::KeyFileMalformed(_))), "{bad}");
        }
    }
}
