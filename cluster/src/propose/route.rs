//! Takes what waits in the queue, batch by batch, to whoever leads, and passes the answers on.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::type_config::TypeConfigExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tonic::{Code, Status};
use watchword_core::time::Timestamp;

use super::{
    BatchResult, Forwarded, ProposeError, Proposed, Waiting, checked, outcome, stop_reason,
};
use crate::contact::Contact;
use crate::logged::Logged;
use crate::medium::Medium;
use crate::network::{self, Network};
use crate::runtime::{Instant, NodeId, Raft, TypeConfig};
use crate::state_machine::View;
use crate::status;
use crate::survey::Survey;

/// The next batch goes while fewer proposals than this are on their way. With few callers nobody waits
/// for two rounds; with many, a batch gathers as long as the one before travels. A batch costs three
/// nodes as much as some dozens of proposals.
const FEW: usize = 16;
/// How often all other tasks get a turn before a batch goes, as long as that brings more. Callers come in
/// crowds, because the answers to one batch let all of its callers go on at once.
const TURNS_MAX: usize = 8;
/// Proposals in one batch, in number and weight.
pub(super) const BATCH_MAX: usize = 1024;
const BATCH_WEIGHT_MAX: usize = 2 * 1024 * 1024;

/// How long a batch waits for its outcomes, and then for this node's own state to reach them.
const ANSWER_PATIENCE: Duration = Duration::from_millis(2_500);
/// Pause before a batch is routed once more.
const RETRY: Duration = Duration::from_millis(20);
/// A proposal that was stamped longer ago than this is stamped anew, in milliseconds. It has waited for
/// something, and perhaps the clock was found wrong meanwhile and put right.
const STAMP_AGE_MS_MAX: u64 = 100;

/// What the task needs that takes from the queue.
#[derive(Clone)]
pub(crate) struct Route {
    pub(crate) raft: Raft,
    pub(crate) medium: Medium,
    pub(crate) network: Network,
    pub(crate) view: Arc<View>,
    pub(crate) contact: Arc<Contact>,
    pub(crate) survey: Arc<Survey>,
    pub(crate) node_id: NodeId,
}

/// Who takes a batch.
enum Leader {
    Me,
    Other(NodeId, String),
}

impl Route {
    /// Takes what waits, batch by batch.
    pub(super) async fn hand_over(
        self,
        queue: mpsc::WeakUnboundedSender<Waiting>,
        mut waiting: mpsc::UnboundedReceiver<Waiting>,
    ) {
        let permits = Arc::new(Semaphore::new(FEW));
        let size = |one: &Waiting| (1, one.ticket.weight);
        while let Some((proposals, permit)) = next_batch(&mut waiting, &permits, size).await {
            let batch = Batch { proposals, permit, queue: queue.clone() };
            let Some(batch) = batch.without_late(TypeConfig::now()) else { continue };
            let leader = self.leader_until(batch.deadline()).await;
            let stamped = leader.and_then(|(leader, now)| Ok((leader, batch.stamped(now)?)));
            match stamped {
                Ok((Leader::Me, entries)) => self.write(batch, entries).await,
                Ok((Leader::Other(leader, address), entries)) => {
                    let forwarded = self.clone().forward(batch, entries, leader, address);
                    drop(TypeConfig::spawn(forwarded));
                }
                // Others in the batch may have come later, and have time left.
                Err(error) => drop(TypeConfig::spawn(batch.put_back(error))),
            }
        }
    }

