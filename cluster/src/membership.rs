//! Brings Raft's membership in line with the record of nodes.
//!
//! What administrators decide, that a node is admitted or removed, is a log entry like any other. The
//! leader looks at the record now and then and takes one step towards it: a node that was admitted
//! becomes a learner, a learner that has kept up for a while a voter, a node that was removed leaves.
//! A leader that dies between two steps leaves nothing half done; the next one goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::type_config::TypeConfigExt;
use openraft::{BasicNode, ChangeMembers, RaftMetrics};

use watchword_core::Command;

use crate::Cluster;
use crate::Role;
use crate::quorum;
use crate::runtime::{Instant, NodeId, TypeConfig};
use crate::status::is_sole_voter;
use crate::survey;

/// Pause between two looks.
const PERIOD: Duration = Duration::from_millis(250);
/// Entries by which a learner that has kept up may be behind.
const LAG_MAX: u64 = 1_000;
/// More voters make every decision slower and nothing safer.
const VOTERS_MAX: usize = 7;

/// One step.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// A leader was lost between the two entries of a change: the second is still to be written.
    Finish,
    /// It may now follow.
    AddLearner(NodeId, String),
    /// It may now vote.
    Promote(NodeId),
    /// It no longer belongs.
    Remove(NodeId),
    /// Its peers reach it elsewhere now.
    Readdress(NodeId, String),
    /// Another is to lead.
    HandOver(NodeId),
    /// It is to leave, but those that stay could not decide anything now.
    Wait(NodeId),
}

/// How fast things go.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    /// How long a learner must have kept up before it votes.
    pub(crate) settle: Duration,
    /// Time between two comparisons of the members' states.
    pub(crate) checkpoint: Duration,
}

/// Pause between two hand-overs to a node that is preferred: the first may not have worked out.
const PREFERENCE_PAUSE: Duration = Duration::from_secs(10);

/// How long a hand-over waits for a voter that would lead, and the pause between two looks.
const HEIR_PATIENCE: Duration = Duration::from_secs(3);
const HEIR_PAUSE: Duration = Duration::from_millis(50);

/// How long a node that was removed may take to leave before that is told.
const LEAVE_PATIENCE: Duration = Duration::from_secs(10);

/// Takes steps for as long as the replica runs.
pub(crate) async fn keep(cluster: Cluster, pace: Pace) {
    let mut kept_up = BTreeMap::new();
    let mut checkpoint = Checkpoint { due: TypeConfig::now() + pace.checkpoint, index: 0 };
    let mut preferred_from = TypeConfig::now();
    let mut waited = None;
    loop {
        TypeConfig::sleep(PERIOD).await;
        let metrics = cluster.inner.raft.metrics().borrow_watched().clone();
        if metrics.running_state.is_err() {
            return;
        }
        if cluster.inner.network.is_fenced() {
            end(&cluster).await;
            return;
        }
        if metrics.current_leader != Some(cluster.inner.node_id) {
            kept_up.clear();
            continue;
        }
        let now = TypeConfig::now();
        note_progress(&metrics, now, &mut kept_up);
        let ready = |id: NodeId| {
            let since = kept_up.get(&id);
            since.is_some_and(|since| *since + pace.settle <= now)
                || cfg!(mutant = "promote_at_once")
        };
        let step = next_step(&cluster, &metrics, ready);
        if let Some(Step::Wait(id)) = step {
            if waited.replace(id) != Some(id) {
                tracing::warn!(
                    node = id,
                    "it was removed, but its vote is needed: it leaves later"
                );
            }
        } else if let Some(step) = step {
            take(&cluster, step).await;
        } else if preferred_from <= now
            && let Some(heir) = preferred(&cluster, &metrics, ready)
        {
            preferred_from = now + PREFERENCE_PAUSE;
            take(&cluster, Step::HandOver(heir)).await;
        }
        // Not while it must decide nothing: it would wait for that, and the hand-over with it.
        if checkpoint.due <= now && cluster.unfit().is_none() {
            checkpoint.due = now + pace.checkpoint;
            checkpoint.take(&cluster).await;
        }
    }
}

/// Ends the replication: the cluster went on without this node, which must neither lead nor follow others
/// that do not know it yet.
async fn end(cluster: &Cluster) {
    if let Err(error) = cluster.inner.raft.shutdown().await {
        tracing::warn!(%error, "the replication did not end");
    }
}

/// When the members' states are compared next, and where they were last.
struct Checkpoint {
    due: Instant,
    index: u64,
}

