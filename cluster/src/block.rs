//! The layout of the log on disk: one block holds what was written together.
//!
//! ```text
//! block   crc u32 | format u8 | first index u64 | entries u32 | entry…
//! entry   kind u8 | term u64 | leader u64 | length u32 | content
//! ```
//!
//! All numbers are little endian; the checksum covers everything after it. Indexes within a block
//! are consecutive. The content of a command is what [`Logged::bytes`] gives, that of a membership
//! its encoding, a blank entry has none.

use openraft::EntryPayload;
use openraft::entry::RaftEntry as _;
use openraft::vote::RaftLeaderId;
use watchword_core::codec::{self, DecodeError, EncodeError};

use crate::logged::Logged;
use crate::record;
use crate::runtime::{LogId, Membership, RaftEntry, StoredMembership};

/// The only layout so far.
const FORMAT: u8 = 1;
/// Bytes before the first entry.
const HEADER_BYTES: usize = 4 + 1 + 8 + 4;
/// Bytes before the content of an entry.
const FRAME_BYTES: usize = 1 + 8 + 8 + 4;
/// Memory that decoding a membership may claim.
const MEMBERSHIP_MEMORY_MAX: usize = 1024 * 1024;

const BLANK: u8 = 0;
const COMMAND: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// A block is closed before it grows beyond this; an entry that is longer has a block of its own.
///
/// sled's cache cannot let go of a page unless it holds several per shard, so its memory is bounded
/// only while pages are small: blocks of 64 KiB would keep the whole log in memory.
pub(crate) const BLOCK_BYTES: usize = 4096;

/// What is wrong with a block.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BlockError {
    /// The checksum does not match.
    #[error("its checksum does not match")]
    Checksum,
    /// Written by a newer release.
    #[error("it has layout {0}; this release reads layout {FORMAT}")]
    UnknownFormat(u8),
    /// Its length contradicts its content.
    #[error("its parts do not add up")]
    Malformed,
    /// The checksum matches, but the content is not of this release.
    #[error("entry {index} cannot be decoded")]
    Content {
        /// Index of the entry.
        index: u64,
        /// Why.
        source: DecodeError,
    },
    /// The entry has a kind that this release does not know.
    #[error("entry {index} is of unknown kind {kind}")]
    UnknownKind {
        /// Index of the entry.
        index: u64,
        /// Its kind.
        kind: u8,
    },
}

/// A block being filled.
pub(crate) struct BlockWriter {
    bytes: Vec<u8>,
    first: u64,
    last: LogId,
    entries: u32,
}

impl BlockWriter {
    /// Starts a block with `entry`.
    pub(crate) fn start(entry: &RaftEntry) -> Result<Self, EncodeError> {
        let mut bytes = Vec::with_capacity(1024);
        bytes.extend_from_slice(&[0; 4]);
        bytes.push(FORMAT);
        bytes.extend_from_slice(&entry.index().to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        let mut block = Self { bytes, first: entry.index(), last: entry.log_id(), entries: 0 };
        block.push(entry)?;
        Ok(block)
    }

    /// Adds `entry` unless the block is full or its index does not follow; says whether it did.
    pub(crate) fn add(&mut self, entry: &RaftEntry) -> Result<bool, EncodeError> {
        let mark = (self.bytes.len(), self.last);
        if entry.index() != self.last.index + 1 {
            return Ok(false);
        }
        self.push(entry)?;
        if self.bytes.len() <= BLOCK_BYTES {
            return Ok(true);
        }
        self.bytes.truncate(mark.0);
        self.last = mark.1;
        self.entries -= 1;
        Ok(false)
    }

    fn push(&mut self, entry: &RaftEntry) -> Result<(), EncodeError> {
        let id = entry.log_id();
        match &entry.payload {
            EntryPayload::Blank => self.frame(BLANK, id, &[]),
            EntryPayload::Normal(logged) => self.frame(COMMAND, id, logged.bytes()),
            EntryPayload::Membership(membership) => {
                self.frame(MEMBERSHIP, id, &codec::encode(membership)?);
            }
        }
        self.last = id;
        self.entries += 1;
        Ok(())
    }

    fn frame(&mut self, kind: u8, id: LogId, content: &[u8]) {
        // Contents are bounded far below 4 GiB: commands by the proposer, memberships by nature.
        let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
        self.bytes.push(kind);
        self.bytes.extend_from_slice(&id.leader_id.term.to_le_bytes());
        self.bytes.extend_from_slice(&id.leader_id.node_id.to_le_bytes());
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(content);
    }

    /// The index of the first entry and the finished record.
    pub(crate) fn finish(mut self) -> (u64, Vec<u8>) {
        if let Some(entries) = self.bytes.get_mut(HEADER_BYTES - 4..HEADER_BYTES) {
            entries.copy_from_slice(&self.entries.to_le_bytes());
        }
        record::seal_in_place(&mut self.bytes);
        (self.first, self.bytes)
    }
}

/// An entry in a block, not decoded yet.
pub(crate) struct Frame<'a> {
    /// Which entry.
    pub(crate) id: LogId,
    kind: u8,
    content: &'a [u8],
}

