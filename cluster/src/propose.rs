//! The only place that proposes.
//!
//! A proposal is stamped with the leader's time and encoded on the caller's own task, then handed to
//! openraft, which takes whatever waits as one batch: one append, one flush, one apply. What is in
//! flight is bounded by weight; beyond that the newest proposal is refused at once, so that a flood
//! delays nobody for long.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures::StreamExt;
use openraft::errors::{ClientWriteError, Fatal, ForwardToLeader};
use openraft::impls::ProgressResponder;
use openraft::raft::ClientWriteResult;
use watchword_core::limits::ENTRY_BYTES_MAX;
use watchword_core::{Applied, Command, Entry};

use crate::Cluster;
use crate::logged::Logged;
use crate::runtime::{NodeId, TypeConfig};

/// What may be in flight, in bytes: some 27,000 logins.
const IN_FLIGHT_MAX: usize = 32 * 1024 * 1024;
/// What a proposal weighs beside its bytes.
const PROPOSAL_OVERHEAD: usize = 1024;
/// Proposals that [`Cluster::propose_many`] keeps in flight, in number and bytes.
const BATCH_MAX: usize = 1024;
const BATCH_BYTES_MAX: usize = 1024 * 1024;

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

/// What is in flight.
#[derive(Default)]
pub(crate) struct InFlight(AtomicUsize);

impl InFlight {
    fn enter(&self, weight: usize) -> Result<Ticket<'_>, ProposeError> {
        let ticket = Ticket { in_flight: self, weight };
        let before = self.0.fetch_add(weight, Ordering::Relaxed);
        if before + weight > IN_FLIGHT_MAX { Err(ProposeError::Overloaded) } else { Ok(ticket) }
    }
}

/// Given back when the proposal is over, also when its caller has given up.
struct Ticket<'a> {
    in_flight: &'a InFlight,
    weight: usize,
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.in_flight.0.fetch_sub(self.weight, Ordering::Relaxed);
    }
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
        let _ticket = self.inner.in_flight.enter(weight(&logged))?;
        let (responder, answer) = ProgressResponder::complete_only();
        self.inner
            .raft
            .client_write_ff(logged, Some(responder))
            .await
            .map_err(|fatal| ProposeError::Stopped { reason: self.stop_reason(&fatal) })?;
        // The core drops what it has accepted when it stops: it may be in the log already.
        let result: ClientWriteResult<TypeConfig> =
            answer.await.map_err(|_| ProposeError::OutcomeUnknown)?;
        match result {
            Ok(written) => Ok(Proposed { index: written.log_id.index, applied: written.data }),
            Err(error) => Err(refused(error)),
        }
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
            let mut bytes = 0;
            while batch.len() < BATCH_MAX && bytes < BATCH_BYTES_MAX {
                let Some(command) = commands.next() else { break };
                let logged = self.stamp(command).map_err(|error| partly(error, begun))?;
                bytes += weight(&logged);
                batch.push(logged);
            }
            let applied = self.propose_batch(batch, bytes).await;
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
        let _ticket = self.inner.in_flight.enter(weight)?;
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

    /// Why openraft has stopped; the store's own words are better than openraft's.
    pub(crate) fn stop_reason(&self, fatal: &Fatal<TypeConfig>) -> String {
        self.fault().map_or_else(|| fatal.to_string(), str::to_owned)
    }
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