impl Checkpoint {
    /// Has all members take the digest of their state at the same entry, if anything has changed.
    async fn take(&mut self, cluster: &Cluster) {
        if cluster.inner.view.applied() <= self.index {
            return;
        }
        match cluster.propose_indexed(Command::Checkpoint).await {
            Ok(proposed) => self.index = proposed.index,
            Err(error) => tracing::warn!(%error, "the members' states are not compared now"),
        }
    }
}

/// Since when each learner has kept up.
fn note_progress(
    metrics: &RaftMetrics<TypeConfig>,
    now: Instant,
    kept_up: &mut BTreeMap<NodeId, Instant>,
) {
    let Some(replication) = &metrics.replication else { return kept_up.clear() };
    let behind = metrics.last_log_index.unwrap_or(0).saturating_sub(LAG_MAX);
    for (&id, matched) in replication {
        if matched.as_ref().is_some_and(|matched| matched.index >= behind) {
            kept_up.entry(id).or_insert(now);
        } else {
            kept_up.remove(&id);
        }
    }
}

fn next_step(
    cluster: &Cluster,
    metrics: &RaftMetrics<TypeConfig>,
    ready: impl Fn(NodeId) -> bool,
) -> Option<Step> {
    let state = cluster.state();
    let membership = metrics.membership_config.membership();
    if membership.get_joint_config().len() > 1 {
        return Some(Step::Finish);
    }
    let voters: BTreeSet<NodeId> = membership.voter_ids().collect();
    let learners: BTreeSet<NodeId> = membership.learner_ids().collect();
    let me = cluster.inner.node_id;
    let heirs = heirs(cluster, metrics);
    if cluster.unfit().is_some() {
        // At once: each moment more it judges by its wrong clock.
        return heirs.first().map(|(_, heir)| Step::HandOver(*heir));
    }
    let heir = heirs.into_iter().map(|(_, id)| id).find(|id| ready(*id));
    if let Some(heir) = heir.filter(|_| cluster.inner.drained.load(Ordering::Relaxed)) {
        return Some(Step::HandOver(heir));
    }
    let mut waiting = None;
    for (id, node) in state.nodes().iter() {
        let is_voter = voters.contains(&id);
        let is_member = is_voter || learners.contains(&id);
        let step = match node.removed {
            None if !is_member => Step::AddLearner(id, node.address.to_string()),
            None if node.votes && !is_voter && voters.len() < VOTERS_MAX && ready(id) => {
                Step::Promote(id)
            }
            None => match membership.get_node(&id) {
                Some(known) if *known.addr != *node.address => {
                    Step::Readdress(id, node.address.to_string())
                }
                _ => continue,
            },
            // A cluster without voters would decide nothing ever again.
            Some(_) if !is_member || voters.iter().eq([&id]) => continue,
            Some(_) if id == me => match heir {
                Some(heir) => Step::HandOver(heir),
                None => continue,
            },
            Some(_) if is_voter && !cluster.can_spare(&voters, id) => {
                waiting = Some(Step::Wait(id));
                continue;
            }
            Some(_) => Step::Remove(id),
        };
        return Some(step);
    }
    waiting
}

/// The other voters that would lead, each with its priority; the best first: by priority, then by how
/// far it is.
fn heirs(cluster: &Cluster, metrics: &RaftMetrics<TypeConfig>) -> Vec<(u8, NodeId)> {
    let state = cluster.state();
    let matched = |id: &NodeId| metrics.replication.as_ref().and_then(|all| all.get(id).cloned());
    let priority = |id: NodeId| {
        let node = state.nodes().get(id).filter(|node| node.removed.is_none() && node.votes)?;
        Some((node.priority, id))
    };
    let voters = metrics.membership_config.membership().voter_ids();
    let others = voters.filter(|id| *id != cluster.inner.node_id);
    let standing = others.filter(|id| cluster.inner.survey.stands(*id));
    let mut heirs: Vec<_> = standing.filter_map(priority).collect();
    heirs.sort_by_key(|(priority, id)| std::cmp::Reverse((*priority, matched(id), *id)));
    heirs
}

/// A voter that is to lead rather than this node.
fn preferred(
    cluster: &Cluster,
    metrics: &RaftMetrics<TypeConfig>,
    ready: impl Fn(NodeId) -> bool,
) -> Option<NodeId> {
    let own = cluster.look(|state| Some(state.nodes().get(cluster.inner.node_id)?.priority))?;
    let heirs = heirs(cluster, metrics).into_iter();
    heirs.filter(|(priority, id)| *priority > own && ready(*id)).map(|(_, id)| id).next()
}

