//! A command as the log holds it: decoded, and as the bytes that go to disk and to the peers.
//!
//! openraft clones entries whenever it reads the log, so a clone must cost no more than a counter.
//! The bytes are made by the proposer, on its own task, and anew by the leader, whose time counts for what
//! others forward to it; from then on they are written and sent as they are.

use std::fmt;
use std::sync::Arc;

use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use watchword_core::Entry;
use watchword_core::codec::{self, DecodeError, EncodeError};
use watchword_core::limits::ENTRY_BYTES_MAX;
use watchword_core::time::Timestamp;

/// Memory that decoding one entry may claim. Decoded values are larger than their bytes; what was
/// accepted by the log must decode on every node, so this is generous.
const ENTRY_MEMORY_MAX: usize = 32 * ENTRY_BYTES_MAX;

/// One command with its time, in both forms.
#[derive(Clone)]
pub(crate) struct Logged(Arc<Both>);

#[derive(Clone)]
struct Both {
    entry: Entry,
    bytes: Box<[u8]>,
}

impl Logged {
    /// Encodes `entry`.
    pub(crate) fn new(entry: Entry) -> Result<Self, EncodeError> {
        let bytes = codec::encode(&entry)?.into_boxed_slice();
        Ok(Self(Arc::new(Both { entry, bytes })))
    }

    /// The inverse: reads what [`Logged::bytes`] gave.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let entry = codec::decode::<Entry, ENTRY_MEMORY_MAX>(bytes)?;
        Ok(Self(Arc::new(Both { entry, bytes: bytes.into() })))
    }

    /// The same command at another time.
    pub(crate) fn restamped(self, time: Timestamp) -> Result<Self, EncodeError> {
        let command = Arc::unwrap_or_clone(self.0).entry.command;
        Self::new(Entry { time, command })
    }

    /// What to apply.
    pub(crate) fn entry(&self) -> &Entry {
        &self.0.entry
    }

    /// What to store and send.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0.bytes
    }
}

impl fmt::Display for Logged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command of {} bytes", self.0.bytes.len())
    }
}

impl fmt::Debug for Logged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Logged {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.bytes())
    }
}

impl<'de> Deserialize<'de> for Logged {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Logged;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the bytes of a log entry")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Logged, E> {
                Logged::decode(bytes).map_err(E::custom)
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}
