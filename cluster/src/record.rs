//! The checksum that guards every stored record, whatever the database below promises.
//!
//! A record is CRC-32 (IEEE, little endian) followed by what it covers. Damage that the database
//! does not notice, or notices by quietly forgetting, must be found here.

/// Puts the checksum in front of `bytes`.
pub(crate) fn seal(bytes: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(bytes.len() + 4);
    record.extend_from_slice(&crc32fast::hash(bytes).to_le_bytes());
    record.extend_from_slice(bytes);
    record
}

/// Writes the checksum into the first four bytes of `record`, which were left free for it.
pub(crate) fn seal_in_place(record: &mut [u8]) {
    if let Some((sum, bytes)) = record.split_first_chunk_mut::<4>() {
        *sum = crc32fast::hash(bytes).to_le_bytes();
    }
}

/// What `record` covers, or `None` when the checksum does not match.
pub(crate) fn open(record: &[u8]) -> Option<&[u8]> {
    let (sum, bytes) = record.split_first_chunk::<4>()?;
    (crc32fast::hash(bytes) == u32::from_le_bytes(*sum)).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_changed_bit_is_noticed(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            at in any::<prop::sample::Index>(),
            bit in 0u8..8,
        ) {
            let mut record = seal(&bytes);
            prop_assert_eq!(open(&record), Some(bytes.as_slice()));
            let at = at.index(record.len());
            record[at] ^= 1 << bit;
            prop_assert_eq!(open(&record), None);
        }
    }

    #[test]
    fn what_is_shorter_than_a_checksum_is_no_record() {
        assert_eq!(open(&[]), None);
        assert_eq!(open(&[0, 0, 0]), None);
    }
}
