//! The only place that proposes, and the only one that forwards.
//!
//! A proposal is stamped with this node's time and encoded on the caller's own task, then joins a
//! queue. One task takes whatever waits there as one batch and hands it to openraft where this node
//! leads, or to the leader, which stamps it anew and queues it with what other nodes forward. What had to
//! wait is stamped anew before: the time of an entry is that of a clock which was right just then. The next
//! batch gathers while more than a few proposals are on their way: under load the batches grow by
//! themselves, and at rest a proposal waits for nothing. What is in flight is bounded by weight; beyond
//! that the newest proposal is refused at once, so that a flood delays nobody for long.
//!
//! ```text
//!                        ┌─ this node leads ──► openraft ─── applied here ───┐
//!   propose ──► queue ───┤                                                   ├──► answer
//!                  ▲     ├─ another leads ────► its queue ── applied here ───┘
//!                  │     └─ nobody leads: wait for one, for a while
//!                  └─ nothing was proposed (no longer the leader, not reached): once more
//! ```
//!
//! A forwarded proposal that was sent and not answered may take effect: its outcome is unknown.

mod route;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use openraft::errors::{ClientWriteError, Fatal, ForwardToLeader};
use openraft::raft::WriteResult;
use openraft::type_config::TypeConfigExt;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use watchword_core::codec::EncodeError;
use watchword_core::limits::ENTRY_BYTES_MAX;
use watchword_core::time::Timestamp;
use watchword_core::{Applied, Command, Entry};

use route::BATCH_MAX;
pub(crate) use route::Route;

use crate::Cluster;
use crate::logged::Logged;
use crate::medium::Medium;
use crate::runtime::{Instant, TypeConfig};

/// What may be in flight, in bytes: some 27,000 logins.
const IN_FLIGHT_MAX: usize = 32 * 1024 * 1024;
/// What a proposal weighs beside its bytes.
const PROPOSAL_OVERHEAD: usize = 1024;
/// How long a proposal waits for a leader: a few elections.
const LEADER_PATIENCE: Duration = Duration::from_secs(5);

