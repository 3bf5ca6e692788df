//! Identifiers.
//!
//! Each is 128 bits, drawn at random (or hashed) by the proposer and carried in the command: `apply`
//! never makes one. They order as bytes, which fixes the order of every map in the state.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; 16]);

        // As bytes, but in two instructions: every walk of a map compares ids dozens of times.
        impl Ord for $name {
            fn cmp(&self, other: &Self) -> Ordering {
                u128::from_be_bytes(self.0).cmp(&u128::from_be_bytes(other.0))
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }

        impl std::str::FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                parse_hex(text).map(Self)
            }
        }
    };
}

identifier! {
    /// One user, for ever: a renamed user keeps it.
    UserId
}
identifier! {
    /// One enrolled device.
    DeviceId
}
identifier! {
    /// One client.
    ClientId
}
identifier! {
    /// One directory.
    DirectoryId
}
identifier! {
    /// One request of a client, equal on every node that receives a copy of it (a hash).
    RequestId
}
identifier! {
    /// One cluster: nodes of two clusters never take each other for peers.
    ClusterId
}
identifier! {
    /// One token that admits nodes.
    TokenId
}
identifier! {
    /// One opened challenge.
    ChallengeId
}

/// The text is not 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an id is 32 hexadecimal digits")]
pub struct ParseIdError;

fn parse_hex(text: &str) -> Result<[u8; 16], ParseIdError> {
    let mut id = [0; 16];
    if text.len() != 32 {
        return Err(ParseIdError);
    }
    for (byte, digits) in id.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digits = std::str::from_utf8(digits).map_err(|_| ParseIdError)?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(ParseIdError);
        }
        *byte = u8::from_str_radix(digits, 16).map_err(|_| ParseIdError)?;
    }
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_text_form() {
        let id = UserId([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255]);
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn anything_but_32_digits_is_refused() {
        for text in
            ["", "0", "zz", "+0+0+0+0+0+0+0+0+0+0+0+0+0+0+0+0", "é0102030405060708090a0b0c0d0e0"]
        {
            assert_eq!(text.parse::<UserId>(), Err(ParseIdError), "{text}");
        }
    }
}