async fn take(cluster: &Cluster, step: Step) {
    tracing::info!(?step, "membership");
    let raft = &cluster.inner.raft;
    let change = |change: ChangeMembers<NodeId, BasicNode>| async move {
        raft.change_membership(change, false).await.map(drop).map_err(|error| error.to_string())
    };
    let taken = match step {
        // Adding nobody to where the change was going.
        Step::Finish => change(ChangeMembers::AddVoterIds(BTreeSet::new())).await,
        Step::AddLearner(id, address) => {
            let node = BTreeMap::from([(id, BasicNode::new(address))]);
            change(ChangeMembers::AddNodes(node)).await
        }
        Step::Readdress(id, address) => {
            let node = BTreeMap::from([(id, BasicNode::new(address))]);
            change(ChangeMembers::SetNodes(node)).await
        }
        // Half of the voters with a wrong clock would leave nobody who knows the time.
        Step::Promote(id) if !cfg!(mutant = "promote_at_once") && !cluster.would_lead(id).await => {
            Err(format!("node {id} is not ready to vote; `members` tells why"))
        }
        Step::Promote(id) => change(ChangeMembers::AddVoterIds(BTreeSet::from([id]))).await,
        Step::Remove(id) => {
            let membership = raft.metrics().borrow_watched().membership_config.clone();
            let ids = BTreeSet::from([id]);
            if membership.membership().voter_ids().any(|voter| voter == id) {
                change(ChangeMembers::RemoveVoters(ids)).await
            } else {
                change(ChangeMembers::RemoveNodes(ids)).await
            }
        }
        Step::Wait(_) => return,
        Step::HandOver(heir) if !cluster.would_lead(heir).await => {
            Err(TransferError::NotReady(heir).to_string())
        }
        Step::HandOver(heir) => {
            raft.trigger().transfer_leader(heir).await.map_err(|error| error.to_string())
        }
    };
    if let Err(error) = taken {
        tracing::warn!(error, "the membership could not be changed; trying again");
    }
}

/// Leadership could not be handed over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// Only the leader can.
    #[error("this node does not lead; the leader is {}", .0.map_or_else(|| "unknown".to_owned(), |id| format!("node {id}")))]
    NotLeader(Option<NodeId>),
    /// No other voter would lead.
    #[error("no other voter is ready to lead")]
    NoHeir,
    /// The other node has no vote.
    #[error("node {0} is no voter")]
    NotVoter(NodeId),
    /// The other node would not lead.
    #[error("node {0} is not ready to lead; `members` tells why")]
    NotReady(NodeId),
    /// It did not take over in time.
    #[error("node {0} did not take over in time")]
    NotTaken(NodeId),
    /// This node has stopped.
    #[error("the replica has stopped: {0}")]
    Stopped(String),
}

