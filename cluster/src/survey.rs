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
use crate::options::Clock;
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
    /// How far its wall clock was from this node's steady one, in milliseconds.
    clock_distance_ms: i64,
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
///
/// All wall clocks are held against this node's steady one: what was heard of the others' stays right when
/// this node's own wall clock steps, and the step shows at once. A machine that is suspended stops
/// both; that it was is noticed in the first round afterwards.
pub(crate) struct Survey {
    clock: Clock,
    since: Instant,
    heard: Mutex<BTreeMap<NodeId, Heard>>,
    checkpoints: Arc<Checkpoints>,
    /// How far the voters' median is from this node's steady clock, in milliseconds.
    right_distance_ms: AtomicI64,
    /// By how many milliseconds a clock may be wrong.
    clock_limit_ms: AtomicI64,
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
    pub(crate) fn new(clock: Clock, checkpoints: Arc<Checkpoints>) -> Self {
        Self {
            clock,
            since: TypeConfig::now(),
            heard: Mutex::default(),
            checkpoints,
            right_distance_ms: AtomicI64::new(UNKNOWN),
            clock_limit_ms: AtomicI64::new(i64::MAX),
            has_twin: AtomicBool::new(false),
            equal_at: AtomicU64::new(0),
            differs_at: AtomicU64::new(0),
            is_alone_at: AtomicU64::new(0),
        }
    }

    /// The time, if this node may decide something by it and on its state.
    ///
    /// # Errors
    /// Why it must not.
    pub(crate) fn time(&self) -> Result<Timestamp, String> {
        if let Some(index) = self.is_alone_at() {
            return Err(format!(
                "its state differs from the other nodes' since entry {index}; rebuild it"
            ));
        }
        if self.has_twin.load(Ordering::Relaxed) {
            return Err("another process runs as this node; stop one of them".to_owned());
        }
        let now = (self.clock)();
        if cfg!(mutant = "trust_any_clock") {
            return Ok(now);
        }
        let Some(error_ms) = self.clock_error_ms(now) else {
            return Err("no majority has agreed on the time yet".to_owned());
        };
        if error_ms.saturating_abs() <= self.clock_limit_ms() {
            return Ok(now);
        }
        let seconds = error_ms.unsigned_abs().div_ceil(1000);
        let direction = if error_ms > 0 { "ahead of" } else { "behind" };
        Err(format!("its clock is {seconds} s {direction} the other nodes'; set it right"))
    }

    /// Whether a majority has told this node the time.
    pub(crate) fn knows_time(&self) -> bool {
        self.right_distance_ms.load(Ordering::Acquire) != UNKNOWN
    }

    /// Milliseconds by which this node's clock, which shows `now`, is ahead of the voters' median, once that
    /// is known.
    pub(crate) fn clock_error_ms(&self, now: Timestamp) -> Option<i64> {
        let right = self.right_distance_ms.load(Ordering::Acquire);
        (right != UNKNOWN).then(|| self.distance(now).saturating_sub(right))
    }

    /// By how many milliseconds a clock may be wrong.
    pub(crate) fn clock_limit_ms(&self) -> i64 {
        self.clock_limit_ms.load(Ordering::Acquire)
    }

    /// How far a clock that shows `time` now is from this node's steady one.
    fn distance(&self, time: Timestamp) -> i64 {
        in_ms(time).saturating_sub(self.elapsed_ms())
    }

