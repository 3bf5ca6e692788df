//! What the members say of themselves, asked once a second, and what follows from it for this node.
//!
//! Two things can go wrong with a replica that Raft does not notice. Its clock can be wrong: the
//! leader's clock judges passcodes. And its state can differ from the others' although the log is the
//! same: a defect of the machine or of this program. Each member therefore tells its time and the
//! digest of its state at the latest checkpoints, and compares what the others tell with its own.
//! Whoever is alone with what it holds takes itself out of service.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use openraft::Instant as _;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::type_config::TypeConfigExt;
use serde::{Deserialize, Serialize};
use watchword_core::State;
use watchword_core::time::Timestamp;

use crate::Cluster;
use crate::blocking::off_thread;
use crate::network;
use crate::runtime::{Instant, Membership, NodeId, TypeConfig};
use crate::status::Role;

/// Pause between two rounds, and before there was one with a quorum.
const PERIOD: Duration = Duration::from_secs(1);
const FIRST_PERIOD: Duration = Duration::from_millis(100);
/// How long a member may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long an answer counts for, and for how long whoever gave it counts as there: two rounds.
const FRESH: Duration = Duration::from_secs(5);
const PRESENT: Duration = Duration::from_millis(2_500);
/// Checkpoints that are remembered: members reach them at different times.
const CHECKPOINTS_KEPT: usize = 8;
/// No clock was compared yet.
const UNKNOWN: i64 = i64::MIN;

type Digest = [u8; 32];

/// What a member says of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    version: String,
    instance: u64,
    role: Role,
    /// Whether it would lead.
    stands: bool,
    term: u64,
    applied: u64,
    clock: Timestamp,
    /// Index and digest of the state at the latest checkpoints.
    checkpoints: Vec<(u64, Digest)>,
}

/// The latest answer of another member.
struct Heard {
    at: Instant,
    /// By how many milliseconds its clock was ahead of this node's.
    clock_offset_ms: i64,
    report: Report,
}

/// What is known of another member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its id.
    pub id: NodeId,
    /// The release that it runs.
    pub version: String,
    /// What it does.
    pub role: Role,
    /// Its term.
    pub term: u64,
    /// Index of the last entry in its state.
    pub applied: u64,
    /// By how many milliseconds its clock is ahead of this node's.
    pub clock_offset_ms: i64,
    /// How long ago it answered.
    pub silence: Duration,
}

/// What the survey has found.
pub(crate) struct Survey {
    heard: Mutex<BTreeMap<NodeId, Heard>>,
    checkpoints: Arc<Checkpoints>,
    /// Milliseconds by which this node's clock is ahead of the voters' median.
    clock_error_ms: AtomicI64,
    /// How far this node's wall clock was from its steady one, in milliseconds, when it was last found to
    /// be right. Between two rounds a step of the wall clock shows in that.
    clock_distance_ms: AtomicI64,
    /// By how many milliseconds a clock may be wrong.
    clock_limit_ms: AtomicI64,
    since: Instant,
    /// Whether this node was found unfit in the latest round, or there was none yet.
    is_unfit: AtomicBool,
    /// Whether another process answered for this node.
    has_twin: AtomicBool,
    /// Index of the latest checkpoint at which all voters that answer hold the same state.
    equal_at: AtomicU64,
    /// Index of the first checkpoint at which a member was found to differ; zero for none.
    differs_at: AtomicU64,
    /// The same, where it is this node that is alone with its state.
    is_alone_at: AtomicU64,
}

/// The digests of this node's state.
#[derive(Default)]
pub(crate) struct Checkpoints {
    latest: Mutex<VecDeque<(u64, Digest)>>,
}

impl Checkpoints {
    /// Takes the digest of `state`, which stands still, beside everything else.
    pub(crate) fn take(self: &Arc<Self>, index: u64, state: State) {
        let checkpoints = self.clone();
        drop(off_thread(move || match state.digest() {
            Ok(digest) => {
                let mut latest = checkpoints.latest.lock().unwrap_or_else(PoisonError::into_inner);
                latest.push_back((index, digest));
                if latest.len() > CHECKPOINTS_KEPT {
                    latest.pop_front();
                }
            }
            Err(error) => tracing::error!(%error, index, "no digest of the state"),
        }));
    }

