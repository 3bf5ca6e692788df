//! User-Password: how a password is hidden in an Access-Request (RFC 2865 section 5.2).
//!
//! The hiding is a stream made of MD5 digests over the shared secret: it protects against nobody
//! who knows the secret, and it does not tell whether the secret was right; a wrong one yields
//! rubbish. A clear password lives in a buffer that is wiped on drop and is never printed.

use std::fmt;

use zeroize::Zeroizing;

use super::packet::Authenticator;
use super::secret::{DIGEST_BYTES, Secret};

/// Longest password, and longest hidden password, in octets.
pub const PASSWORD_BYTES_MAX: usize = 128;

/// Why a password cannot be hidden or revealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum PasswordError {
    /// A hidden password without octets.
    #[error("the hidden password is empty")]
    Empty,
    /// A hidden password whose length is no multiple of 16.
    #[error("the hidden password's length is not a multiple of 16")]
    PartialBlock,
    /// More than 128 octets.
    #[error("the password is longer than 128 octets")]
    TooLong,
}

impl PasswordError {
    /// A stable name for metrics and logs; never changed once released.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Empty => "password_empty",
            Self::PartialBlock => "password_partial_block",
            Self::TooLong => "password_too_long",
        }
    }
}

/// A clear password: 0 to 128 octets, in whatever encoding the user's keyboard produced. It stays
/// in one place on the heap, so that wiping it leaves no copy behind.
pub struct Password(Zeroizing<Vec<u8>>);

impl Password {
    /// The octets.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Password(..)")
    }
}

/// Reveals the value of a User-Password attribute. NULs at the end are padding and are removed (so
/// a password cannot end in one); a NUL within the password stays.
///
/// # Errors
/// When `hidden` is not 1 to 8 whole blocks of 16 octets.
pub fn reveal(
    hidden: &[u8],
    secret: &Secret,
    request_authenticator: &Authenticator,
) -> Result<Password, PasswordError> {
    let (blocks, partial) = hidden.as_chunks::<DIGEST_BYTES>();
    if hidden.len() > PASSWORD_BYTES_MAX {
        return Err(PasswordError::TooLong);
    }
    if !partial.is_empty() {
        return Err(PasswordError::PartialBlock);
    }
    if blocks.is_empty() {
        return Err(PasswordError::Empty);
    }
    // The capacity is taken at once: growing would leave unwiped copies behind.
    let mut clear = Zeroizing::new(Vec::with_capacity(hidden.len()));
    let mut previous = request_authenticator;
    for block in blocks {
        let stream = Zeroizing::new(secret.md5_prefixed(previous));
        clear.extend(block.iter().zip(stream.iter()).map(|(hidden, stream)| hidden ^ stream));
        previous = block;
    }
    let end = clear.iter().rposition(|&octet| octet != 0).map_or(0, |last| last + 1);
    clear.truncate(end);
    Ok(Password(clear))
}