/// Why a proposal was not answered by `apply`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum ProposeError {
    /// Nothing was proposed: no leader was found, or it could not be reached.
    #[error("the leader of the cluster cannot be reached")]
    NoLeader,
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
    /// Nothing was proposed: this node must not put its time on anything now.
    #[error("this node must decide nothing now: {reason}")]
    Unfit {
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposed {
    /// Index of its entry: whoever has applied up to here sees what it did.
    pub index: u64,
    /// What it did.
    pub applied: Applied,
}

/// The queue in front of the log.
pub(crate) struct Proposer {
    queue: mpsc::UnboundedSender<Waiting>,
    /// What peers have forwarded, while this node leads.
    forwarded: mpsc::UnboundedSender<Forwarded>,
    in_flight: Arc<AtomicUsize>,
}

/// What a peer has forwarded, in the queue.
struct Forwarded {
    entries: Vec<Logged>,
    answer: oneshot::Sender<Vec<Result<Proposed, ProposeError>>>,
    ticket: Ticket,
}

/// A proposal in the queue.
struct Waiting {
    logged: Logged,
    /// When it is given up if nothing was proposed until then.
    deadline: Instant,
    answer: oneshot::Sender<Result<Proposed, ProposeError>>,
    ticket: Ticket,
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
    /// Starts the tasks that take from the queues. They end when the proposer is gone.
    pub(crate) fn start(route: Route) -> Self {
        let (queue, waiting) = mpsc::unbounded_channel();
        let (forwarded, of_peers) = mpsc::unbounded_channel();
        drop(TypeConfig::spawn(route.clone().take_in(of_peers)));
        drop(TypeConfig::spawn(route.hand_over(queue.downgrade(), waiting)));
        Self { queue, forwarded, in_flight: Arc::default() }
    }

    fn enter(&self, weight: usize) -> Result<Ticket, ProposeError> {
        let ticket = Ticket { in_flight: self.in_flight.clone(), weight };
        let before = self.in_flight.fetch_add(weight, Ordering::Relaxed);
        if before + weight > IN_FLIGHT_MAX { Err(ProposeError::Overloaded) } else { Ok(ticket) }
    }

    /// Queues a proposal; the receiver gets its outcome.
    fn submit(
        &self,
        logged: Logged,
    ) -> Result<oneshot::Receiver<Result<Proposed, ProposeError>>, ProposeError> {
        let ticket = self.enter(weight(&logged))?;
        let (answer, outcome) = oneshot::channel();
        let deadline = TypeConfig::now() + LEADER_PATIENCE;
        let waiting = Waiting { logged, deadline, answer, ticket };
        let stopped = || ProposeError::Stopped { reason: "it was shut down".to_owned() };
        self.queue.send(waiting).map_err(|_| stopped())?;
        Ok(outcome)
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
        let outcome = self.inner.proposer.submit(self.stamp(command)?)?;
        // The task answers everything that it has taken, unless the runtime itself is going down.
        outcome.await.map_err(|_| ProposeError::OutcomeUnknown)?
    }

    /// Proposes all `commands`, in as few appends as possible, and answers in order. While nothing
    /// fails they are applied in order.
    ///
    /// # Errors
    /// As [`Cluster::propose`]; [`ProposeError::OutcomeUnknown`] also when some were applied and the
    /// others were not.
    pub async fn propose_many(&self, commands: Vec<Command>) -> Result<Vec<Applied>, ProposeError> {
        self.check_running()?;
        let mut all = Vec::with_capacity(commands.len());
        let mut commands = commands.into_iter().peekable();
        while commands.peek().is_some() {
            let begun = !all.is_empty();
            let mut batch = Vec::new();
            for command in commands.by_ref().take(BATCH_MAX) {
                let submitted =
                    self.stamp(command).and_then(|logged| self.inner.proposer.submit(logged));
                batch.push(submitted.map_err(|error| partly(error, begun || !batch.is_empty()))?);
            }
            for outcome in batch {
                let outcome = outcome.await.unwrap_or(Err(ProposeError::OutcomeUnknown));
                let outcome = outcome.map_err(|error| partly(error, !all.is_empty()))?;
                all.push(outcome.applied);
            }
        }
        Ok(all)
    }

    /// Proposes what another node has forwarded, here or not at all.
    pub(crate) async fn propose_forwarded(
        &self,
        entries: Vec<Logged>,
    ) -> Vec<Result<Proposed, ProposeError>> {
        let count = entries.len();
        let refuse_all = |error: ProposeError| vec![Err(error); count];
        // The senders keep what was not proposed until another leads.
        let time = match self.inner.survey.time() {
            Ok(time) if self.fault().is_none() => time,
            Ok(_) | Err(_) => return refuse_all(ProposeError::NoLeader),
        };
        if !entries.iter().all(|logged| self.agrees(logged.entry().time, time)) {
            return refuse_all(ProposeError::NoLeader);
        }
        // The sender's clock decides nothing.
        let stamped = entries.into_iter().map(|logged| checked(logged.restamped(time)));
        let stamped: Vec<_> = match stamped.collect() {
            Ok(stamped) => stamped,
            Err(error) => return refuse_all(error),
        };
        let ticket = match self.inner.proposer.enter(stamped.iter().map(weight).sum()) {
            Ok(ticket) => ticket,
            Err(error) => return refuse_all(error),
        };
        let (answer, outcomes) = oneshot::channel();
        let forwarded = Forwarded { entries: stamped, answer, ticket };
        if self.inner.proposer.forwarded.send(forwarded).is_err() {
            return refuse_all(ProposeError::NoLeader);
        }
        // The task answers everything that it has taken, unless the runtime itself is going down.
        outcomes.await.unwrap_or_else(|_| refuse_all(ProposeError::OutcomeUnknown))
    }

    fn stamp(&self, command: Command) -> Result<Logged, ProposeError> {
        checked(Logged::new(Entry { time: (self.inner.clock)(), command }))
    }

    /// Whether a sender's time is no further from this node's than clocks may be apart; it may have had
    /// to wait. If not, one of the two is wrong, and the survey finds out which.
    fn agrees(&self, sent: Timestamp, now: Timestamp) -> bool {
        let limit = u64::try_from(self.inner.survey.clock_limit_ms()).unwrap_or(u64::MAX);
        let waited = LEADER_PATIENCE.as_millis() as u64;
        sent.ms_since(now) <= limit && now.ms_since(sent) <= limit.saturating_add(waited)
    }

    fn check_running(&self) -> Result<(), ProposeError> {
        if let Some(fault) = self.fault() {
            return Err(ProposeError::Stopped { reason: fault.to_owned() });
        }
        match self.inner.survey.time() {
            // A node that has just started waits until it knows the time.
            Err(reason) if self.inner.survey.knows_time() => Err(ProposeError::Unfit { reason }),
            Ok(_) | Err(_) => Ok(()),
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

/// What was encoded, unless the log would not take it.
fn checked(encoded: Result<Logged, EncodeError>) -> Result<Logged, ProposeError> {
    let malformed = |error: EncodeError| ProposeError::Malformed { reason: error.to_string() };
    let logged = encoded.map_err(malformed)?;
    let bytes = logged.bytes().len();
    if bytes > ENTRY_BYTES_MAX { Err(ProposeError::TooLong { bytes }) } else { Ok(logged) }
}

fn weight(logged: &Logged) -> usize {
    logged.bytes().len() + PROPOSAL_OVERHEAD
}

/// The error of a sequence of which some may have been applied.
fn partly(error: ProposeError, begun: bool) -> ProposeError {
    if begun { ProposeError::OutcomeUnknown } else { error }
}

type BatchResult = Result<WriteResult<TypeConfig>, Fatal<TypeConfig>>;

/// What openraft's answer means.
fn outcome(result: Option<BatchResult>) -> Result<Proposed, ProposeError> {
    match result {
        Some(Ok(Ok(written))) => {
            Ok(Proposed { index: written.log_id.index, applied: written.response })
        }
        Some(Ok(Err(error))) => Err(refused(error)),
        // The core drops what it has accepted when it stops: it may be in the log already.
        Some(Err(_)) | None => Err(ProposeError::OutcomeUnknown),
    }
}

fn refused(error: ClientWriteError<TypeConfig>) -> ProposeError {
    match error {
        ClientWriteError::ForwardToLeader(ForwardToLeader { .. }) => ProposeError::NoLeader,
        // It was in the log of a leader that lost its place; another may have committed it.
        ClientWriteError::LogEntryDiscarded(_) => ProposeError::OutcomeUnknown,
        // Neither concerns a command; both say that nothing was appended.
        error @ (ClientWriteError::ChangeMembershipError(_)
        | ClientWriteError::PreconditionFailed(_)) => {
            ProposeError::Malformed { reason: error.to_string() }
        }
    }
}
