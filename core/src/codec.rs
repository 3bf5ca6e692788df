//! Bytes as stored and sent.
//!
//! One leading byte names the format; what follows is bincode. bincode is not self-describing: a
//! released variant or struct is never edited, only appended to, and every encoding ever released is
//! kept as a golden file that a test decodes.

use serde::{Serialize, de::DeserializeOwned};

/// The only format so far: bincode 2, variable-length integers, little endian.
const FORMAT: u8 = 1;

/// The value could not be encoded.
#[derive(Debug, thiserror::Error)]
#[error("encoding failed")]
pub struct EncodeError(#[source] bincode::error::EncodeError);

/// The bytes are not an encoded value.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// There is not even a format byte.
    #[error("the record is empty")]
    Empty,
    /// Written by a newer release.
    #[error("the record has format {0}; this release reads format {FORMAT}")]
    UnknownFormat(u8),
    /// Not what the format says.
    #[error("the record is malformed")]
    Malformed(#[source] bincode::error::DecodeError),
    /// Something follows the value.
    #[error("{0} bytes follow the record")]
    TrailingBytes(usize),
}

/// Encodes `value`.
///
/// # Errors
/// When a part of it cannot be encoded (a sequence of unknown length, for one).
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, EncodeError> {
    // Most entries fit: no growing in steps.
    let mut bytes = Vec::with_capacity(256);
    encode_into(value, &mut bytes)?;
    Ok(bytes)
}

/// Encodes `value` behind what `bytes` hold.
///
/// # Errors
/// As [`encode`].
pub fn encode_into<T: Serialize>(value: &T, bytes: &mut Vec<u8>) -> Result<(), EncodeError> {
    bytes.push(FORMAT);
    bincode::serde::encode_into_std_write(value, bytes, bincode::config::standard())
        .map(drop)
        .map_err(EncodeError)
}

/// Decodes a value that claims at most `LIMIT` bytes of memory while it is read.
///
/// # Errors
/// When `bytes` are not exactly one value in a known format.
pub fn decode<T: DeserializeOwned, const LIMIT: usize>(bytes: &[u8]) -> Result<T, DecodeError> {
    let (&format, rest) = bytes.split_first().ok_or(DecodeError::Empty)?;
    if format != FORMAT {
        return Err(DecodeError::UnknownFormat(format));
    }
    let config = bincode::config::standard().with_limit::<LIMIT>();
    let (value, read) =
        bincode::serde::decode_from_slice(rest, config).map_err(DecodeError::Malformed)?;
    match rest.len() - read {
        0 => Ok(value),
        more => Err(DecodeError::TrailingBytes(more)),
    }
}

/// Decodes a value of any length whose memory stays in proportion to `bytes`: a few damaged bytes that
/// claim a huge value are refused before memory is taken for it.
///
/// # Errors
/// As [`decode`].
pub fn decode_in_proportion<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    const SMALL: usize = 1 << 20;
    const MIDDLE: usize = 32 << 20;
    const LARGE: usize = 1 << 30;
    const HUGE: usize = 128 << 30;
    // The limit is a constant of the type, hence the steps. No type here takes more than 32 times
    // the memory of its encoding.
    let limit = bytes.len().saturating_mul(32);
    if limit <= SMALL {
        decode::<T, SMALL>(bytes)
    } else if limit <= MIDDLE {
        decode::<T, MIDDLE>(bytes)
    } else if limit <= LARGE {
        decode::<T, LARGE>(bytes)
    } else {
        decode::<T, HUGE>(bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::command::Entry;
    use crate::limits::ENTRY_BYTES_MAX;

    proptest! {
        #[test]
        fn decoding_never_panics(bytes in any::<Vec<u8>>()) {
            let _ = decode::<Entry, ENTRY_BYTES_MAX>(&bytes);
            let _ = decode::<Vec<String>, 4096>(&bytes);
        }

        #[test]
        fn what_was_encoded_decodes(value in any::<(u64, Vec<u8>, Option<String>)>()) {
            let bytes = encode(&value).expect("encodes");
            let decoded: (u64, Vec<u8>, Option<String>) =
                decode::<_, 65_536>(&bytes).expect("decodes");
            prop_assert_eq!(decoded, value);
        }
    }

    #[test]
    fn other_formats_and_trailing_bytes_are_named() {
        let bytes = encode(&7u8).expect("encodes");
        assert!(matches!(decode::<u8, 16>(&[]), Err(DecodeError::Empty)));
        assert!(matches!(decode::<u8, 16>(&[9, 7]), Err(DecodeError::UnknownFormat(9))));
        let longer = [bytes.as_slice(), &[0]].concat();
        assert!(matches!(decode::<u8, 16>(&longer), Err(DecodeError::TrailingBytes(1))));
    }

    #[test]
    fn a_claimed_length_beyond_the_limit_is_refused_before_memory_is_taken() {
        let bytes = [FORMAT, 253, 255, 255, 255, 255, 255, 255, 255, 127];
        assert!(matches!(decode::<Vec<u8>, 1024>(&bytes), Err(DecodeError::Malformed(_))));
    }
}
