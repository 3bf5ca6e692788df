//! Secrets that only ever appear sealed.
//!
//! The proposer seals a secret under the cluster's data key (AES-256-GCM, the owning record's id as
//! additional data) before it enters a command, so that log, snapshot, backup and wire hold no clear
//! secret. This crate cannot open one.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Ciphertext of one secret, opaque here. Its layout belongs to whoever holds the data key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed(Arc<[u8]>);

impl Sealed {
    /// Wraps ciphertext.
    pub fn new(ciphertext: &[u8]) -> Self {
        Self(ciphertext.into())
    }

    /// The ciphertext.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({} bytes)", self.0.len())
    }
}