    fn latest(&self) -> Vec<(u64, Digest)> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }
}

impl Survey {
    /// Nothing is known yet.
    pub(crate) fn new(checkpoints: Arc<Checkpoints>) -> Self {
        Self {
            heard: Mutex::default(),
            checkpoints,
            clock_error_ms: AtomicI64::new(UNKNOWN),
            clock_distance_ms: AtomicI64::new(UNKNOWN),
            clock_limit_ms: AtomicI64::new(i64::MAX),
            since: TypeConfig::now(),
            is_unfit: AtomicBool::new(true),
            has_twin: AtomicBool::new(false),
            equal_at: AtomicU64::new(0),
            differs_at: AtomicU64::new(0),
            is_alone_at: AtomicU64::new(0),
        }
    }

    /// Milliseconds by which this node's clock is ahead of the voters' median, once that is known.
    pub(crate) fn clock_error_ms(&self) -> Option<i64> {
        Some(self.clock_error_ms.load(Ordering::Acquire)).filter(|&error| error != UNKNOWN)
    }

    /// By how many milliseconds a clock may be wrong.
    pub(crate) fn clock_limit_ms(&self) -> i64 {
        self.clock_limit_ms.load(Ordering::Acquire)
    }

    /// Why nothing may be decided by a clock that shows `now`, or on this node's state.
    pub(crate) fn unfit(&self, now: Timestamp) -> Option<String> {
        if let Some(index) = self.is_alone_at() {
            return Some(format!(
                "its state differs from the other nodes' since entry {index}; rebuild it"
            ));
        }
        if self.has_twin.load(Ordering::Relaxed) {
            return Some("another process runs as this node; stop one of them".to_owned());
        }
        if cfg!(mutant = "trust_any_clock") {
            return None;
        }
        let Some(error_ms) = self.clock_error_ms() else {
            return Some("its clock was not yet compared with a majority's".to_owned());
        };
        if error_ms.saturating_abs() > self.clock_limit_ms() {
            let seconds = error_ms.unsigned_abs().div_ceil(1000);
            let direction = if error_ms > 0 { "ahead of" } else { "behind" };
            return Some(format!(
                "its clock is {seconds} s {direction} the other nodes'; set it right"
            ));
        }
        self.clock_step(now)
    }

    /// Says so if the wall clock, which shows `now`, has stepped since it was last compared with the
    /// others'.
    pub(crate) fn clock_step(&self, now: Timestamp) -> Option<String> {
        let step_ms = self.clock_step_ms(now)?;
        let seconds = step_ms.unsigned_abs().div_ceil(1000);
        let direction = if step_ms > 0 { "forwards" } else { "back" };
        Some(format!(
            "its clock was just put {seconds} s {direction}; it is compared with the others'"
        ))
    }

    /// Milliseconds by which the wall clock, which shows `now`, has stepped since it was last found to be
    /// right, if that is too much.
    fn clock_step_ms(&self, now: Timestamp) -> Option<i64> {
        let was = self.clock_distance_ms.load(Ordering::Acquire);
        let step = self.clock_distance(now).saturating_sub(was);
        let is_too_much = was != UNKNOWN && step.saturating_abs() > self.clock_limit_ms();
        (is_too_much && !cfg!(mutant = "trust_any_clock")).then_some(step)
    }

    /// How far the wall clock, which shows `now`, is from the steady one.
    fn clock_distance(&self, now: Timestamp) -> i64 {
        let elapsed = i64::try_from(self.since.elapsed().as_millis()).unwrap_or(i64::MAX);
        in_ms(now).saturating_sub(elapsed)
    }

    /// Notes by how much the wall clock is ahead, which was at `distance` from the steady one when it was
    /// compared. The error last: as long as there is none, this node decides nothing.
    fn note_clock(&self, error_ms: i64, distance: i64, limit_ms: i64) {
        self.clock_limit_ms.store(limit_ms, Ordering::Release);
        if error_ms.saturating_abs() <= limit_ms {
            self.clock_distance_ms.store(distance, Ordering::Release);
        }
        self.clock_error_ms.store(error_ms, Ordering::Release);
    }

    /// Index of the latest checkpoint at which all voters that answer hold the same state.
    pub(crate) fn equal_at(&self) -> Option<u64> {
        Some(self.equal_at.load(Ordering::Relaxed)).filter(|&index| index != 0)
    }