    /// Takes what peers have forwarded, batch by batch, and proposes it here or not at all.
    pub(super) async fn take_in(self, mut forwarded: mpsc::UnboundedReceiver<Forwarded>) {
        let permits = Arc::new(Semaphore::new(FEW));
        let size = |one: &Forwarded| (one.entries.len(), one.ticket.weight);
        while let Some((mut batch, permit)) = next_batch(&mut forwarded, &permits, size).await {
            // Peers that have given up meanwhile ask again, if at all.
            batch.retain(|one| !one.answer.is_closed());
            let entries = batch.iter().flat_map(|one| &one.entries);
            let stamped = self.survey.time().ok().and_then(|now| stamped(entries, now).ok());
            let written = match stamped {
                Some(entries) => self.raft.client_write_many(entries).await.ok(),
                None => None,
            };
            match written {
                Some(results) => drop(TypeConfig::spawn(answer_peers(batch, results, permit))),
                // This node must decide nothing, or openraft has stopped, which is known elsewhere; the
                // peers look for another leader.
                None => batch.into_iter().for_each(|one| {
                    let outcomes = vec![Err(ProposeError::NoLeader); one.entries.len()];
                    drop(one.answer.send(outcomes));
                }),
            }
        }
    }

    /// The leader, as soon as one is known and this node knows the time, which is that.
    async fn leader_until(&self, deadline: Instant) -> Result<(Leader, Timestamp), ProposeError> {
        let mut metrics = self.raft.server_metrics();
        loop {
            let known = status::leader(&metrics.borrow_watched());
            let leader = match known {
                Some((leader, _)) if leader == self.node_id => Some(Leader::Me),
                Some((leader, address)) if self.contact.hears(leader) => {
                    Some(Leader::Other(leader, address))
                }
                Some(_) | None => None,
            };
            let why_not = match (leader, self.survey.time()) {
                (Some(leader), Ok(now)) => return Ok((leader, now)),
                (_, Err(reason)) => ProposeError::Unfit { reason },
                (None, Ok(_)) => ProposeError::NoLeader,
            };
            if TypeConfig::now() >= deadline {
                return Err(why_not);
            }
            // A new leader is known a moment before it is heard of.
            match TypeConfig::timeout(RETRY, metrics.changed()).await {
                Ok(Ok(())) | Err(_) => {}
                Ok(Err(_)) => {
                    let reason = self.medium.progress().fault().unwrap_or("it was shut down");
                    return Err(ProposeError::Stopped { reason: reason.to_owned() });
                }
            }
        }
    }

    /// Proposes a batch here, as `entries`.
    async fn write(&self, batch: Batch, entries: Vec<Logged>) {
        match self.raft.client_write_many(entries).await {
            Ok(results) => drop(TypeConfig::spawn(async move {
                let outcomes = outcomes(results, batch.proposals.len()).await;
                batch.answer(outcomes).await;
            })),
            Err(fatal) => {
                batch.fail(&ProposeError::Stopped { reason: stop_reason(&self.medium, &fatal) });
            }
        }
    }

    /// Has the leader propose a batch, as `entries`.
    async fn forward(self, batch: Batch, entries: Vec<Logged>, leader: NodeId, address: String) {
        let mut outcomes = match self.ask(&entries, leader, &address).await {
            Ok(outcomes) => outcomes,
            Err(Unanswered::Unsent) => vec![Err(ProposeError::NoLeader); batch.proposals.len()],
            Err(Unanswered::Unknown) => Vec::new(),
        };
        let reached = outcomes.iter().flatten().map(|proposed| proposed.index).max();
        let mut changes = self.view.changes();
        let caught_up = changes.wait_for(|applied| Some(*applied) >= reached);
        if !matches!(TypeConfig::timeout(ANSWER_PATIENCE, caught_up).await, Ok(Ok(_))) {
            // Known, but this node's own state does not show it yet.
            for outcome in outcomes.iter_mut().filter(|outcome| outcome.is_ok()) {
                *outcome = Err(ProposeError::OutcomeUnknown);
            }
        }
        batch.answer(outcomes).await;
    }

