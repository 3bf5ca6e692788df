//! Snapshots on the medium: pieces under a generation of their own, then one small record.
//!
//! A snapshot is in force once its record is durable; that record is written after all pieces are,
//! so a crash at any point leaves the earlier snapshot in force. The pieces of others are removed
//! afterwards.

use std::io;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};

use tokio::sync::Mutex;

use crate::medium::{Medium, Request, SnapshotRecord};
use crate::runtime::{Snapshot, SnapshotMeta};
use crate::storage::CHUNK_BYTES;

/// Pieces written at once: what a login may have to wait for.
const CHUNKS_PER_REQUEST: usize = 64;

/// The content of a snapshot, as openraft hands it from one part of this crate to another.
#[derive(Clone)]
pub(crate) enum SnapshotData {
    /// It lies on a shelf, and is read when it is needed.
    Stored(Shelf, SnapshotRecord),
    /// It came from the leader.
    Received(Arc<[u8]>),
}

impl SnapshotData {
    /// The encoded state.
    pub(crate) async fn read(&self) -> io::Result<Arc<[u8]>> {
        match self {
            Self::Stored(shelf, record) => shelf.read(record).await.map(Arc::from),
            Self::Received(bytes) => Ok(bytes.clone()),
        }
    }
}

/// Where this node's snapshot is kept.
#[derive(Clone)]
pub(crate) struct Shelf {
    medium: Medium,
    current: Arc<StdMutex<Option<SnapshotRecord>>>,
    /// The last generation that was begun. Held while one is written: one at a time.
    generation: Arc<Mutex<u64>>,
}

impl Shelf {
    /// The shelf on `medium`, with `current` in force.
    pub(crate) fn new(medium: Medium, current: Option<SnapshotRecord>) -> Self {
        let generation = current.as_ref().map_or(0, |record| record.generation);
        Self {
            medium,
            current: Arc::new(StdMutex::new(current)),
            generation: Arc::new(Mutex::new(generation)),
        }
    }

    /// The snapshot in force.
    pub(crate) fn current(&self) -> Option<Snapshot> {
        let record = self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        Some(self.stored(record))
    }

    fn stored(&self, record: SnapshotRecord) -> Snapshot {
        let meta = record.meta.clone();
        Snapshot { meta, snapshot: SnapshotData::Stored(self.clone(), record) }
    }

    /// Makes sure that a snapshot whose content was read lies on this shelf.
    pub(crate) async fn keep(
        &self,
        meta: &SnapshotMeta,
        data: &SnapshotData,
        bytes: &[u8],
    ) -> io::Result<()> {
        match data {
            SnapshotData::Stored(shelf, _) if Arc::ptr_eq(&shelf.current, &self.current) => Ok(()),
            SnapshotData::Stored(..) | SnapshotData::Received(_) => {
                self.put(meta.clone(), bytes).await.map(drop)
            }
        }
    }

    /// Writes a snapshot and puts it in force, unless a newer one is.
    pub(crate) async fn put(&self, meta: SnapshotMeta, bytes: &[u8]) -> io::Result<Snapshot> {
        let mut generation = self.generation.lock().await;
        if let Some(current) = self.current()
            && current.meta.last_log_id > meta.last_log_id
        {
            return Ok(current);
        }
        *generation += 1;
        let generation = *generation;
        let mut chunks = 0;
        for run in bytes.chunks(CHUNK_BYTES * CHUNKS_PER_REQUEST) {
            let run: Vec<_> = run.chunks(CHUNK_BYTES).map(<[u8]>::to_vec).collect();
            let first = chunks;
            chunks += u32::try_from(run.len()).map_err(io::Error::other)?;
            self.medium
                .call(|done| Request::PutChunks { generation, first, chunks: run, done })
                .await?;
        }
        let record = SnapshotRecord {
            generation,
            meta,
            bytes: bytes.len() as u64,
            chunks,
            crc: crc32fast::hash(bytes),
        };
        self.medium.call(|done| Request::PutSnapshot { record: record.clone(), done }).await?;
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(record.clone());
        Ok(self.stored(record))
    }

    /// Reads a stored snapshot and checks it as a whole.
    async fn read(&self, record: &SnapshotRecord) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(usize::try_from(record.bytes).unwrap_or(0));
        let generation = record.generation;
        for number in 0..record.chunks {
            let chunk = self
                .medium
                .call(|answer| Request::ReadChunk { generation, number, answer })
                .await
                .map_err(|error| {
                    io::Error::other(format!("piece {number} of snapshot {generation}: {error}"))
                })?;
            bytes.extend_from_slice(&chunk);
        }
        if (bytes.len() as u64, crc32fast::hash(&bytes)) != (record.bytes, record.crc) {
            return Err(io::Error::other(format!(
                "the pieces of snapshot {generation} do not add up"
            )));
        }
        Ok(bytes)
    }
}