    fn elapsed_ms(&self) -> i64 {
        i64::try_from(self.since.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    /// Notes where the right time is. The limit first: as long as there is no time, nothing is decided.
    fn note_time(&self, right_distance_ms: i64, limit_ms: i64) {
        self.clock_limit_ms.store(limit_ms, Ordering::Release);
        self.right_distance_ms.store(right_distance_ms, Ordering::Release);
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
        let own = self.distance((self.clock)());
        let peer = |(&id, Heard { at, clock_distance_ms, report }): (&NodeId, &Heard)| Peer {
            id,
            version: report.version.clone(),
            role: report.role,
            term: report.term,
            applied: report.applied,
            clock_offset_ms: clock_distance_ms.saturating_sub(own),
            silence: at.elapsed(),
        };
        heard.iter().map(peer).collect()
    }

    /// Whether `id` was heard of lately and would lead.
    pub(crate) fn stands(&self, id: NodeId) -> bool {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.get(&id).is_some_and(|heard| heard.report.stands && heard.at.elapsed() < FRESH)
    }

    /// Whether `id` has said at `since` or later that it would lead.
    pub(crate) fn stands_since(&self, id: NodeId, since: Instant) -> bool {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.get(&id).is_some_and(|heard| heard.report.stands && heard.at >= since)
    }

    /// Whether `id` was heard of lately.
    pub(crate) fn hears(&self, id: NodeId) -> bool {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.get(&id).is_some_and(|heard| heard.at.elapsed() < PRESENT)
    }

    fn note(&self, id: NodeId, clock_distance_ms: i64, report: Report) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.insert(id, Heard { at: TypeConfig::now(), clock_distance_ms, report });
    }

    /// Draws the conclusions from what was heard lately of `others`, the voters beside this node, by a clock
    /// that may be wrong by `limit_ms`; tells whether they and this node are a quorum. If not, nothing is
    /// concluded.
    fn conclude(&self, others: &[NodeId], votes: bool, limit_ms: i64) -> bool {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh: Vec<_> = others
            .iter()
            .filter_map(|id| heard.get(id).map(|heard| (*id, heard)))
            .filter(|(_, heard)| heard.at.elapsed() < FRESH)
            .collect();
        let voters = others.len() + usize::from(votes);
        if (fresh.len() + usize::from(votes)) * 2 <= voters {
            return false;
        }
        let own = votes.then(|| self.distance((self.clock)()));
        let distances = fresh.iter().map(|(_, heard)| heard.clock_distance_ms).chain(own);
        if let Some(right) = median(distances.collect(), limit_ms) {
            self.note_time(right, limit_ms);
        }
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
        true
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

/// The middle one, or the mean of the two in the middle. Where those are further apart than `limit`, one of
/// them is wrong, and nobody can tell which.
fn median(mut values: Vec<i64>, limit: i64) -> Option<i64> {
    values.sort_unstable();
    let above = *values.get(values.len() / 2)?;
    let below = *values.get(values.len().checked_sub(1)? / 2)?;
    (above.saturating_sub(below) <= limit).then(|| i64::midpoint(below, above))
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
        ask_all(&cluster, membership).await;
        let me = cluster.inner.node_id;
        let (mine, other_voters): (Vec<_>, Vec<_>) =
            membership.voter_ids().partition(|&id| id == me);
        // Only after all were asked: one of them may know that this node was removed.
        let limit = cluster.look(|state| state.settings().clock_error_seconds_max());
        let limit_ms = i64::try_from(limit * 1000).unwrap_or(i64::MAX);
        is_known |= survey.conclude(&other_voters, !mine.is_empty(), limit_ms);
        cluster.note_fitness();
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

/// Asks `id` whether it would lead; what it has said before counts for nothing.
pub(crate) async fn would_lead(cluster: &Cluster, id: NodeId, membership: &Membership) -> bool {
    let Some(node) = membership.get_node(&id) else { return false };
    let before = TypeConfig::now();
    ask(cluster, id, node.addr.clone()).await;
    cluster.inner.survey.stands_since(id, before)
}

/// Asks one member. One that does not answer is known by its silence.
async fn ask(cluster: &Cluster, id: NodeId, address: String) {
    let Some(mut peer) = cluster.inner.network.peer(id, &address) else { return };
    let Ok(request) = network::frame(&()) else { return };
    let survey = &cluster.inner.survey;
    let asked = survey.elapsed_ms();
    let Ok(answer) = TypeConfig::timeout(PATIENCE, peer.survey(request)).await else { return };
    let answered = survey.elapsed_ms();
    let answer = match answer {
        Ok(answer) => answer,
        Err(status) if id != cluster.inner.node_id => return cluster.inner.network.note(&status),
        Err(_) => return,
    };
    let Ok(report) = network::open::<Report>(answer.get_ref()) else { return };
    if id == cluster.inner.node_id {
        if report.instance != cluster.inner.instance
            && !survey.has_twin.swap(true, Ordering::Relaxed)
        {
            tracing::error!(address, "another process runs as this node");
        }
        return;
    }
    // As if it had looked at its clock half way.
    let distance = in_ms(report.clock).saturating_sub(i64::midpoint(asked, answered));
    survey.note(id, distance, report);
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
        fault.or_else(|| self.inner.survey.time().err())
    }

    /// Why this node must not examine requests, if so. Costs next to nothing where it may.
    pub fn cannot_examine(&self) -> Option<String> {
        self.unfit().or_else(|| self.lagging())
    }

    /// Why this node must not examine anything yet: its state is too old.
    pub(crate) fn lagging(&self) -> Option<String> {
        let behind = self.inner.contact.lag(self.inner.view.applied())?;
        Some(format!("it is {behind} entries behind the leader and catches up"))
    }

    /// Stands for election or not, as its fitness demands.
    pub(crate) fn note_fitness(&self) {
        let is_drained = self.inner.drained.load(Ordering::Relaxed);
        self.inner.raft.runtime_config().elect(!is_drained && self.unfit().is_none());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By how much clocks may be wrong here.
    const LIMIT: i64 = 10_000;
    const START: u64 = 1_800_000_000_000;

    #[test]
    fn the_median_is_moved_neither_by_one_clock_nor_by_half_of_them() {
        let found = |values: &[i64]| median(values.to_vec(), LIMIT);
        assert_eq!(found(&[]), None);
        assert_eq!(found(&[7]), Some(7));
        assert_eq!(found(&[0, 300_000, 1]), Some(1));
        assert_eq!(found(&[0, -300_000, -300_001]), Some(-300_000));
        assert_eq!(found(&[0, 1_000]), Some(500));
        assert_eq!(found(&[0, 300_000]), None);
        assert_eq!(found(&[0, 1, 300_000, 300_001]), None);
        assert_eq!(found(&[i64::MIN, i64::MAX]), None);
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

    /// Node 1's survey at checkpoint 9, where it has digest 1 and the others what is given; how far their
    /// clocks are ahead of its own comes first. And what sets its clock.
    fn survey(others: &[(NodeId, i64, u8)]) -> (Survey, Arc<AtomicU64>) {
        let shown = Arc::new(AtomicU64::new(START));
        let clock = shown.clone();
        let clock = Arc::new(move || Timestamp(clock.load(Ordering::Relaxed)));
        let survey = Survey::new(clock, Arc::default());
        survey.checkpoints.latest.lock().expect("sound").push_back((9, [1; 32]));
        for &(id, offset, digest) in others {
            survey.note(id, survey.distance(Timestamp(START)) + offset, report(digest));
        }
        (survey, shown)
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_alone_with_its_state_knows_it() {
        let found = |others: &[(NodeId, i64, u8)], voters: &[NodeId]| {
            let (survey, _) = survey(others);
            assert!(survey.conclude(voters, true, LIMIT));
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
    async fn a_clock_that_steps_is_noticed_before_anybody_is_asked() {
        let (survey, shown) = survey(&[(2, 0, 1), (3, 0, 1)]);
        assert!(survey.time().is_err(), "nobody has told it the time");
        assert!(survey.conclude(&[2, 3], true, LIMIT));
        tokio::time::advance(Duration::from_secs(2)).await;
        let shows = |ms: u64| {
            shown.store(ms, Ordering::Relaxed);
            survey.time()
        };
        assert_eq!(shows(START + 2_000), Ok(Timestamp(START + 2_000)), "it has gone on");
        assert!(shows(START + 12_000).is_ok() && shows(START - 8_000).is_ok());
        for wrong in [START + 302_000, START - 298_000] {
            assert!(shows(wrong).is_err());
            // Nor does what the others have said before the step make it right.
            assert!(survey.conclude(&[2, 3], true, LIMIT));
            assert!(shows(wrong).is_err());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_clocks_the_one_that_was_right_goes_on() {
        let (survey, shown) = survey(&[(2, 0, 1), (3, 0, 1)]);
        assert!(survey.conclude(&[2, 3], true, LIMIT));
        tokio::time::advance(FRESH).await;
        shown.store(START + 5_000, Ordering::Relaxed);
        survey.note(2, survey.distance(Timestamp(START)) + 305_000, report(1));
        assert!(survey.conclude(&[2, 3], true, LIMIT));
        assert!(survey.time().is_ok(), "node 3 is gone, and node 2 wrong or right");
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_is_judged_by_a_quorum_only() {
        let (survey, _) = survey(&[(2, -60_000, 1)]);
        assert!(!survey.conclude(&[2, 3, 4], true, LIMIT));
        assert!(!survey.knows_time());
        survey.note(3, survey.distance(Timestamp(START)) - 60_010, report(1));
        assert!(survey.conclude(&[2, 3], true, LIMIT));
        assert_eq!(survey.clock_error_ms(Timestamp(START)), Some(60_000));
        let reason = survey.time().expect_err("it is ahead");
        assert!(reason.contains("60 s ahead"), "{reason}");
    }
}
