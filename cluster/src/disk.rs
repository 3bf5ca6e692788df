//! The one thread that owns the store, and group commit.
//!
//! Everything that waits when the thread looks becomes one group: its blocks of the log, one flush,
//! one sync, one move of the sidecar, then every waiter is told. Snapshots and the removal of old
//! blocks come in small steps between the groups, so that a login never waits for more than one
//! step. A failed write or sync is final: what reached the device is unknown, and asking again could
//! answer "yes" for data that the kernel has dropped. The thread then refuses everything.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, mpsc};
use std::thread;

use openraft::storage::IOFlushed;

use crate::contain::contain;
use crate::medium::{Answer, Progress, Recovered, Request, answer};
use crate::runtime::{LogId, TypeConfig};
use crate::storage::Storage;

/// Records removed in one step.
const REMOVED_PER_STEP: usize = 64;

/// A handle to the thread.
#[derive(Clone)]
pub(crate) struct Disk {
    requests: mpsc::Sender<Request>,
    progress: Arc<Progress>,
}

impl Disk {
    /// Hands the store to a thread of its own. The thread ends after [`Request::Close`], or when
    /// the last handle is gone.
    pub(crate) fn start(storage: Storage, recovered: &Recovered) -> io::Result<Self> {
        let (requests, waiting) = mpsc::channel();
        let progress = Arc::new(Progress::new(recovered.last, recovered.committed));
        let mut worker = Worker {
            waiting,
            progress: progress.clone(),
            urgent: VecDeque::new(),
            bulk: VecDeque::new(),
            waiters: Vec::new(),
            closing: None,
        };
        // What an earlier run did not get to.
        worker.bulk.push_back(Bulk::RemoveBlocks);
        if let Some(snapshot) = &recovered.snapshot {
            worker.bulk.push_back(Bulk::RemoveChunks { before: snapshot.generation });
        }
        thread::Builder::new().name("watchword-store".into()).spawn(move || worker.run(storage))?;
        Ok(Self { requests, progress })
    }

    /// Queues a request.
    pub(crate) fn submit(&self, request: Request) {
        if let Err(mpsc::SendError(request)) = self.requests.send(request) {
            request.refuse(self.progress.fault().unwrap_or("the store is closed"));
        }
    }

    /// What the thread tells.
    pub(crate) fn progress(&self) -> &Progress {
        &self.progress
    }
}

/// What can wait for the groups.
enum Bulk {
    Request(Request),
    RemoveBlocks,
    RemoveChunks { before: u64 },
}

/// Who is told when a group is durable.
enum Waiter {
    Append(IOFlushed<TypeConfig>),
    Other(Answer<()>),
}

impl Waiter {
    fn tell(self, result: io::Result<()>) {
        match self {
            Self::Append(done) => done.io_completed(result),
            Self::Other(done) => answer(done, result),
        }
    }
}

struct Worker {
    waiting: mpsc::Receiver<Request>,
    progress: Arc<Progress>,
    urgent: VecDeque<Request>,
    bulk: VecDeque<Bulk>,
    /// Who is to be told about the group at hand. Kept here so that a panic does not lose them.
    waiters: Vec<Waiter>,
    closing: Option<Answer<()>>,
}

impl Worker {
    fn run(mut self, mut storage: Storage) {
        let worked = contain(|| self.work(&mut storage));
        let failure = match worked {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(panic) => Some(format!("the database broke down: {panic}")),
        };
        if let Some(failure) = &failure {
            self.progress.set_fault(failure.clone());
        }
        // Closes the database, then releases the lock.
        if let Err(panic) = contain(|| drop(storage)) {
            tracing::error!(panic, "the database could not be closed");
        }
        match failure {
            None => {
                if let Some(done) = self.closing.take() {
                    answer(done, Ok(()));
                }
            }
            Some(failure) => self.refuse_all(&failure),
        }
    }

    /// Works until told to close. An error is final.
    fn work(&mut self, storage: &mut Storage) -> io::Result<()> {
        while self.gather() {
            self.commit_group(storage)?;
            self.step(storage)?;
        }
        storage.put_committed(self.progress.committed())?;
        storage.commit()
    }

    /// Takes in what waits; blocks when there is nothing to do. False when it is time to close.
    fn gather(&mut self) -> bool {
        if self.urgent.is_empty() && self.bulk.is_empty() {
            if self.closing.is_some() {
                return false;
            }
            match self.waiting.recv() {
                Ok(request) => self.sort(request),
                Err(mpsc::RecvError) => return false,
            }
        }
        while let Ok(request) = self.waiting.try_recv() {
            self.sort(request);
        }
        true
    }

