//! Values that a reply hides under the shared secret, with a salt: keys and tunnel passwords.
//!
//! RFC 2868 section 3.5 and RFC 2548 section 2.4.2 describe one and the same stream of MD5 digests. It is bound
//! to the secret and to the Request Authenticator of one hop: whoever passes such a value on has to reveal it and
//! to hide it anew.

use zeroize::Zeroizing;

use super::packet::Authenticator;
use super::secret::{DIGEST_BYTES, Secret};

/// Octets of the salt in front of what is hidden.
pub const SALT_BYTES: usize = 2;
/// Longest value that can be hidden, in octets: what 15 blocks hold behind its length. A Tunnel-Password with its tag
/// and a vendor's attribute have no room for a block more.
pub const HIDDEN_BYTES_MAX: usize = 15 * DIGEST_BYTES - 1;

/// Why a value cannot be hidden or revealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HiddenError {
    /// No salt, or not whole blocks of 16 octets behind it.
    #[error("a hidden value is not a salt and whole blocks of 16 octets")]
    Malformed,
    /// The length in front of the clear value exceeds it: the secret is another, or the value is damaged.
    #[error("a hidden value does not open under the shared secret")]
    DoesNotOpen,
    /// Longer than one attribute holds.
    #[error("a value is too long to be hidden")]
    TooLong,
}

/// Reveals `hidden`: a salt of two octets, and 1 to 15 blocks.
///
/// # Errors
/// When it has another form, or the clear value's length is more than there is.
pub fn reveal(
    hidden: &[u8],
    secret: &Secret,
    request_authenticator: &Authenticator,
) -> Result<Zeroizing<Vec<u8>>, HiddenError> {
    let (salt, blocks) = hidden.split_first_chunk::<SALT_BYTES>().ok_or(HiddenError::Malformed)?;
    let (blocks, partial) = blocks.as_chunks::<DIGEST_BYTES>();
    if blocks.is_empty() || !partial.is_empty() {
        return Err(HiddenError::Malformed);
    }
    let mut clear = Zeroizing::new(Vec::with_capacity(blocks.len() * DIGEST_BYTES));
    let mut stream = first_stream(salt, secret, request_authenticator);
    for block in blocks {
        clear.extend(block.iter().zip(stream.iter()).map(|(hidden, stream)| hidden ^ stream));
        stream = Zeroizing::new(secret.md5_prefixed(block));
    }
    let (&length, value) = clear.split_first().ok_or(HiddenError::Malformed)?;
    let value = value.get(..usize::from(length)).ok_or(HiddenError::DoesNotOpen)?;
    Ok(Zeroizing::new(value.to_vec()))
}

/// Hides `clear`, 0 to 239 octets, under `salt`, which must be another for each value of a packet. Yields the salt,
/// with the bit set that the RFCs want set, and the blocks.
///
/// # Errors
/// [`HiddenError::TooLong`].
pub fn hide(
    clear: &[u8],
    salt: [u8; SALT_BYTES],
    secret: &Secret,
    request_authenticator: &Authenticator,
) -> Result<Vec<u8>, HiddenError> {
    let length = u8::try_from(clear.len()).map_err(|_| HiddenError::TooLong)?;
    if clear.len() > HIDDEN_BYTES_MAX {
        return Err(HiddenError::TooLong);
    }
    let [high, low] = salt;
    let salt = [high | 0x80, low];
    let blocks = (clear.len() + 1).div_ceil(DIGEST_BYTES);
    let padding = std::iter::repeat(0);
    let mut padded = std::iter::once(length).chain(clear.iter().copied()).chain(padding);
    let mut hidden = Vec::with_capacity(SALT_BYTES + blocks * DIGEST_BYTES);
    hidden.extend_from_slice(&salt);
    let mut stream = first_stream(&salt, secret, request_authenticator);
    for _ in 0..blocks {
        let mut block = *stream;
        block.iter_mut().zip(padded.by_ref()).for_each(|(octet, clear)| *octet ^= clear);
        hidden.extend_from_slice(&block);
        stream = Zeroizing::new(secret.md5_prefixed(&block));
    }
    Ok(hidden)
}

fn first_stream(
    salt: &[u8; SALT_BYTES],
    secret: &Secret,
    request_authenticator: &Authenticator,
) -> Zeroizing<[u8; DIGEST_BYTES]> {
    Zeroizing::new(secret.md5_prefixed(&[&request_authenticator[..], salt].concat()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn secret() -> Secret {
        Secret::new(b"xyzzy5461").expect("not empty")
    }

    proptest! {
        #[test]
        fn what_is_hidden_is_revealed_on_the_same_hop_alone(
            clear in prop::collection::vec(any::<u8>(), 0..=HIDDEN_BYTES_MAX),
            salt in any::<[u8; 2]>(),
            authenticator in any::<[u8; 16]>(),
        ) {
            let hidden = hide(&clear, salt, &secret(), &authenticator).expect("fits");
            prop_assert!(hidden[0] & 0x80 != 0 && hidden.len() <= 2 + 15 * 16);
            let revealed = reveal(&hidden, &secret(), &authenticator);
            prop_assert_eq!(revealed.as_ref().map(|value| &value[..]), Ok(&clear[..]));
            let mut elsewhere = authenticator;
            elsewhere[3] ^= 1;
            let revealed = reveal(&hidden, &secret(), &elsewhere);
            prop_assert!(clear.len() < 2 || revealed.map_or(true, |value| value[..] != clear[..]));
        }

        #[test]
        fn revealing_never_panics(hidden in prop::collection::vec(any::<u8>(), 0..300)) {
            let is_whole = hidden.len() > 2 && (hidden.len() - 2).is_multiple_of(16);
            let revealed = reveal(&hidden, &secret(), &[0; 16]);
            prop_assert_eq!(revealed == Err(HiddenError::Malformed), !is_whole);
        }
    }

    #[test]
    fn what_is_too_long_is_an_error() {
        let hidden = hide(&[0; HIDDEN_BYTES_MAX + 1], [0; 2], &secret(), &[0; 16]);
        assert_eq!(hidden, Err(HiddenError::TooLong));
        assert_eq!(hide(&[0; 256], [0; 2], &secret(), &[0; 16]), Err(HiddenError::TooLong));
    }
}