    /// Index of the first checkpoint at which some member's state differed from this node's.
    pub(crate) fn differs_at(&self) -> Option<u64> {
        Some(self.differs_at.load(Ordering::Relaxed)).filter(|&index| index != 0)
    }

    /// The same, if this node is alone with its state.
    pub(crate) fn is_alone_at(&self) -> Option<u64> {
        Some(self.is_alone_at.load(Ordering::Relaxed)).filter(|&index| index != 0)
    }

    /// What is known of the other members, by id.
    pub(crate) fn peers(&self) -> Vec<Peer> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let peer = |(&id, Heard { at, clock_offset_ms, report }): (&NodeId, &Heard)| Peer {
            id,
            version: report.version.clone(),
            role: report.role,
            term: report.term,
            applied: report.applied,
            clock_offset_ms: *clock_offset_ms,
            silence: at.elapsed(),
        };
        heard.iter().map(peer).collect()
    }

    /// Whether `id` was heard of lately and would lead.
    pub(crate) fn stands(&self, id: NodeId) -> bool {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.get(&id).is_some_and(|heard| heard.report.stands && heard.at.elapsed() < FRESH)
    }

    /// Whether `id` was heard of lately.
    pub(crate) fn hears(&self, id: NodeId) -> bool {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.get(&id).is_some_and(|heard| heard.at.elapsed() < PRESENT)
    }

    fn note(&self, id: NodeId, clock_offset_ms: i64, report: Report) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.insert(id, Heard { at: TypeConfig::now(), clock_offset_ms, report });
    }

    /// Compares the checkpoints with what was heard lately of `others`, the voters beside this node, and
    /// tells by how many milliseconds its clock is ahead of their median; `None` if they and this node
    /// are no quorum.
    fn conclude(&self, others: &[NodeId], votes: bool) -> Option<i64> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh: Vec<_> = others
            .iter()
            .filter_map(|id| heard.get(id).map(|heard| (*id, heard)))
            .filter(|(_, heard)| heard.at.elapsed() < FRESH)
            .collect();
        let voters = others.len() + usize::from(votes);
        if (fresh.len() + usize::from(votes)) * 2 <= voters {
            return None;
        }
        let own = votes.then_some(0);
        let offsets = fresh.iter().map(|(_, heard)| heard.clock_offset_ms).chain(own).collect();
        for (index, digest) in self.checkpoints.latest() {
            let told = |(id, heard): &(NodeId, &Heard)| {
                let told = heard.report.checkpoints.iter().find(|(at, _)| *at == index)?;
                Some((*id, told.1))
            };
            let told: Vec<_> = fresh.iter().filter_map(told).collect();
            if told.len() == fresh.len() && told.iter().all(|(_, other)| *other == digest) {
                self.equal_at.fetch_max(index, Ordering::Relaxed);
            }
            self.compare(index, digest, &told, voters);
        }
        Some(-median(offsets))
    }

    /// Compares this node's state at a checkpoint with what others tell of theirs.
    fn compare(&self, index: u64, own: Digest, told: &[(NodeId, Digest)], voters: usize) {
        let different: Vec<_> = told.iter().filter(|(_, digest)| *digest != own).collect();
        let Some((_, another)) = different.first() else { return };
        let first = |seen: &AtomicU64| {
            seen.compare_exchange(0, index, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        };
        if first(&self.differs_at) {
            let nodes: Vec<_> = different.iter().map(|(id, _)| *id).collect();
            tracing::error!(index, ?nodes, "the states of these nodes and this one differ");
        }
        let agreeing = different.iter().filter(|(_, digest)| digest == another).count();
        if agreeing * 2 > voters && first(&self.is_alone_at) {
            tracing::error!(index, "this node's state is not what the others hold; rebuild it");
        }
    }
}

fn in_ms(time: Timestamp) -> i64 {
    i64::try_from(time.0).unwrap_or(i64::MAX)
}

/// The middle one, or the mean of the two in the middle.
fn median(mut values: Vec<i64>) -> i64 {
    values.sort_unstable();
    let at = |index: usize| values.get(index).copied().unwrap_or(0);
    match values.len() {
        0 => 0,
        count if count % 2 == 1 => at(count / 2),
        count => i64::midpoint(at(count / 2 - 1), at(count / 2)),
    }
}