    async fn ask(
        &self,
        entries: &[Logged],
        leader: NodeId,
        address: &str,
    ) -> Result<Vec<Result<Proposed, ProposeError>>, Unanswered> {
        let mut peer = self.network.peer(leader, address).ok_or(Unanswered::Unsent)?;
        let request = network::frame(&entries).map_err(|_| Unanswered::Unsent)?;
        let answer = TypeConfig::timeout(ANSWER_PATIENCE, peer.propose(request)).await;
        let answer = answer.map_err(|_| Unanswered::Unknown)?;
        let answer = answer.map_err(|status| unanswered(&status))?;
        network::open(&answer.into_inner()).map_err(|_| Unanswered::Unknown)
    }
}

/// Why the leader gave no answer.
enum Unanswered {
    /// It was not asked.
    Unsent,
    /// It may have been.
    Unknown,
}

fn unanswered(status: &Status) -> Unanswered {
    // What it refuses at the door, it does not propose.
    let refused = matches!(
        status.code(),
        Code::PermissionDenied | Code::InvalidArgument | Code::FailedPrecondition
    );
    if refused || network::is_unsent(status) { Unanswered::Unsent } else { Unanswered::Unknown }
}

/// Proposals that travel together. They hold the permit until they are answered.
struct Batch {
    /// Never empty.
    proposals: Vec<Waiting>,
    permit: OwnedSemaphorePermit,
    queue: mpsc::WeakUnboundedSender<Waiting>,
}

impl Batch {
    /// When the first of them is given up: the one that has waited longest.
    fn deadline(&self) -> Instant {
        self.proposals.iter().map(|one| one.deadline).min().unwrap_or_else(TypeConfig::now)
    }

    /// Refuses those whose time is over, and drops those whose callers have given up: nothing of theirs
    /// was proposed. `None` when no others are left.
    fn without_late(mut self, now: Instant) -> Option<Self> {
        let wanted = self.proposals.into_iter().filter(|one| !one.answer.is_closed());
        let (in_time, late): (Vec<_>, Vec<_>) = wanted.partition(|one| one.deadline > now);
        late.into_iter().for_each(|one| tell(one, Err(ProposeError::NoLeader)));
        self.proposals = in_time;
        (!self.proposals.is_empty()).then_some(self)
    }

    /// What is proposed at `now`.
    fn stamped(&self, now: Timestamp) -> Result<Vec<Logged>, ProposeError> {
        stamped(self.proposals.iter().map(|one| &one.logged), now)
    }

    fn fail(self, error: &ProposeError) {
        self.proposals.into_iter().for_each(|one| tell(one, Err(error.clone())));
    }

    /// Answers each with its outcome, by position; those without one may yet take effect. What was not
    /// proposed goes back into the queue.
    async fn answer(mut self, outcomes: Vec<Result<Proposed, ProposeError>>) {
        let mut outcomes = outcomes.into_iter();
        let mut unsent = Vec::new();
        for one in std::mem::take(&mut self.proposals) {
            match outcomes.next() {
                Some(Err(ProposeError::NoLeader)) => unsent.push(one),
                Some(outcome) => tell(one, outcome),
                None => tell(one, Err(ProposeError::OutcomeUnknown)),
            }
        }
        self.proposals = unsent;
        self.put_back(ProposeError::NoLeader).await;
    }

    /// Puts back into the queue what was not proposed, after a moment; with those whose time is over it ends
    /// in `error`.
    async fn put_back(self, error: ProposeError) {
        drop(self.permit);
        if self.proposals.is_empty() {
            return;
        }
        TypeConfig::sleep(RETRY).await;
        for one in self.proposals {
            match self.queue.upgrade() {
                Some(queue) if TypeConfig::now() < one.deadline => drop(queue.send(one)),
                _ => tell(one, Err(error.clone())),
            }
        }
    }
}

