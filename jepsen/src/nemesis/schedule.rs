//! Many faults in one run: when each begins and ends, from a seed.
//!
//! Every nemesis has its own rhythm, so that faults overlap in ever new ways; defects show where
//! two meet. The schedule ends with everything undone, whatever failed before.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{Field, Nemesis, Outcome, by_name};
use crate::lab::wait;
use crate::rng::Rng;

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
    names: Vec<String>,
    /// In order of time: when since the beginning, and who by its place in `names`.
    steps: Vec<(Duration, usize, Action)>,
    length: Duration,
}

impl Schedule {
    /// A schedule of `length` for the nemeses `names`, which follows from `rng` alone.
    pub fn new(names: &[&str], length: Duration, pace: Pace, rng: &Rng) -> Self {
        let mut steps = Vec::new();
        for (place, name) in names.iter().enumerate() {
            let mut rng = rng.fork(name);
            let mut next = |from: Duration| {
                from + pace.min + pace.max.saturating_sub(pace.min).mul_f64(rng.unit())
            };
            let mut begin = next(Duration::ZERO);
            while begin < length {
                let end = next(begin).min(length);
                steps.push((begin, place, Action::Start));
                steps.push((end, place, Action::Stop));
                begin = next(end);
            }
        }
        // Stable: a start of no length stays before its stop.
        steps.sort_by_key(|(at, place, _)| (*at, *place));
        Self { names: names.iter().map(|name| (*name).to_owned()).collect(), steps, length }
    }

    /// Runs it, tells `report` what came of each step, and undoes everything at its end. A step
    /// that takes long delays the later ones.
    ///
    /// # Errors
    /// The first failure to break something, or to undo it in the end; an undoing that failed
    /// before is tried again then. The schedule goes on after a failure, because the workload does.
    pub fn run(
        &self,
        field: &Field,
        rng: &Rng,
        report: &mut dyn FnMut(&str, Action, &Result<Outcome>),
    ) -> Result<()> {
        let mut cast = Vec::new();
        for name in &self.names {
            let nemesis = by_name(name).with_context(|| format!("there is no nemesis {name:?}"))?;
            // Each draws from a sequence of its own, whatever the others do.
            cast.push((nemesis, rng.fork(name)));
        }
        let begun = Instant::now();
        let mut first = Ok(());
        let mut step = |nemesis: &mut Box<dyn Nemesis>, rng: &mut Rng, action| {
            let outcome = match action {
                Action::Start => nemesis.start(field, rng),
                Action::Stop => nemesis.stop(field),
            };
            report(nemesis.name(), action, &outcome);
            outcome.map(|_| ()).with_context(|| format!("{action:?} {}", nemesis.name()))
        };
        for (at, place, action) in &self.steps {
            wait::pass(at.saturating_sub(begun.elapsed()));
            let Some((nemesis, rng)) = cast.get_mut(*place) else { continue };
            let done = step(nemesis, rng, *action);
            if *action == Action::Start {
                first = first.and(done);
            }
        }
        wait::pass(self.length.saturating_sub(begun.elapsed()));
        // Members are put back when the network is whole and their fellows run; what fails here is
        // tried again below.
        let _ = heal(field);
        for (nemesis, rng) in &mut cast {
            first = first.and(step(nemesis, rng, Action::Stop));
        }
        first.and(heal(field))
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
            .and(field.lab.disk(host).and_then(|disk| disk.free()))
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
        let schedule = schedule(7);
        for place in 0..3 {
            let own: Vec<_> = schedule.steps.iter().filter(|(_, who, _)| *who == place).collect();
            assert!(own.len() > 10);
            assert!(own.is_sorted_by_key(|(at, _, _)| at));
            for pair in own.chunks(2) {
                assert_eq!([pair[0].2, pair[1].2], [Action::Start, Action::Stop]);
                assert!(pair[1].0 <= schedule.length);
            }
        }
    }

    #[test]
    fn faults_overlap() {
        let schedule = schedule(7);
        let mut open = 0;
        let open = schedule.steps.iter().map(|(_, _, action)| {
            open += if *action == Action::Start { 1 } else { -1 };
            open
        });
        assert_eq!(open.max(), Some(3));
    }
}