    fn sort(&mut self, request: Request) {
        match request {
            Request::Append { .. }
            | Request::Vote { .. }
            | Request::Truncate { .. }
            | Request::Purge { .. } => self.urgent.push_back(request),
            Request::Read { .. }
            | Request::PutChunks { .. }
            | Request::PutSnapshot { .. }
            | Request::ReadChunk { .. } => self.bulk.push_back(Bulk::Request(request)),
            Request::Close { done } => {
                // Removal goes on after the next start.
                self.bulk.retain(|bulk| matches!(bulk, Bulk::Request(_)));
                self.closing = Some(done);
            }
        }
    }

    /// Writes what is urgent as one group, up to a truncation, which stands alone.
    fn commit_group(&mut self, storage: &mut Storage) -> io::Result<()> {
        let result = match self.urgent.pop_front() {
            None => return Ok(()),
            Some(Request::Truncate { after, done }) => {
                self.waiters.push(Waiter::Other(done));
                storage.truncate(after)
            }
            Some(first) => {
                self.urgent.push_front(first);
                self.write_group(storage).and_then(|()| storage.commit())
            }
        };
        self.finish(storage.last(), result)
    }

    fn write_group(&mut self, storage: &mut Storage) -> io::Result<()> {
        while let Some(request) = self.urgent.pop_front() {
            match request {
                Request::Append { entries, done } => {
                    self.waiters.push(Waiter::Append(done));
                    entries.iter().try_for_each(|entry| storage.append(entry))?;
                }
                Request::Vote { vote, done } => {
                    self.waiters.push(Waiter::Other(done));
                    storage.put_vote(vote)?;
                }
                Request::Purge { upto, done } => {
                    self.waiters.push(Waiter::Other(done));
                    storage.put_purged(upto)?;
                    self.bulk.push_back(Bulk::RemoveBlocks);
                }
                other => {
                    self.urgent.push_front(other);
                    break;
                }
            }
        }
        storage.put_committed(self.progress.committed())
    }

    /// Tells everybody who waits for the group at hand.
    fn finish(&mut self, last: Option<LogId>, result: io::Result<()>) -> io::Result<()> {
        match &result {
            Ok(()) => self.progress.set_written(last),
            // Before the waiters hear of it, so that they find the reason.
            Err(error) => self.progress.set_fault(error.to_string()),
        }
        for waiter in self.waiters.drain(..) {
            let result = match &result {
                Ok(()) => Ok(()),
                Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
            };
            waiter.tell(result);
        }
        result
    }

    /// Does one thing that can wait.
    fn step(&mut self, storage: &mut Storage) -> io::Result<()> {
        let more = match self.bulk.pop_front() {
            None => return Ok(()),
            Some(Bulk::Request(request)) => return self.serve(storage, request),
            Some(Bulk::RemoveBlocks) => {
                storage.remove_blocks(REMOVED_PER_STEP)?.then_some(Bulk::RemoveBlocks)
            }
            Some(Bulk::RemoveChunks { before }) => storage
                .remove_chunks(before, REMOVED_PER_STEP)?
                .then_some(Bulk::RemoveChunks { before }),
        };
        self.bulk.extend(more);
        Ok(())
    }

    fn serve(&mut self, storage: &mut Storage, request: Request) -> io::Result<()> {
        match request {
            Request::Read { from, to, answer: done } => {
                answer(done, storage.read(from, to));
                Ok(())
            }
            Request::ReadChunk { generation, number, answer: done } => {
                answer(done, storage.read_chunk(generation, number));
                Ok(())
            }
            Request::PutChunks { generation, first, chunks, done } => {
                self.waiters.push(Waiter::Other(done));
                let result = (first..)
                    .zip(&chunks)
                    .try_for_each(|(number, chunk)| storage.put_chunk(generation, number, chunk))
                    .and_then(|()| storage.commit());
                self.finish(storage.last(), result)
            }
            Request::PutSnapshot { record, done } => {
                self.waiters.push(Waiter::Other(done));
                let result = storage.put_snapshot(&record).and_then(|()| storage.commit());
                self.bulk.push_back(Bulk::RemoveChunks { before: record.generation });
                self.finish(storage.last(), result)
            }
            // Sorted elsewhere; nothing to do.
            Request::Append { .. }
            | Request::Vote { .. }
            | Request::Truncate { .. }
            | Request::Purge { .. }
            | Request::Close { .. } => Ok(()),
        }
    }

    /// Refuses whatever still comes, until nobody can ask any more.
    fn refuse_all(&mut self, failure: &str) {
        if let Some(done) = self.closing.take() {
            Request::Close { done }.refuse(failure);
        }
        for waiter in self.waiters.drain(..) {
            waiter.tell(Err(io::Error::other(failure.to_owned())));
        }
        for request in self.urgent.drain(..) {
            request.refuse(failure);
        }
        for bulk in self.bulk.drain(..) {
            if let Bulk::Request(request) = bulk {
                request.refuse(failure);
            }
        }
        while let Ok(request) = self.waiting.recv() {
            request.refuse(failure);
        }
    }
}