/// Takes what waits as one batch, as soon as fewer than [`FEW`] proposals are on their way, with a permit
/// for all of it, or for as many as there are. `size` gives the proposals in one item, and their weight.
/// `None` when nobody can propose any more.
async fn next_batch<T>(
    queue: &mut mpsc::UnboundedReceiver<T>,
    permits: &Arc<Semaphore>,
    size: impl Fn(&T) -> (usize, usize),
) -> Option<(Vec<T>, OwnedSemaphorePermit)> {
    let first = queue.recv().await?;
    // The semaphore is never closed.
    let mut permit = permits.clone().acquire_owned().await.ok()?;
    let mut waiting = queue.len();
    for _ in 0..TURNS_MAX {
        tokio::task::yield_now().await;
        if queue.len() == waiting {
            break;
        }
        waiting = queue.len();
    }
    let (mut count, mut weight) = size(&first);
    let mut batch = vec![first];
    while count < BATCH_MAX && weight < BATCH_WEIGHT_MAX {
        let Ok(next) = queue.try_recv() else { break };
        let (more, heavier) = size(&next);
        count += more;
        weight += heavier;
        batch.push(next);
    }
    // Nobody else takes any, so those that are there now are there still.
    let more = permits.available_permits().min(count.saturating_sub(1));
    if let Ok(more) = permits.clone().try_acquire_many_owned(u32::try_from(more).unwrap_or(0)) {
        permit.merge(more);
    }
    Some((batch, permit))
}

/// What is proposed at `now`.
fn stamped<'a>(
    entries: impl Iterator<Item = &'a Logged>,
    now: Timestamp,
) -> Result<Vec<Logged>, ProposeError> {
    let stamped = |logged: &Logged| {
        let time = logged.entry().time;
        let is_fresh = time.ms_since(now).max(now.ms_since(time)) <= STAMP_AGE_MS_MAX;
        if is_fresh || cfg!(mutant = "stamp_at_arrival") {
            return Ok(logged.clone());
        }
        checked(logged.clone().restamped(now))
    };
    entries.map(stamped).collect()
}

/// The outcomes of a batch of `count` that come in time, in its order. openraft tells those that were
/// appended nothing before another leader is heard of, which in a partition may be hours.
async fn outcomes(
    results: impl futures::Stream<Item = BatchResult> + Unpin + Send,
    count: usize,
) -> Vec<Result<Proposed, ProposeError>> {
    // When openraft stops, its answers end early, and must not be asked for once more after that.
    let mut results = results.fuse();
    let mut outcomes = Vec::with_capacity(count);
    let all = async {
        while outcomes.len() < count {
            outcomes.push(outcome(results.next().await));
        }
    };
    // What has not come by then is missing at the end.
    drop(TypeConfig::timeout(ANSWER_PATIENCE, all).await);
    outcomes
}

/// Passes the results of a batch on to each peer.
async fn answer_peers(
    batch: Vec<Forwarded>,
    results: impl futures::Stream<Item = BatchResult> + Unpin + Send,
    permit: OwnedSemaphorePermit,
) {
    let count = batch.iter().map(|one| one.entries.len()).sum();
    let mut outcomes = outcomes(results, count).await.into_iter();
    drop(permit);
    for one in batch {
        // The peer may have given up.
        drop(one.answer.send(outcomes.by_ref().take(one.entries.len()).collect()));
    }
}

/// Answers. The caller may have given up; the entry is in the log all the same.
fn tell(one: Waiting, result: Result<Proposed, ProposeError>) {
    drop(one.answer.send(result));
}

#[cfg(test)]
mod tests {
    use openraft::errors::Fatal;

    use super::*;

    #[tokio::test]
    async fn of_a_batch_that_openraft_drops_when_it_stops_nothing_is_known() {
        // As openraft's own: it panics when it is asked for more after its end.
        let results = futures::stream::unfold(Some(()), |left| async move {
            left.map(|()| (Err(Fatal::Stopped), None))
        });
        let outcomes = outcomes(Box::pin(results), 3).await;
        assert_eq!(outcomes.len(), 3);
        let is_unknown = |one: &_| matches!(one, Err(ProposeError::OutcomeUnknown));
        assert!(outcomes.iter().all(is_unknown));
    }
}
