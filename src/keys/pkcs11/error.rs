//! What may be amiss with a PKCS#11 module, token, PIN or key, in one line each.

use std::fmt;
use std::path::PathBuf;

use cryptoki::error::Error;

use crate::keys::KeyError;
use crate::random::RandomError;

/// Why a token does not wrap or unwrap the data key.
#[derive(Debug, thiserror::Error)]
pub enum Pkcs11Error {
    /// The random number generator failed.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The library cannot be loaded or does not work.
    #[error("cannot use PKCS#11 module {path}")]
    Module {
        /// The library.
        path: PathBuf,
        /// What it answered.
        source: Answer,
    },
    /// No token has the label.
    #[error("PKCS#11 module {module} knows no token {token}")]
    TokenAbsent {
        /// The library.
        module: PathBuf,
        /// The label.
        token: String,
    },
    /// Several tokens have the label.
    #[error("PKCS#11 module {module} knows several tokens {token}")]
    TokenAmbiguous {
        /// The library.
        module: PathBuf,
        /// The label.
        token: String,
    },
    /// The token is there, but does not work.
    #[error("PKCS#11 token {token} cannot be used")]
    Token {
        /// Its label.
        token: String,
        /// What it answered.
        source: Answer,
    },
    /// The token is of no use to us.
    #[error("PKCS#11 token {0} cannot do AES-GCM (CKM_AES_GCM)")]
    NoGcm(String),
    /// There is no PIN to be had.
    #[error("no PIN for PKCS#11 token {token}")]
    PinFile {
        /// Its label.
        token: String,
        /// Why.
        source: Box<KeyError>,
    },
    /// The file holds no PIN.
    #[error("{0} does not hold the PIN of a PKCS#11 token")]
    PinMalformed(PathBuf),
    /// The token does not take the PIN.
    #[error("PKCS#11 token {token} refuses the PIN in {pin_file}")]
    PinRefused {
        /// Its label.
        token: String,
        /// Where the PIN comes from.
        pin_file: PathBuf,
        /// What it answered.
        source: Answer,
    },
    /// The token takes no PIN any more.
    #[error("the PIN of PKCS#11 token {0} is locked; have its security officer set a new one")]
    PinLocked(String),
    /// A service that is started again and again must not be what locks the token.
    #[error(
        "the PIN of PKCS#11 token {token} is not tried, a wrong one would lock it; log in by hand \
         first: pkcs11-tool --module {module} --token-label '{token}' --login --list-objects"
    )]
    PinLastTry {
        /// The library.
        module: PathBuf,
        /// The token's label.
        token: String,
    },
    /// There is no such key.
    #[error(
        "PKCS#11 token {token} holds no AES key {key}; make it: pkcs11-tool --module {module} \
         --token-label '{token}' --login --keygen --key-type AES:32 --label '{key}' --sensitive"
    )]
    KeyAbsent {
        /// The library.
        module: PathBuf,
        /// The token's label.
        token: String,
        /// The key's label.
        key: String,
    },
    /// There are several keys of that name.
    #[error("PKCS#11 token {token} holds several AES keys {key}")]
    KeyAmbiguous {
        /// The token's label.
        token: String,
        /// The key's label.
        key: String,
    },
    /// The key may be taken out of the token.
    #[error(
        "key {key} may leave PKCS#11 token {token} (its CKA_EXTRACTABLE is not false); use one made \
         without --extractable"
    )]
    KeyExtractable {
        /// The token's label.
        token: String,
        /// The key's label.
        key: String,
    },
    /// The key does not encrypt.
    #[error("key {key} of PKCS#11 token {token} does not wrap the data key")]
    Seal {
        /// The token's label.
        token: String,
        /// The key's label.
        key: String,
        /// What the token answered.
        source: Answer,
    },
    /// The key does not decrypt: it is another one, or the data key is damaged. Which of both, or
    /// whether the token has a trouble of its own, not every token says.
    #[error("key {key} of PKCS#11 token {token} does not open the data key")]
    Open {
        /// The token's label.
        token: String,
        /// The key's label.
        key: String,
        /// What the token answered.
        source: Answer,
    },
}

/// What a module answered. The library's own text for it is a paragraph out of the standard.
#[derive(Debug)]
pub struct Answer(pub(super) Error);

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Error::Pkcs11(answer, function) => write!(f, "C_{function:?} answers {answer:?}"),
            // It would be named once more by the chain of causes.
            Error::LibraryLoading(error) => error.fmt(f),
            error => error.fmt(f),
        }
    }
}

impl std::error::Error for Answer {}