impl Frame<'_> {
    /// Decodes the entry.
    pub(crate) fn entry(&self) -> Result<RaftEntry, BlockError> {
        let content = |source| BlockError::Content { index: self.id.index, source };
        let payload = match self.kind {
            BLANK => EntryPayload::Blank,
            COMMAND => EntryPayload::Normal(Logged::decode(self.content).map_err(content)?),
            MEMBERSHIP => EntryPayload::Membership(self.decode_membership()?),
            kind => return Err(BlockError::UnknownKind { index: self.id.index, kind }),
        };
        Ok(RaftEntry::new(self.id, payload))
    }

    /// The membership, if the entry carries one.
    pub(crate) fn membership(&self) -> Result<Option<StoredMembership>, BlockError> {
        if self.kind != MEMBERSHIP {
            return Ok(None);
        }
        let membership = self.decode_membership()?;
        Ok(Some(StoredMembership::new(Some(self.id), membership)))
    }

    fn decode_membership(&self) -> Result<Membership, BlockError> {
        codec::decode::<Membership, MEMBERSHIP_MEMORY_MAX>(self.content)
            .map_err(|source| BlockError::Content { index: self.id.index, source })
    }
}

/// Checks a block and takes it apart.
pub(crate) fn frames(block: &[u8]) -> Result<Vec<Frame<'_>>, BlockError> {
    let mut rest = Rest(record::open(block).ok_or(BlockError::Checksum)?);
    let [format] = rest.take()?;
    if format != FORMAT {
        return Err(BlockError::UnknownFormat(format));
    }
    let first = u64::from_le_bytes(rest.take()?);
    let entries = u32::from_le_bytes(rest.take()?);
    // The count is checked against the length before memory is set aside for it.
    if entries as usize > rest.0.len() / FRAME_BYTES {
        return Err(BlockError::Malformed);
    }
    let mut frames = Vec::with_capacity(entries as usize);
    for position in 0..u64::from(entries) {
        let [kind] = rest.take()?;
        let term = u64::from_le_bytes(rest.take()?);
        let node = u64::from_le_bytes(rest.take()?);
        let length = u32::from_le_bytes(rest.take()?);
        let content = rest.bytes(length as usize)?;
        let index = first.checked_add(position).ok_or(BlockError::Malformed)?;
        frames.push(Frame { id: log_id(term, node, index), kind, content });
    }
    if rest.0.is_empty() && !frames.is_empty() { Ok(frames) } else { Err(BlockError::Malformed) }
}

/// Puts a log id together.
pub(crate) fn log_id(term: u64, node: u64, index: u64) -> LogId {
    LogId { leader_id: RaftLeaderId::new(term, node), index }
}

struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], BlockError> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or(BlockError::Malformed)?;
        self.0 = tail;
        Ok(*head)
    }

    fn bytes(&mut self, length: usize) -> Result<&'a [u8], BlockError> {
        let (head, tail) = self.0.split_at_checked(length).ok_or(BlockError::Malformed)?;
        self.0 = tail;
        Ok(head)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use watchword_core::id::UserId;
    use watchword_core::time::Timestamp;
    use watchword_core::{Command, Entry};

    use super::*;

    fn command(index: u64, reason: &str) -> RaftEntry {
        let command = Command::BlockUser {
            user: UserId([7; 16]),
            reason: reason.into(),
            by: "test".into(),
            for_ms: None,
        };
        let logged = Logged::new(Entry { time: Timestamp(1), command }).expect("encodes");
        RaftEntry::new(log_id(3, 1, index), EntryPayload::Normal(logged))
    }

    fn block(entries: &[RaftEntry]) -> Vec<u8> {
        let mut writer = BlockWriter::start(&entries[0]).expect("encodes");
        for entry in &entries[1..] {
            assert!(writer.add(entry).expect("encodes"));
        }
        writer.finish().1
    }

    #[test]
    fn entries_survive_the_way_through_a_block() {
        let membership = Membership::new_with_defaults(vec![[1, 2].into()], []);
        let entries = [
            RaftEntry::new(log_id(2, 9, 40), EntryPayload::Blank),
            RaftEntry::new(log_id(3, 1, 41), EntryPayload::Membership(membership.clone())),
            command(42, "lost the token"),
        ];
        let block = block(&entries);
        let frames = frames(&block).expect("a block");
        let read: Vec<_> = frames.iter().map(|frame| frame.entry().expect("decodes")).collect();
        assert_eq!(format!("{read:?}"), format!("{entries:?}"));
        let found = frames[1].membership().expect("decodes").expect("is one");
        assert_eq!(found.membership(), &membership);
        assert!(frames[2].membership().expect("decodes").is_none());
        let EntryPayload::Normal(read) = &read[2].payload else { panic!("a command") };
        let EntryPayload::Normal(written) = &entries[2].payload else { panic!("a command") };
        assert_eq!(read.entry(), written.entry());
    }

    #[test]
    fn a_block_is_closed_when_it_is_full() {
        let long = "x".repeat(BLOCK_BYTES / 3);
        let mut writer = BlockWriter::start(&command(0, &long)).expect("encodes");
        assert!(writer.add(&command(1, &long)).expect("encodes"));
        assert!(!writer.add(&command(2, &long)).expect("encodes"));
        assert!(!writer.add(&command(9, "")).expect("encodes"), "indexes must be consecutive");
        let (_, block) = writer.finish();
        assert!(block.len() <= BLOCK_BYTES);
        assert_eq!(frames(&block).expect("a block").len(), 2);
        let alone = BlockWriter::start(&command(0, &"x".repeat(2 * BLOCK_BYTES)));
        let (_, block) = alone.expect("encodes").finish();
        assert_eq!(frames(&block).expect("a block").len(), 1);
    }

    proptest! {
        #[test]
        fn what_is_no_block_is_refused_without_panic(mut bytes in any::<Vec<u8>>()) {
            prop_assert!(frames(&bytes).is_err() || bytes.len() > HEADER_BYTES);
            record::seal_in_place(&mut bytes);
            if let Ok(frames) = frames(&bytes) {
                for frame in frames {
                    drop(frame.entry());
                }
            }
        }

        #[test]
        fn a_changed_byte_is_noticed(at in any::<prop::sample::Index>(), change in 1u8..) {
            let mut block = block(&[command(5, "a"), command(6, "b")]);
            let at = at.index(block.len());
            block[at] ^= change;
            prop_assert!(matches!(frames(&block), Err(BlockError::Checksum)));
        }
    }
}
