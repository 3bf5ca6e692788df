//! Many faults in one run: when each begins and ends, from a seed.
//!
//! Every nemesis has its own rhythm, so that faults overlap in ever new ways; defects show where
//! two meet. The schedule ends with everything undone, whatever failed before.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{Field, Nemesis, Outcome, by_name};
use crate::lab::Disk;
use crate::rng::Rng;
use crate::wait;

/// How long undoing is tried, and how long between two tries.
const UNDOING: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(500);

/// The shortest and the longest time between two steps of one nemesis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Shortest.
    pub min: Duration,
    /// Longest.
    pub max: Duration,
}

/// What a nemesis does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It breaks something.
    Start,
    /// It undoes that.
    Stop,
}

/// When which nemesis does what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    parts: Vec<Part>,
    length: Duration,
}

/// What one nemesis does: when it begins each time, and when it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    name: String,
    windows: Vec<(Duration, Duration)>,
}

/// Whom what came of each step is told to.
pub type Report<'a> = &'a (dyn Fn(&str, Action, &Result<Outcome>) + Sync);

impl Schedule {
    /// A schedule of `length` for the nemeses `names`, which follows from `rng` alone.
    pub fn new(names: &[&str], length: Duration, pace: Pace, rng: &Rng) -> Self {
        let part = |name: &&str| {
            let mut rng = rng.fork(name);
            let mut next = |from: Duration| {
                from + pace.min + pace.max.saturating_sub(pace.min).mul_f64(rng.unit())
            };
            let mut windows = Vec::new();
            let mut begin = next(Duration::ZERO);
            while begin < length {
                let end = next(begin).min(length);
                windows.push((begin, end));
                begin = next(end);
            }
            Part { name: (*name).to_owned(), windows }
        };
        Self { parts: names.iter().map(part).collect(), length }
    }

    /// Runs it, tells `report` what came of each step, and hands out what is left to be undone. Each nemesis
    /// has a thread of its own, so that one fault may begin in the middle of another.
    ///
    /// A step that fails is reported and nothing else: the workload goes on, and so does the schedule.
    ///
    /// # Errors
    /// When there is no nemesis of a name, or one of them panics.
    pub fn run<'a>(
        &self,
        field: &'a Field<'a>,
        rng: &Rng,
        report: Report<'a>,
    ) -> Result<Faults<'a>> {
        let mut cast = Vec::new();
        for part in &self.parts {
            let name = &part.name;
            let nemesis = by_name(name).with_context(|| format!("there is no nemesis {name:?}"))?;
            // Each draws from a sequence of its own, whatever the others do.
            cast.push((part, Player { nemesis, field, rng: rng.fork(name), report }));
        }
        let begun = Instant::now();
        let ended = thread::scope(|scope| {
            let threads: Vec<_> = cast
                .iter_mut()
                .map(|(part, player)| {
                    scope.spawn(move || player.play(&part.windows, begun, self.length))
                })
                .collect();
            // All of them are waited for, whatever became of the first.
            threads.into_iter().map(thread::ScopedJoinHandle::join).collect::<Vec<_>>()
        });
        wait::pause(self.length.saturating_sub(begun.elapsed()));
        let players = cast.into_iter().map(|(_, player)| player).collect();
        let has_panicked = ended.iter().any(std::result::Result::is_err);
        Ok(Faults { players, has_panicked, field })
    }
}

/// What a schedule may have left broken.
pub struct Faults<'a> {
    players: Vec<Player<'a>>,
    has_panicked: bool,
    field: &'a Field<'a>,
}

impl Faults<'_> {
    /// Undoes everything, as often as it takes within [`UNDOING`]: a member is put back only when its fellows
    /// are ready. What still fails then is in the history, and the cluster is not whole.
    ///
    /// # Errors
    /// When a nemesis has panicked: nobody knows what it did.
    pub fn undo(mut self) -> Result<()> {
        // First the network is whole, and everybody runs.
        let mut healed = heal(self.field);
        let begun = Instant::now();
        while !self.players.is_empty() {
            self.players.retain_mut(|player| player.step(Action::Stop).is_err());
            if begun.elapsed() > UNDOING {
                break;
            }
            if !self.players.is_empty() || healed.is_err() {
                wait::pause(PAUSE);
                healed = heal(self.field);
            }
        }
        ensure!(!self.has_panicked, "a nemesis panicked");
        Ok(())
    }
}

/// A nemesis in its place.
struct Player<'a> {
    nemesis: Box<dyn Nemesis>,
    field: &'a Field<'a>,
    rng: Rng,
    report: Report<'a>,
}

impl Player<'_> {
    /// Begins at its times since `begun`, and lasts as long as it should from when it has begun, within
    /// `length`. What it is too late for, because something before took long, it leaves out: a fault of no
    /// length would count, and hurt nobody.
    fn play(&mut self, windows: &[(Duration, Duration)], begun: Instant, length: Duration) {
        for (begin, end) in windows {
            if begun.elapsed() >= *end {
                continue;
            }
            wait::pause(begin.saturating_sub(begun.elapsed()));
            // What fails is reported, and its undoing is tried again in the end.
            let _ = self.step(Action::Start);
            wait::pause((*end - *begin).min(length.saturating_sub(begun.elapsed())));
            let _ = self.step(Action::Stop);
        }
    }

    fn step(&mut self, action: Action) -> Result<()> {
        let outcome = match action {
            Action::Start => self.nemesis.start(self.field, &mut self.rng),
            Action::Stop => self.nemesis.stop(self.field),
        };
        (self.report)(self.nemesis.name(), action, &outcome);
        outcome.map(drop)
    }
}

/// Makes everything right, whoever broke it: network, clocks, disks, nodes.
///
/// # Errors
/// The first failure; the rest was tried.
pub fn heal(field: &Field) -> Result<()> {
    field.lab.switch().heal();
    let mut result = Ok(());
    for host in 0..field.lab.hosts() {
        result = result
            .and(field.lab.clock(host).and_then(|clock| clock.set(0.0)))
            .and(field.restore_power(&[host]).map(drop))
            .and(field.lab.disk(host).and_then(Disk::free))
            .and(field.system.start(host));
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace { min: Duration::from_secs(1), max: Duration::from_secs(9) };

    fn schedule(seed: u64) -> Schedule {
        let names = ["kill-random", "partition-ring", "clock-jump"];
        Schedule::new(&names, Duration::from_secs(120), PACE, &Rng::new(seed))
    }

    #[test]
    fn a_seed_gives_one_schedule() {
        assert_eq!(schedule(7), schedule(7));
        assert_ne!(schedule(7), schedule(8));
    }

    #[test]
    fn every_fault_ends_before_it_begins_again_and_all_end_with_the_schedule() {
        for part in &schedule(7).parts {
            assert!(part.windows.len() > 5);
            assert!(part.windows.iter().all(|(begin, end)| begin < end));
            assert!(part.windows.is_sorted_by(|one, other| one.1 < other.0));
            assert!(part.windows.last().is_some_and(|(_, end)| *end <= Duration::from_secs(120)));
        }
    }

    #[test]
    fn faults_overlap() {
        let schedule = schedule(7);
        let all = || schedule.parts.iter().flat_map(|part| &part.windows);
        let open = |at: Duration| all().filter(|(begin, end)| *begin <= at && at < *end).count();
        assert_eq!(all().map(|(begin, _)| open(*begin)).max(), Some(3));
    }
}