/// Asks and concludes for as long as the replica runs.
pub(crate) async fn keep(cluster: Cluster) {
    let mut is_known = false;
    loop {
        let metrics = cluster.inner.raft.metrics().borrow_watched().clone();
        if metrics.running_state.is_err() {
            return;
        }
        let membership = metrics.membership_config.membership();
        let survey = &cluster.inner.survey;
        // Before anybody is asked: a step in the middle of the round must not go unnoticed.
        let distance = survey.clock_distance((cluster.inner.clock)());
        ask_all(&cluster, membership).await;
        let me = cluster.inner.node_id;
        let (mine, other_voters): (Vec<_>, Vec<_>) =
            membership.voter_ids().partition(|&id| id == me);
        // Only after all were asked: one of them may know that this node was removed.
        if let Some(error_ms) = survey.conclude(&other_voters, !mine.is_empty()) {
            is_known = true;
            let limit = cluster.look(|state| state.settings().clock_error_seconds_max());
            survey.note_clock(error_ms, distance, i64::try_from(limit * 1000).unwrap_or(i64::MAX));
            cluster.note_fitness();
        }
        TypeConfig::sleep(if is_known { PERIOD } else { FIRST_PERIOD }).await;
    }
}

/// Asks every member, this node's own address too: perhaps somebody else answers there.
pub(crate) async fn ask_all(cluster: &Cluster, membership: &Membership) {
    let members: BTreeMap<_, _> =
        membership.nodes().map(|(&id, node)| (id, node.addr.clone())).collect();
    cluster.inner.network.note_addresses(&members);
    let asked: FuturesUnordered<_> =
        members.into_iter().map(|(id, address)| ask(cluster, id, address)).collect();
    asked.collect::<Vec<()>>().await;
}

/// Asks one member. One that does not answer is known by its silence.
async fn ask(cluster: &Cluster, id: NodeId, address: String) {
    let Some(mut peer) = cluster.inner.network.peer(id, &address) else { return };
    let Ok(request) = network::frame(&()) else { return };
    let clock = &cluster.inner.clock;
    let asked = clock();
    let Ok(answer) = TypeConfig::timeout(PATIENCE, peer.survey(request)).await else { return };
    let answered = clock();
    let answer = match answer {
        Ok(answer) => answer,
        Err(status) if id != cluster.inner.node_id => return cluster.inner.network.note(&status),
        Err(_) => return,
    };
    let Ok(report) = network::open::<Report>(answer.get_ref()) else { return };
    if id == cluster.inner.node_id {
        if report.instance != cluster.inner.instance
            && !cluster.inner.survey.has_twin.swap(true, Ordering::Relaxed)
        {
            tracing::error!(address, "another process runs as this node");
        }
        return;
    }
    // As if it had looked at its clock half way.
    let offset = in_ms(report.clock).saturating_sub(i64::midpoint(in_ms(asked), in_ms(answered)));
    cluster.inner.survey.note(id, offset, report);
}

impl Cluster {
    /// What this node says of itself.
    pub(crate) fn report(&self) -> Report {
        let status = self.status();
        Report {
            version: self.inner.version.to_owned(),
            instance: self.inner.instance,
            stands: status.unready().is_none(),
            role: status.role,
            term: status.term,
            applied: status.applied.unwrap_or(0),
            clock: (self.inner.clock)(),
            checkpoints: self.inner.survey.checkpoints.latest(),
        }
    }

    /// Why this node must not decide anything, if so.
    pub(crate) fn unfit(&self) -> Option<String> {
        let fault = self.fault().map(str::to_owned);
        fault.or_else(|| self.inner.survey.unfit((self.inner.clock)()))
    }

    /// Why this node must not examine requests, if so. Costs next to nothing where it may.
    pub fn cannot_examine(&self) -> Option<String> {
        if self.inner.survey.is_unfit.load(Ordering::Relaxed) {
            return self.unfit();
        }
        self.inner.survey.clock_step((self.inner.clock)()).or_else(|| self.lagging())
    }

