//! What a user holds: OATH tokens.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::factor::Algorithm;
use crate::id::UserId;
use crate::sealed::Sealed;
use crate::time::Timestamp;

/// One enrolled device of one user. It is removed when revoked: nothing can rely on it afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Whose it is.
    pub user: UserId,
    /// A name for people ("blue token").
    pub label: Arc<str>,
    /// The shared key, sealed for the device's id.
    pub key: Sealed,
    /// How passcodes are made.
    pub oath: Oath,
    /// When it was enrolled.
    pub created: Timestamp,
}

/// The moving part of an OATH token: its parameters and what has been consumed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Oath {
    /// RFC 6238.
    Totp(Totp),
    /// RFC 4226.
    Hotp(Hotp),
}

/// A time-based token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totp {
    /// Hash function.
    pub algorithm: Algorithm,
    /// 6, 7 or 8.
    pub digits: u8,
    /// 30 or 60.
    pub period_seconds: u32,
    /// Steps by which the token's clock was ahead at the last accept (negative: behind).
    pub drift: i32,
    /// The last step that was accepted. It and all before it are used up.
    pub last_step: Option<u64>,
}

/// An event-based token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hotp {
    /// Hash function.
    pub algorithm: Algorithm,
    /// 6, 7 or 8.
    pub digits: u8,
    /// The lowest counter that may still be accepted. All before it are used up.
    pub next_counter: u64,
}

impl Oath {
    /// Number of digits of its passcodes.
    pub fn digits(&self) -> u8 {
        match self {
            Self::Totp(totp) => totp.digits,
            Self::Hotp(hotp) => hotp.digits,
        }
    }

    /// Hash function.
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::Totp(totp) => totp.algorithm,
            Self::Hotp(hotp) => hotp.algorithm,
        }
    }
}
