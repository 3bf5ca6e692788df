//! The sidecar: how far the store must at least have got, in a file of its own.
//!
//! The database can come back older than what was acknowledged without a word (a truncated file
//! does that, a restored copy too). A node that then votes or acknowledges again breaks Raft. So
//! after every sync of the database, and before anybody is told, the vote and the last log id go
//! into this file, with a sync of its own. A store that is older than its sidecar must not start.
//!
//! Two slots are written in turn, each with a sequence number and a checksum, so that a torn write
//! spoils only the slot whose content nobody was told about yet.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use watchword_core::codec;

use crate::record;
use crate::runtime::{LogId, NodeId, Vote};

/// Distance of the slots: a page, so that no write touches both.
const SLOT_BYTES: usize = 4096;
const SLOT_COUNT: u64 = 2;

/// What the store has promised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Marks {
    /// The vote that was given.
    pub(crate) vote: Option<Vote>,
    /// The last entry that was acknowledged.
    pub(crate) last: Option<LogId>,
}

#[derive(Serialize, Deserialize)]
struct Slot {
    sequence: u64,
    node_id: NodeId,
    marks: Marks,
}

/// The open file.
pub(crate) struct Sidecar {
    file: File,
    node_id: NodeId,
    sequence: u64,
    marks: Marks,
}

/// Why there is no sidecar to go by.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SidecarError {
    /// The file is not there.
    #[error("it is missing")]
    Missing,
    /// Neither slot is whole.
    #[error("neither of its slots is whole")]
    Damaged,
    /// It belongs to another node.
    #[error("it belongs to node {0}")]
    WrongNode(NodeId),
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Sidecar {
    /// Makes the file at full length, so that later writes need no metadata.
    pub(crate) fn create(path: &Path, node_id: NodeId, marks: Marks) -> io::Result<()> {
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        file.write_all_at(&[0; SLOT_BYTES * SLOT_COUNT as usize], 0)?;
        file.sync_all()?;
        let mut sidecar = Self { file, node_id, sequence: 0, marks };
        sidecar.put(marks)
    }

    /// Opens the file and finds the younger whole slot.
    pub(crate) fn open(path: &Path, node_id: NodeId) -> Result<Self, SidecarError> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(SidecarError::Missing);
            }
            opened => opened?,
        };
        let slots = (0..SLOT_COUNT).filter_map(|slot| read_slot(&file, slot));
        let youngest = slots.max_by_key(|slot| slot.sequence).ok_or(SidecarError::Damaged)?;
        if youngest.node_id != node_id {
            return Err(SidecarError::WrongNode(youngest.node_id));
        }
        Ok(Self { file, node_id, sequence: youngest.sequence, marks: youngest.marks })
    }

    /// What the store has promised.
    pub(crate) fn marks(&self) -> Marks {
        self.marks
    }

    /// Replaces the marks durably; does nothing when they are the same.
    pub(crate) fn write(&mut self, marks: Marks) -> io::Result<()> {
        if marks == self.marks { Ok(()) } else { self.put(marks) }
    }

    fn put(&mut self, marks: Marks) -> io::Result<()> {
        let sequence = self.sequence + 1;
        let slot = Slot { sequence, node_id: self.node_id, marks };
        let record = record::seal(&codec::encode(&slot).map_err(io::Error::other)?);
        let length = u16::try_from(record.len()).map_err(io::Error::other)?;
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend_from_slice(&record);
        self.file.write_all_at(&bytes, (sequence % SLOT_COUNT) * SLOT_BYTES as u64)?;
        self.file.sync_data()?;
        self.sequence = sequence;
        self.marks = marks;
        Ok(())
    }
}

/// The slot, if it is whole. A slot that cannot be read counts as torn.
fn read_slot(file: &File, slot: u64) -> Option<Slot> {
    let mut bytes = [0; SLOT_BYTES];
    let read = file.read_at(&mut bytes, slot * SLOT_BYTES as u64).ok()?;
    let (length, rest) = bytes.get(..read)?.split_first_chunk::<2>()?;
    let record = rest.get(..usize::from(u16::from_le_bytes(*length)))?;
    codec::decode::<Slot, SLOT_BYTES>(record::open(record)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::block::log_id;

    fn marks(index: u64) -> Marks {
        Marks { vote: Some(Vote::new(4, 1)), last: Some(log_id(4, 1, index)) }
    }

    #[test]
    fn the_youngest_marks_are_found_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("sidecar");
        assert!(matches!(Sidecar::open(&path, 1), Err(SidecarError::Missing)));
        Sidecar::create(&path, 1, Marks::default()).expect("created");
        let mut sidecar = Sidecar::open(&path, 1).expect("opened");
        for index in 0..5 {
            sidecar.write(marks(index)).expect("written");
            assert_eq!(Sidecar::open(&path, 1).expect("opened").marks(), marks(index));
        }
        assert!(matches!(Sidecar::open(&path, 2), Err(SidecarError::WrongNode(1))));
    }

    proptest! {
        #[test]
        fn a_torn_write_leaves_the_marks_before_it(
            writes in 1u64..6,
            cut in 0usize..100,
            garbage in prop::collection::vec(any::<u8>(), 100),
        ) {
            let dir = tempfile::tempdir().expect("a directory");
            let path = dir.path().join("sidecar");
            Sidecar::create(&path, 1, marks(0)).expect("created");
            let mut sidecar = Sidecar::open(&path, 1).expect("opened");
            for index in 1..=writes {
                sidecar.write(marks(index)).expect("written");
            }
            // The next write would go to the older slot and stops anywhere in it.
            let older = (sidecar.sequence + 1) % SLOT_COUNT;
            sidecar.file.write_all_at(&garbage[..cut], older * SLOT_BYTES as u64).expect("torn");
            prop_assert_eq!(Sidecar::open(&path, 1).expect("opened").marks(), marks(writes));
            // With both slots gone there is nothing to go by.
            sidecar.file.set_len(0).expect("cut");
            prop_assert!(matches!(Sidecar::open(&path, 1), Err(SidecarError::Damaged)));
        }
    }
}