impl Cluster {
    /// Takes this node out of service, or back. Out of service it is not ready, does not lead and
    /// does not stand for election; it goes on following and voting.
    ///
    /// # Errors
    /// When it leads and nobody takes over; then it is not ready all the same, and hands leadership over
    /// as soon as another would take it.
    pub async fn drain(&self, drained: bool) -> Result<(), TransferError> {
        self.inner.drained.store(drained, Ordering::Relaxed);
        self.note_fitness();
        if drained && self.status().role == Role::Leader && self.status().voters.len() > 1 {
            match self.transfer(None).await {
                // Another was elected meanwhile.
                Ok(_) | Err(TransferError::NotLeader(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Hands leadership to `heir`, or to the best of the voters that would lead, and waits until it is taken.
    ///
    /// # Errors
    /// When this node does not lead, or nobody takes over.
    pub async fn transfer(&self, heir: Option<NodeId>) -> Result<NodeId, TransferError> {
        let raft = &self.inner.raft;
        let me = self.inner.node_id;
        let heir = match heir {
            Some(heir) => self.checked_heir(heir).await?,
            None => self.best_heir().await?,
        };
        let stopped = |error: openraft::errors::Fatal<TypeConfig>| {
            TransferError::Stopped(self.stop_reason(&error))
        };
        raft.trigger().transfer_leader(heir).await.map_err(stopped)?;
        // It takes a few round trips; who has not taken over by the time of two elections will not.
        let wait = raft.wait(Some(self.inner.patience));
        let taken = wait.metrics(
            |metrics| metrics.current_leader.is_some_and(|leader| leader != me),
            "another leader",
        );
        match taken.await.map(|metrics| metrics.current_leader) {
            Ok(Some(leader)) => Ok(leader),
            Ok(None) | Err(_) => Err(TransferError::NotTaken(heir)),
        }
    }

    /// `heir`, if it is a voter that would lead.
    async fn checked_heir(&self, heir: NodeId) -> Result<NodeId, TransferError> {
        let metrics = self.leading()?;
        let membership = metrics.membership_config.membership();
        if heir == self.inner.node_id || !membership.voter_ids().any(|id| id == heir) {
            return Err(TransferError::NotVoter(heir));
        }
        if self.would_lead(heir).await { Ok(heir) } else { Err(TransferError::NotReady(heir)) }
    }

    /// Whether `id` says now that it would lead. openraft never takes a hand-over back: one to a node that is
    /// gone would leave a leader that proposes nothing.
    async fn would_lead(&self, id: NodeId) -> bool {
        let metrics = self.inner.raft.metrics().borrow_watched().clone();
        survey::would_lead(self, id, metrics.membership_config.membership()).await
    }

    /// The best of the other voters. One that has only just got its vote, or has just come back, is
    /// given a moment to say that it would lead; not so when the others are gone.
    async fn best_heir(&self) -> Result<NodeId, TransferError> {
        let deadline = TypeConfig::now() + HEIR_PATIENCE;
        loop {
            let metrics = self.leading()?;
            // What they said a second ago may be over: one of them may have been drained meanwhile.
            let asked = TypeConfig::now();
            survey::ask_all(self, metrics.membership_config.membership()).await;
            let mut heirs = heirs(self, &metrics).into_iter().map(|(_, heir)| heir);
            if let Some(heir) = heirs.find(|id| self.inner.survey.stands_since(*id, asked)) {
                return Ok(heir);
            }
            let is_alone =
                is_sole_voter(metrics.membership_config.membership(), self.inner.node_id)
                    || !quorum::is_heard(&metrics, self.inner.patience);
            if is_alone || TypeConfig::now() >= deadline {
                return Err(TransferError::NoHeir);
            }
            TypeConfig::sleep(HEIR_PAUSE).await;
        }
    }

    /// Whether those of `voters` that were heard of lately could decide without `id`.
    fn can_spare(&self, voters: &BTreeSet<NodeId>, id: NodeId) -> bool {
        let stay = || voters.iter().filter(|voter| **voter != id);
        let is_there =
            |voter: &&NodeId| **voter == self.inner.node_id || self.inner.survey.hears(**voter);
        stay().filter(is_there).count() * 2 > stay().count()
    }

    /// Whether the voters that stay when `node` leaves could decide now. One that has no vote can always
    /// leave, and the only voter never can, which the record of nodes sees to.
    pub fn could_go_on_without(&self, node: NodeId) -> bool {
        let metrics = self.inner.raft.metrics().borrow_watched().clone();
        let voters: BTreeSet<NodeId> = metrics.membership_config.membership().voter_ids().collect();
        !voters.contains(&node) || voters.len() == 1 || self.can_spare(&voters, node)
    }

    /// Waits until `node`, which was removed, is out of the membership for good; tells whether it is.
    pub async fn wait_until_left(&self, node: NodeId) -> bool {
        let has_left = || {
            let metrics = self.inner.raft.metrics().borrow_watched().clone();
            let known = &metrics.membership_config;
            // A membership that is not committed may give way to the one before, and that may need the node.
            let is_final =
                known.log_id().map(|id| id.index) <= metrics.last_applied.map(|id| id.index);
            let knows_itself = node == self.inner.node_id && self.inner.network.is_removed();
            knows_itself || (is_final && known.membership().get_node(&node).is_none())
        };
        let left = async {
            while !has_left() {
                TypeConfig::sleep(HEIR_PAUSE).await;
            }
        };
        TypeConfig::timeout(LEAVE_PATIENCE, left).await.is_ok()
    }

    /// How things are, where this node leads.
    fn leading(&self) -> Result<RaftMetrics<TypeConfig>, TransferError> {
        let metrics = self.inner.raft.metrics().borrow_watched().clone();
        if metrics.current_leader == Some(self.inner.node_id) {
            Ok(metrics)
        } else {
            Err(TransferError::NotLeader(metrics.current_leader))
        }
    }
}