/// Hides `password` and appends the result, 1 to 8 blocks of 16 octets, to `hidden`. A password
/// that is empty becomes one block.
///
/// # Errors
/// [`PasswordError::TooLong`] above 128 octets; then nothing is appended.
pub fn hide_into(
    hidden: &mut Vec<u8>,
    password: &[u8],
    secret: &Secret,
    request_authenticator: &Authenticator,
) -> Result<(), PasswordError> {
    if password.len() > PASSWORD_BYTES_MAX {
        return Err(PasswordError::TooLong);
    }
    let block_count = password.len().div_ceil(DIGEST_BYTES).max(1);
    let mut padded = password.iter().copied().chain(std::iter::repeat(0));
    let mut previous = *request_authenticator;
    for _ in 0..block_count {
        let mut block = secret.md5_prefixed(&previous);
        for (octet, clear) in block.iter_mut().zip(padded.by_ref()) {
            *octet ^= clear;
        }
        hidden.extend_from_slice(&block);
        previous = block;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AUTHENTICATOR: Authenticator = [0x5a; 16];

    fn secret() -> Secret {
        Secret::new(b"xyzzy5461").expect("not empty")
    }

    fn hide(password: &[u8]) -> Vec<u8> {
        let mut hidden = Vec::new();
        hide_into(&mut hidden, password, &secret(), &AUTHENTICATOR).expect("not too long");
        hidden
    }

    fn revealed(hidden: &[u8]) -> Result<Vec<u8>, PasswordError> {
        reveal(hidden, &secret(), &AUTHENTICATOR).map(|password| password.as_bytes().to_vec())
    }

    proptest! {
        #[test]
        fn a_hidden_password_is_revealed(
            password in prop::collection::vec(any::<u8>(), 0..=128),
            authenticator in any::<[u8; 16]>(),
            key in prop::collection::vec(any::<u8>(), 1..100),
        ) {
            let secret = Secret::new(&key).expect("not empty");
            let mut hidden = Vec::new();
            hide_into(&mut hidden, &password, &secret, &authenticator).expect("not too long");
            prop_assert!(hidden.len() % 16 == 0 && (16..=128).contains(&hidden.len()));
            let clear = reveal(&hidden, &secret, &authenticator).expect("whole blocks");
            let end = password.iter().rposition(|&octet| octet != 0).map_or(0, |last| last + 1);
            prop_assert_eq!(clear.as_bytes(), &password[..end]);
        }

        #[test]
        fn revealing_never_panics(hidden in prop::collection::vec(any::<u8>(), 0..300)) {
            let whole = (16..=128).contains(&hidden.len()) && hidden.len() % 16 == 0;
            prop_assert_eq!(revealed(&hidden).is_ok(), whole);
        }
    }

    #[test]
    fn lengths_at_the_edges() {
        assert_eq!(hide(b"").len(), 16);
        assert_eq!(hide(&[b'a'; 16]).len(), 16);
        assert_eq!(hide(&[b'a'; 17]).len(), 32);
        assert_eq!(hide(&[b'a'; 128]).len(), 128);
        assert_eq!(revealed(&hide(b"")), Ok(Vec::new()));
        assert_eq!(revealed(&hide(&[b'a'; 128])), Ok(vec![b'a'; 128]));
    }

    #[test]
    fn a_nul_within_the_password_stays() {
        assert_eq!(revealed(&hide(b"a\0b\0\0")), Ok(b"a\0b".to_vec()));
        assert_eq!(revealed(&hide(b"\0\0")), Ok(Vec::new()));
    }

    #[test]
    fn each_bad_length_has_its_error() {
        let mut hidden = vec![7];
        let outcome = hide_into(&mut hidden, &[b'a'; 129], &secret(), &AUTHENTICATOR);
        assert_eq!((outcome, hidden), (Err(PasswordError::TooLong), vec![7]));
        assert_eq!(revealed(&[]), Err(PasswordError::Empty));
        assert_eq!(revealed(&[0; 15]), Err(PasswordError::PartialBlock));
        assert_eq!(revealed(&[0; 17]), Err(PasswordError::PartialBlock));
        assert_eq!(revealed(&[0; 144]), Err(PasswordError::TooLong));
    }

    #[test]
    fn another_secret_or_authenticator_yields_something_else() {
        let hidden = hide(b"arctangent");
        let other = Secret::new(b"xyzzy5462").expect("not empty");
        assert_ne!(
            reveal(&hidden, &other, &AUTHENTICATOR).expect("whole").as_bytes(),
            b"arctangent"
        );
        assert_ne!(reveal(&hidden, &secret(), &[0; 16]).expect("whole").as_bytes(), b"arctangent");
    }

    #[test]
    fn a_password_is_never_printed() {
        let password = reveal(&hide(b"arctangent"), &secret(), &AUTHENTICATOR).expect("whole");
        assert_eq!(format!("{password:?}"), "Password(..)");
    }
}
