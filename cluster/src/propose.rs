//! The only place that proposes.
//!
//! A proposal is stamped with the leader's time and encoded on the caller's own task, then joins a
//! queue. One task hands whatever waits there to openraft as one batch, and lets the next batch
//! gather while [`BATCHES_IN_FLIGHT`] are on their way: under load the batches grow by themselves,
//! and at rest a proposal waits for nothing. What is in flight is bounded by weight; beyond that the
//! newest proposal is refused at once, so that a flood delays nobody for long.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::StreamExt;
use openraft::errors::{ClientWriteError, Fatal, ForwardToLeader};
use openraft::raft::WriteResult;
use openraft::type_config::TypeConfigExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use watchword_core::limits::ENTRY_BYTES_MAX;
use watchword_core::{Applied, Command, Entry};

use crate::Cluster;
use crate::logged::Logged;
use crate::medium::Medium;
use crate::runtime::{NodeId, Raft, TypeConfig};

/// Batches on their way at once. With one, few callers wait for two rounds; without a bound, batches
/// stay small under load and each costs more.
const BATCHES_IN_FLIGHT: usize = 16;
/// What may be in flight, in bytes: some 27,000 logins.
const IN_FLIGHT_MAX: usize = 32 * 1024 * 1024;
/// What a proposal weighs beside its bytes.
const PROPOSAL_OVERHEAD: usize = 1024;
/// Proposals in one batch, in number and weight.
const BATCH_MAX: usize = 1024;
const BATCH_WEIGHT_MAX: usize = 2 * 1024 * 1024;

/// Why a proposal was not answered by `apply`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Nothing was proposed: only the leader can.
    #[error("this node is not the leader")]
    NotLeader {
        /// Who is, as far as this node knows.
        leader: Option<NodeId>,
    },
    /// The command may take effect, now or later, or not at all. Unknown is not no: ask again under
    /// the same request id.
    #[error("the outcome of the proposal is unknown")]
    OutcomeUnknown,
    /// Nothing was proposed: too much is in flight.
    #[error("too many proposals are in flight")]
    Overloaded,
    /// Nothing was proposed: the command is too long.
    #[error("the command has {bytes} bytes; the log takes {ENTRY_BYTES_MAX}")]
    TooLong {
        /// Its encoded length.
        bytes: usize,
    },
    /// Nothing was proposed: the command cannot be encoded.
    #[error("the command cannot be encoded: {reason}")]
    Malformed {
        /// Why.
        reason: String,
    },
    /// Nothing was proposed: this node has stopped.
    #[error("the replica has stopped: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },
}

/// What a proposal came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposed {
    /// Index of its entry: whoever has applied up to here sees what it did.
    pub index: u64,
    /// What it did.
    pub applied: Applied,
}

/// The queue in front of the log.
pub(crate) struct Proposer {
    queue: mpsc::UnboundedSender<Waiting>,
    in_flight: Arc<AtomicUsize>,
}

/// A proposal in the queue.
struct Waiting {
    logged: Logged,
    answer: oneshot::Sender<Result<Proposed, ProposeError>>,
    _ticket: Ticket,
}

/// Counts a proposal until it is over, also when its caller has given up.
struct Ticket {
    in_flight: Arc<AtomicUsize>,
    weight: usize,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.in_flight.fetch_sub(self.weight, Ordering::Relaxed);
    }
}

impl Proposer {
    /// Starts the task that hands proposals to `raft`. It ends when the queue is gone.
    pub(crate) fn start(raft: Raft, medium: Medium) -> Self {
        let (queue, waiting) = mpsc::unbounded_channel();
        drop(TypeConfig::spawn(hand_over(raft, medium, waiting)));
        Self { queue, in_flight: Arc::default() }
    }

    fn enter(&self, weight: usize) -> Result<Ticket, ProposeError> {
        let ticket = Ticket { in_flight: self.in_flight.clone(), weight };
        let before = self.in_flight.fetch_add(weight, Ordering::Relaxed);
        if before + weight > IN_FLIGHT_MAX { Err(ProposeError::Overloaded) } else { Ok(ticket) }
    }
}

/// Takes what waits, batch by batch.
async fn hand_over(raft: Raft, medium: Medium, mut waiting: mpsc::UnboundedReceiver<Waiting>) {
    let permits = Arc::new(Semaphore::new(BATCHES_IN_FLIGHT));
    while let Some(first) = waiting.recv().await {
        // The semaphore is never closed.
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        let mut weight = weight(&first.logged);
        let mut batch = vec![first];
        while batch.len() < BATCH_MAX && weight < BATCH_WEIGHT_MAX {
            let Ok(next) = waiting.try_recv() else { break };
            weight += self::weight(&next.logged);
            batch.push(next);
        }
        let commands: Vec<_> = batch.iter().map(|one| one.logged.clone()).collect();
        match raft.client_write_many(commands).await {
            Ok(results) => drop(TypeConfig::spawn(answer_batch(batch, results, permit))),
            Err(fatal) => {
                let reason = stop_reason(&medium, &fatal);
                for one in batch {
                    tell(one, Err(ProposeError::Stopped { reason: reason.clone() }));
                }
            }
        }
    }
}

/// Passes the results of a batch on as they come.
async fn answer_batch(
    batch: Vec<Waiting>,
    mut results: impl futures::Stream<Item = BatchResult> + Unpin,
    _permit: OwnedSemaphorePermit,
) {
    for one in batch {
        let result = match results.next().await {
            Some(Ok(Ok(written))) => {
                Ok(Proposed { index: written.log_id.index, applied: written.response })
            }
            Some(Ok(Err(error))) => Err(refused(error)),
            // The core drops what it has accepted when it stops: it may be in the log already.
            Some(Err(_)) | None => Err(ProposeError::OutcomeUnknown),
        };
        tell(one, result);
    }
}

