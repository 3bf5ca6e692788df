//! The passcodes of a hardware token: HOTP, RFC 4226.
//!
//! The harness holds the keys that it has enrolled, and so knows which passcode is right, which was
//! used and which counter an accept stands for.

use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;

/// Digits of every passcode here. With eight, two counters of one look-ahead window hardly ever share
/// a passcode, which would look like a code that was accepted twice.
const DIGITS: u32 = 8;

/// The key of one token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(Vec<u8>);

impl Key {
    /// The key made of these octets.
    pub fn new(octets: impl Into<Vec<u8>>) -> Self {
        Self(octets.into())
    }

    /// The passcode for `counter`.
    pub fn passcode(&self, counter: u64) -> String {
        let number = self.truncated(counter) % 10_u32.pow(DIGITS);
        format!("{number:0width$}", width = DIGITS as usize)
    }

    /// The key as people exchange it: base32 without padding, RFC 4648 section 6.
    pub fn base32(&self) -> String {
        const ALPHABET: [char; 32] = [
            'A', 'B', 'C', 'D', 'E', 'F', 'G', 'H', 'I', 'J', 'K', 'L', 'M', 'N', 'O', 'P', 'Q',
            'R', 'S', 'T', 'U', 'V', 'W', 'X', 'Y', 'Z', '2', '3', '4', '5', '6', '7',
        ];
        let bits: Vec<u8> =
            self.0.iter().flat_map(|octet| (0..8).rev().map(move |bit| octet >> bit & 1)).collect();
        let digit = |bits: &[u8]| {
            let value = (0..5).fold(0_usize, |value, place| {
                value << 1 | usize::from(bits.get(place).copied().unwrap_or(0))
            });
            ALPHABET.get(value).copied().unwrap_or('A')
        };
        bits.chunks(5).map(digit).collect()
    }

    /// Dynamic truncation, RFC 4226 section 5.3: 31 bits from where the last four bits point to.
    fn truncated(&self, counter: u64) -> u32 {
        let mut mac = match Hmac::<Sha1>::new_from_slice(&self.0) {
            Ok(mac) => mac,
            // HMAC takes a key of any length.
            Err(_) => return 0,
        };
        mac.update(&counter.to_be_bytes());
        let hash = mac.finalize().into_bytes();
        let offset = usize::from(hash.last().copied().unwrap_or(0) & 0xf);
        let taken = hash.iter().skip(offset).take(4);
        taken.fold(0_u32, |value, &octet| value << 8 | u32::from(octet)) & 0x7fff_ffff
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_values_of_rfc_4226_appendix_d_come_out() {
        let key = Key::new(*b"12345678901234567890");
        let truncated = [
            1_284_755_224,
            1_094_287_082,
            137_359_152,
            1_726_969_429,
            1_640_338_314,
            868_254_676,
            1_918_287_922,
            82_162_583,
            673_399_871,
            645_520_489,
        ];
        for (counter, value) in (0..).zip(truncated) {
            assert_eq!(key.truncated(counter), value);
        }
        assert_eq!(key.passcode(0), "84755224");
        assert_eq!(key.passcode(7), "82162583");
    }

    #[test]
    fn keys_are_written_in_base32() {
        assert_eq!(Key::new(*b"12345678901234567890").base32(), "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");
        assert_eq!(Key::new(*b"foob").base32(), "MZXW6YQ");
    }
}