    /// Why this node must not examine anything yet: its state is too old.
    pub(crate) fn lagging(&self) -> Option<String> {
        let behind = self.inner.contact.lag(self.inner.view.applied())?;
        Some(format!("it is {behind} entries behind the leader and catches up"))
    }

    /// Stands for election or not, as its fitness demands.
    pub(crate) fn note_fitness(&self) {
        let is_drained = self.inner.drained.load(Ordering::Relaxed);
        let is_unfit = self.unfit().is_some();
        self.inner.survey.is_unfit.store(is_unfit, Ordering::Relaxed);
        self.inner.raft.runtime_config().elect(!is_drained && !is_unfit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_not_moved_by_one_clock() {
        assert_eq!(median(vec![]), 0);
        assert_eq!(median(vec![0, 300_000, 1]), 1);
        assert_eq!(median(vec![0, -300_000, -300_001]), -300_000);
        assert_eq!(median(vec![0, 1_000]), 500);
        assert_eq!(median(vec![i64::MIN, i64::MAX]), 0);
    }

    fn report(digest: u8) -> Report {
        Report {
            version: String::new(),
            instance: 1,
            stands: true,
            role: Role::Follower,
            term: 1,
            applied: 9,
            clock: Timestamp(0),
            checkpoints: vec![(9, [digest; 32])],
        }
    }

    /// Node 1's survey at checkpoint 9, where it has digest 1 and the others what is given.
    fn survey(others: &[(NodeId, i64, u8)]) -> Survey {
        let survey = Survey::new(Arc::default());
        survey.checkpoints.latest.lock().expect("sound").push_back((9, [1; 32]));
        for &(id, offset, digest) in others {
            survey.note(id, offset, report(digest));
        }
        survey
    }

    #[tokio::test]
    async fn a_node_alone_with_its_state_knows_it() {
        let found = |others: &[(NodeId, i64, u8)], voters: &[NodeId]| {
            let survey = survey(others);
            assert!(survey.conclude(voters, true).is_some());
            assert_eq!(survey.equal_at().is_some(), survey.differs_at().is_none());
            (survey.differs_at(), survey.is_alone_at())
        };
        assert_eq!(found(&[(2, 0, 1), (3, 0, 1)], &[2, 3]), (None, None));
        assert_eq!(found(&[(2, 0, 1), (3, 0, 7)], &[2, 3]), (Some(9), None), "another is alone");
        assert_eq!(found(&[(2, 0, 7), (3, 0, 7)], &[2, 3]), (Some(9), Some(9)));
        assert_eq!(found(&[(2, 0, 7), (3, 0, 8)], &[2, 3]), (Some(9), None), "nobody knows who");
        assert_eq!(found(&[(2, 0, 7)], &[2]), (Some(9), None), "one against one");
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_steps_is_noticed_before_it_is_compared() {
        let survey = survey(&[(2, 0, 1), (3, 0, 1)]);
        let start = 1_800_000_000_000;
        assert_eq!(survey.clock_step_ms(Timestamp(start)), None, "nothing is known yet");
        let right = survey.clock_distance(Timestamp(start));
        let error_ms = survey.conclude(&[2, 3], true).expect("a quorum");
        survey.note_clock(error_ms, right, 10_000);
        tokio::time::advance(Duration::from_secs(60)).await;
        let step = |ms: u64| survey.clock_step_ms(Timestamp(ms));
        assert_eq!(step(start + 60_000), None, "it has gone on as it should");
        assert_eq!((step(start + 70_000), step(start + 50_000)), (None, None));
        assert_eq!(step(start + 360_000), Some(300_000));
        assert_eq!(step(start - 240_000), Some(-300_000));
        // What the others do not agree with is not taken for right.
        survey.note_clock(300_000, survey.clock_distance(Timestamp(start + 360_000)), 10_000);
        assert_eq!(step(start + 360_000), Some(300_000));
    }

    #[tokio::test]
    async fn a_clock_is_judged_by_a_quorum_only() {
        let survey = survey(&[(2, -60_000, 1)]);
        assert_eq!(survey.conclude(&[2, 3, 4], true), None);
        assert!(survey.unfit(Timestamp(0)).is_some(), "nobody has compared it");
        survey.note(3, -60_010, report(1));
        assert_eq!(survey.conclude(&[2, 3], true), Some(60_000));
    }
}