type BatchResult = Result<WriteResult<TypeConfig>, Fatal<TypeConfig>>;

/// Answers. The caller may have given up; the entry is in the log all the same.
fn tell(one: Waiting, result: Result<Proposed, ProposeError>) {
    drop(one.answer.send(result));
}

impl Cluster {
    /// Proposes `command` and waits until it is applied here.
    ///
    /// # Errors
    /// [`ProposeError::OutcomeUnknown`] when it may have been applied nevertheless; after every
    /// other error it was not and will not be.
    pub async fn propose(&self, command: Command) -> Result<Applied, ProposeError> {
        self.propose_indexed(command).await.map(|proposed| proposed.applied)
    }

    /// Like [`Cluster::propose`], with the index of the entry.
    ///
    /// # Errors
    /// As [`Cluster::propose`].
    pub async fn propose_indexed(&self, command: Command) -> Result<Proposed, ProposeError> {
        self.check_running()?;
        let logged = self.stamp(command)?;
        let proposer = &self.inner.proposer;
        let _ticket = proposer.enter(weight(&logged))?;
        let (answer, result) = oneshot::channel();
        let stopped = || ProposeError::Stopped { reason: "it was shut down".to_owned() };
        proposer.queue.send(Waiting { logged, answer, _ticket }).map_err(|_| stopped())?;
        // The task answers everything that it has taken, unless the runtime itself is going down.
        result.await.map_err(|_| ProposeError::OutcomeUnknown)?
    }

    /// Proposes all `commands` in order, in as few appends as possible, and answers in order.
    ///
    /// # Errors
    /// As [`Cluster::propose`]; [`ProposeError::OutcomeUnknown`] also when some were applied and the
    /// others were not. Those that were applied are the first ones.
    pub async fn propose_many(&self, commands: Vec<Command>) -> Result<Vec<Applied>, ProposeError> {
        let mut all = Vec::with_capacity(commands.len());
        let mut commands = commands.into_iter().peekable();
        while commands.peek().is_some() {
            let begun = !all.is_empty();
            let mut batch = Vec::new();
            let mut weight = 0;
            while batch.len() < BATCH_MAX && weight < BATCH_WEIGHT_MAX {
                let Some(command) = commands.next() else { break };
                let logged = self.stamp(command).map_err(|error| partly(error, begun))?;
                weight += self::weight(&logged);
                batch.push(logged);
            }
            let applied = self.propose_batch(batch, weight).await;
            all.extend(applied.map_err(|error| partly(error, begun))?);
        }
        Ok(all)
    }

    async fn propose_batch(
        &self,
        batch: Vec<Logged>,
        weight: usize,
    ) -> Result<Vec<Applied>, ProposeError> {
        self.check_running()?;
        let _ticket = self.inner.proposer.enter(weight)?;
        let mut applied = Vec::with_capacity(batch.len());
        let written = self.inner.raft.client_write_many(batch).await;
        let mut written =
            written.map_err(|fatal| ProposeError::Stopped { reason: self.stop_reason(&fatal) })?;
        while let Some(result) = written.next().await {
            match result {
                Ok(Ok(one)) => applied.push(one.response),
                Ok(Err(error)) => return Err(partly(refused(error), !applied.is_empty())),
                Err(_) => return Err(ProposeError::OutcomeUnknown),
            }
        }
        Ok(applied)
    }

    fn stamp(&self, command: Command) -> Result<Logged, ProposeError> {
        let entry = Entry { time: (self.inner.clock)(), command };
        let logged = Logged::new(entry)
            .map_err(|error| ProposeError::Malformed { reason: error.to_string() })?;
        let bytes = logged.bytes().len();
        if bytes > ENTRY_BYTES_MAX { Err(ProposeError::TooLong { bytes }) } else { Ok(logged) }
    }

    fn check_running(&self) -> Result<(), ProposeError> {
        match self.fault() {
            Some(fault) => Err(ProposeError::Stopped { reason: fault.to_owned() }),
            None => Ok(()),
        }
    }

    /// Why openraft has stopped.
    pub(crate) fn stop_reason(&self, fatal: &Fatal<TypeConfig>) -> String {
        stop_reason(&self.inner.medium, fatal)
    }
}

/// Why openraft has stopped; the store's own words are better than openraft's.
fn stop_reason(medium: &Medium, fatal: &Fatal<TypeConfig>) -> String {
    medium.progress().fault().map_or_else(|| fatal.to_string(), str::to_owned)
}

fn weight(logged: &Logged) -> usize {
    logged.bytes().len() + PROPOSAL_OVERHEAD
}

/// The error of a sequence of which some may have been applied.
fn partly(error: ProposeError, begun: bool) -> ProposeError {
    if begun { ProposeError::OutcomeUnknown } else { error }
}

fn refused(error: ClientWriteError<TypeConfig>) -> ProposeError {
    match error {
        ClientWriteError::ForwardToLeader(ForwardToLeader { leader_id, .. }) => {
            ProposeError::NotLeader { leader: leader_id }
        }
        // It was in the log of a leader that lost its place; another may have committed it.
        ClientWriteError::LogEntryDiscarded(_) => ProposeError::OutcomeUnknown,
        // Neither concerns a command; both say that nothing was appended.
        error @ (ClientWriteError::ChangeMembershipError(_)
        | ClientWriteError::PreconditionFailed(_)) => {
            ProposeError::Malformed { reason: error.to_string() }
        }
    }
}
