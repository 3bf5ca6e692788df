//! The pure rules of each factor: given a key and a time or counter, which passcode is right.
//!
//! Nothing here decides an attempt. A match says which time step or counter a passcode stands for;
//! whether that may still be used is decided by [`crate::State::apply`].

/// Event-based passcodes, RFC 4226.
pub mod hotp;
/// Time-based passcodes, RFC 6238.
pub mod totp;

use hmac::digest::KeyInit;
use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use unicode_normalization::UnicodeNormalization;

/// Hash function under the HMAC, RFC 6238 section 1.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// HMAC-SHA-1, the only one of RFC 4226.
    Sha1,
    /// HMAC-SHA-256.
    Sha256,
    /// HMAC-SHA-512.
    Sha512,
}

/// Fewest digits of a passcode.
pub const DIGITS_MIN: u8 = 6;
/// Most digits of a passcode.
pub const DIGITS_MAX: u8 = 8;
/// Shortest key in bytes: RFC 4226 section 4, R6 asks for 128 bits.
pub const KEY_BYTES_MIN: usize = 16;
/// Longest key in bytes: one block of SHA-512; HMAC hashes longer ones down anyway.
pub const KEY_BYTES_MAX: usize = 128;

/// What a user typed as passcode, reduced to what counts: ASCII digits.
///
/// Spaces, hyphens and full-width digits change nothing, so that they cannot make a second spelling
/// of a used passcode.
#[derive(Clone, PartialEq, Eq)]
pub struct Passcode(String);

impl Passcode {
    /// The digits of `typed`, or `None` when it is not 6 to 8 digits.
    pub fn parse(typed: &str) -> Option<Self> {
        // Typed text is a few characters; anything longer is not a passcode, whatever it folds to.
        if typed.len() > 64 {
            return None;
        }
        let digits: String =
            typed.nfkc().filter(|c| !c.is_whitespace() && !matches!(c, '-' | '\0')).collect();
        let length = usize::from(DIGITS_MIN)..=usize::from(DIGITS_MAX);
        (length.contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_digit()))
            .then_some(Self(digits))
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Passcode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passcode(..)")
    }
}

/// One HMAC key, prepared once for the many values of a look-ahead window.
pub struct Generator {
    mac: KeyedMac,
    digits: u8,
}

enum KeyedMac {
    Sha1(Hmac<sha1::Sha1>),
    Sha256(Hmac<sha2::Sha256>),
    Sha512(Box<Hmac<sha2::Sha512>>),
}

impl Generator {
    /// `digits` outside 6–8 is clamped; a key of any length is accepted, as HMAC does.
    pub fn new(key: &[u8], algorithm: Algorithm, digits: u8) -> Self {
        // HMAC takes a key of any length (RFC 2104 section 2), so `new_from_slice` cannot fail; the
        // fallback keeps this total without a panic.
        fn keyed<M: KeyInit>(key: &[u8]) -> M {
            M::new_from_slice(key).unwrap_or_else(|_| M::new(&Default::default()))
        }
        let mac = match algorithm {
            Algorithm::Sha1 => KeyedMac::Sha1(keyed(key)),
            Algorithm::Sha256 => KeyedMac::Sha256(keyed(key)),
            Algorithm::Sha512 => KeyedMac::Sha512(Box::new(keyed(key))),
        };
        Self { mac, digits: digits.clamp(DIGITS_MIN, DIGITS_MAX) }
    }

    /// The passcode for `moving_factor` (counter or time step): RFC 4226 section 5.3.
    pub fn passcode(&self, moving_factor: u64) -> String {
        let width = usize::from(self.digits);
        format!("{:0width$}", self.value(moving_factor))
    }

    /// True when `passcode` is the one for `moving_factor`. Takes the same time for every
    /// passcode of the right length.
    pub fn matches(&self, passcode: &Passcode, moving_factor: u64) -> bool {
        let Ok(typed) = passcode.0.parse::<u32>() else { return false };
        passcode.0.len() == usize::from(self.digits)
            && bool::from(typed.ct_eq(&self.value(moving_factor)))
    }

    fn value(&self, moving_factor: u64) -> u32 {
        let message = moving_factor.to_be_bytes();
        let truncated = match &self.mac {
            KeyedMac::Sha1(mac) => truncate(mac.clone(), message),
            KeyedMac::Sha256(mac) => truncate(mac.clone(), message),
            KeyedMac::Sha512(mac) => truncate(Hmac::clone(mac), message),
        };
        truncated % 10u32.pow(u32::from(self.digits))
    }
}

/// Dynamic truncation, RFC 4226 section 5.3: 31 bits at the offset that the last nibble names.
fn truncate<M: Mac>(mut mac: M, message: [u8; 8]) -> u32 {
    mac.update(&message);
    let digest = mac.finalize().into_bytes();
    let offset = usize::from(digest.last().copied().unwrap_or(0) & 0x0f);
    let word = digest.get(offset..offset + 4).and_then(|four| four.try_into().ok());
    u32::from_be_bytes(word.unwrap_or([0; 4])) & 0x7fff_ffff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spelling_of_a_passcode_does_not_matter() {
        for typed in ["123456", " 123 456 ", "123-456", "１２３４５６", "123456\0", "\t123456\n"]
        {
            assert_eq!(Passcode::parse(typed).map(|p| p.0).as_deref(), Some("123456"), "{typed:?}");
        }
        for typed in ["", "12345", "123456789", "12345a", "password", "१२३४५६"] {
            assert_eq!(Passcode::parse(typed), None, "{typed:?}");
        }
    }

    #[test]
    fn a_passcode_of_other_length_never_matches() {
        let generator = Generator::new(b"12345678901234567890", Algorithm::Sha1, 6);
        let longer = Passcode::parse("00755224").expect("eight digits");
        assert!(!generator.matches(&longer, 0));
    }

    #[test]
    fn debug_shows_no_digits() {
        assert_eq!(format!("{:?}", Passcode::parse("755224")), "Some(Passcode(..))");
    }
}
